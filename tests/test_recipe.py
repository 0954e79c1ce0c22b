"""Recipes: order, branches, options by text, and recipe files."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench import library
from workbench import recipe as recipes
from workbench.artifact import Format
from workbench.errors import RecipeError
from workbench.recipe import DEFAULTS, Recipe, Step
from workbench.steps import Export, Prune, QuantizeStatic, Simplify, ToOrt, ToTflite

MOBILE = recipes.load("mobile-int8")
FIELDS = {
    "export": ["opset", "dynamic_batch", "rtol", "atol"],
    "simplify": ["rtol", "atol"],
    "ort.quantize": [
        "preset",
        "runtime",
        "optimize",
        "max_drop",
        "samples",
        "scheme",
        "exclude",
        "whole",
    ],
    "ort.to_ort": ["style", "target_platform", "type_reduction"],
    "tflite.to_tflite": ["precision", "samples", "c_array"],
}


def step(recipe: Recipe, place: str):
    return next(one.step for one in recipe.located() if one.id == place)


def refused(recipe: Recipe, *settings: str) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        recipe.with_options(settings)
    return caught.value


def written(folder: Path, text: str, name: str = "mine.py") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_the_shipped_recipe_has_its_steps_in_place():
    assert [one.id for one in MOBILE.located()] == [
        "export", "simplify", "ort.quantize", "ort.to_ort",
        "tflite-float32.to_tflite", "tflite.quantize", "tflite.to_tflite",
    ]  # fmt: skip
    assert [[one.id for one in path][-1] for path in MOBILE.paths()] == [
        "ort.to_ort", "tflite-float32.to_tflite", "tflite.to_tflite",
    ]  # fmt: skip
    assert all([one.id for one in path][:2] == ["export", "simplify"] for path in MOBILE.paths())
    assert MOBILE.name == "mobile-int8"
    assert MOBILE.help.startswith("INT8 for phones")


def test_a_second_step_of_the_same_name_is_numbered():
    recipe = Recipe(Export(), Simplify(), Simplify(rtol=0.5))
    assert [one.id for one in recipe.located()] == ["export", "simplify", "simplify-2"]
    changed = recipe.with_options(["simplify-2.rtol=0.25"])
    assert [step(changed, "simplify").rtol, step(changed, "simplify-2").rtol] == [1e-3, 0.25]


@dataclass(frozen=True, kw_only=True)
class OfToday:
    """A user's step as it was written before `Step` had defaults."""

    samples: int | None = 3

    name = "of_today"
    takes = (Format.ONNX,)
    gives = Format.ONNX
    needs_data = False
    packages = ()
    seconds = 1.0

    def run(self, subject, context):
        return subject


def test_a_users_step_gets_the_members_that_it_lacks():
    (located,) = Recipe(OfToday()).located()
    assert {name: getattr(located.step, name) for name in DEFAULTS} == {
        "looks_at_data": False, "samples": 3, "times_device": False, "optimize": "",
        "precision": "", "sources": (),
    }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Incomplete(Step):
    name = "incomplete"

    def run(self, subject, context):
        return subject


def test_a_step_that_does_not_say_whether_it_needs_data_is_none():
    with pytest.raises(TypeError, match="needs_data"):
        Incomplete()


def test_a_recipe_without_branches_is_one_path():
    assert [len(path) for path in Recipe(Export(), Simplify()).paths()] == [2]


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (Recipe, "at least one step"),
        (
            lambda: Recipe(Simplify(), Export()),
            "wrong order: export takes torch or pt2, but simplify",
        ),
        (lambda: Recipe(Export(), branches={"a": (ToOrt(), Simplify())}), "a.to_ort gives ort"),
        (lambda: Recipe(Export(), branches={"a": ()}), "branch 'a' has no steps"),
        (lambda: Recipe(Export(), branches={"original": (Simplify(),)}), "cannot be called"),
        (lambda: Recipe(Export(), branches={"A b": (Simplify(),)}), "'A b' cannot name a branch"),
        (lambda: Recipe(Export(), branches={"../x": (Simplify(),)}), "cannot name a branch"),
        (lambda: Recipe(Export), "is not a step"),
        (lambda: Recipe("export"), "is not a step"),
    ],
)
def test_a_recipe_that_cannot_run_fails_when_written(build, words):
    with pytest.raises(RecipeError) as caught:
        build()
    assert words in str(caught.value)


def test_an_option_is_replaced_by_step_and_by_branch():
    changed = MOBILE.with_options(
        ["ort.quantize.whole=true", "tflite.to_tflite.precision=float16", "export.opset=15"]
    )
    assert step(changed, "ort.quantize") == QuantizeStatic(whole=True)
    assert step(changed, "tflite.to_tflite") == ToTflite(precision="float16")
    assert step(changed, "tflite-float32.to_tflite") == ToTflite(precision="float32")
    assert step(changed, "export") == Export(opset=15)
    assert step(MOBILE, "export").opset == 17
    assert (changed.name, changed.help, changed.path) == (MOBILE.name, MOBILE.help, MOBILE.path)


def test_a_step_of_the_trunk_is_meant_where_a_branch_has_its_like():
    recipe = Recipe(Export(), Simplify(), branches={"a": (Simplify(),)})
    trunk = recipe.with_options(["simplify.rtol=0.5"])
    assert (step(trunk, "simplify").rtol, step(trunk, "a.simplify").rtol) == (0.5, 1e-3)
    branch = recipe.with_options(["a.simplify.rtol=0.5"])
    assert (step(branch, "simplify").rtol, step(branch, "a.simplify").rtol) == (1e-3, 0.5)


def test_of_two_settings_of_one_option_the_last_counts():
    changed = MOBILE.with_options(["export.opset=15", "export.opset=18"])
    assert step(changed, "export").opset == 18


def test_an_unknown_option_names_the_nearest():
    error = refused(MOBILE, "quantize.preste=fast")
    assert error.what == "no option 'preste' in ort.quantize"
    assert "did you mean 'preset'?" in error.fix
    assert error.exit_code == 2


def test_an_unknown_step_names_the_nearest():
    error = refused(MOBILE, "quantise.samples=3")
    assert error.what == "no step 'quantise' in recipe mobile-int8"
    assert "did you mean 'quantize'?" in error.fix


TWICE = Recipe(
    Export(),
    branches={
        "a": (QuantizeStatic(), ToOrt()),
        "b": (ToOrt(),),
        "c": (QuantizeStatic(whole=True), ToTflite()),
    },
)


def test_a_name_in_two_branches_means_both_where_they_have_one_value():
    changed = TWICE.with_options(["quantize.preset=fast", "a.quantize.samples=7"])
    assert step(changed, "a.quantize") == QuantizeStatic(preset="fast", samples=7)
    assert step(changed, "c.quantize") == QuantizeStatic(preset="fast", whole=True)
    again = TWICE.with_options(["a.quantize.preset=fast", "c.quantize.preset=fast",
                                "quantize.preset=best"])  # fmt: skip
    assert [step(again, f"{one}.quantize").preset for one in "ac"] == ["best", "best"]


def test_options_of_a_step_that_hold_together_only_are_set_together():
    pruned = Recipe(Prune(), Export())
    changed = pruned.with_options(["prune.macs=none", "prune.latency=0.5"])
    assert step(changed, "prune") == Prune(macs=None, latency=0.5)
    with pytest.raises(RecipeError, match="give macs, parameters, latency or sparsity"):
        pruned.with_options(["prune.macs=none"])


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        (["quantize.whole=true"], "whole"),
        (["a.quantize.samples=7", "quantize.samples=9"], "samples"),
        (["a.quantize.preset=fast", "quantize.preset=fast"], "preset"),
    ],
)
def test_a_name_in_two_branches_with_different_values_must_be_told_apart(settings, option):
    error = refused(TWICE, *settings)
    assert f"more than one place, with different values of '{option}'" in error.what
    assert f"a.quantize.{option}, c.quantize.{option}" in error.fix


def test_an_unknown_option_of_a_step_in_two_branches_names_the_nearest():
    assert "did you mean 'preset'?" in refused(TWICE, "quantize.preste=fast").fix


def test_a_value_that_one_place_refuses_changes_none():
    assert "cannot be 'quick'" in refused(TWICE, "quantize.preset=quick").what


def test_a_step_in_two_branches_must_be_told_apart():
    error = refused(MOBILE, "to_tflite.precision=int8")
    assert "more than one place" in error.what
    assert "tflite-float32.to_tflite.precision, tflite.to_tflite.precision" in error.fix


@pytest.mark.parametrize("text", ["", "export", "export.opset", "opset=17", ".opset=1", "export.="])
def test_a_setting_of_another_form_is_not_understood(text):
    error = refused(MOBILE, text)
    assert f"--set does not understand '{text}'" in error.what
    assert "step.option=value" in error.fix


def test_a_value_out_of_bounds_says_what_is_taken():
    error = refused(MOBILE, "export.opset=99")
    assert error.what == "export.opset cannot be '99'"
    assert error.why == "it takes a whole number, 13 to 21"


@settings(max_examples=200, deadline=None)
@given(
    st.text()
    | st.builds("{}.{}={}".format, st.text(max_size=9), st.text(max_size=9), st.text())
    | st.sampled_from(sorted(FIELDS)).flatmap(
        lambda place: st.builds(
            "{}.{}={}".format, st.just(place), st.sampled_from(FIELDS[place]),
            st.text() | st.from_regex(r"\A-?\d{1,20}(\.\d*)?(e-?\d+)?\Z") | st.just("9" * 5000)
            | st.sampled_from(["true", "none", "nan", "inf", "int8", "auto", "arm", "1e999"]),
        )
    )
)  # fmt: skip
def test_any_setting_gives_a_recipe_or_a_recipe_error(text):
    try:
        changed = MOBILE.with_options([text])
    except RecipeError:
        return
    assert isinstance(changed, Recipe)
    assert [one.id for one in changed.located()] == [one.id for one in MOBILE.located()]


def test_the_fuzzed_options_are_those_of_the_steps():
    for place, names in FIELDS.items():
        assert [field.name for field in dataclasses.fields(step(MOBILE, place))] == names


@settings(max_examples=100, deadline=None)
@given(
    st.integers(13, 21), st.floats(0, 1), st.none() | st.integers(1, 10**9), st.booleans(),
    st.sampled_from(["auto", "u8s8", "u8s8-reduced", "s8s8"]),
)  # fmt: skip
def test_valid_options_round_trip(opset, rtol, samples, whole, scheme):
    changed = MOBILE.with_options(
        [f"export.opset={opset}", f"export.rtol={rtol}", f"quantize.samples={samples}",
         f"ort.quantize.whole={whole}", f"ort.quantize.scheme={scheme}"]
    )  # fmt: skip
    assert step(changed, "export") == Export(opset=opset, rtol=rtol)
    assert step(changed, "ort.quantize") == QuantizeStatic(
        samples=samples, whole=whole, scheme=scheme
    )


def test_the_resolved_recipe_is_plain_values_with_every_option():
    resolved = MOBILE.with_options(["quantize.samples=9"]).to_json()
    assert resolved["steps"][0] == {"step": "export", **dataclasses.asdict(Export())}
    assert resolved["branches"]["ort"][0]["samples"] == 9
    assert list(resolved["branches"]) == ["ort", "tflite-float32", "tflite"]


def test_a_recipe_file_is_loaded_with_its_name_and_help(tmp_path):
    path = written(
        tmp_path,
        '"""Short.\n\nLong."""\nfrom workbench.recipe import Recipe\n'
        "from workbench.steps import Export\nrecipe = Recipe(Export(opset=18))\n",
        "my_own.py",
    )
    recipe = recipes.load(path)
    assert (recipe.name, recipe.help) == ("my-own", "Short.\n\nLong.")
    assert recipe.steps == (Export(opset=18),)
    assert recipe.path == Path(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("recipe = 3", "defines no recipe"),
        ("", "defines no recipe"),
        ("recipe = ", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import sys; sys.exit(0)", "SystemExit"),
        ("from workbench.steps import Export; Export(opset=1)", "recipe mine: Export: opset"),
        ("from workbench.steps import Export; Export(opsett=1)", "opsett"),
    ],
)
def test_a_recipe_file_that_fails_is_a_recipe_error(tmp_path, text, words):
    with pytest.raises(RecipeError) as caught:
        recipes.load(written(tmp_path, text))
    assert words in str(caught.value)


def test_an_unknown_recipe_names_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError) as caught:
        recipes.load("mobile-int9")
    assert "there is no recipe named 'mobile-int9'" in caught.value.what
    assert "did you mean 'mobile-int8'?" in caught.value.fix


def test_summaries_are_first_lines_read_without_running_the_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "recipes"
    folder.mkdir()
    written(folder, '"""First line.\n\nMore."""\nraise SystemExit', "loud_one.py")
    written(folder, "recipe = (", "broken.py")
    found = library.recipe_summaries()
    assert found["loud-one"] == "First line."
    assert found["broken"].startswith("cannot be read")
    assert found["mobile-int8"].startswith("INT8 for phones")
