from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import project
from tests.nets import run_onnx
from tests.run import report_form
from workbench.display import Quiet
from workbench.errors import DeviceError, InputError, ModelError
from workbench.measure.latency import PRESETS, Preset
from workbench.report.data import Report
from workbench.report.report_json import report_json
from workbench.run.files_profile import ProfileOptions, profile_files

pytestmark = pytest.mark.process


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes a file, for what is tested here is not how long things take."""
    short = Preset("quick", processes=2, warmup=0, runs=2, seconds=0.0)
    monkeypatch.setitem(PRESETS, "quick", short)


def measured(folder: Path, *names: str, data: str = "", out: Path | None = None,
             inputs: tuple[str, ...] = ()) -> Report:  # fmt: skip
    options = ProfileOptions(
        files=tuple(folder / name for name in names), data=str(folder / data) if data else None,
        inputs=inputs, preset="quick", out=out,
    )  # fmt: skip
    return profile_files(options, Quiet())


def test_every_file_is_measured_and_held_against_the_first(files: Path) -> None:
    report = measured(files, "conv.onnx", "nhwc.onnx", "broken.onnx", data="images.toml")
    assert [row.label for row in report.first.rows] == ["conv.onnx", "nhwc.onnx", "broken.onnx"]
    assert (report.first.onnx, report.first.reference, report.first.eager) == (
        "conv.onnx",
        "conv.onnx",
        "",
    )
    assert (report.first.samples, report.first.labelled) == (16, True)
    assert not report.first.failed
    for row in report.first.rows:
        figures = report.first.figures[row.key]
        assert row.latency is not None
        assert len(row.latency.processes) == 2
        assert figures.bytes == (files / row.label).stat().st_size
        assert figures.load_ms is not None
        assert figures.accuracy is not None
    nhwc, broken = report.first.figures["nhwc.onnx"], report.first.figures["broken.onnx"]
    assert nhwc.agreement == 100
    assert nhwc.sqnr is not None
    assert nhwc.sqnr > 100
    assert broken.sqnr is not None
    assert broken.sqnr < 20
    assert report.first.figures["conv.onnx"].than_onnx is None
    assert nhwc.than_onnx is not None


def test_the_form_of_the_report_stays(files: Path) -> None:
    report = measured(files, "conv.onnx", "magic.onnx", "nhwc.onnx", data="images.toml")
    report_form.check(json.loads(json.dumps(report_json(report))), "profile_of_files")


class Told(Quiet):
    """Keeps how each task ended."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}

    def done(self, task: str, state: str = "done") -> None:
        self.states[task] = state


def test_scores_are_kept_and_latency_is_measured_anew(files: Path) -> None:
    reports = []
    for _ in range(2):
        display = Told()
        reports.append(
            profile_files(
                ProfileOptions(
                    files=(files / "conv.onnx", files / "nhwc.onnx"),
                    data=str(files / "images.toml"), preset="quick",
                ),
                display,
            ).first
        )  # fmt: skip
    assert display.states["accuracy"] == "cached"
    assert display.states["latency"] == "done"
    first, second = reports
    for one, other in zip(first.rows, second.rows, strict=True):
        assert one.latency != other.latency
        for name in ("accuracy", "agreement", "sqnr"):
            figures = first.figures[one.key], second.figures[other.key]
            assert getattr(figures[0], name) == getattr(figures[1], name)


def test_accuracy_is_that_of_the_labels(files: Path) -> None:
    import numpy as np

    report = measured(files, "conv.onnx", data="images.toml")
    # The split is seeded: its evaluation samples are those that calibration left.
    from workbench import dataset

    split = dataset.load(str(files / "images.toml")).evaluation
    assert split is not None
    (batch,) = split.batches(16)
    (logits,) = run_onnx(files / "conv.onnx", next(iter(batch.inputs.values())))
    expected = 100 * float(np.mean(logits.argmax(1) == split.labels))
    assert report.first.figures["conv.onnx"].accuracy == pytest.approx(expected)


def test_without_data_each_file_runs_on_its_own_random_inputs(files: Path) -> None:
    report = measured(files, "conv.onnx", "outputs.onnx", "conv.pt", inputs=("image:1x3x32x32",))
    assert not report.first.failed
    assert all(row.latency is not None and row.scores is None for row in report.first.rows)
    assert (report.first.samples, report.first.dataset) == (0, "random inputs")


def test_a_file_that_does_not_run_is_an_error_row_and_the_next_the_baseline(files: Path) -> None:
    report = measured(files, "magic.onnx", "conv.onnx")
    magic, conv = report.first.rows
    assert isinstance(magic.error, DeviceError)
    assert conv.error is None
    assert conv.latency is not None
    assert report.first.onnx == "conv.onnx"


def test_wrong_words_are_refused_before_anything_is_measured(files: Path) -> None:
    with pytest.raises(ModelError, match="does not say what its input 'image' is"):
        measured(files, "conv.pt")
    with pytest.raises(InputError, match="no file has such an input"):
        measured(files, "difference.onnx", inputs=("third:1x6",))
    with pytest.raises(InputError, match="exclude each other"):
        measured(files, "conv.onnx", data="images.toml", inputs=("image:1x3x32x32",))


def test_a_report_is_written_where_it_is_asked_for_and_never_over_the_files(
    files: Path, tmp_path: Path
) -> None:
    from workbench.run.verification import verify_folder

    out = tmp_path / "report"
    report = measured(files, "conv.onnx", data="images.toml", out=out)
    assert {path.name for path in out.iterdir()} == {
        "report.html", "report.md", "report.json", "manifest.json"
    }  # fmt: skip
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["profiled"] == {str(files / "conv.onnx"): report.first.rows[0].sha256}
    verify_folder(out).require_whole()
    text = (out / "report.md").read_text()
    assert "conv.onnx" in text
    assert "eager" not in text
    measured(files, "conv.onnx", out=out)  # a report of its own is replaced
    (tmp_path / "own.onnx").write_bytes((files / "conv.onnx").read_bytes())
    for taken in (tmp_path, files):
        with pytest.raises(InputError):
            measured(files, "conv.onnx", out=taken)
    inside = out / "inside.onnx"
    inside.write_bytes((files / "conv.onnx").read_bytes())
    with pytest.raises(InputError, match="lies in"):
        measured(out, "inside.onnx", out=out)
    assert inside.is_file()


def test_the_command_prints_a_table_or_json_and_exits_with_3_where_a_file_failed(
    files: Path,
) -> None:
    done = project.wb(files, "profile", "conv.onnx", "magic.onnx", "--quick", "--json")
    assert done.returncode == 3, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    conv, magic = found["rows"]
    assert conv["figures"]["median"]["value"] > 0
    assert "my.own:Magic" in magic["error"]["why"]
    done = project.wb(files, "profile", "cut.onnx")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "cut.onnx" in done.stderr
    assert "Traceback" not in done.stderr
