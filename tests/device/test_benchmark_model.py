"""LiteRT's benchmark_model: its output as `tflite/tools/benchmark` prints it, and a stand-in."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.device import fakes
from tests.device.native import models
from workbench.artifact import digest
from workbench.device.benchmark_model import operators, parse_times
from workbench.device.profile import Library
from workbench.errors import DeviceError, ProfileError
from workbench.inspect import artifacts, read
from workbench.measure.device_run import Assignment
from workbench.measure.operator_times import operator_times
from workbench.measure.remote import measure

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
    ran = parse_times(SAID)
    assert (ran.load_ns, ran.first_ns, ran.samples_ns) == (5_685_000, 18_535_000, (14_501_000,))
    assert ran.peak_bytes == 9_250_000
    assert ran.summary


def test_equal_times_are_printed_as_one():
    same = SAID.replace(
        "count=68 first=14512 curr=14476 min=13917 max=15877 avg=14575.2 std=300 p5=14000 "
        "median=14501 p95=15000", "count=68 curr=12(all same)",
    )  # fmt: skip
    assert parse_times(same).samples_ns == (12_000,)


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
        parse_times(text.replace("Init: 5685, First", "Init: , First") if "Other" in text else text)
    assert message in str(caught.value)


@given(st.text())
def test_any_text_is_times_or_an_error(text):
    with pytest.raises(DeviceError):
        parse_times(text)


HEADINGS = "\t[node type]\t[first]\t[avg ms]\t[%]\t[cdf%]\t[mem KB]\t[times called]\t[Name]\n"
PROFILE = f"""\
Profiling Info for Benchmark Initialization:
============================== Run Order ==============================
{HEADINGS}\t  AllocateTensors\t   0.5\t   0.5\t100.000%\t100.000%\t 0.000\t  1\tAllocateTensors/0

Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
{HEADINGS}\t    TfLiteXNNPackDelegate\t   2.1\t   2.0\t 80.000%\t 80.000%\t 0.000\t  1\t[y]:1
\t                  SOFTMAX\t   0.6\t   0.5\t 20.000%\t100.000%\t 0.000\t  1\t[z]:2

============================== Top by Computation Time ==============================
{HEADINGS}\t    TfLiteXNNPackDelegate\t   2.1\t   2.0\t 80.000%\t 80.000%\t 0.000\t  1\t[y]:1
"""
INSIDE = f"""\
Delegate internal:
============================== Run Order ==============================
{HEADINGS}\t   Delegate/Convolution (NHWC, F32) IGEMM\t  2.0\t  1.9\t100.0%\t100.0%\t 0.0\t  1\tD:0

"""


def test_operators_are_those_of_the_regular_runs_and_inside_a_delegate():
    assert operators(PROFILE) == [
        {"op": "TfLiteXNNPackDelegate", "ms": 2.0}, {"op": "SOFTMAX", "ms": 0.5}
    ]  # fmt: skip
    assert operators(PROFILE + INSIDE) == [
        {"op": "SOFTMAX", "ms": 0.5}, {"op": "Convolution (NHWC, F32) IGEMM", "ms": 1.9}
    ]  # fmt: skip
    # Before 2023 a column more, of when it began.
    older = PROFILE.replace("\t[first]", "\t[start]\t[first]").replace("\t   0.6", "\t 2.1\t 0.6")
    assert operators(older)[1] == {"op": "SOFTMAX", "ms": 0.5}


@pytest.mark.parametrize("text", ["", SAID, PROFILE.partition("Regular")[0].replace("\t", " ")])
def test_a_tool_that_tells_no_operators_is_an_error(text):
    with pytest.raises(DeviceError, match="time of operators"):
        operators(text)


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
    print(SAID + (PROFILE if "enable_op_profiling" in given else ""))


@pytest.mark.process
def test_a_profile_names_the_tool_by_path_and_digest(tmp_path):
    """Times, outputs and operators through a connection, as `wb profile` takes them."""
    inner = models.tflite(tmp_path)
    program = tool(tmp_path)
    library = Library(path=str(program), pushed=True, sha256=digest(program))
    device = fakes.device(
        tmp_path, runner="benchmark_model", libraries={"benchmark_model": library}
    )
    x = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    artifact = artifacts.open_artifact(inner)
    (name,) = [one.name for one in artifact.inputs]
    wanted = Assignment(
        targets={"net": artifact}, facts={"net": read(inner)}, timed={"net": {name: x[:1]}},
        samples={"net": {name: x}}, preset=fakes.BRIEF, operators=True,
    )  # fmt: skip
    found = fakes.found(device)
    measure(fakes.Far(), found, wanted, fakes.Recorder().watch())
    assert not found.failed
    assert [one["net"].samples_ns for one in found.rounds] == [(14_501_000,)] * 3
    assert found.latencies()["net"].p90 is None
    (made,) = found.outputs["net"]
    np.testing.assert_allclose(made, np.maximum(x @ models.WEIGHTS + 1, 0), rtol=1e-4, atol=1e-5)
    assert operator_times(found.operators["net"])["SOFTMAX"] == 0.5
    program.write_text(program.read_text() + "# another\n")
    with pytest.raises(ProfileError, match="not the file that the profile names"):
        measure(fakes.Far(), fakes.found(device), wanted, fakes.Recorder().watch())
