"""Facts of an ONNX graph: its signature, opset and operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.artifact import TensorSpec
from workbench.errors import ModelError, shown
from workbench.onnxgraph import walk
from workbench.onnxgraph.rewrites import rename_tensors

if TYPE_CHECKING:
    import onnx


# What the names of tensors and nodes that BakePreprocess adds begin with.
BAKED = "baked/"
EQUALIZED = "workbench.equalized"  # in the metadata of a file whose channels were scaled
EVIDENCE = "quantization.json"  # beside a file that was quantized: what became of its layers


def opset(model: onnx.ModelProto) -> int:
    """The version of the default operator set that the file itself declares."""
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)


def files(path: Path) -> list[Path]:
    """The files that an ONNX model is made of: itself, and those that hold its tensors.

    Raises ModelError where such a location leads out of the model's folder.
    """
    # Reading a file through onnx takes half a second, and few models keep tensors elsewhere.
    if b"location" not in path.read_bytes():
        return [path]
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # noqa: BLE001 - what is wrong with it is said where it is loaded
        return [path]
    bodies = [model.graph, *model.functions]
    places = {
        _inside(path, entry.value)
        for body in bodies
        for tensor in _tensors(body)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return [path, *sorted(place for place in places if place.is_file())]


def _tensors(body: Any) -> Iterator[onnx.TensorProto]:
    """The tensors of a graph or function, those in its nodes and in graphs inside them too."""
    yield from getattr(body, "initializer", ())
    for sparse in getattr(body, "sparse_initializer", ()):
        yield from (sparse.values, sparse.indices)
    for node in body.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _inside(path: Path, location: str) -> Path:
    """Where a model keeps tensors; a link that leads out of its folder is no way to do so."""
    file = path.parent / location
    try:
        inside = file.resolve().is_relative_to(path.parent.resolve())
    except (OSError, ValueError, RuntimeError):  # a loop of links, a null byte
        inside = False
    if not inside or Path(location).is_absolute():
        raise ModelError(
            f"{path} keeps tensors outside its folder, at {shown(location)}",
            "a model that reads other files could take anything on this machine along",
            "put the file that holds its tensors beside it, and save the model anew",
        )
    return file


def operators(model: onnx.ModelProto) -> Counter[str]:
    """How many nodes of each operator the main graph has."""
    return Counter(node.op_type for node in model.graph.node)


def signature(
    model: onnx.ModelProto, like: Sequence[TensorSpec] = ()
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs (initializers excepted) and outputs; a symbolic or unknown axis is None.

    like: specs of the file that this one was made from: what they say of baked pixels and heads
    holds for tensors of the same names.
    """
    earlier = {spec.name: spec for spec in like}
    inputs = [_spec(value) for value in walk.inputs(model.graph)]
    outputs = [_spec(value) for value in model.graph.output]
    return (
        tuple(_like(spec, earlier.get(spec.name)) for spec in inputs),
        tuple(_like(spec, earlier.get(spec.name)) for spec in outputs),
    )


def _like(spec: TensorSpec, earlier: TensorSpec | None) -> TensorSpec:
    """A tensor of the file as the canonical one that an earlier spec says it stands for."""
    if earlier is None or not (earlier.pixels or earlier.head):
        return spec
    shape = tuple(spec.shape[axis] for axis in earlier.inverse) or spec.shape
    if earlier.head == "argmax":
        shape = (*spec.shape, *earlier.shape[1:])
    # Of pixels and of a class's index the file's type is not the canonical one's.
    dtype = earlier.dtype if earlier.pixels or earlier.head == "argmax" else spec.dtype
    return replace(earlier, shape=shape, dtype=dtype)


def channels_first(model: onnx.ModelProto, specs: Sequence[TensorSpec]) -> None:
    """Make inputs of baked pixels [N, C, H, W], and put a Transpose to [N, H, W, C] behind them.

    For converters that lay out every image input as [N, H, W, C] themselves.
    """
    import onnx

    for spec in specs:
        if spec.pixels is None:
            continue
        last = f"{BAKED}{spec.name}/last"
        rename_tensors(model.graph, {spec.name: last})
        name = f"{last}/Transpose"
        node = onnx.helper.make_node("Transpose", [spec.name], [last], name, perm=[0, 2, 3, 1])
        model.graph.node.insert(0, node)
        value = next(value for value in model.graph.input if value.name == spec.name)
        sizes = [dim.dim_value or dim.dim_param or None for dim in value.type.tensor_type.shape.dim]
        value.CopyFrom(
            onnx.helper.make_tensor_value_info(
                spec.name, value.type.tensor_type.elem_type, [sizes[axis] for axis in (0, 3, 1, 2)]
            )
        )


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    import onnx

    tensor = value.type.tensor_type
    shape = tuple(
        axis.dim_value if axis.HasField("dim_value") and axis.dim_value > 0 else None
        for axis in tensor.shape.dim
    )
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    return TensorSpec(name=value.name, dtype=str(dtype), shape=shape)
