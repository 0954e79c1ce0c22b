"""An ONNX graph whose every tensor can be asked for, by the name that it has in the original."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.arrays import channel_axis
from workbench.artifact import Artifact, feed, stored_input
from workbench.errors import DeviceError, StepError, first_line
from workbench.onnxgraph import walk
from workbench.onnxgraph.session import working_session
from workbench.onnxgraph.signature import BAKED, EQUALIZED, EVIDENCE

if TYPE_CHECKING:
    import onnx

Array = NDArray[Any]

_QUANTIZING = {"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul",
               "ConvInteger", "MatMulInteger", "DynamicQuantizeLSTM", "MatMulNBits"}  # fmt: skip
# What ONNX Runtime's quantizer calls the tensors that it puts in the place of `X`.
_DEQUANTIZED = ("_DequantizeLinear_Output", "_dq8")  # of onnxruntime's quantizer, of our own
_PRODUCED = "_QuantizeLinear_Input"


class Layered:
    """A graph whose every tensor can be asked for.

    own: the name of the tensor that stands for each original one. order: of computation. makers:
    the node that makes each tensor. bits: of the coarsest numbers that it computes with.
    """

    def __init__(self, artifact: Artifact, folder: Path) -> None:
        import onnx

        self.artifact = artifact
        self.folder = folder
        self.model = onnx.load(artifact.path)
        nodes = list(self.model.graph.node)  # a valid file keeps them in order of computation
        self.makers = walk.producers(self.model.graph.node)
        weights = {tensor.name for tensor in self.model.graph.initializer}
        self.inputs = [value.name for value in walk.inputs(self.model.graph)]
        self.outputs = walk.output_names(self.model.graph)
        constant = _constants(nodes, weights)
        computed = [name for node in nodes for name in node.output if name and name not in constant]
        self.order = [*self.inputs, *computed]
        # What has been through 8 bits stands for the tensor, not what goes in; of what was put
        # before an input or behind an output, the inner side. Sorted last, these stay.
        self.own = {
            _original(name): name
            for name in sorted(self.order, key=lambda name: (BAKED in name,
                                                             name.endswith(_DEQUANTIZED),
                                                             not name.endswith(_PRODUCED)))
        }  # fmt: skip
        for spec in artifact.inputs:  # canonical names, where a file calls an input otherwise
            if spec.stored and spec.name not in self.own and spec.stored in self.own:
                self.own[spec.name] = self.own.pop(spec.stored)
        kinds = {node.op_type for node in nodes}
        half = any(tensor.data_type == onnx.TensorProto.FLOAT16
                   for tensor in self.model.graph.initializer)  # fmt: skip
        self.scales = _scales(self.model, artifact.path)
        self.bits = 8 if kinds & _QUANTIZING else 11 if half else 24

    def unscaled(self, name: str, value: Array) -> Array:
        """A tensor's values as they would be without equalization."""
        scales = self.scales.get(_original(name))
        axis = channel_axis(value.ndim)
        if scales is None or value.ndim < 2 or value.shape[axis] != len(scales):
            return value
        shape = [-1 if position == axis else 1 for position in range(value.ndim)]
        unscaled_value: Array = value * scales.reshape(shape).astype(value.dtype)
        return unscaled_value

    def sources(self, name: str, compared: Mapping[str, Any]) -> set[str]:
        """The nearest tensors before this one that are known, on every path."""
        origins, seen = set(), set()
        waiting = list(self.makers[name].input) if name in self.makers else []
        while waiting:
            tensor = waiting.pop()
            if tensor in compared:
                origins.add(tensor)
            elif tensor not in seen and tensor in self.makers:
                seen.add(tensor)
                waiting += self.makers[tensor].input
        return origins

    def session(self, names: Sequence[str]) -> LayerSession:
        """A session that gives these tensors, on a copy of the file."""
        import onnx

        there = {*self.inputs, *self.outputs}
        for name in names:
            if name not in there:
                # Without a type: ONNX Runtime infers it.
                self.model.graph.output.append(onnx.ValueInfoProto(name=name))
        self.folder.mkdir()
        path = self.folder / "model.onnx"
        large = self.model.ByteSize() > 1 << 30  # a protobuf message ends at 2 GiB
        onnx.save(self.model, path, save_as_external_data=large, location="weights.bin")
        return LayerSession(self.artifact, path, self)


class LayerSession:
    """ONNX Runtime on the copy, without optimization."""

    def __init__(self, artifact: Artifact, path: Path, graph: Layered) -> None:
        self.artifact = artifact
        try:
            self.session = working_session(path, optimized=False)
        except Exception as error:
            raise DeviceError(
                f"ONNX Runtime cannot run {artifact.path.name} layer by layer",
                f"{type(error).__name__}: {first_line(error)}",
            ) from error
        values = (*self.session.get_inputs(), *self.session.get_outputs())
        self.kinds = {value.name: value.type for value in values}
        self.inputs = set(graph.inputs)

    def is_float(self, name: str) -> bool:
        """Whether a tensor holds floating-point numbers."""
        return self.kinds.get(name) in ("tensor(float)", "tensor(float16)", "tensor(double)")

    def run(self, names: Sequence[str], sample: Mapping[str, Array]) -> list[Array]:
        """The named tensors for one canonical sample [1, ...]."""
        matched = feed(self.artifact.inputs, sample)
        fed = {}
        for spec in self.artifact.inputs:
            kind = self.kinds[spec.stored_name]
            dtype = {"tensor(float)": "float32", "tensor(double)": "float64"}.get(
                kind, kind.removeprefix("tensor(").removesuffix(")")
            )
            fed[spec.stored_name] = stored_input(spec, matched[spec.name]).astype(dtype)
        asked = [name for name in names if name not in self.inputs]
        tensors = dict(zip(asked, self.session.run(asked, fed) if asked else [], strict=True))
        return [tensors[name] if name in tensors else fed[name] for name in names]


def _original(name: str) -> str:
    """The name that a tensor had before ONNX Runtime's quantizer and BakePreprocess."""
    name = name.removeprefix(BAKED).removesuffix(_PRODUCED)
    for suffix in _DEQUANTIZED:
        name = name.removesuffix(suffix)
    return name


def _scales(model: onnx.ModelProto, path: Path) -> dict[str, Array]:
    """By what the channels of equalized tensors were divided, from the figures beside the file."""
    if not any(entry.key == EQUALIZED for entry in model.metadata_props):
        return {}
    for beside in (path.with_name(f"{path.name}.{EVIDENCE}"), path.with_name(EVIDENCE)):
        if beside.is_file():
            evidence = json.loads(beside.read_text(encoding="utf-8"))
            return {name: np.array(scale) for name, scale in evidence["scales"].items()}
    raise StepError(
        f"the layers of {path.name} cannot be compared",
        f"its channels are equalized, and {path.name}.{EVIDENCE} is not beside it",
    )


def _constants(nodes: Sequence[onnx.NodeProto], weights: set[str]) -> set[str]:
    """Tensors that rest on weights alone: dequantized ones, shapes."""
    constants = set(weights)
    for node in nodes:
        if all(name in constants or not name for name in node.input):
            constants.update(node.output)
    return constants
