"""LiteRT's benchmark_model: its output as `tflite/tools/benchmark` prints it, and a stand-in."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.device.benchmark_model import parsed
from workbench.errors import DeviceError

# The lines of benchmark_tflite_model.cc and benchmark_model.cc, with figures of our own.
SAID = """\
INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Loaded model /data/local/tmp/model.tflite
INFO: The input model file size (MB): 3.45
INFO: Initialized session in 5.685ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds
INFO: count=34 first=18535 curr=14003 min=13779 max=18535 avg=14462.3 std=821 p5=13800 median=14100 p95=16000
INFO: Running benchmark for at least 50 iterations and at least 1 seconds
INFO: count=68 first=14512 curr=14476 min=13917 max=15877 avg=14575.2 std=300 p5=14000 median=14501 p95=15000
INFO: Inference timings in us: Init: 5685, First inference: 18535, Warmup (avg): 14462.3, Inference (avg): 14575.2
INFO: Memory footprint delta from the start of the tool (MB): init=4.5 overall=9.25
"""  # noqa: E501


def test_the_median_of_the_inferences_is_read():
    ran = parsed(SAID)
    assert (ran.load_ns, ran.first_ns, ran.samples_ns) == (5_685_000, 18_535_000, (14_501_000,))
    assert ran.peak_bytes == 9_250_000
    assert ran.summary


def test_equal_times_are_printed_as_one():
    same = SAID.replace(
        "count=68 first=14512 curr=14476 min=13917 max=15877 avg=14575.2 std=300 p5=14000 "
        "median=14501 p95=15000", "count=68 curr=12(all same)",
    )  # fmt: skip
    assert parsed(same).samples_ns == (12_000,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "did not print its times"),
        ("ERROR: Failed to load the model", "Failed to load the model"),
        (SAID.replace("median=", "middle="), "no median"),
        (SAID.replace("Init: 5685", "Init: 0"), "cannot be true"),
        (SAID.replace("Inference timings", "Other"), "did not print"),
    ],
)
def test_what_is_not_there_is_said(text, message):
    with pytest.raises(DeviceError) as caught:
        parsed(text.replace("Init: 5685, First", "Init: , First") if "Other" in text else text)
    assert message in str(caught.value)


@given(st.text())
def test_any_text_is_times_or_an_error(text):
    with pytest.raises(DeviceError):
        parsed(text)


def tool(folder: Path) -> Path:
    """A stand-in for the tool: runs the file in this machine's LiteRT, prints what it prints."""
    path = folder / "benchmark_model"
    path.write_text(
        f"""#!/usr/bin/env python3
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.device.test_benchmark_model import stand_in
stand_in(sys.argv[1:])
"""
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def stand_in(arguments: list[str]) -> None:
    given = dict(one.removeprefix("--").split("=", 1) for one in arguments)
    from ai_edge_litert.interpreter import Interpreter

    model = Interpreter(given["graph"], num_threads=int(given["num_threads"]))
    model.allocate_tensors()
    inputs = {one["name"]: one for one in model.get_input_details()}
    for value in given["input_layer_value_files"].split(","):
        name, _, path = value.rpartition(":")
        detail = inputs[name]
        data = np.fromfile(path, detail["dtype"]).reshape(detail["shape"])
        model.set_tensor(detail["index"], data)
    model.invoke()
    if "output_filepath" in given:
        with Path(given["output_filepath"]).open("wb") as file:
            for one in model.get_output_details():
                file.write(model.get_tensor(one["index"]).tobytes())
    print(SAID)
