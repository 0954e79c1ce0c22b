from __future__ import annotations

import numpy as np
import pytest

from tests.quantization.core.test_equalization import ready
from tests.quantization.random_nets import Net, decibels, in_batches, run_all
from workbench.quantization.core import engine
from workbench.quantization.core.float_prefix import (
    gains_speed,
    lossy_inputs,
    noisy_prefix,
    rounding_noise,
)
from workbench.quantization.core.placement import place_operators


def stack(*widths: int, scales: np.ndarray | None = None, pool_after: int = -1) -> Net:
    made = Net(0)
    x, given = made.input("x", 3, 8, 8, scales=scales), 3
    for number, width in enumerate(widths):
        x, given = made.node("Relu", made.conv(x, given, width)), width
        if number == pool_after:
            x = made.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    y = made.node("Flatten", made.node("GlobalAveragePool", x))
    made.outputs.append(made.node("Gemm", y, made.normal(given, 5), made.normal(5)))
    return made


def test_noise_is_that_of_the_grids_weighed_by_importance() -> None:
    network, stats, _, _ = ready(stack(8, 8))
    placement = place_operators(network)
    found = rounding_noise(placement, stats)
    assert found.keys() == set(placement.tensors)
    one = stats["x"]
    width = (one.high.max() - one.low.min()) / 255
    assert found["x"] == pytest.approx(width**2 / 12 * one.importance.sum())


def test_the_first_narrow_layers_stay_float_and_wide_ones_do_not() -> None:
    network, stats, _, _ = ready(stack(8, 32, 64, 64, 64))
    found = noisy_prefix(network, place_operators(network), stats)
    layers = [name for name in found if network.nodes_by_name[name].op == "Conv"]
    assert layers == [network.nodes[0].name]
    assert not gains_speed(network.nodes[0], network) and gains_speed(network.nodes[4], network)


def test_no_prefix_before_a_max_pool_nor_in_a_short_net() -> None:
    for made in (stack(8, 32, 64, 64, 64, pool_after=0), stack(8, 8)):
        network, stats, _, _ = ready(made)
        assert noisy_prefix(network, place_operators(network), stats) == ()


def test_an_input_whose_channels_8_bits_would_wipe_out_stays_float() -> None:
    made = Net(3)
    x = made.input("x", 3, 8, 8, scales=np.array([1e6, 1, 1]))
    weights = made.rng.normal(size=(8, 3, 3, 3)) / np.array([1e6, 1, 1])[:, None, None]
    y = made.node("Relu", made.conv(x, 3, 8, weights=made.constant(weights)))
    y = made.node("Relu", made.conv(y, 8, 8))
    made.outputs.append(made.conv(y, 8, 2))
    network, stats, _, _ = ready(made)
    assert lossy_inputs(network, place_operators(network), stats) == (network.nodes[0].name,)
    model, seen, held = made.model(), made.samples(32, 0), made.samples(32, 1)
    found = engine.quantize(model, in_batches(seen), engine.QuantizationOptions("fast"))
    assert found.prefix == (network.nodes[0].name,)
    assert decibels(run_all(model, held), run_all(found.model, held)) > 25


def test_even_inputs_are_quantized() -> None:
    network, stats, _, _ = ready(stack(8, 8, scales=np.array([3.0, 1, 0.5])))
    assert lossy_inputs(network, place_operators(network), stats) == ()
