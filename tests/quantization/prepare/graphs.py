"""Small ONNX graphs for the tests of the preparation, and what a rewrite made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests import nets
from workbench.onnxgraph.view import RewriteContext
from workbench.quantization.prepare.constants import name_all_nodes

Array = NDArray[Any]
Shape = Sequence[int | str | None]


def graph_of(
    nodes: Sequence[onnx.NodeProto],
    shapes: dict[str, Shape] | None = None,
    outputs: Sequence[str] = ("y",),
    opset: int = 17,
    **weights: Array,
) -> onnx.ModelProto:
    """A model of nodes with open batches: `x` [batch, 4, 6, 6] unless `shapes` are given."""
    shapes = shapes or {"x": ("batch", 4, 6, 6)}
    real = TensorProto.FLOAT
    graph = helper.make_graph(
        list(nodes), "graph",
        [helper.make_tensor_value_info(name, real, shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info(name, real, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    known = onnx.shape_inference.infer_shapes(model)
    del known.graph.value_info[:]
    return known


def samples(model: onnx.ModelProto, count: int = 3, seed: int = 0) -> dict[str, Array]:
    """Normal values for every input, the batch `count` where it is open."""
    found = {}
    for number, value in enumerate(model.graph.input):
        axes = [axis.dim_value or count for axis in value.type.tensor_type.shape.dim]
        found[value.name] = 2 * nets.normal(*axes, seed=seed + number)
    return found


def run(model: onnx.ModelProto, inputs: dict[str, Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, inputs))


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def same(one: onnx.ModelProto, other: onnx.ModelProto, batches: Sequence[int] = (1, 3)) -> None:
    """Both give the same outputs, under the same names, for batches of several sizes."""
    if all(value.type.tensor_type.HasField("shape") for value in one.graph.output):
        onnx.checker.check_model(other, full_check=True)
    for side in ("input", "output"):
        wanted = [value.name for value in getattr(one.graph, side)]
        assert [value.name for value in getattr(other.graph, side)] == wanted
    for count in batches:
        given = samples(one, count)
        for before, after in zip(run(one, given), run(other, given), strict=True):
            assert before.shape == after.shape
            assert before.dtype == after.dtype
            np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


def rewritten(
    rewrite: Callable[[onnx.ModelProto, RewriteContext], int],
    model: onnx.ModelProto,
    target: Any = "ort",
    batches: Sequence[int] = (1, 3),
) -> tuple[onnx.ModelProto, int]:
    """The model after one rewrite, whose outputs are the same, and what the rewrite returned."""
    made = onnx.ModelProto.FromString(model.SerializeToString())
    given = RewriteContext([samples(model, count) for count in batches], target)
    name_all_nodes(made, given)
    count = rewrite(made, given)
    same(model, made, batches)
    return made, count


def weights_of(model: onnx.ModelProto) -> dict[str, Array]:
    return {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
