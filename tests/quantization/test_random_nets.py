"""Any small net is quantized, loads, and keeps at least what plain min-max keeps of its outputs."""

from __future__ import annotations

import functools
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.quantization.random_nets import (
    Array,
    Feeds,
    Net,
    decibels,
    in_batches,
    random_net,
    run_all,
)
from workbench.quantization.core import engine

SAMPLES = {"fast": 64, "balanced": 128}  # the preset fast takes no more
# Of two ways to round, either may be the luckier on samples that neither saw.
SLACK = 1.0
# Held-out samples beyond all that calibration saw are clipped by some ranges and not by others, by
# chance: one has more error than all the rest.
OUTLIERS = 4


def min_max(net: Net, model: onnx.ModelProto, feeds: Feeds, folder: Path) -> onnx.ModelProto:
    """onnxruntime's own: min-max, U8S8, a scale for each channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(in_batches(feeds, net.fixed)(16))

        def get_next(self) -> Any:
            return next(self.batches, None)

    onnx.save(model, folder / "float.onnx")
    logging.disable(logging.WARNING)
    try:
        quantize_static(
            folder / "float.onnx", folder / "plain.onnx", Reader(), per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
    finally:
        logging.disable(logging.NOTSET)
    return onnx.load(folder / "plain.onnx")


@functools.cache
def reference(seed: int, samples: int) -> tuple[Net, onnx.ModelProto, Feeds, Feeds, list[Array]]:
    net = random_net(seed)
    model = net.model()
    held = net.samples(64, seed=1)
    return net, model, net.samples(samples, seed=0), held, run_all(model, held, net.fixed)


@functools.cache
def plain_decibels(seed: int, samples: int, folder: Path) -> float:
    net, model, seen, held, wanted = reference(seed, samples)
    plain = run_all(min_max(net, model, seen, folder), held, net.fixed)
    return decibels(wanted, plain, OUTLIERS)


def holds(seed: int, preset: str, runtime: Any, folder: Path) -> None:
    net, model, seen, held, wanted = reference(seed, SAMPLES[preset])
    made = engine.quantize(
        model,
        in_batches(seen, net.fixed),
        engine.QuantizationOptions(preset=preset, runtime=runtime),
    ).model
    onnx.checker.check_model(made, full_check=True)
    found = run_all(made, held, net.fixed)
    for one, other in zip(wanted, found, strict=True):
        assert one.shape == other.shape
        assert np.isfinite(other).all()
    reached = decibels(wanted, found, OUTLIERS)
    assert reached >= plain_decibels(seed, SAMPLES[preset], folder) - SLACK
    unoptimized = run_all(made, held, net.fixed, optimized=False)
    # The fused kernels compute what the file says, but for what rounds the other way.
    assert decibels(wanted, unoptimized) == pytest.approx(decibels(wanted, found), abs=3)


COMBINATIONS = [("fast", "ort"), ("fast", "tflite"), ("balanced", "ort"), ("balanced", "tflite")]
# The last ones bring the kinds of layer that a combination has not met by then.
EVERY_CHANGE = [
    *((seed, *COMBINATIONS[seed // 2 % 4]) for seed in range(30)),
    (2, "fast", "ort"), (3, "balanced", "ort"), (3, "balanced", "tflite"), (5, "fast", "ort"),
    (5, "fast", "tflite"), (5, "balanced", "tflite"), (9, "balanced", "tflite"),
    (28, "balanced", "tflite"), (34, "fast", "tflite"),
]  # fmt: skip
# Other nets every day. The day is in the environment, from where test workers have it too.
DAY = int(os.environ["WB_DAY"])
ROTATING = range(100 * DAY, 100 * DAY + 80)


@pytest.mark.parametrize(("seed", "preset", "runtime"), EVERY_CHANGE)
def test_random_nets(seed: int, preset: str, runtime: Any, tmp_path: Path) -> None:
    holds(seed, preset, runtime, tmp_path)


@pytest.mark.matrix
@pytest.mark.parametrize("seed", ROTATING)
def test_many_random_nets(seed: int, tmp_path: Path) -> None:
    for preset, runtime in COMBINATIONS:
        holds(seed, preset, runtime, tmp_path)


def test_every_kind_of_layer_meets_each_preset_and_runtime() -> None:
    kinds = {seed: kinds_of(random_net(seed)) for seed in range(80)}
    every = set().union(*kinds.values())
    assert {"Conv", "LayerNormalization", "groups", "outliers", "one sample"} <= every
    for combination in COMBINATIONS:
        met = set().union(*(kinds[seed] for seed, *rest in EVERY_CHANGE if (*rest,) == combination))
        assert met == every, combination


def kinds_of(net: Net) -> set[str]:
    """A net's operators, and what else tells it from others."""
    grouped = any(
        attribute.name == "group" and attribute.i > 1
        for node in net.nodes
        for attribute in node.attribute
    )
    traits = {
        f"opset {net.opset}": True,
        "groups": grouped,
        "one sample": net.fixed,
        "two inputs": len(net.inputs) > 1,
        "two outputs": len(net.outputs) > 1,
        "outliers": any(scales.max() > 1 for scales in net.scales.values()),
    }
    return {node.op_type for node in net.nodes} | {name for name, has in traits.items() if has}


def test_the_generator_gives_the_same_net_again() -> None:
    one, other = random_net(3), random_net(3)
    assert one.model().SerializeToString() == other.model().SerializeToString()
    np.testing.assert_array_equal(one.samples(2, 0)["x"], other.samples(2, 0)["x"])
