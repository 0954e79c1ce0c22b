"""Profiles read: made-up ones, with names as ONNX Runtime gives them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.quantization.search.latency_nets import chain, made_up
from workbench.quantization.core.network import Network
from workbench.quantization.core.placement import place_operators
from workbench.quantization.search import latency_profile as profiles
from workbench.quantization.search.latency_profile import ProfiledKernel


def event(name: str, op: str, dur: float, index: int = 0, cat: str = "Node") -> dict[str, Any]:
    about = {"op_name": op, "node_index": str(index), "provider": "CPUExecutionProvider"}
    return {"name": name, "cat": cat, "dur": dur, "args": about}


def test_kernels_are_the_middle_half_of_their_runs() -> None:
    events = [event("c0_kernel_time", "Conv", dur) for dur in (900, 10, 11, 11, 12, 1, 12, 10)]
    events += [event("c0_fence_before", "Conv", 500), event("model_run", "", 900, cat="Session")]
    events += [{"name": "process_name", "ph": "M"}]
    (found,) = profiles.read_kernels(events)
    assert (found.name, found.op) == ("c0", "Conv")
    assert found.microseconds == pytest.approx(11.0)


def test_kernels_of_one_name_are_told_apart() -> None:
    events = [event("Transpose_kernel_time", "Transpose", 3, index) for index in (1, 2)]
    assert len(profiles.read_kernels(events)) == 2


def test_names_lead_to_nodes() -> None:
    network = Network(chain(12))
    found = [
        ProfiledKernel("x/q", "QuantizeLinear", 1),
        ProfiledKernel("Transpose_token_3", "Transpose", 2),  # goes to what ran before
        ProfiledKernel("c0_token_1", "QLinearConv", 4),
        ProfiledKernel("a0", "QLinearLeakyRelu", 8),
        ProfiledKernel(
            "z1_nchwc", "Conv", 16
        ),  # named after the activation, and is the convolution
        ProfiledKernel("ReorderOutput", "ReorderOutput", 32),
        ProfiledKernel("c10", "FusedConv", 64),  # not c1
        ProfiledKernel("flatten", "Flatten", 128),
    ]
    times = profiles.time_by_node(found, network)
    assert times == {"c0": 7, "a0": 8, "c1": 16, "a1": 32, "c10": 64, "flatten": 128}


def test_predicted_adds_what_crosses_and_only_what_is_new() -> None:
    network = Network(chain(4))
    base = place_operators(network).nodes
    costs = made_up(network, base, [1, 2, 3, 4], [5, 6, 7, 8], 0.5)
    assert costs.predict(base) == 26
    left = place_operators(network, {"c0", "a0"}).nodes
    assert costs.predict(left) == 22 + 0.5
    alone = place_operators(network, {"c1", "a1"}).nodes
    assert costs.predict(alone) == 22 + 2 * 0.5


def test_costs_are_scaled_to_what_was_measured() -> None:
    network = Network(chain(2))
    placement = place_operators(network)
    both = (
        [ProfiledKernel("c0", "Conv", 30), ProfiledKernel("c1", "Conv", 10)],
        [ProfiledKernel("c0", "QLinearConv", 5)],
    )
    found = profiles.estimate_costs(network, placement, both, (0.02, 0.01), {"z0": 1_000_000})
    assert found.floats == pytest.approx({"c0": 0.015, "c1": 0.005})
    assert found.predict(placement.nodes) == pytest.approx(0.01)
    assert found.crossing["z0"] == pytest.approx(0.353, rel=0.01)


def test_the_rate_is_that_of_the_largest_tensor() -> None:
    sizes = {"x": 100_000, "z0": 100}
    found = [
        ProfiledKernel("x/q", "QuantizeLinear", 50),
        ProfiledKernel("z0/q", "QuantizeLinear", 50),
    ]
    assert profiles.quantize_rate(found, sizes) == pytest.approx(5e-4)
    assert profiles.quantize_rate(found[1:], sizes) == profiles.QUANTIZE


def test_sizes_are_of_every_tensor() -> None:
    network = Network(chain(1))
    found = profiles.tensor_sizes(network, {"x": torch.zeros(1, 3, 16, 16)})
    assert (found["x"], found["z0"], found["mean"], found["logits"]) == (768, 2048, 8, 10)
