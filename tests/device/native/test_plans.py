"""Plans that are not as they should be: each is refused, by both runners, and none crashes one."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.device.native import models
from tests.device.native.runners import Answer, Runner, normal

pytestmark = pytest.mark.process

LARGE = 2**61

# A word of the plan, and what it is made: each cannot be done.
WRONG = {
    "version": ("^wb 1", "wb 2"),
    "no version": ("^wb 1\n", ""),
    "a key that is unknown": ("^threads", "theads"),
    "a key in capitals": ("^threads", "THREADS"),
    "no value": ("^threads 1", "threads"),
    "two values": ("^threads 1", "threads 1 1"),
    "no number": ("^threads 1", "threads one"),
    "half a number": ("^samples 4", "samples 4x"),
    "a fraction": ("^samples 4", "samples 1.5"),
    "zero samples": ("^samples 4", "samples 0"),
    "negative samples": ("^samples 4", "samples -1"),
    "more samples than there are": ("^samples 4", "samples 5"),
    "samples beyond any integer": ("^samples 4", "samples 99999999999999999999999"),
    "samples whose bytes overflow": ("^samples 4", f"samples {LARGE}"),
    "no seconds": ("^seconds 0.000", "seconds soon"),
    "seconds that are no number": ("^seconds 0.000", "seconds nan"),
    "seconds without end": ("^seconds 0.000", "seconds inf"),
    "no model": ("^model .*\n", ""),
    "no inputs file": ("^inputs .*\n", ""),
    "no runtime": ("^runtime .*\n", ""),
    "no limit": ("^limit .*\n", ""),
    "no inputs": ("^input x .*\n", ""),
    "no outputs": ("^output y\n", ""),
    "an output of two words": ("^output y", "output y z"),
    "an output without a name": ("^output y", "output"),
    "an option that is no pair": ("^output y", "option key\noutput y"),
    "an input without shape": ("^input x .*", "input x"),
    "a dtype that is none": ("^input x float32", "input x bfloat16"),
    "a rank that is another": ("^input x float32 2", "input x float32 3"),
    "a rank beyond all": ("^input x float32 2", "input x float32 17"),
    "a negative rank": ("^input x float32 2 1 8", "input x float32 -1"),
    "a negative axis": ("^input x float32 2 1 8", "input x float32 2 -1 8"),
    "an axis that is too long": ("^input x float32 2 1 8", f"input x float32 2 {2**62} 8"),
    "axes whose product overflows": (
        "^input x float32 2 1 8",
        f"input x float32 3 {2**31 - 1} {2**31 - 1} {2**31 - 1}",
    ),
    "axes whose product is zero by overflow": (
        "^input x float32 2 1 8",
        f"input x float32 4 {2**16} {2**16} {2**16} {2**16}",
    ),
    "an offset outside": ("^(input x .*) 0$", r"\1 4"),
    "an offset that overflows": ("^(input x .*) 0$", rf"\1 {2**63 - 1}"),
    "a negative offset": ("^(input x .*) 0$", r"\1 -4"),
    "an input of too many words": ("^(input x .*) 0$", r"\1 0 0"),
    "a word that is not encoded": ("^output y", "output %"),
    "half a code": ("^output y", "output y%4"),
    "a code that is none": ("^output y", "output %zz"),
    "a null character": ("^output y", "output y%00"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_plan_that_is_not_whole_is_refused(kind: str, runner: Runner, tmp_path: Path) -> None:
    # Four rows: 128 bytes, behind which the file ends.
    plan = runner.plan(models.onnx_float(tmp_path), {"x": normal(4, 8)}, "y")
    text = plan.text()
    found = re.sub(WRONG[kind][0], WRONG[kind][1], text, count=1, flags=re.MULTILINE)
    assert found != text
    assert runner(found.encode()).error


def test_the_same_plan_unchanged_is_not_refused(runner: Runner, tmp_path: Path) -> None:
    plan = runner.plan(models.onnx_float(tmp_path), {"x": normal(3, 8)}, "y")
    assert runner(plan.text().encode()).code == 0
    assert runner(plan.text().strip().encode()).code == 0  # the last line needs no end


@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b"\0", b"wb", b"\xff\xfe", b"wb 1", b"a" * 70000]
)
def test_what_is_no_plan_is_refused(content: bytes, runner: Runner) -> None:
    assert runner(content).error


def test_a_plan_that_is_not_there_is_refused(native: Runner, runner: Runner) -> None:
    import subprocess

    for arguments in ((), ("/nowhere/plan",), ("a", "b"), ("/",)):
        done = subprocess.run(
            [*runner.argv, *arguments], capture_output=True, timeout=60, check=False
        )
        assert Answer(done.returncode, done.stdout.decode(), "").error


def test_offsets_are_where_samples_begin(runner: Runner, tmp_path: Path) -> None:
    """Inputs behind one another, with what no plan speaks of between them."""
    a, b = normal(2, 3), normal(2, 3, seed=1)
    k = np.array([7, 8], np.int64)
    plan = runner.plan(models.onnx_of_many(tmp_path), {"a": a, "b": b, "k": k}, "sum", "next")
    parts = {"k": k, "b": b, "a": a}
    data, at = b"", {}
    for name, array in parts.items():
        data += b"\xff" * 24
        at[name] = len(data)
        data += array.tobytes()
    Path(plan.inputs).write_bytes(data)
    tensors = tuple((name, dtype, shape, at[name]) for name, dtype, shape, _ in plan.tensors)
    total, more = runner.outputs(replace(plan, tensors=tensors))
    np.testing.assert_allclose(total, a + b, rtol=1e-6)
    np.testing.assert_array_equal(more, k + 1)


def damaged(text: bytes, random: random.Random) -> bytes:
    """A plan cut short, or with bytes, words or lines changed."""
    kind = random.randrange(5)
    if kind == 0:
        return text[: random.randrange(len(text))]
    if kind == 1:
        return bytes(random.randrange(256) for _ in range(random.randrange(200)))
    if kind == 2:
        changed = bytearray(text)
        for _ in range(random.randrange(1, 6)):
            changed[random.randrange(len(changed))] = random.randrange(256)
        return bytes(changed)
    lines = text.splitlines(keepends=True)
    if kind == 3:
        random.shuffle(lines)
        return b"".join(lines)
    at = random.randrange(len(lines))
    words = lines[at].split()
    words[random.randrange(len(words))] = random.choice(
        [b"-1", b"0", b"18446744073709551615", b"9223372036854775807", b"4294967296", b"%", b"1e9"]
    )
    lines[at] = b" ".join(words) + b"\n"
    return b"".join(lines)


def test_damaged_plans_crash_nothing(native: Runner, tmp_path: Path) -> None:
    plan = native.plan(models.onnx_float(tmp_path), {"x": normal(3, 8)}, "y")
    seeded = random.Random(7)
    codes = set()
    for _ in range(60):
        answer = native(damaged(plan.text().encode(), seeded))
        assert answer.code in (0, 3, -14), answer  # an alarm of a second is a plan too
        codes.add(answer.code)
    assert 3 in codes
