from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from workbench import dataset as datasets
from workbench.device import profile
from workbench.errors import DeviceError, ModelError
from workbench.run.subjects import Subject, fit_files, labels, open_files
from workbench.worker_pool import Pool

pytestmark = pytest.mark.process


def fit(folder: Path, data: str, *names: str) -> list[Subject]:
    with closing(Pool()) as pool:
        return fit_files(
            open_files([folder / name for name in names]),
            datasets.load(str(folder / data)), profile.load("cpu"), pool,
        )  # fmt: skip


def test_labels_are_as_short_as_tells_files_apart() -> None:
    assert labels([Path("a/x.onnx"), Path("b/y.onnx")]) == ["x.onnx", "y.onnx"]
    assert labels([Path("a/x.onnx"), Path("b/x.onnx"), Path("b/y.onnx")]) == [
        "a/x.onnx", "b/x.onnx", "y.onnx"
    ]  # fmt: skip
    # One path may end as another: its folders go on until they differ.
    assert len(set(labels([Path("/m/a/x.onnx"), Path("/n/a/x.onnx"), Path("/a/x.onnx")]))) == 3
    assert labels([Path("x.onnx"), Path("x.onnx"), Path("./x.onnx")]) == [
        "x.onnx", "x.onnx (2)", "x.onnx (3)"
    ]  # fmt: skip


def test_a_file_in_another_layout_is_fitted_by_its_shape(files: Path) -> None:
    one, other = fit(files, "images.toml", "conv.onnx", "nhwc.onnx")
    assert one.error is None
    assert other.error is None
    assert one.artifact.inputs[0].permutation == ()
    assert other.artifact.inputs[0].permutation == (0, 2, 3, 1)
    assert other.mapping == ("input 'input' is 'pixels' with its axis 1 last (NCHW as NHWC)",)


def test_what_one_file_leaves_open_another_tells_whichever_comes_first(files: Path) -> None:
    for names in (("difference.onnx", "renamed.onnx"), ("renamed.onnx", "difference.onnx")):
        found = {one.label: one for one in fit(files, "pair.toml", *names)}
        assert found["renamed.onnx"].error is None
        assert [one.name for one in found["renamed.onnx"].artifact.inputs] == ["second", "first"]
    one, other = fit(files, "odd.toml", "difference.onnx", "renamed.onnx")
    assert isinstance(one.error, ModelError)
    assert isinstance(other.error, ModelError)


def test_a_file_that_does_not_run_or_fit_has_the_error_and_others_stand(files: Path) -> None:
    found = fit(files, "images.toml", "magic.onnx", "conv.onnx", "outputs.onnx", "conv.pt")
    magic, conv, outputs, traced = found
    assert isinstance(magic.error, DeviceError)
    assert "my.own:Magic" in magic.error.why
    assert conv.error is None
    assert isinstance(outputs.error, ModelError)
    assert traced.error is None
    assert traced.artifact.outputs[0].name == "logits"


def test_files_that_cannot_be_read_are_refused(files: Path) -> None:
    for name in ("cut.onnx", "random.tflite", "absent.onnx"):
        with pytest.raises(ModelError, match=name):
            open_files([files / "conv.onnx", files / name])
