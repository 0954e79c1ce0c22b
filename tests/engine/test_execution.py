"""What decides a step's result, and which results stand in the table. Whole runs: test_run.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from workbench.artifact import Artifact, Format
from workbench.cache import Cache
from workbench.dataset.facts import DatasetFacts, SplitFacts
from workbench.device.profile import Device
from workbench.display import Quiet
from workbench.engine.execution import Engine
from workbench.engine.facts import ModelFacts
from workbench.engine.keys import step_key
from workbench.engine.outcome import Outcome, StepResult
from workbench.engine.request import Request
from workbench.errors import DatasetError, RecipeError, StepError
from workbench.model import ModelSource
from workbench.recipe import Recipe
from workbench.run.recipe_targets import baselines_of
from workbench.steps import (
    Export,
    Float16,
    FuseTransformer,
    Prune,
    QuantizeDynamic,
    QuantizeStatic,
    Simplify,
    ToOrt,
    ToTflite,
    ToTorchScript,
)
from workbench.worker_pool import Pool
from workbench.workspace import Workspace

RECIPE = Recipe(Export(), Simplify(), branches={"ort": (QuantizeStatic(), ToOrt())}, name="r")
CALIBRATION = SplitFacts(samples=8, fingerprint="c")
EVALUATION = SplitFacts(samples=8, fingerprint="e", highest_label=9)
DATASET = DatasetFacts(name="d", splits={"calibration": CALIBRATION, "evaluation": EVALUATION})
MODEL = ModelFacts(fingerprint="m", classes=10)


def with_split(name, **changes):
    """The dataset with another split of that name."""
    split = replace(DATASET.splits[name], **changes)
    return replace(DATASET, splits={**DATASET.splits, name: split})


@pytest.fixture
def engine(tmp_path):
    request = Request(
        recipe=RECIPE,
        settings=(),
        source=ModelSource(spec="net.py:build"),
        data="d",
        device=Device(name="cpu", isa=("avx512_vnni",)),
    )
    return Engine(request, Workspace(Cache(tmp_path), Pool(), Quiet()))


def located(recipe, name):
    return next(one for one in recipe.located() if one.id == name)


def key(engine, name="ort.quantize", dataset=DATASET, recipe=RECIPE, path=None):
    subject = Artifact(path=path, format=Format.ONNX, precision="float32", inputs=(), outputs=())
    return step_key(engine.request, located(recipe, name), subject, dataset, MODEL)


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"one")
    return path


def test_a_steps_key_follows_its_options_its_input_and_the_samples_it_uses(engine, model):
    same = key(engine, path=model)
    assert key(engine, path=model) == same
    changed = RECIPE.with_options(["quantize.preset=fast"])
    assert key(engine, recipe=changed, path=model) != same
    other_data = with_split("calibration", fingerprint="other")
    assert key(engine, dataset=other_data, path=model) != same
    assert key(engine, "simplify", other_data, path=model) == key(engine, "simplify", path=model)
    engine.request = replace(engine.request, device=Device(name="cpu", isa=("avx2",)))
    assert key(engine, path=model) != same
    model.write_bytes(b"two")
    assert key(engine, path=model) != same


def test_evaluation_samples_do_not_decide_a_step(engine, model):
    other_data = with_split("evaluation", fingerprint="other")
    assert key(engine, dataset=other_data, path=model) == key(engine, path=model)


def test_samples_decide_a_step_that_looks_at_them_without_needing_any(engine, model):
    recipe = Recipe(Export(), branches={"half": (Float16(),)}, name="h")
    same = key(engine, "half.float16", recipe=recipe, path=model)
    other_data = with_split("calibration", fingerprint="other")
    assert key(engine, "half.float16", other_data, recipe, model) != same
    assert key(engine, "half.float16", replace(DATASET, splits={}), recipe, model) != same


def begun_with_onnx(engine, recipe, tmp_path):
    source = ModelSource(spec="net.onnx", folder=tmp_path)
    engine.request = replace(engine.request, recipe=recipe, source=source)
    return [step.id for step in engine.steps()]


def test_steps_that_take_torch_are_left_out_for_an_onnx_file(engine, tmp_path):
    assert begun_with_onnx(engine, RECIPE, tmp_path) == ["simplify", "ort.quantize", "ort.to_ort"]


def test_branches_begin_with_an_onnx_file_where_no_trunk_is_left(engine, tmp_path):
    recipe = Recipe(Export(), branches={"a": (Simplify(),), "b": (ToTflite(),)}, name="t")
    assert begun_with_onnx(engine, recipe, tmp_path) == ["a.simplify", "b.to_tflite"]


@pytest.mark.parametrize("step", [ToTorchScript(), Export()])
def test_a_recipe_that_an_onnx_file_cannot_begin_is_refused(engine, step, tmp_path):
    recipe = Recipe(step, name="s")
    with pytest.raises(RecipeError, match=r"cannot begin with net\.onnx") as caught:
        begun_with_onnx(engine, recipe, tmp_path)
    assert "takes torch" in caught.value.why
    with pytest.raises(RecipeError):
        engine.run()


def test_labels_and_samples_are_checked_before_any_work(engine):
    with pytest.raises(DatasetError, match="the model has 5 classes"):
        engine._check(engine.steps(), DATASET, replace(MODEL, classes=5))
    engine.request = replace(engine.request, recipe=RECIPE.with_options(["quantize.samples=9"]))
    with pytest.raises(DatasetError, match=r"ort\.quantize asks for 9 .* d has 8"):
        engine._check(engine.steps(), DATASET, MODEL)
    with pytest.raises(DatasetError, match=r"ort\.quantize needs calibration samples"):
        engine._check(engine.steps(), replace(DATASET, splits={}), MODEL)


def result(recipe, name, kind=None, precision="float32"):
    one = located(recipe, name)
    if kind is None:
        return StepResult(one, error=StepError("failed"))
    made = Artifact(path=None, format=kind, precision=precision, inputs=(), outputs=())
    return StepResult(one, made)


def test_an_artifact_that_the_next_step_only_rewrites_is_no_row():
    results = (
        result(RECIPE, "export", Format.ONNX),
        result(RECIPE, "simplify", Format.ONNX),
        result(RECIPE, "ort.quantize", Format.ONNX, "int8"),
        result(RECIPE, "ort.to_ort"),
    )
    outcome = Outcome(model=MODEL, dataset=DATASET, results=results)
    rows = [one.located.id for one in outcome.table]
    assert rows == ["simplify", "ort.quantize", "ort.to_ort"]


def test_a_steps_key_follows_the_device_where_it_is_timed(engine):
    recipes = {
        name: Recipe(Prune(macs=None, **{name: 0.5}), Export())
        for name in ("latency", "parameters")
    }

    def keys():
        return {
            name: key(engine, "prune", recipe=one, path=Path(__file__))
            for name, one in recipes.items()
        }

    before = keys()
    engine.request = replace(engine.request, device=replace(engine.request.device, threads=4))
    after = keys()
    assert before["latency"] != after["latency"]
    assert before["parameters"] == after["parameters"]


def test_the_trunks_end_stays_though_a_branch_gives_the_same_kind():
    recipe = Recipe(Export(), branches={"a": (Simplify(),), "b": (Simplify(),)})
    names = ("export", "a.simplify", "b.simplify")
    results = tuple(result(recipe, name, Format.ONNX) for name in names)
    outcome = Outcome(model=MODEL, dataset=DATASET, results=results)
    assert [one.located.id for one in outcome.table] == list(names)


def test_the_original_has_a_row_of_its_own():
    recipe = Recipe(Prune(), Export(), Simplify(), original=(Export(), Simplify()))
    names = ("original.export", "original.simplify", "prune", "export", "simplify")
    assert [one.id for one in recipe.located()] == list(names)
    assert [[one.id for one in path] for path in recipe.paths()] == [
        ["original.export", "original.simplify"], ["prune", "export", "simplify"]
    ]  # fmt: skip
    kinds = {"prune": Format.PT2}
    results = tuple(result(recipe, name, kinds.get(name, Format.ONNX)) for name in names)
    outcome = Outcome(model=MODEL, dataset=DATASET, results=results)
    assert [one.located.id for one in outcome.table] == [
        "original.simplify",
        "prune",
        "simplify",
    ]
    request = Request(
        recipe=recipe, settings=(), source=ModelSource(spec="net.py:build"), data="d",
        device=Device(name="cpu"),
    )  # fmt: skip
    untold = replace(outcome, dataset=replace(DATASET, splits={}))
    assert baselines_of(request, untold).onnx == "original.simplify"


def test_what_a_branch_hands_on_as_it_got_it_is_no_row():
    recipe = Recipe(Export(), branches={"a": (FuseTransformer(), QuantizeDynamic())})

    def rows(history, *following):
        results = (
            result(recipe, "export", Format.ONNX),
            result(recipe, "a.fuse_transformer", Format.ONNX),
            *following,
        )
        results = tuple(
            replace(one, artifact=replace(one.artifact, history=("export", *history[:number])))
            if one.artifact and number < 2
            else one
            for number, one in enumerate(results)
        )
        outcome = Outcome(model=MODEL, dataset=DATASET, results=results)
        return [one.located.id for one in outcome.table]

    failed = result(recipe, "a.quantize_dynamic")
    made = result(recipe, "a.quantize_dynamic", Format.ONNX, "dynamic-int8")
    for after in (failed, made):
        assert rows((), after) == ["export", "a.quantize_dynamic"]
        fused = ["export", "a.fuse_transformer", "a.quantize_dynamic"]
        assert rows(("fuse_transformer",), after) == fused
    # Where nothing follows, the branch is shown to have given what it gave.
    assert rows(()) == ["export", "a.fuse_transformer"]
