from __future__ import annotations

import numpy as np
import pytest

from tests.quantization.search.test_sensitivity import LAYERS, images, prepared
from workbench.quantization.core import simulation
from workbench.quantization.core.plan import SCHEMES
from workbench.quantization.prepare.trial import run


@pytest.mark.parametrize("scheme", ["u8s8", "u8s8-reduced", "s8s8"])
@pytest.mark.parametrize("floats", [(), ("first",), ("first", "wide"), ("third",)])
def test_it_gives_what_the_file_gives(floats: tuple[str, ...], scheme: str) -> None:
    ready, _, _ = prepared(scheme=scheme)
    placement = ready.placed(floats)
    plan = simulation.plain(ready.network, placement, ready.stats, SCHEMES[scheme])
    (simulated,) = simulation.outputs(ready.network, ready.samples, placement, plan)
    feeds = [{"image": images()}]
    (written,) = run(ready.written(placement, plan), feeds, ["logits"])[0]
    (floating,) = simulation.outputs(ready.network, ready.samples)
    lost = simulation.sqnr([floating], [written])
    assert lost < 50  # so that the next line says something
    # Ties are rounded apart by the two now and then: far below what quantization loses.
    assert simulation.sqnr([written], [simulated]) > lost + 10


def test_without_a_plan_it_is_the_float_network() -> None:
    ready, _, _ = prepared()
    (found,) = simulation.outputs(ready.network, ready.samples)
    (expected,) = run(ready.network.model, [{"image": images()}], ["logits"])[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert found.shape == (40, 10)


def test_sqnr_is_in_decibels_over_all_float_outputs() -> None:
    one, two = np.ones((4, 3), np.float32), np.full((4, 2), 100, np.float32)
    assert simulation.sqnr([one], [one * 1.1]) == pytest.approx(20, abs=1e-4)
    assert simulation.sqnr([one, two], [one, two * 1.1]) == pytest.approx(23.01, abs=0.01)
    assert simulation.sqnr([one], [one * np.nan]) == float("-inf")
    labels = np.arange(4)
    assert simulation.sqnr([one, labels], [one * 1.1, labels + 1]) == pytest.approx(20, abs=1e-4)


def test_a_plain_plan_is_min_max_and_rounds_to_the_nearest() -> None:
    ready, placement, _ = prepared()
    plan = simulation.plain(ready.network, placement, ready.stats, SCHEMES["u8s8"])
    assert set(plan.weights) == set(LAYERS)
    assert not plan.biases
    data = images()
    assert plan.ranges["image"].low == pytest.approx(float(data.min()))
    assert plan.ranges["image"].high == pytest.approx(float(data.max()))
    weight = plan.weights["wide"]
    original = ready.network.constants["w1"].numpy()
    assert np.abs(weight.floats - original).max() <= weight.scales.max() / 2 * 1.001
