"""Profiles read: made-up ones, with names as ONNX Runtime gives them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.quantization.search.latency_nets import chain, made_up
from workbench.quantization.core.network import Network
from workbench.quantization.core.placement import place
from workbench.quantization.search import latency_profile as profiles
from workbench.quantization.search.latency_moves import heads, units
from workbench.quantization.search.latency_profile import Kernel


def event(name: str, op: str, dur: float, index: int = 0, cat: str = "Node") -> dict[str, Any]:
    about = {"op_name": op, "node_index": str(index), "provider": "CPUExecutionProvider"}
    return {"name": name, "cat": cat, "dur": dur, "args": about}


def test_kernels_are_the_middle_half_of_their_runs() -> None:
    events = [event("c0_kernel_time", "Conv", dur) for dur in (900, 10, 11, 11, 12, 1, 12, 10)]
    events += [event("c0_fence_before", "Conv", 500), event("model_run", "", 900, cat="Session")]
    events += [{"name": "process_name", "ph": "M"}]
    (found,) = profiles.kernels(events)
    assert (found.name, found.op) == ("c0", "Conv")
    assert found.microseconds == pytest.approx(11.0)


def test_kernels_of_one_name_are_told_apart() -> None:
    events = [event("Transpose_kernel_time", "Transpose", 3, index) for index in (1, 2)]
    assert len(profiles.kernels(events)) == 2


def test_names_lead_to_nodes() -> None:
    network = Network(chain(12))
    found = [
        Kernel("x/q", "QuantizeLinear", 1),
        Kernel("Transpose_token_3", "Transpose", 2),  # goes to what ran before
        Kernel("c0_token_1", "QLinearConv", 4),
        Kernel("a0", "QLinearLeakyRelu", 8),
        Kernel("z1_nchwc", "Conv", 16),  # named after the activation, and is the convolution
        Kernel("ReorderOutput", "ReorderOutput", 32),
        Kernel("c10", "FusedConv", 64),  # not c1
        Kernel("flatten", "Flatten", 128),
    ]
    times = profiles.by_node(found, network, heads(units(network)))
    assert times == {"c0": 7, "a0": 8, "c1": 16, "a1": 32, "c10": 64, "flatten": 128}


def test_predicted_adds_what_crosses_and_only_what_is_new() -> None:
    network = Network(chain(4))
    base = place(network).nodes
    costs = made_up(network, base, [1, 2, 3, 4], [5, 6, 7, 8], 0.5)
    assert costs.predicted(base) == 26
    left = place(network, {"c0", "a0"}).nodes
    assert costs.predicted(left) == 22 + 0.5
    alone = place(network, {"c1", "a1"}).nodes
    assert costs.predicted(alone) == 22 + 2 * 0.5


def test_costs_are_scaled_to_what_was_measured() -> None:
    network = Network(chain(2))
    placement = place(network)
    both = [Kernel("c0", "Conv", 30), Kernel("c1", "Conv", 10)], [Kernel("c0", "QLinearConv", 5)]
    found = profiles.costs(
        network, placement, heads(units(network)), both, (0.02, 0.01), {"z0": 1_000_000}
    )
    assert found.floats == pytest.approx({"c0": 0.015, "c1": 0.005})
    assert found.predicted(placement.nodes) == pytest.approx(0.01)
    assert found.crossing["z0"] == pytest.approx(0.353, rel=0.01)


def test_the_rate_is_that_of_the_largest_tensor() -> None:
    sizes = {"x": 100_000, "z0": 100}
    found = [Kernel("x/q", "QuantizeLinear", 50), Kernel("z0/q", "QuantizeLinear", 50)]
    assert profiles.quantize_rate(found, sizes) == pytest.approx(5e-4)
    assert profiles.quantize_rate(found[1:], sizes) == profiles.QUANTIZE


def test_sizes_are_of_every_tensor() -> None:
    network = Network(chain(1))
    found = profiles.sizes(network, {"x": torch.zeros(1, 3, 16, 16)})
    assert (found["x"], found["z0"], found["mean"], found["logits"]) == (768, 2048, 8, 10)
