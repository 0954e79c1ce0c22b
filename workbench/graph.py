"""Facts of an ONNX graph: its signature, opset and operators."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.artifact import TensorSpec

if TYPE_CHECKING:
    import onnx


def opset(model: onnx.ModelProto) -> int:
    """The version of the default operator set that the file itself declares."""
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)


def files(path: Path) -> list[Path]:
    """The files that an ONNX model is made of: itself, and those that hold its tensors.

    A location outside the model's folder is left out here; loading refuses it.
    """
    # Reading a file through onnx takes half a second, and few models keep tensors elsewhere.
    if b"location" not in path.read_bytes():
        return [path]
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # noqa: BLE001 - what is wrong with it is said where it is loaded
        return [path]
    places = {
        path.parent / entry.value
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return [path, *sorted(place for place in places if place.is_file())]


def operators(model: onnx.ModelProto) -> Counter[str]:
    """How many nodes of each operator the main graph has."""
    return Counter(node.op_type for node in model.graph.node)


def signature(model: onnx.ModelProto) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs (initializers excepted) and outputs; a symbolic or unknown axis is None."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = tuple(_spec(value) for value in model.graph.input if value.name not in weights)
    return inputs, tuple(_spec(value) for value in model.graph.output)


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    import onnx

    tensor = value.type.tensor_type
    shape = tuple(
        axis.dim_value if axis.HasField("dim_value") and axis.dim_value > 0 else None
        for axis in tensor.shape.dim
    )
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    return TensorSpec(name=value.name, dtype=str(dtype), shape=shape)
