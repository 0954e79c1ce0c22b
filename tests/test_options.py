"""Options: described, accepted and parsed by their annotations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from workbench.errors import RecipeError
from workbench.options import Between, accepts, describe, options_of, parse, validate, value_of

Size = Annotated[int, Between(1, 8)]
Style = Literal["fixed", "runtime"]
ANNOTATIONS = [
    bool,
    int,
    float,
    str,
    Size,
    Size | None,
    Style,
    Style | None,
    Literal[1, 2],
    tuple[int, ...],
    tuple[Size, ...],
    int | float,
    Annotated[float, Between(0, 1)],
]


@dataclass(frozen=True, kw_only=True)
class Sized:
    size: Size = 2
    ratio: Annotated[float, Between(0)] = 0.5
    style: Style | None = None
    quick: bool = False
    ops: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        validate(self)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (bool, "true or false"),
        (Annotated[int, Between(13, 21)], "a whole number, 13 to 21"),
        (Annotated[float, Between(0)], "a number, at least 0"),
        (Size | None, "a whole number, 1 to 8 or none"),
        (Style, "one of fixed, runtime"),
        (tuple[str, ...], "a comma-separated list, each text"),
    ],
)
def test_an_annotation_is_described_in_words(annotation, words):
    assert describe(annotation) == words


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (bool, True),
        (int, 3),
        (float, 3),
        (float, math.inf),
        (Size, 1),
        (Size, 8),
        (Size | None, None),
        (Style, "fixed"),
        (tuple[int, ...], ()),
        (tuple[int, ...], (1, 2)),
    ],
)
def test_right_values_are_accepted(annotation, value):
    assert accepts(annotation, value)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (bool, 1),
        (int, True),
        (int, 1.0),
        (float, False),
        (float, math.nan),
        (float, "1"),
        (Size, 0),
        (Size, 9),
        (Size, None),
        (Size | None, 0),
        (Style, "Fixed"),
        (Literal[1, 2], True),
        (tuple[int, ...], [1]),
        (tuple[int, ...], (1, "2")),
        (tuple[Size, ...], (1, 9)),
        (str, None),
    ],
)
def test_wrong_types_and_values_out_of_bounds_are_not_accepted(annotation, value):
    assert not accepts(annotation, value)


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (bool, "true", True),
        (bool, " YES ", True),
        (bool, "on", True),
        (bool, "1", True),
        (bool, "Off", False),
        (bool, "no", False),
        (bool, "0", False),
        (int, " 12 ", 12),
        (int, "-3", -3),
        (float, "1e-3", 0.001),
        (str, " kept as it is ", " kept as it is "),
        (Style, "runtime", "runtime"),
        (Literal[1, 2], "2", 2),
        (Size | None, "none", None),
        (Size | None, "NULL", None),
        (Size | None, "", None),
        (Size | None, "4", 4),
        (int | float, "4", 4),
        (int | float, "4.5", 4.5),
        (tuple[int, ...], "1, 2,3", (1, 2, 3)),
        (tuple[int, ...], "", ()),
    ],
)
def test_text_is_parsed_by_its_annotation(annotation, text, value):
    found = parse(text, annotation)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("annotation", "text"),
    [(bool, "maybe"), (int, "1.5"), (int, ""), (float, "x"), (Style, "fix"), (Size | None, "few"),
     (tuple[int, ...], "1,x"), (dict, "{}")],
)  # fmt: skip
def test_text_that_stands_for_no_value_is_refused(annotation, text):
    with pytest.raises(ValueError):
        parse(text, annotation)


def test_a_step_lists_its_own_options_only():
    assert list(options_of(Sized)) == ["size", "ratio", "style", "quick", "ops"]


def test_a_wrong_value_fails_at_construction_and_says_what_is_taken():
    with pytest.raises(RecipeError) as caught:
        Sized(size=9)
    assert caught.value.what == "Sized: size cannot be 9"
    assert caught.value.why == "it takes a whole number, 1 to 8"


def test_an_unknown_option_names_the_nearest():
    with pytest.raises(RecipeError) as caught:
        value_of(Sized(), "stile", "fixed", "sized")
    assert caught.value.what == "no option 'stile' in sized"
    assert "did you mean 'style'?" in caught.value.fix


@pytest.mark.parametrize(
    ("option", "text"),
    [("size", "9"), ("size", "9" * 5000), ("ratio", "nan"), ("ratio", "-1"), ("quick", "2")],
)
def test_a_wrong_text_names_the_option_and_what_it_takes(option, text):
    with pytest.raises(RecipeError) as caught:
        value_of(Sized(), option, text, "sized")
    assert caught.value.what == f"sized.{option} cannot be '{text}'"
    assert caught.value.why.startswith("it takes ")


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(ANNOTATIONS), st.text() | st.from_regex(r"\A[-+_.,\deinfa ]{0,12}\Z"))
@example(int, "9" * 5000)
@example(float, "1" * 400)
def test_any_text_is_parsed_or_refused(annotation, text):
    try:
        parse(text, annotation)
    except ValueError:
        return


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 8), st.floats(0, allow_nan=False), st.booleans(),
       st.sampled_from(["fixed", "runtime", None]))  # fmt: skip
def test_a_valid_option_round_trips_through_text(size, ratio, quick, style):
    for name, value in {"size": size, "ratio": ratio, "quick": quick, "style": style}.items():
        assert value_of(Sized(), name, str(value), "sized") == value
