"""The command line: what users type, what they get back, and the exit codes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from tests import commandline, project
from workbench import __version__
from workbench.cli.app import main


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WB_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    return project.make(tmp_path_factory.mktemp("own") / "project")


def call(monkeypatch, capsys, *words: str) -> tuple[int, str, str]:
    """`wb` in this process: its exit code and what it printed."""
    monkeypatch.setattr(sys, "argv", ["wb", *words])
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_version_and_help(here, monkeypatch, capsys):
    assert call(monkeypatch, capsys, "--version") == (0, f"wb {__version__}\n", "")
    code, out, _ = call(monkeypatch, capsys, "--help")
    assert code == 0
    assert all(word in out for word in ("recipe", "recipes", "show", "new", "cache"))


def test_without_words_it_prints_help(here, monkeypatch, capsys):
    code, out, err = call(monkeypatch, capsys)
    assert (code, err) == (0, "")
    assert out.startswith("Usage: wb")


def test_recipes_are_listed_with_their_first_line(here, monkeypatch, capsys):
    code, out, _ = call(monkeypatch, capsys, "recipes")
    assert code == 0
    assert re.search(r"^mobile-int8 +INT8 for phones", out, re.MULTILINE)


def test_show_prints_the_resolved_plan(here, monkeypatch, capsys):
    code, out, _ = call(monkeypatch, capsys, "show", "mobile-int8", "--set", "quantize.preset=fast")
    assert code == 0
    line = next(line for line in out.splitlines() if "ort.quantize" in line)
    assert "preset=fast" in line
    assert "tflite.to_tflite" in out


def test_new_copies_a_recipe_that_then_is_listed_and_found_first(here, monkeypatch, capsys):
    code, _, _ = call(monkeypatch, capsys, "new", "my-int8")
    assert code == 0
    assert (here / "recipes" / "my_int8.py").read_text().startswith('"""INT8 for phones')
    assert "my-int8" in call(monkeypatch, capsys, "recipes")[1]
    code, _, err = call(monkeypatch, capsys, "new", "my-int8")
    assert code == 2
    assert "exists already" in err
    assert call(monkeypatch, capsys, "new", "../evil")[0] == 2


def test_dry_run_prints_the_plan_and_writes_nothing(here, monkeypatch, capsys):
    code, out, _ = call(monkeypatch, capsys, "recipe", "mobile-int8", "--dry-run")
    assert code == 0
    assert "workbench.digits.model:build" in out
    assert "digits.toml" in out
    assert not (here / "runs").exists()


def test_the_cache_says_its_size_and_can_be_cleared(here, monkeypatch, capsys):
    entry = here / "cache" / "entries" / "x"
    entry.mkdir(parents=True)
    (entry / "file").write_bytes(bytes(2_000_000))
    assert "2.0 MB" in call(monkeypatch, capsys, "cache")[1]
    assert "0.0 MB" in call(monkeypatch, capsys, "cache", "--clear")[1]


WRONG = {
    "an unknown command": (["recipee"], "No such command"),
    "an unknown recipe": (["recipe", "mobile-int9"], "did you mean 'mobile-int8'?"),
    "an unknown step": (["recipe", "mobile-int8", "--set", "quantise.samples=1"], "'quantize'?"),
    "an unknown option": (
        ["recipe", "mobile-int8", "--set", "quantize.preste=fast"], "'preset'?",
    ),
    "a wrong value": (
        ["recipe", "mobile-int8", "--set", "export.opset=12"], "13 to 21",
    ),
    "a step in two places": (
        ["recipe", "mobile-int8", "--set", "to_tflite.precision=int8"], "tflite-float32.to_tflite",
    ),
    "a model without data": (["recipe", "mobile-int8", "--model", "x.py:build"], "--data"),
    "weights without a model": (["recipe", "mobile-int8", "--weights", "x.pt"], "--model"),
    "weights as a model": (["recipe", "mobile-int8", "--model", "x.pt", "--data", "digits"],
                           "factory"),
    "an unknown dataset": (["recipe", "mobile-int8", "--data", "digit"], "'digits'?"),
    "an unknown device": (["recipe", "mobile-int8", "--device", "gpu"], "cpu"),
    "two presets": (["recipe", "mobile-int8", "--quick", "--strict"], "exclude"),
    "a wrong input": (["recipe", "mobile-int8", "--model", "a:b", "--input", "x"], "name:1x3"),
    "data and input": (["recipe", "mobile-int8", "--data", "digits", "--input", "x:1"], "exclude"),
    "an unknown flag": (["recipe", "mobile-int8", "--fast"], "No such option"),
}  # fmt: skip


@pytest.mark.parametrize("words, said", WRONG.values(), ids=WRONG)
def test_wrong_words_are_said_so(here, monkeypatch, capsys, words, said):
    code, _, err = call(monkeypatch, capsys, *words)
    assert code == 2
    assert err.startswith("error: ")
    assert said in err
    assert not (here / "runs").exists()


def test_steps_in_a_wrong_order_are_refused(here, monkeypatch, capsys):
    (here / "recipes").mkdir()
    (here / "recipes" / "wrong.py").write_text(
        "from workbench.recipe import Recipe\n"
        "from workbench.steps import Export, QuantizeStatic\n"
        "recipe = Recipe(QuantizeStatic(), Export())\n"
    )
    code, _, err = call(monkeypatch, capsys, "show", "wrong")
    assert code == 2
    assert "export takes torch or pt2, but quantize gives onnx" in err


def spoilt(own, change) -> subprocess.CompletedProcess[str]:
    """`wb recipe small` on a copy of the project that `change` has spoilt."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(shutil.copytree(own, Path(name) / "project"))
        words = change(folder)
        more = words if isinstance(words, list) else []
        done = commandline.wb(
            folder, "recipe", "small", *project.UNTIMED, *more, **project.environment(folder)
        )
        left = list((folder / "runs").iterdir()) if (folder / "runs").exists() else []
        assert not left, "a failed run left a folder"
        return done


def set_samples(folder, **values):
    samples = np.load(folder / "x.npy")
    for index, value in values.items():
        samples[int(index[1:]), 0, 0, 0] = value
    np.save(folder / "x.npy", samples)


def change_weights(folder, change):
    import torch

    state = torch.load(folder / "weights.pt", weights_only=True)
    torch.save(change(state), folder / "weights.pt")


BAD_FILES = {
    "missing weights": (lambda f: (f / "weights.pt").unlink(), 2, "there is no file"),
    "corrupted weights": (
        lambda f: (f / "weights.pt").write_bytes((f / "weights.pt").read_bytes()[:900]),
        2, "weights.pt is corrupted",
    ),
    "weights that do not fit": (
        lambda f: change_weights(f, lambda s: {k: v for k, v in s.items() if k != "7.bias"}),
        2, "missing: 7.bias",
    ),
    "NaN in weights": (
        lambda f: change_weights(f, lambda s: {**s, "7.bias": s["7.bias"] * float("nan")}),
        2, "NaN or Inf: 7.bias",
    ),
    "a wrong digest": (lambda f: ["--sha256", "0" * 64], 2, "is not the file expected"),
    "NaN in a sample": (lambda f: set_samples(f, i3=np.nan), 2, "x.npy, row 3"),
    "labels out of range": (
        lambda f: np.save(f / "y.npy", np.full(24, 10)), 2, "the model has 10 classes",
    ),
    "shapes that do not match": (
        lambda f: np.save(f / "x.npy", np.zeros((24, 1, 32, 32), np.float32)),
        2, "does not take the dataset's samples",
    ),
    "too few samples": (lambda f: ["--set", "quantize.samples=9"], 2, "data has 8"),
    "an empty dataset": (
        lambda f: np.save(f / "x.npy", np.zeros((0, 3, 32, 32), np.float32)) or np.save(
            f / "y.npy", np.zeros(0, int)),
        2, "there are 0",
    ),
    "a net that fails": (lambda f: (f / "net.py").write_text("def build(): return 1/0"), 2,
                         "ZeroDivisionError"),
    "someone's folder as --out": (lambda f: ["--out", "recipes"], 2, "not a run's"),
}  # fmt: skip


@pytest.mark.process
@pytest.mark.parametrize("change, code, said", BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files_end_in_a_message(own, change, code, said):
    done = spoilt(own, change)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.process
def test_completion_offers_recipes(here):
    environment = {**os.environ, "_WB_COMPLETE": "complete_bash", "COMP_WORDS": "wb recipe mob",
                   "COMP_CWORD": "2"}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", "from workbench.cli.app import main; main()"],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert "mobile-int8" in done.stdout
