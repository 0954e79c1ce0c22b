"""The Python face: what `import workbench` gives, and that it gives it after any other import."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
import types
from typing import get_type_hints

import pytest

import workbench as wb
from workbench import api
from workbench.errors import DatasetError, DependencyError, InputError, ModelError, RecipeError
from workbench.intervals import Estimate
from workbench.notebook import data_frame, html_table
from workbench.run.run_options import RunOptions


def test_every_name_is_there_and_no_other():
    assert set(wb.__all__) == set(wb._MODULES)
    for name in wb.__all__:
        assert getattr(wb, name).__doc__, name
        assert name in dir(wb)
    with pytest.raises(AttributeError, match="no attribute 'run_recipes'"):
        _ = wb.run_recipes


def test_a_submodule_takes_no_name_away():
    for module in pkgutil.walk_packages(wb.__path__, "workbench."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in wb.__all__:
        assert not isinstance(getattr(wb, name), types.ModuleType), name
    assert len(wb.load_dataset("digits").evaluation) > 100
    assert wb.load_model().output_names == ("output",)
    with pytest.raises(RecipeError, match="mobile-int9"):
        wb.run_recipe("mobile-int9")
    with pytest.raises(InputError, match="varies nothing"):
        wb.run_sweep("mobile-int8", [], preset="none", minimise="size")
    with pytest.raises(ModelError, match=r"absent\.onnx"):
        wb.profile("absent.onnx")
    with pytest.raises(ModelError, match=r"absent\.onnx"):
        wb.quantize("absent.onnx", "digits")
    assert wb.RunOptions(recipe="x").preset == "standard"


def test_what_may_be_given_are_the_fields_of_the_options():
    fields = {name: hint for name, hint in get_type_hints(RunOptions).items() if name != "recipe"}
    assert set(get_type_hints(api.RunKeywords)) == set(fields)
    # A sweep has a --max-drop of its own, and times no operators.
    assert set(get_type_hints(api.SweepRunKeywords)) == set(fields) - {"max_drop", "operators"}


def test_options_are_changed_by_what_is_given_besides(monkeypatch, tmp_path):
    options = RunOptions(recipe="small", preset="quick", seed=3)
    changed = api._options_of(options, {"settings": ["a.b=1"], "weights": str(tmp_path)})
    assert changed == RunOptions(
        recipe="small", preset="quick", seed=3, settings=("a.b=1",), weights=tmp_path
    )
    with pytest.raises(TypeError, match="colour"):
        wb.run_recipe("small", colour="red")


def test_what_is_wrong_is_said_before_any_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="there is no preset 'quik'") as caught:
        wb.run_recipe("mobile-int8", preset="quik")
    assert "quick" in caught.value.fix
    with pytest.raises(RecipeError, match="no option 'presett' in quantize") as caught:
        wb.quantize("net.onnx", "digits", presett="fast")
    assert "preset" in caught.value.fix
    with pytest.raises(RecipeError, match="preset cannot be 'quik'"):
        wb.quantize("net.onnx", "digits", preset="quik")
    with pytest.raises(ModelError, match="is no ONNX file"):
        wb.quantize("net.tflite", "digits")
    with pytest.raises(DatasetError, match="'digitz'"):
        wb.load_dataset("digitz")
    assert list(tmp_path.iterdir()) == []


def test_a_loaded_dataset_is_taken_as_it_is():
    digits = wb.load_dataset("digits")
    assert wb.load_dataset(digits) is digits


def test_a_table_is_html_with_its_texts_escaped():
    table = html_table(["", "size"], [["<b>", "3 MB"]], "a & b")
    assert "<caption>a &amp; b</caption>" in table
    assert '<td style="text-align:left">&lt;b&gt;</td>' in table
    assert '<td style="text-align:right">3 MB</td>' in table


def test_estimates_are_three_columns_of_a_frame(monkeypatch):
    pandas = types.ModuleType("pandas")
    pandas.DataFrame = list
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    records = [{"name": "a", "median": None}, {"name": "b", "median": Estimate(2.0, 1.0, 3.0)}]
    first, second = data_frame(records)
    assert first == {"name": "a", "median": None, "median_low": None, "median_high": None}
    assert second == {"name": "b", "median": 2.0, "median_low": 1.0, "median_high": 3.0}


def test_without_pandas_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(DependencyError) as caught:
        data_frame([])
    assert caught.value.fix == "pip install pandas"


@pytest.mark.parametrize("name", [name for name in wb.__all__ if name != "RunOptions"])
def test_functions_say_what_they_take(name):
    function = getattr(wb, name)
    documented = function.__doc__
    for parameter in inspect.signature(function).parameters:
        assert parameter in documented, parameter
