from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests import nets
from workbench.errors import StepError
from workbench.onnxgraph.session import run_samples
from workbench.tflite import unrolled_rnn as module
from workbench.tflite.unrolled_rnn import unrolled

LENGTH, WIDTH, HIDDEN = 5, 3, 4


def recurrent(
    kind: str, direction: str = "forward", *, started: bool = False, batch: int = 1,
    bias: bool = True, more: tuple[str, ...] = (), **attributes: Any,
) -> onnx.ModelProto:  # fmt: skip
    """One node with random weights, all its outputs, and its initial state as inputs if started."""
    gates, ways = (4 if kind == "LSTM" else 3), (2 if direction == "bidirectional" else 1)
    arrays = {
        "w": nets.normal(ways, gates * HIDDEN, WIDTH, seed=1),
        "r": nets.normal(ways, gates * HIDDEN, HIDDEN, seed=2),
        "b": nets.normal(ways, 2 * gates * HIDDEN, seed=3),
        "lengths": np.full(batch, LENGTH, np.int32),
        "p": nets.normal(ways, 3 * HIDDEN, seed=4),
    }
    states = ["h0", "c0"][: 2 if kind == "LSTM" else 1] if started else []
    given = ["x", "w", "r", "b" if bias else "", "lengths" if "lengths" in more else "", *states]
    if "p" in more:
        given = [*given, *[""] * (7 - len(given)), "p"]
    made = ["y", "h", "c"][: 3 if kind == "LSTM" else 2]
    node = helper.make_node(
        kind, given, made, "cell", hidden_size=HIDDEN, direction=direction, **attributes
    )
    real = TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info("x", real, (LENGTH, batch, WIDTH))]
    inputs += [helper.make_tensor_value_info(s, real, (ways, batch, HIDDEN)) for s in states]
    results = [helper.make_tensor_value_info("y", real, (LENGTH, ways, batch, HIDDEN))]
    results += [helper.make_tensor_value_info(n, real, (ways, batch, HIDDEN)) for n in made[1:]]
    kept = [name for name in arrays if name in given]
    weights = [numpy_helper.from_array(arrays[name], name) for name in kept]
    graph = helper.make_graph([node], "graph", inputs, results, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: onnx.ModelProto) -> list[np.ndarray]:
    """Of one sample. `outputs` cuts along the first axis, which here is time."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString())
    given = {one.name: nets.normal(*one.shape, seed=9) for one in session.get_inputs()}
    return list(session.run(None, given))


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(
    ("kind", "attributes"),
    [("LSTM", {}), ("GRU", {"linear_before_reset": 1}), ("GRU", {"linear_before_reset": 0})],
)
def test_the_steps_give_the_outputs_of_the_node(
    kind: str, attributes: dict[str, int], direction: str, started: bool
) -> None:
    model = recurrent(kind, direction, started=started, **attributes)
    wanted = run(model)
    made, note = unrolled(model)
    onnx.checker.check_model(made, full_check=True)
    assert {node.op_type for node in made.graph.node}.isdisjoint({"LSTM", "GRU"})
    steps = LENGTH * (2 if direction == "bidirectional" else 1)
    assert note == f"{kind} unrolled in {steps} steps"
    for before, after in zip(wanted, run(made), strict=True):
        assert before.shape == after.shape
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_a_node_without_bias(kind: str) -> None:
    model = recurrent(kind, bias=False)
    wanted = run(model)
    for before, after in zip(wanted, run(unrolled(model)[0]), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)


def test_no_product_has_a_bias_that_the_steps_share() -> None:
    """TensorFlow's 16-bit quantizer would give all of them the first one's scale."""
    made, _ = unrolled(recurrent("GRU", linear_before_reset=1))
    weights = {one.name for one in made.graph.initializer}
    biases = [
        node.input[2]
        for node in made.graph.node
        if node.op_type == "Gemm" and len(node.input) > 2 and node.input[2] in weights
    ]
    assert len(biases) == len(set(biases)) == 1  # of the projection, which is made once


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"batch": 2}, "a batch of 2"),
        ({"more": ("p",)}, "peepholes"),
        ({"more": ("lengths",)}, "sequence length"),
        ({"clip": 3.0}, "attribute clip"),
        ({"activations": ["Relu", "Tanh", "Tanh"]}, "attribute activations"),
    ],
)
def test_what_is_not_written_out_is_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(StepError, match=named) as caught:
        unrolled(recurrent("LSTM", **options))
    assert "LSTM cell" in caught.value.what


def test_too_many_steps_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_STEPS", 2 * LENGTH - 1)
    unrolled(recurrent("GRU"))
    with pytest.raises(StepError, match="too many steps"):
        unrolled(recurrent("GRU", "bidirectional"))


def test_a_model_without_them_stays_as_it_is() -> None:
    node = helper.make_node("Neg", ["x"], ["y"])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 2)) for name in "xy"]
    model = helper.make_model(helper.make_graph([node], "graph", ends[:1], ends[1:]))
    before = model.SerializeToString()
    made, note = unrolled(model)
    assert (made.SerializeToString(), note) == (before, "")
    assert run_samples(made, {"x": np.ones((1, 2), np.float32)})[0].tolist() == [[-1, -1]]
