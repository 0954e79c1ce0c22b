"""A `.onnx` file as a model: checked, and copied so that nothing later touches the user's file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.artifact import Artifact, Format, feed
from workbench.errors import ModelError, first_line
from workbench.model import ModelSource
from workbench.onnxgraph import signature

if TYPE_CHECKING:
    from numpy.typing import NDArray

_QUANTIZED = {"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul",
              "ConvInteger", "MatMulInteger"}  # fmt: skip


def load_onnx(source: ModelSource, examples: Mapping[str, NDArray[Any]], folder: Path) -> Artifact:
    """The file as an artifact in `folder`. Raises ModelError for one that cannot be used."""
    import numpy as np
    import onnx

    path = source.folder / source.spec
    signature.files(path)  # refuses those outside its folder
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:
        raise ModelError(
            f"{path} cannot be read as ONNX", f"{type(error).__name__}: {first_line(error)}"
        ) from error
    kinds = {node.op_type for node in model.graph.node}
    if kinds & _QUANTIZED:
        raise ModelError(
            f"{path} is quantized already",
            f"it has {', '.join(sorted(kinds & _QUANTIZED))} nodes",
            "give the float model",
        )
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ModelError(f"{path}: the weights contain NaN or Inf: {tensor.name}")
    inputs, outputs = signature.signature(model)
    feed(inputs, examples)
    copy = folder / f"{path.stem}.onnx"
    onnx.save(model, copy)
    return Artifact(
        path=copy,
        format=Format.ONNX,
        precision="float32",
        inputs=inputs,
        outputs=outputs,
        history=("source",),
        notes=(f"opset {signature.opset(model)}",),
    )
