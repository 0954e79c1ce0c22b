"""The jobs apart from TensorFlow and onnx2tf, whose places fakes take; test_to_tflite has both."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import nets
from workbench.errors import StepError
from workbench.steps import tensorflow_jobs as jobs
from workbench.steps.to_tflite import SAMPLES, ToTflite


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for an ONNX file; the job's changes to the process are taken back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    path = tmp_path / "making" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(b"onnx")
    return path


def convert_with(monkeypatch: pytest.MonkeyPatch, convert: Callable[..., None]) -> None:
    fake = types.ModuleType("onnx2tf")
    fake.convert = convert  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "onnx2tf", fake)


def test_onnx2tf_finds_its_sample_and_its_tool_and_leaves_only_the_saved_model(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def convert(**options: Any) -> None:
        seen.update(options)
        sample = np.load(Path.cwd() / "calibration_image_sample_data_20x128x128x3_float32.npy")
        assert (sample.shape, sample.dtype) == ((20, 128, 128, 3), np.float32)
        assert os.environ["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
        folder = Path(options["output_folder_path"])
        (folder / "assets").mkdir(parents=True)
        (folder / "saved_model.pb").write_bytes(b"graph")
        (folder / "model_float32.tflite").write_bytes(b"not asked for")

    convert_with(monkeypatch, convert)
    folder = source.parent / "saved_model"
    jobs.make_saved_model(source, folder, ["apple"])
    assert [path.name for path in folder.iterdir()] == ["saved_model.pb"]
    assert seen["batch_size"] == 1
    assert seen["keep_shape_absolutely_input_names"] == ["apple"]


@pytest.mark.parametrize("error", [SystemExit(1), ValueError("no\nsuch thing"), RecursionError()])
def test_whatever_onnx2tf_raises_is_an_error_of_the_step(
    error: BaseException, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert(**options: Any) -> None:
        raise error

    convert_with(monkeypatch, convert)
    with pytest.raises(StepError, match="onnx2tf cannot convert the model") as caught:
        jobs.make_saved_model(source, source.parent / "saved_model", [])
    assert type(error).__name__ in caught.value.why
    assert "\n" not in caught.value.why


def test_a_conversion_that_returns_without_a_model_is_no_success(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert_with(monkeypatch, lambda **options: None)
    with pytest.raises(StepError, match="wrote no SavedModel"):
        jobs.make_saved_model(source, source.parent / "saved_model", [])


def test_the_operator_and_its_node_are_read_from_the_trace(tmp_path: Path) -> None:
    code = "def make_node(graph_node):\n    raise TypeError('bad gate\\nmore')\n"
    space: dict[str, Any] = {}
    exec(compile(code, "/site-packages/onnx2tf/ops/LSTM.py", "exec"), space)
    try:
        space["make_node"](types.SimpleNamespace(name="/lstm/LSTM"))
    except TypeError as error:
        said = jobs._reason(error)
    assert said == "operator LSTM (/lstm/LSTM): TypeError: bad gate"


def written(folder: Path, **arrays: np.ndarray) -> Path:
    """Samples as ToTflite leaves them for the job that calibrates."""
    data = nets.dataset_of(**arrays)
    specs = tuple(data.inputs)
    subject = types.SimpleNamespace(inputs=specs)
    count = ToTflite()._write_samples(subject, nets.context(folder, data))  # type: ignore[arg-type]
    assert count == len(next(iter(arrays.values())))
    return folder / SAMPLES


def test_samples_come_one_by_one_with_images_as_nhwc(tmp_path: Path) -> None:
    image = nets.normal(11, 3, 5, 7)
    folder = written(tmp_path, image=image)
    found = list(jobs._representative(["whatever"], folder))
    assert len(found) == 11
    assert found[0]["whatever"].shape == (1, 5, 7, 3)
    np.testing.assert_array_equal(
        np.concatenate([one["whatever"] for one in found]), image.transpose(0, 2, 3, 1)
    )


@pytest.mark.parametrize(
    ("names", "stored"),
    [
        (("zebra", "apple"), ("zebra", "apple")),
        (("Input.1", "a/b"), ("Input.1", "a_b")),
        (("0", "input.2"), ("0", "input.2")),
        # tf2onnx's names; onnx2tf writes the colon as two underscores
        (("left:0", "right:0"), ("left__0", "right__0")),
        (("left:0", "left:1"), ("left__0", "left__1")),
    ],
)
def test_several_inputs_get_each_its_own_samples(
    names: tuple[str, str], stored: tuple[str, str], tmp_path: Path
) -> None:
    one, other = nets.normal(3, 4), nets.normal(3, 2, 8, 9)
    folder = written(tmp_path, **{names[0]: one, names[1]: other})
    # The SavedModel's signature is in the alphabet's order.
    found = list(jobs._representative(sorted(stored), folder))
    np.testing.assert_array_equal(np.concatenate([f[stored[0]] for f in found]), one)
    np.testing.assert_array_equal(
        np.concatenate([f[stored[1]] for f in found]), other.transpose(0, 2, 3, 1)
    )
