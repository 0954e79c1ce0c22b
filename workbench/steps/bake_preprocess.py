"""BakePreprocess: scale, mean, std, layout and channel order as part of the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from workbench.artifact import Artifact, Format, Pixels, TensorSpec, feed
from workbench.errors import StepError, first_line
from workbench.options import Between, validate
from workbench.recipe import Context, Step

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from workbench.dataset.preprocess import Preprocess

# How far an undone sample may be from a whole number, and how many samples are looked at.
WHOLE = 1e-3
SAMPLES = 16


@dataclass(frozen=True, kw_only=True)
class BakePreprocess(Step):
    """The dataset's `[preprocess]` into the graph, which then takes uint8 pixels, channels last.

    Scale, mean, std, layout and channel order are baked; resizing and cropping stay the app's.
    Applied to the inputs that `preprocess.inputs` names, else to all of 4 dimensions. head: what
    the file applies to its first output, [N, classes]: `softmax` gives probabilities, `argmax`
    the class's number [N]. rtol, atol: allowed difference of every output element from the
    unbaked file's on real samples.
    """

    head: Literal["none", "softmax", "argmax"] = "none"
    rtol: Annotated[float, Between(0, 1)] = 1e-3
    atol: Annotated[float, Between(0)] = 1e-5

    name: ClassVar[str] = "bake_preprocess"
    takes: ClassVar[tuple[Format, ...]] = (Format.ONNX,)
    gives: ClassVar[Format] = Format.ONNX
    needs_data: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime", "numpy")
    seconds: ClassVar[float] = 2

    def __post_init__(self) -> None:
        validate(self)

    def run(self, subject: Artifact, context: Context) -> Artifact:
        """Write `model.onnx`.

        Raises StepError where `[preprocess]` does not lead from 8-bit pixels to the samples, where
        the first output is not [N, classes] for a head, or where the outputs differ.
        """
        import onnx

        from workbench import parity
        from workbench.device.session import infer, open_session
        from workbench.onnxgraph import signature

        split, _ = context.dataset.calibrating(None)
        examples = next(split.batches(SAMPLES)).inputs
        inputs = _baked(subject.inputs, examples, split.preprocess)
        context.progress(0.2, "comparing with the file it is made from")
        before = infer(open_session(subject, threads=0), examples)
        head = "" if self.head == "none" else self.head
        model = onnx.load(subject.path)
        outputs = _headed(model, subject.outputs, before[0], head)
        for spec in inputs:
            if spec.pixels is not None:
                _bake(model, spec, spec.pixels)
        model.ir_version = max(model.ir_version, 4)  # before 4, an initializer is an input too
        path = context.folder / "model.onnx"
        onnx.save(model, path)
        try:
            onnx.checker.check_model(path, full_check=True)
        except Exception as error:
            raise StepError(
                "preprocessing cannot be made part of this graph", first_line(error)
            ) from error
        like = (*inputs, *outputs)
        inputs, outputs = signature.signature(model, like)
        artifact = replace(
            subject,
            path=path,
            inputs=inputs,
            outputs=outputs,
            companions=(),
            history=(*subject.history, f"{self.name} head={self.head}"),
            notes=(*subject.notes, *_notes(inputs, split.preprocess, head)),
        )
        after = infer(open_session(artifact, threads=0), examples)
        if head == "argmax":
            _check_classes(before[0], after[0], self.rtol, self.atol)
            before, after = before[1:], after[1:]
        expected = parity.apply_head(before, head if head == "softmax" else "")
        parity.check(self.name, expected, after, self.rtol, self.atol)
        return artifact


def _baked(
    specs: Sequence[TensorSpec], examples: Mapping[str, NDArray[Any]], preprocess: Preprocess
) -> tuple[TensorSpec, ...]:
    """The inputs, those that are images with the pixels that they are made of."""
    if any(spec.pixels for spec in specs):
        raise StepError("preprocessing is part of this graph already")
    # By the model's name, for the dataset may call a single input otherwise.
    arrays = feed(specs, examples)
    called = feed(specs, {name: name for name in examples})
    baked = []
    for spec in specs:
        array = arrays[spec.name]
        is_image = called[spec.name] in preprocess.inputs if preprocess.inputs else array.ndim == 4
        baked.append(from_pixels(spec, array, preprocess) if is_image else spec)
    if not any(spec.pixels for spec in baked):
        raise StepError(
            "no input is an image",
            f"the model takes {', '.join(map(str, specs))}",
            "leave bake_preprocess out: 'wb new' copies a recipe for editing",
        )
    return tuple(baked)


def from_pixels(spec: TensorSpec, array: NDArray[Any], preprocess: Preprocess) -> TensorSpec:
    """An input with its pixels. Raises StepError where the samples are not made of 8-bit ones."""
    import numpy as np

    if array.ndim != 4 or np.dtype(spec.dtype).kind != "f":
        raise StepError(f"input {spec} takes no floating-point images, so nothing can be baked in")
    layout = preprocess.layout or _layout(spec.name, array)
    last = array.transpose(0, 2, 3, 1) if layout == "NCHW" else array
    factor, offset = preprocess.affine
    pixels = (last.astype(np.float64) - offset) / factor
    off = float(np.abs(pixels - np.round(pixels)).max())
    low, high = float(pixels.min()), float(pixels.max())
    wrong = f"{off:.2g} from a whole number" if off > WHOLE else ""
    if low < -WHOLE or high > 255 + WHOLE:
        wrong = f"{low:.4g} to {high:.4g}"
    if wrong:
        undone = "once [preprocess] is undone" if preprocess.arithmetic else "as they are"
        raise StepError(
            f"the samples of input '{spec.name}' are not 8-bit images",
            f"{undone}, they have values {wrong}; an app's pixels are whole numbers, 0 to 255",
            "keep samples as 8-bit images and say in the dataset's [preprocess] how they become "
            "the model's input: scale, mean, std, layout",
        )
    return replace(
        spec,
        permutation=(0, 2, 3, 1) if layout == "NCHW" else (),
        pixels=Pixels(
            factor=tuple(map(float, np.broadcast_to(factor, last.shape[3]))),
            offset=tuple(map(float, np.broadcast_to(offset, last.shape[3]))),
            reversed=preprocess.channels == "BGR" and last.shape[3] == 3,
        ),
    )


def _layout(name: str, array: NDArray[Any]) -> str:
    """Where the dataset keeps the channels, told by their number."""
    first, last = array.shape[1] in (1, 3, 4), array.shape[3] in (1, 3, 4)
    if first == last:
        raise StepError(
            f"the layout of input '{name}' cannot be told from its shape {array.shape}",
            "",
            'give preprocess.layout = "NCHW" or "NHWC" in the dataset\'s file',
        )
    return "NCHW" if first else "NHWC"


def _bake(model: onnx.ModelProto, spec: TensorSpec, pixels: Pixels) -> None:
    """Put in front of an input: Transpose (of bytes), Cast, and a convolution of 1x1.

    The convolution is pixel * factor + offset, and the order of channels. The same as Mul and Add
    costs an INT8 file at 224x224 0.8 ms more in ONNX Runtime and 0.7 ms in TFLite, whose
    broadcasting INT8 operators are slow.
    """
    import numpy as np
    from onnx import NodeProto, TensorProto, helper, numpy_helper

    from workbench.onnxgraph import rewrites, signature

    value = next(value for value in model.graph.input if value.name == spec.name)
    sizes = [dim.dim_value or dim.dim_param or None for dim in value.type.tensor_type.shape.dim]
    channels, kept = len(pixels.factor), value.type.tensor_type.elem_type
    factor = np.asarray(pixels.factor, np.float32)
    # Depthwise, but for another order of channels: then a matrix with one factor in each row.
    weight = np.diag(factor)[:, ::-1] if pixels.reversed else factor[:, None]
    prefix = f"{signature.BAKED}{spec.name}"
    arrays = {
        f"{prefix}/factor": np.ascontiguousarray(weight[:, :, None, None]),
        f"{prefix}/offset": np.asarray(pixels.offset, np.float32),
    }
    # A convolution takes channels first; where the model takes them last, they go back.
    chain: list[tuple[str, tuple[str, ...], dict[str, Any]]] = [
        ("Transpose", (), {"perm": [0, 3, 1, 2]}),
        ("Cast", (), {"to": TensorProto.FLOAT}),
        ("Conv", tuple(arrays), {"kernel_shape": [1, 1], "group": channels // weight.shape[1]}),
    ]
    if kept != TensorProto.FLOAT:
        chain.append(("Cast", (), {"to": kept}))
    if not spec.permutation:
        chain.append(("Transpose", (), {"perm": [0, 2, 3, 1]}))
    rewrites.rename_tensors(model.graph, {spec.name: prefix})
    nodes: list[NodeProto] = []
    output = spec.name
    for number, (operator, more, attributes) in enumerate(chain, 1):
        name = f"{prefix}/{operator}-{number}"
        taken, output = output, prefix if number == len(chain) else f"{name}/output"
        nodes.append(helper.make_node(operator, [taken, *more], [output], name, **attributes))
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    model.graph.initializer.extend(numpy_helper.from_array(arrays[name], name) for name in arrays)
    order = spec.permutation or (0, 1, 2, 3)
    value.CopyFrom(
        helper.make_tensor_value_info(spec.name, TensorProto.UINT8, [sizes[axis] for axis in order])
    )


def _headed(
    model: onnx.ModelProto, specs: Sequence[TensorSpec], output: NDArray[Any], head: str
) -> tuple[TensorSpec, ...]:
    """Put a head behind the first output, and give the outputs' specs."""
    from onnx import TensorProto, helper

    from workbench.onnxgraph import rewrites, signature

    first, *others = specs
    if not head:
        return tuple(specs)
    if output.ndim != 2 or output.shape[1] < 2 or first.head:
        raise StepError(
            f"{head} has no classes to choose among",
            f"the first output is {first}, not [N, classes]",
            "--set bake_preprocess.head=none",
        )
    made_by = next((node for node in model.graph.node if first.name in node.output), None)
    if made_by is not None and made_by.op_type == "Softmax" and head == "softmax":
        raise StepError("the model ends in softmax already", "", "--set bake_preprocess.head=none")
    value = next(value for value in model.graph.output if value.name == first.name)
    inner = f"{signature.BAKED}{first.name}"
    rewrites.rename_tensors(model.graph, {first.name: inner})
    dims = value.type.tensor_type.shape.dim
    if head == "softmax":
        node = helper.make_node("Softmax", [inner], [first.name], f"{inner}/Softmax", axis=1)
    else:
        node = helper.make_node(
            "ArgMax", [inner], [first.name], f"{inner}/ArgMax", axis=1, keepdims=0
        )
        size = dims[0].dim_value or dims[0].dim_param or None
        value.CopyFrom(helper.make_tensor_value_info(first.name, TensorProto.INT64, [size]))
    model.graph.node.append(node)
    return replace(first, head=head, shape=(*first.shape[:1], output.shape[1])), *others


def _check_classes(before: NDArray[Any], after: NDArray[Any], rtol: float, atol: float) -> None:
    """Raise StepError where a class is not the original's best, or as good as that."""
    import numpy as np

    chosen = (before * after).sum(1)
    best = before.max(1)
    if not (after.sum(1) == 1).all() or not (best - chosen <= atol + rtol * np.abs(best)).all():
        raise StepError("bake_preprocess: the classes differ from the original's")


def _notes(specs: Sequence[TensorSpec], preprocess: Preprocess, head: str) -> Sequence[str]:
    notes = []
    for spec in specs:
        if spec.pixels is not None:
            shape = ", ".join("N" if size is None else str(size) for size in spec.stored_shape)
            notes.append(f"baked: {spec.name} takes uint8 pixels [{shape}]{_order(spec)}")
    if preprocess.resize or preprocess.crop:
        left = [f"{key} {value}" for key, value in
                (("resize", preprocess.resize), ("crop", preprocess.crop)) if value]  # fmt: skip
        notes.append(f"left to the app: {', '.join(left)}")
    if head:
        gives = "the class's number" if head == "argmax" else "probabilities"
        notes.append(f"{head} at the end: the first output gives {gives}")
    return notes


def _order(spec: TensorSpec) -> str:
    """The order of three channels: what a dataset reads is RGB, whatever the model takes."""
    return ", RGB" if spec.stored_shape[3] == 3 else ""
