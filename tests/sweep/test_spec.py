"""A sweep's record: the form of sweep.json is kept, so that old sweeps are gone on with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.sweep import fakes
from workbench.errors import InputError
from workbench.run.run_options import RunOptions
from workbench.sweep import command
from workbench.sweep.spec import Spec, read

RUN = RunOptions(
    recipe="small", model="net.py:build", weights=Path("weights.pt"), data="data.toml",
    settings=("quantize.samples=4",), devices=("cpu",), preset="quick", seed=3, samples=8,
)  # fmt: skip
STORED = {
    "name": "small", "model": "net.py:build", "weights": "weights.pt", "data": "data.toml",
    "settings": ["quantize.samples=4"], "inputs": [], "devices": ["cpu"], "sha256": None,
    "seed": 3, "presets": {"quick": True, "strict": False, "none": False}, "task": "",
    "samples": 8,
}  # fmt: skip
SWEPT = RunOptions(
    recipe="mobile-int8", model="net.py:build", weights=Path("w.pt"), sha256="ab", data="data.toml",
    settings=("quantize.preset=fast",), devices=("pixel",), preset="quick", seed=3, samples=8,
)  # fmt: skip


def test_a_run_is_stored_as_the_words_of_its_command():
    spec = fakes.spec(run=RUN)
    stored = spec.to_json()
    assert stored["words"] == STORED
    assert list(stored["words"]) == list(STORED)
    assert Spec.from_json(stored) == spec


def test_a_sweep_without_a_preset_is_a_standard_one():
    stored = fakes.spec().to_json()
    for presets in ({}, {"quick": False, "strict": False, "none": False}):
        stored["words"] = {**STORED, "presets": presets}
        assert Spec.from_json(stored).run.preset == "standard"


def test_the_name_of_a_sweep_is_that_of_its_stored_form():
    assert (
        fakes.spec(trials=3).name
        == fakes.spec(trials=9).name
        == "sweep-mobile-int8-digits-1d70555f"
    )


def test_the_record_of_a_sweep_is_read_again(tmp_path):
    record = fakes.record(tmp_path, fakes.spec(run=RUN))
    record.write()
    assert read(tmp_path) == record


def test_a_repeated_trial_takes_the_sweeps_options_where_none_are_given(monkeypatch):
    point = ("quantize.samples=9",)
    monkeypatch.setattr(command, "settings_of_trial", lambda _: (fakes.spec(run=SWEPT), point))
    asked = RunOptions(recipe="mobile-int8", settings=("export.opset=18",), preset="strict")
    repeated = command.repeat_trial("runs/x:3", asked)
    settings = ("quantize.preset=fast", "quantize.samples=9", "export.opset=18")
    # How long is measured and how many samples come back are always the command's own.
    assert repeated == replace(SWEPT, settings=settings, preset="strict", samples=64)


def test_a_trial_repeated_with_another_model_has_none_of_the_sweeps_weights(monkeypatch):
    monkeypatch.setattr(command, "settings_of_trial", lambda _: (fakes.spec(run=SWEPT), ()))
    asked = RunOptions(recipe="mobile-int8", model="other.py:build", max_drop=0.0)
    repeated = command.repeat_trial("runs/x:3", asked)
    assert (repeated.model, repeated.weights, repeated.sha256) == ("other.py:build", None, None)
    assert (repeated.data, repeated.max_drop) == ("data.toml", 0.0)


def test_a_trial_of_another_recipe_is_not_repeated(monkeypatch):
    monkeypatch.setattr(command, "settings_of_trial", lambda _: (fakes.spec(run=SWEPT), ()))
    with pytest.raises(InputError, match="of recipe mobile-int8, not of torchscript"):
        command.repeat_trial("runs/x:3", RunOptions(recipe="torchscript"))
