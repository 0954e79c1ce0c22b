"""The formats table: what it says of a file is in the file."""

from __future__ import annotations

import pytest

from tests.report import decided, reports
from workbench.inspect import Tensor
from workbench.report import formats
from workbench.report.formats import Entry


def entries(report) -> tuple[Entry, ...]:
    return formats.entries(report.first, report.versions)


def entry(report, label: str) -> Entry:
    return next(one for one in entries(report) if one.label == label)


def test_every_artifact_has_an_entry_and_eager_has_none():
    report = decided.report()
    found = entries(report)
    assert [one.label for one in found] == [row.label for row in report.first.rows if row.path]
    int8 = entry(report, "INT8 ONNX")
    assert int8.size == "2.40 MB"
    assert int8.speed.startswith("4.00× [")
    assert entry(reports.without_data(), "INT8 ONNX").requires == ("not measured",)
    unmeasured = decided.with_row("ort.quantize", latency=None)
    assert entry(unmeasured, "INT8 ONNX").speed == "not measured"


@pytest.mark.parametrize(
    ("opset", "ir", "runs"),
    [
        (17, 8, "ONNX Runtime 1.12 or newer"),
        (17, 10, "ONNX Runtime 1.18 or newer"),  # an old opset in a new container
        (21, 8, "ONNX Runtime 1.18 or newer"),
        (12, 6, "ONNX Runtime 1.3 or newer"),
        (99, 8, "ONNX Runtime 1.23.0, which ran it here, or newer"),
        (17, 99, "ONNX Runtime 1.23.0, which ran it here, or newer"),
    ],
)
def test_the_least_onnx_runtime_is_that_of_the_opset_and_of_the_ir_version(opset, ir, runs):
    facts = decided.facts("onnx", {"Conv": 1}, opsets={"ai.onnx": opset})
    report = decided.with_checks("simplify", facts=facts, ir=ir)
    found = entry(report, "FP32 ONNX")
    assert found.portability.startswith(f"{runs} on Android")
    assert found.requires == (f"opset {opset}, IR {ir}",)


def test_onnx_runtimes_own_operators_have_no_opset_to_go_by():
    facts = decided.facts("onnx", {"Conv": 1, "com.microsoft:Attention": 6, "com.x:Own": 1})
    found = entry(decided.with_checks("simplify", facts=facts), "FP32 ONNX")
    assert "1.23.0, which ran it here" in found.portability
    assert "com.microsoft operators: Attention" in found.requires
    assert "com.x operators: Own" in found.requires


def test_what_a_tflite_file_needs_beyond_its_runtime():
    one = Tensor(name="image", dtype="int8", shape=(1, 224, 224, 3), quantization=(0.1, -1))
    out = Tensor(name="out", dtype="int8", shape=(1, 1000), quantization=(0.1, -1))
    facts = decided.facts(
        "tflite", {"CONV_2D": 3, "CUSTOM:FlexErf": 2, "CUSTOM:Mine": 1}, inputs=(one,),
        outputs=(out,),
    )  # fmt: skip
    found = entry(decided.with_checks("tflite.to_tflite", facts=facts), "INT8 TFLite")
    assert set(found.requires) == {
        "TensorFlow's operators (Flex): FlexErf", "custom operators: Mine", "quantized int8 input",
        "quantized int8 output", "one sample at a time: its batch is fixed to 1",
    }  # fmt: skip


def test_inputs_that_are_not_float_are_named_where_others_are():
    inputs = (
        Tensor(name="ids", dtype="int64", shape=(None, None)),
        Tensor(name="mask", dtype="int64", shape=(None, None)),
        Tensor(name="extra", dtype="float32", shape=(None, 3)),
    )
    facts = decided.facts("onnx", {"Gather": 1}, inputs=inputs)
    found = entry(decided.with_checks("simplify", facts=facts), "FP32 ONNX")
    assert "int64 inputs ids, mask" in found.requires
    assert "axes open beside the batch, which NNAPI and CoreML do not take" in found.requires


def test_ort_files_are_for_the_runtime_that_wrote_them_and_later_ones():
    found = entry(decided.report(), "INT8 ORT-mobile")
    assert found.portability.startswith("ONNX Runtime 1.23.0 or newer, full or mobile")
    assert "com.microsoft operators: QLinearConv" in found.requires
    assert "opset" not in " ".join(found.requires)


def test_torch_operators_of_a_script_are_in_every_build():
    facts = decided.facts("torchscript", {"aten::conv2d": 3, "prim::If": 1})
    report = decided.with_row("simplify", format="torchscript", checks=None)
    rows = tuple(
        decided.replace(r, checks=decided.checks("torchscript", {}, facts=facts))
        if r.key == "simplify" else r for r in report.first.rows
    )  # fmt: skip
    assert entry(reports.changed(report, rows=rows), "FP32 ONNX").requires == ()
