"""Sample reports with what the checklist and the formats table rest on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.report import reports
from workbench.artifact import Format
from workbench.inspect import Facts, Tensor
from workbench.measure.checks import Checks
from workbench.measure.robustness import Batching, Misuse, Robustness
from workbench.report.data import Report, Verified

REFUSED = tuple(
    Misuse(case=case, outcome="refused", said="InvalidArgument: no")
    for case in ("wrong shape", "wrong dtype", "missing input")
)
NAN = Misuse(case="NaN inputs", outcome="accepted", said="NaN came out")
SOUND = Robustness(
    batching=Batching(samples=3, difference=1e-7, sqnr=130.0), misuses=(*REFUSED, NAN)
)


def facts(form: str, operators: Mapping[str, int], **more: Any) -> Facts:
    open_batch = Tensor(name="image", dtype="float32", shape=(None, 3, 224, 224))
    output = Tensor(name="output", dtype="float32", shape=(None, 1000))
    values: dict[str, Any] = {
        "path": Path("model"), "format": Format(form), "bytes": 1, "sha256": "",
        "inputs": (open_batch,), "outputs": (output,),
        "opsets": {"ai.onnx": 17} if form in ("onnx", "ort") else {}, "operators": operators,
        "parameters": 1, "macs": 1, "precision": "float32", "takes": {},
    }  # fmt: skip
    return Facts(**values | more)


def checks(form: str, operators: Mapping[str, int], **more: Any) -> Checks:
    history = ("export opset=17", "simplify")
    values: dict[str, Any] = {
        "facts": facts(form, operators), "ir": 8 if form == "onnx" else 0, "nodes_before": 212,
        "robustness": SOUND, "history": history,
    }  # fmt: skip
    return Checks(**values | more)


OPERATORS = {
    "simplify": {"Conv": 90, "Relu": 8},
    "ort.quantize": {"Conv": 90, "QuantizeLinear": 60, "DequantizeLinear": 130},
    "ort.to_ort": {"com.microsoft:QLinearConv": 90, "Flatten": 1},
    "tflite-float32.to_tflite": {"CONV_2D": 90},
    "tflite.to_tflite": {"CONV_2D": 90, "QUANTIZE": 1, "DEQUANTIZE": 1},
}


def report(**changes: Any) -> Report:
    """`reports.normal` with checks of every artifact, samples and verified files."""
    normal = reports.normal()
    rows = tuple(
        replace(
            row,
            checks=checks(row.format, OPERATORS[row.key]),
            samples=(f"samples/{row.key} #1/main.cpp",),
        )
        if row.path
        else row
        for row in normal.first.rows
    )
    return reports.changed(normal, rows=rows, verified=Verified(files=7), **changes)


def with_checks(key: str, **changes: Any) -> Report:
    """That report with one artifact's checks changed."""
    found = report()
    rows = tuple(
        replace(row, checks=replace(row.checks, **changes)) if row.key == key else row
        for row in found.first.rows
    )
    return reports.changed(found, rows=rows)


def with_row(key: str, **changes: Any) -> Report:
    found = report()
    rows = tuple(replace(row, **changes) if row.key == key else row for row in found.first.rows)
    return reports.changed(found, rows=rows)
