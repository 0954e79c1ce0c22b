"""The same artifacts on several devices: a block for each, in every form of the report."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from tests.report import decided
from tests.report.reports import latency, normal
from workbench.errors import CrashError, DeviceError
from workbench.measure.accuracy import Scores
from workbench.measure.operator_times import operator_times
from workbench.report import html, markdown, table, words
from workbench.report.blocks import title
from workbench.report.data import Report
from workbench.report.report_json import report_json

HOST = {"device": "Acme Phone 3", "soc": "AC9000", "INT8": "s8s8", "cores": 8}


def near(db: float, agree: int = 500) -> Scores:
    place = np.arange(500)
    return Scores(None, None, place < agree, np.ones(500), np.full(500, 10 ** (-db / 10)))


def phone(**changes) -> Report:
    """The normal report as a phone gave it: no PyTorch there, twice as slow, outputs alike."""
    rows = tuple(
        replace(
            row,
            latency=None if row.key == "eager" else latency(8.0, seed=9),
            fidelity=None if row.key == "eager" else near(40.0),
        )
        for row in normal().first.rows
    )
    known = {"device": "phone", "away": True, "rows": rows, "host": HOST, "samples": 64}
    return normal(**{**known, **changes})


def both(**changes) -> Report:
    """This machine, then the phone."""
    return normal(blocks=(*normal().blocks, *phone(**changes).blocks))


def printed(report: Report, width: int = 200) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    table.show(report, console)
    return console.export_text()


def test_each_device_has_its_rows_and_its_own_baseline():
    report = both()
    text = printed(report)
    lines = [line.strip() for line in text.splitlines()]
    assert lines.count("cpu") == 2  # in the table of speed, and in that of accuracy
    assert lines.count("phone") == 2
    assert sum(line.startswith("INT8 TFLite") for line in lines) == 4
    assert "phone · Acme Phone 3 · AC9000 · 1 thread · INT8 as s8s8 · 64 samples" in text
    here, there = (block.figures for block in report.blocks)
    assert here["tflite.to_tflite"].than_onnx.value == pytest.approx(3.0, rel=0.01)
    assert there["tflite.to_tflite"].than_onnx.value == pytest.approx(1.0, rel=0.01)
    assert there["tflite.to_tflite"].than_eager is None


def test_one_device_elsewhere_is_named_too():
    text = printed(phone())
    assert "as on this machine" in text
    assert "100.00 %, 40.0 dB" in text
    assert "Acme Phone 3" in text


def test_times_of_an_emulator_are_compared_with_nothing():
    report = phone(emulated=True)
    assert all(
        one.than_onnx is None and one.than_eager is None for one in report.first.figures.values()
    )
    text = printed(report)
    assert "its times say nothing of the hardware" in text
    assert "EMULATED" in text
    assert "faster" not in " ".join(report.first.findings)
    assert phone().first.figures["ort.quantize"].than_onnx is not None


def test_outputs_unlike_this_machines_are_a_finding():
    rows = [replace(row, fidelity=near(8.0, 430)) if row.key == "ort.quantize" else row
            for row in phone().first.rows]  # fmt: skip
    (said,) = [one for one in phone(rows=tuple(rows)).first.findings if "does not give" in one]
    assert said == "INT8 ONNX: phone does not give this machine's outputs: 86.00 %, 8.0 dB."
    assert not [one for one in phone().first.findings if "does not give" in one]


def test_a_lost_device_is_said_and_the_other_stands():
    lost = DeviceError("phone is offline", "adb says so", "reconnect it")
    report = both(error=lost, rows=tuple(replace(r, latency=None) for r in phone().first.rows))
    assert report.exit_code == 5
    text = printed(report)
    assert "phone is offline" in text
    assert "reconnect it" in text
    assert report.first.figures["tflite.to_tflite"].median is not None
    assert "phone failed: phone is offline." in report.blocks[1].findings
    assert "reconnect it" in markdown.render(report)
    assert "reconnect it" in html.render(report)


def test_an_artifact_that_crashed_there_ends_with_the_devices_exit_code():
    rows = tuple(
        replace(row, latency=None, error=CrashError("the native runner died", "SIGILL"))
        if row.key == "ort.to_ort" else row for row in phone().first.rows
    )  # fmt: skip
    assert both(rows=rows).exit_code == 5
    assert normal().exit_code == 0
    failed = replace(normal().first.rows[3], error=DeviceError("it does not load"))
    assert normal(rows=(*normal().first.rows[:3], failed)).exit_code == 3


def test_every_form_of_the_report_has_every_device():
    report = both(notes=("before the measurement: 31 °C",))
    data = json.loads(json.dumps(report_json(report)))
    assert [one["device"] for one in data["devices"]] == ["phone"]
    assert data["devices"][0]["rows"][2]["figures"]["like_host_sqnr"] == pytest.approx(40.0)
    text = markdown.render(report)
    assert "## On phone · Acme Phone 3" in text
    assert text.count("| INT8 TFLite |") == 2
    assert "31 °C" in text
    page = html.render(report)
    assert "On phone" in page
    assert page.count('<th scope="row">INT8 TFLite') >= 2
    assert "31 °C" in page


def test_a_block_beside_the_first_leaves_the_files_to_it():
    whole = decided.report()
    first, beside = whole.first, replace(whole.first, device="phone")
    data = report_json(replace(whole, blocks=(first, beside)))
    assert data["rows"][1]["samples"]
    assert data["checklist"][0]["verdict"] == "yes"
    (device,) = data["devices"]
    assert all(not row["samples"] for row in device["rows"])
    assert device["checklist"][0]["verdict"] == "not measured"
    assert device["checklist"][-1]["evidence"] == "nothing was read back"


def test_operators_are_summed_over_their_nodes_for_one_run():
    events = [
        {"cat": "Session", "name": "model_run", "dur": 100},
        {"cat": "Session", "name": "model_run", "dur": 100},
        *[{"cat": "Node", "name": f"{name}_kernel_time", "dur": 500, "args": {"op_name": name}}
          for name in ("Conv", "Conv", "Add")],
        {"cat": "Node", "name": "Conv_fence_before", "dur": 9, "args": {"op_name": "Conv"}},
    ]  # fmt: skip
    times = operator_times(json.dumps(events))
    assert times == {"Conv": 0.5, "Add": 0.25}
    assert words.operators(times) == "Conv 0.500 ms (67 %), Add 0.250 ms (33 %)"
    assert operator_times("") == operator_times("{") == operator_times('{"a": 1}') == {}


def test_a_title_says_each_thing_once():
    block = phone(host={"device": "phone"}, samples=0, threads=2).first
    assert title(block) == "phone · 2 threads"
