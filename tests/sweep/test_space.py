"""--vary texts as dimensions: lists, ranges, whole types; and what is wrong with the others."""

from __future__ import annotations

import math

import pytest

from workbench.codec import from_plain, to_plain
from workbench.errors import RecipeError
from workbench.recipe import Recipe
from workbench.steps import Export, Prune, QuantizeStatic, Simplify
from workbench.sweep.space import Dimension, combinations, parse

RECIPE = Recipe(
    Prune(), Export(), Simplify(),
    branches={"a": (QuantizeStatic(),), "b": (QuantizeStatic(),)}, name="r",
)  # fmt: skip


def one(text: str) -> Dimension:
    (found,) = parse([text], RECIPE)
    return found


def test_lists_keep_their_order_and_lose_repeats():
    found = one("quantize.samples=64,256,64")
    assert (found.name, found.grid, found.count) == ("quantize.samples", ("64", "256"), 2)


def test_ranges_are_typed_by_the_option():
    found = one("prune.macs=0.3:1.0")
    assert (found.low, found.high, found.whole, found.count) == (0.3, 1.0, False, math.inf)
    found = one("prune.epochs=1:4")
    assert found.whole
    assert found.grid == ("1", "2", "3", "4")
    assert one("prune.macs=0.3:0.9:0.2").grid == ("0.3", "0.5", "0.7", "0.9")
    assert one("prune.macs=0.1:0.3:0.1").grid == ("0.1", "0.2", "0.3")
    found = one("prune.learning_rate=1e-3:0.1:log")
    assert found.log
    assert found.text(0.0123456) == "0.01235"


def test_an_option_alone_is_all_that_it_takes():
    assert one("prune.scope").values == ("local", "global")
    assert one("quantize.whole").values == ("true", "false")
    found = one("prune.macs")
    assert (found.low, found.high) == (0.01, 1)
    assert one("a.quantize.samples=8").name == "a.quantize.samples"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prune.macs=1.0:0.3", r"bounds are reversed\n  why: 1.0 is not below 0.3"),
        ("prune.macs=0.3:0.3", "bounds are reversed"),
        ("prune.macs=0.3:high", "does not understand '0.3:high'"),
        ("prune.macs=0.5:2", "prune.macs cannot be '2'"),
        ("prune.macs=nan:1", "bounds are reversed"),
        ("prune.epochs=1:2.5", "does not understand"),
        ("prune.macs=0.3:0.9:1", "a step of 1 does not fit"),
        ("prune.macs=0.3:0.9:-1", "a step of -1 does not fit"),
        ("prune.learning_rate=0:1:log", "begins above 0"),
        ("prune.importance=l1,l9", "prune.importance cannot be 'l9'"),
        ("prune.import=l1", "did you mean 'importance'"),
        ("prun.macs=0.5", "did you mean prune.macs"),
        ("macs=0.5", "no option 'macs'"),
        ("prune.macs=", "gives no values"),
        ("prune.learning_rate=", "gives no values"),
        ("quantize.samples", "quantize.samples needs values"),
        ("prune.recover", "prune.recover needs values"),
    ],
)
def test_what_is_wrong_is_said(text, said):
    with pytest.raises(RecipeError, match=said):
        parse([text], RECIPE)


def test_nothing_and_twice():
    with pytest.raises(RecipeError, match="varies nothing"):
        parse([], RECIPE)
    with pytest.raises(RecipeError, match="given twice"):
        parse(["prune.macs=0.5", "prune.macs=0.6"], RECIPE)


def test_a_range_without_steps_is_no_grid():
    with pytest.raises(RecipeError, match="without a step has no end"):
        _ = one("prune.macs=0.3:1").grid


def test_combinations_take_every_point_once():
    space = parse(["quantize.samples=8,16", "prune.scope"], RECIPE)
    found = [tuple(point.values()) for point in combinations(space)]
    assert found == [("8", "local"), ("8", "global"), ("16", "local"), ("16", "global")]


def test_a_dimension_survives_json():
    for text in ("prune.macs=0.3:1:0.1", "prune.scope", "prune.learning_rate=1e-3:1:log"):
        assert from_plain(to_plain(one(text)), Dimension) == one(text)
