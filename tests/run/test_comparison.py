from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from tests import project
from tests.nets import run_onnx
from tests.run import report_form
from workbench.artifact import TensorSpec
from workbench.cli.compare import print_comparison
from workbench.dataset.core import random_inputs
from workbench.display import Quiet
from workbench.errors import ModelError
from workbench.measure.latency import PRESETS, Preset
from workbench.run.comparison import CompareOptions, Comparison, compare_files
from workbench.run.subjects import RANDOM, SEED

pytestmark = pytest.mark.process


def compared(folder: Path, one: str, other: str, data: str = "", preset: str = "none",
             inputs: tuple[str, ...] = ()) -> Comparison:  # fmt: skip
    options = CompareOptions(
        reference=folder / one, candidate=folder / other, inputs=inputs, preset=preset,
        data=str(folder / data) if data else None,
    )  # fmt: skip
    return compare_files(options, Quiet())


def test_a_file_and_itself_differ_in_nothing(files: Path) -> None:
    found = compared(files, "conv.onnx", "conv.onnx")
    assert [row.label for row in found.report.first.rows] == ["conv.onnx", "conv.onnx (2)"]
    (output,) = found.outputs
    assert (output.largest, output.sqnr) == (0, math.inf)
    assert found.mapping == ()
    assert found.layers is not None
    assert found.layers.first is None
    assert found.report.first.figures["conv.onnx (2)"].agreement == 100


def test_the_layer_that_was_changed_is_found(files: Path) -> None:
    found = compared(files, "conv.onnx", "broken.onnx", "images.toml")
    assert found.layers is not None
    assert found.layers.first is not None
    assert found.layers.first.node == (files / "broken.txt").read_text()
    assert found.layers.worst(1)[0] == found.layers.first
    assert found.report.first.figures["broken.onnx"].delta is not None
    assert found.report.first.samples == 16


def test_the_figures_of_the_outputs_are_those_of_the_files(files: Path) -> None:
    spec = TensorSpec(name="image", dtype="float32", shape=(None, 3, 32, 32))
    image = random_inputs((spec,), RANDOM, SEED)["image"]
    (one,) = run_onnx(files / "conv.onnx", image)
    (other,) = run_onnx(files / "broken.onnx", image)
    (found,) = compared(files, "conv.onnx", "broken.onnx").outputs
    left, right = one.astype(float).ravel(), other.astype(float).ravel()
    assert found.name == "logits"
    assert found.largest == pytest.approx(np.abs(left - right).max(), rel=1e-4)
    assert found.cosine == pytest.approx(
        left @ right / np.linalg.norm(left) / np.linalg.norm(right), rel=1e-6
    )


def test_files_of_other_formats_orders_and_layouts_are_aligned(files: Path) -> None:
    found = compared(files, "outputs.onnx", "reordered.pt")
    assert found.mapping == (
        "reordered.pt: output 'scores' is 'output_1'",
        "reordered.pt: output 'embedding' is 'output_0'",
    )
    assert [one.name for one in found.outputs] == ["scores", "embedding"]
    assert all(one.sqnr is not None and one.sqnr > 100 for one in found.outputs)
    assert found.layers is None
    assert "reordered.pt is no ONNX file" in found.why
    turned = compared(files, "nhwc.onnx", "conv.onnx")
    assert turned.mapping == (
        "conv.onnx: input 'pixels' is 'image' with its last axis as axis 1 (NHWC as NCHW)",
    )
    assert turned.outputs[0].largest < 1e-5
    assert turned.layers is not None  # the names inside are the same
    assert turned.layers.first is None


def test_outputs_in_a_dict_are_found_by_running(files: Path) -> None:
    found = compared(files, "outputs.onnx", "dict.pt")
    assert [one.name for one in found.outputs] == ["scores", "embedding"]
    assert found.alone == ()
    other_way = compared(files, "dict.pt", "outputs.onnx", inputs=("x:1x8",))
    assert [one.name for one in other_way.outputs] == ["output_0", "output_1"]
    assert all(one.largest < 1e-5 for one in other_way.outputs)


def test_random_inputs_tell_which_input_is_which(files: Path) -> None:
    found = compared(files, "difference.onnx", "renamed.onnx")
    assert found.mapping == (
        "renamed.onnx: input 'second' is 'u'", "renamed.onnx: input 'first' is 'v'"
    )  # fmt: skip
    assert found.outputs[0].largest == 0


def test_an_output_of_one_file_alone_is_named(files: Path, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(files / "outputs.onnx")
    del model.graph.output[0]
    onnx.save(model, tmp_path / "fewer.onnx")
    (tmp_path / "outputs.onnx").write_bytes((files / "outputs.onnx").read_bytes())
    found = compared(tmp_path, "outputs.onnx", "fewer.onnx")
    assert found.alone == ("scores",)
    assert [one.name for one in found.outputs] == ["embedding"]
    assert found.outputs[0].largest == 0


def test_an_ort_file_has_no_layers_to_compare_and_says_so(files: Path, tmp_path: Path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "conv.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(
        str(files / "conv.onnx"), options, providers=["CPUExecutionProvider"]
    )
    (tmp_path / "conv.onnx").write_bytes((files / "conv.onnx").read_bytes())
    found = compared(tmp_path, "conv.onnx", "conv.ort")
    assert found.outputs[0].largest < 1e-5
    assert found.layers is None
    assert "conv.ort is an .ort file" in found.why


def test_files_that_have_nothing_in_common_are_refused(files: Path) -> None:
    with pytest.raises(ModelError, match="does not take"):
        compared(files, "conv.onnx", "outputs.onnx")


def test_a_file_that_does_not_run_is_an_error_row(files: Path) -> None:
    found = compared(files, "conv.onnx", "magic.onnx")
    assert [row.error is None for row in found.report.first.rows] == [True, False]
    assert found.outputs == ()
    assert found.why == "magic.onnx does not run"


def test_the_command_gives_latency_with_its_ratio_and_exits_with_0_though_files_differ(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short = Preset("quick", processes=2, warmup=0, runs=2, seconds=0.0)
    monkeypatch.setitem(PRESETS, "quick", short)
    found = compared(files, "conv.onnx", "broken.onnx", preset="quick")
    ratio = found.report.first.figures["broken.onnx"].than_onnx
    assert ratio is not None
    assert ratio.low <= ratio.value <= ratio.high
    print_comparison(found, as_json=True)
    read = json.loads(capsys.readouterr().out)
    report_form.check(read, "comparison")
    assert read["outputs"][0]["name"] == "logits"
    assert read["layers"]["first_below_threshold"] == found.layers.first.tensor  # type: ignore[union-attr]
    assert read["report"]["rows"][1]["figures"]["than_onnx"]["value"] == ratio.value
    done = project.wb(files, "compare", "conv.onnx", "broken.onnx", "--no-latency")
    assert done.returncode == 0, done.stderr
    assert f"first below 40 dB: Conv {(files / 'broken.txt').read_text()}" in done.stdout
    done = project.wb(files, "compare", "conv.onnx", "magic.onnx", "--no-latency")
    assert done.returncode == 3
    done = project.wb(files, "compare", "conv.onnx", "random.tflite")
    assert (done.returncode, done.stdout) == (2, "")


def test_a_difference_of_classes_is_told_by_agreement(files: Path, tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(files / "conv.onnx")
    model.graph.node.append(helper.make_node("ArgMax", ["logits"], ["c"], axis=1, keepdims=0))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("c", TensorProto.INT64, ["n"]))
    onnx.save(model, tmp_path / "argmax.onnx")
    (tmp_path / "conv.onnx").write_bytes((files / "conv.onnx").read_bytes())
    found = compared(tmp_path, "conv.onnx", "argmax.onnx")
    assert found.head == "argmax"
    assert found.report.first.figures["argmax.onnx"].agreement == 100
    assert found.outputs[0].sqnr is None
