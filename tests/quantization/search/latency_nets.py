"""Small graphs for the tests of latency, and made-up costs for them."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from workbench.quantization.core.network import Network
from workbench.quantization.search.latency_profile import LatencyCosts


def chain(count: int = 6, channels: int = 8, activation: str = "LeakyRelu") -> onnx.ModelProto:
    """Convolutions `c0` …, each with `a0` …, a mean `gap` and a product `fc`: [N, 3, 16, 16]."""
    generator = np.random.default_rng(0)
    weights, nodes, taken, wide = [], [], "x", 3

    def constant(name: str, *shape: int) -> str:
        values = (generator.standard_normal(shape) * 0.3).astype(np.float32)
        weights.append(numpy_helper.from_array(values, name))
        return name

    for at in range(count):
        names = [taken, constant(f"w{at}", channels, wide, 3, 3), constant(f"b{at}", channels)]
        nodes.append(helper.make_node("Conv", names, [f"y{at}"], f"c{at}", pads=[1] * 4))
        nodes.append(helper.make_node(activation, [f"y{at}"], [f"z{at}"], f"a{at}"))
        taken, wide = f"z{at}", channels
    nodes.append(helper.make_node("GlobalAveragePool", [taken], ["mean"], "gap"))
    nodes.append(helper.make_node("Flatten", ["mean"], ["flat"], "flatten"))
    product = ["flat", constant("wf", 10, channels), constant("bf", 10)]
    nodes.append(helper.make_node("Gemm", product, ["logits"], "fc", transB=1))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "chain", [value("x", TensorProto.FLOAT, ["N", 3, 16, 16])],
        [value("logits", TensorProto.FLOAT, ["N", 10])], weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def made_up(
    network: Network, base: frozenset[str], floats: list[float], ints: list[float],
    crossing: float = 0.0,
) -> LatencyCosts:  # fmt: skip
    """LatencyCosts of the convolutions in order, of nothing else."""
    consumers = {
        name: (node.name, tuple(one.name for one in network.consumers.get(name, ())))
        for name, node in network.producers.items()
    }
    return LatencyCosts(
        {f"c{at}": one for at, one in enumerate(floats)},
        {f"c{at}": one for at, one in enumerate(ints)},
        dict.fromkeys(network.producers, crossing),
        base,
        consumers,
    )
