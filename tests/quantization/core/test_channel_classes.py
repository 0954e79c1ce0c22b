from __future__ import annotations

import numpy as np

from tests.quantization.core.test_equalization import net, ready
from tests.quantization.random_nets import Net


def outputs(made: Net, op: str) -> list[str]:
    return [one.output[0] for one in made.nodes if one.op_type == op]


def test_summands_have_the_same_classes() -> None:
    made = net(lambda n, x: n.node("Add", n.node("Relu", x), n.conv(x, 4, 4)))
    _, _, scaling, _ = ready(made)
    first, second, _ = outputs(made, "Conv")
    total = scaling.tensors[outputs(made, "Add")[0]]
    np.testing.assert_array_equal(scaling.tensors[first], total)
    np.testing.assert_array_equal(scaling.tensors[second], total)
    assert len(set(total)) == 4 and (total > 0).all()


def test_a_sigmoids_argument_is_pinned_and_what_it_gates_is_not() -> None:
    def gated(n: Net, x: str) -> str:
        return str(n.node("Mul", n.node("Relu", x), n.node("Sigmoid", n.conv(x, 4, 4))))

    made = net(gated)
    _, _, scaling, _ = ready(made)
    kept, argument, _ = outputs(made, "Conv")
    assert (scaling.tensors[argument] == 0).all()
    assert (scaling.tensors[kept] > 0).all()
    np.testing.assert_array_equal(scaling.tensors[kept], scaling.tensors[outputs(made, "Mul")[0]])


def test_inputs_outputs_and_what_is_squashed_are_pinned() -> None:
    for op in ("Tanh", "Sigmoid", "Erf", "Exp"):
        made = net(lambda n, x, op=op: n.node(op, x))
        _, _, scaling, _ = ready(made)
        for name in ("x", *made.outputs, outputs(made, "Conv")[0]):
            assert (scaling.tensors[name] == 0).all()


def test_a_relu6_gives_floors_to_channels_below_6_and_pins_the_others() -> None:
    made = Net(0)
    x = made.input("x", 3, 8, 8)
    weights = made.rng.normal(size=(3, 3, 1, 1)) * np.array([0.3, 0.6, 9])[:, None, None, None]
    y = made.conv(x, 3, 3, 1, weights=made.constant(weights), bias=False)
    y = made.activation(y, "Clip")
    made.outputs.append(made.conv(y, 3, 2, 1))
    _, stats, scaling, _ = ready(made)
    classes = scaling.tensors[outputs(made, "Conv")[0]]
    assert classes[2] == 0 and (classes[:2] > 0).all()
    floors = scaling.least[classes[:2]]
    np.testing.assert_allclose(floors, stats[y].high[:2] / 5.4, rtol=1e-6)


def test_a_shuffle_moves_classes_and_a_concat_joins_them() -> None:
    def shuffled(n: Net, x: str) -> str:
        y = n.node("Reshape", x, n.constant([0, 2, 2, 8, 8], np.int64))
        y = n.node("Transpose", y, perm=[0, 2, 1, 3, 4])
        y = n.node("Reshape", y, n.constant([0, 4, 8, 8], np.int64))
        return n.conv(n.node("Concat", y, x, axis=1), 8, 4, 1)

    made = net(shuffled)
    _, _, scaling, _ = ready(made)
    given = scaling.tensors[outputs(made, "Conv")[0]]
    joined = scaling.tensors[outputs(made, "Concat")[0]]
    np.testing.assert_array_equal(joined, [*given[[0, 2, 1, 3]], *given])


def test_a_flatten_leads_one_class_to_all_of_its_columns() -> None:
    made = Net(0)
    x = made.input("x", 3, 8, 8)
    y = made.node("Relu", made.conv(x, 3, 2))
    y = made.node("Flatten", y)
    made.outputs.append(made.node("Gemm", y, made.normal(128, 3), made.normal(3)))
    _, _, scaling, _ = ready(made)
    given = scaling.tensors[outputs(made, "Conv")[0]]
    np.testing.assert_array_equal(scaling.tensors[y], np.repeat(given, 64))


def test_channels_that_calibration_hardly_saw_on_are_not_amplified_to_6() -> None:
    made = Net(0)
    x = made.input("x", 3, 8, 8)
    bias = made.constant([0, -20, 0])
    weights = made.constant(made.rng.normal(size=(3, 3, 1, 1)))
    y = made.node("Conv", x, weights, bias, kernel_shape=[1, 1])
    y = made.activation(y, "Clip")
    made.outputs.append(made.conv(y, 3, 2, 1))
    _, stats, scaling, _ = ready(made)
    assert stats[y].high[1] == 0
    found = scaling.tensors[y][1]
    assert found == 0 or scaling.least[found] > 0.4
