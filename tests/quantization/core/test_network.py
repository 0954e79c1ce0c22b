from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tests.nets import normal
from tests.quantization.prepare.graphs import graph_of, run
from tests.quantization.random_nets import random_net, run_all
from workbench.quantization.core.network import Network

node = helper.make_node


@pytest.mark.parametrize("seed", range(0, 30, 3))
def test_networks_compute_what_onnx_runtime_does(seed: int) -> None:
    net = random_net(seed)
    model = net.model()
    feeds = {name: value[:1] for name, value in net.samples(2, 0).items()}
    network = Network(model)
    found = network.run({name: torch.from_numpy(value) for name, value in feeds.items()})
    for name, wanted in zip(network.outputs, run_all(model, feeds), strict=True):
        size = np.abs(wanted).max()
        np.testing.assert_allclose(found[name].numpy(), wanted, atol=1e-5 * size)


def test_tensors_are_kept_on_demand_and_dropped_otherwise() -> None:
    model = graph_of([node("Relu", ["x"], ["a"]), node("Neg", ["a"], ["b"]),
                      node("Abs", ["b"], ["y"])])  # fmt: skip
    feeds = {"x": torch.from_numpy(normal(2, 4, 6, 6))}
    network = Network(model)
    assert network.run(feeds).keys() == {"y"}
    found = network.run(feeds, keep=["a"])
    assert found.keys() == {"a", "y"}
    torch.testing.assert_close(found["a"], feeds["x"].relu())


def test_a_hook_may_change_what_nodes_make() -> None:
    model = graph_of([node("Relu", ["x"], ["a"]), node("Neg", ["a"], ["y"])])
    x = torch.from_numpy(normal(2, 4, 6, 6))
    found = Network(model).run(
        {"x": x}, lambda one, made: [made[0] + 1] if one.op == "Relu" else made
    )
    torch.testing.assert_close(found["y"], -x.relu() - 1)


def test_gradients_flow_to_the_input() -> None:
    model = graph_of([node("Mul", ["x", "x"], ["y"])])
    x = torch.from_numpy(normal(2, 4, 6, 6)).requires_grad_()
    Network(model).run({"x": x})["y"].sum().backward()
    torch.testing.assert_close(x.grad, 2 * x.detach())


def test_takers_and_makers_are_found_with_those_in_subgraphs() -> None:
    def branch(name: str, op: str) -> onnx.GraphProto:
        return helper.make_graph(
            [node(op, ["a"], [f"{name}_out"])], name, [],
            [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)],
        )  # fmt: skip

    model = graph_of(
        [
            node("Relu", ["x"], ["a"]),
            node("ReduceMax", ["x"], ["m"], keepdims=0),
            node("Greater", ["m", "zero"], ["yes"]),
            node("If", ["yes"], ["y"], "if", then_branch=branch("then", "Neg"),
                 else_branch=branch("else", "Exp")),
        ],
        zero=np.float32(0),
    )  # fmt: skip
    network = Network(model)
    assert network.nodes[-1].captured == ("a",)
    assert [one.op for one in network.consumers["a"]] == ["If"]
    assert network.producers["a"].op == "Relu"
    assert network.uses["y"] == 1 and network.uses["x"] == 2
    for sign in (1, -1):
        x = sign * np.abs(normal(2, 4, 6, 6)) - (sign < 0)
        found = network.run({"x": torch.from_numpy(x)})["y"].numpy()
        np.testing.assert_allclose(found, run(model, {"x": x})[0], rtol=1e-6)


def test_unknown_operators_run_in_onnx_runtime() -> None:
    model = graph_of([node("CumSum", ["x", "axis"], ["a"]), node("Relu", ["a"], ["y"])],
                     axis=np.array(1, np.int64))  # fmt: skip
    x = normal(2, 4, 6, 6)
    network = Network(model)
    for given in (x, x[:1], x + 1):
        found = network.run({"x": torch.from_numpy(given)})["y"].numpy()
        np.testing.assert_allclose(found, given.cumsum(1).clip(0), atol=1e-5)


def test_integer_inputs_pass() -> None:
    table = normal(7, 3)
    graph = helper.make_graph(
        [node("Gather", ["table", "ids"], ["a"]), node("Relu", ["a"], ["y"])], "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(table, "table")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    ids = np.array([[0, 1, 6, -1, 3]])
    found = Network(model).run({"ids": torch.from_numpy(ids)})["y"]
    np.testing.assert_array_equal(found.numpy(), table[ids].clip(0))
