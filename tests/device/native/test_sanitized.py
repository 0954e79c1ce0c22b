"""The runner in C under AddressSanitizer and UBSan, fed what it should not be."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.device.native import models
from tests.device.native.conftest import built
from tests.device.native.runners import Runner, normal
from tests.device.native.test_plans import damaged
from workbench.device.runner_plan import Plan
from workbench.errors import StepError

pytestmark = pytest.mark.process

SANITIZERS = re.compile(r"lib(asan|ubsan|c|gcc_s|pthread)[.-]|sanitizer_common|interceptor")
OWN = re.compile(r"wb-runner|/(main|plan|ort|litert|litert_profile)\.c:")


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return built(tmp_path_factory.mktemp("sanitized"), sanitize=True)
    except StepError as error:
        pytest.skip(f"this compiler has no AddressSanitizer: {error}")


@pytest.fixture
def sanitized(checked: Path, tmp_path: Path) -> Runner:
    # It takes what it has and leaves: leaks are none.
    argv = ("env", "ASAN_OPTIONS=detect_leaks=0:exitcode=99", str(checked))
    return Runner("native", argv, tmp_path)


def clean(runner: Runner, content: Plan | bytes) -> int:
    """The exit code; a finding whose place is in the runner fails the test."""
    answer = runner(content)
    assert "runtime error:" not in answer.stderr, answer.stderr
    if answer.code == 99:
        frames = re.findall(r"^ *#\d+ 0x\w+ (.*)$", answer.stderr, flags=re.MULTILINE)
        place = next(one for one in frames if not SANITIZERS.search(one))
        assert not OWN.search(place), answer.stderr  # in a runtime's library it is the runtime's
    return answer.code


@pytest.mark.parametrize("name", ["float.onnx", "many.onnx", "float32.tflite"])
def test_good_plans_are_run_without_a_finding(name: str, sanitized: Runner, tmp_path: Path) -> None:
    if name == "many.onnx":
        a = normal(2, 3)
        inputs = {"a": a, "b": a, "k": (a[:, 0] * 9).astype("int64")}
        plan = sanitized.plan(models.onnx_of_many(tmp_path), inputs, "places", "positive")
    elif name == "float.onnx":
        plan = sanitized.plan(models.onnx_float(tmp_path), {"x": normal(3, 8)}, "y", runs=3)
    else:
        inputs = {"serving_default_x:0": normal(3, 8)}
        plan = sanitized.plan(
            models.tflite(tmp_path), inputs, "PartitionedCall:0", runs=3,
            profile=str(tmp_path / "profile"),
        )  # fmt: skip
    assert clean(sanitized, plan) == 0


def test_damaged_plans_are_without_a_finding(sanitized: Runner, tmp_path: Path) -> None:
    plan = sanitized.plan(models.onnx_float(tmp_path), {"x": normal(3, 8)}, "y", runs=2)
    text = replace(plan, options=(("key", "value"),)).text().encode()
    seeded = random.Random(11)
    codes = {clean(sanitized, damaged(text, seeded)) for _ in range(60)}
    assert 3 in codes


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_damaged_models_and_inputs_are_without_a_finding(
    kind: str, sanitized: Runner, tmp_path: Path
) -> None:
    """A crash inside the runtime is not ours; a finding of ASan in the runner is."""
    seeded = random.Random(13)
    if kind == "onnx":
        model, x, y = models.onnx_float(tmp_path), "x", "y"
    else:
        model, x, y = models.tflite(tmp_path), "serving_default_x:0", "PartitionedCall:0"
    plan = sanitized.plan(model, {x: normal(3, 8)}, y, runs=1)
    whole, data = model.read_bytes(), Path(plan.inputs).read_bytes()
    for _ in range(12):
        changed = bytearray(whole[: seeded.choice([len(whole), seeded.randrange(len(whole))])])
        for _ in range(seeded.randrange(8)):
            changed[seeded.randrange(len(changed))] = seeded.randrange(256)
        model.write_bytes(bytes(changed))
        clean(sanitized, plan)
    model.write_bytes(whole)
    for _ in range(8):
        Path(plan.inputs).write_bytes(data[: seeded.randrange(len(data))])
        assert clean(sanitized, plan) in (0, 3)  # padding behind the last sample is not read
