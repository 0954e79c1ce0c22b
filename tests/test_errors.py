"""The error tree: exit codes, messages, hints, and its way across a process boundary."""

from __future__ import annotations

import pytest

from workbench import errors
from workbench.errors import did_you_mean, pack, shown, unpack

EXIT_CODES = {
    "WorkbenchError": 1,
    "InputError": 2,
    "RecipeError": 2,
    "ModelError": 2,
    "DatasetError": 2,
    "ProfileError": 2,
    "StepError": 3,
    "DiskFullError": 3,
    "DependencyError": 4,
    "DeviceError": 5,
    "CrashError": 5,
    "RegressionError": 6,
}


def test_every_error_of_the_module_has_the_exit_code_of_its_branch():
    found = {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, Exception)
    }
    assert found == EXIT_CODES


@pytest.mark.parametrize("name", ["RecipeError", "ModelError", "DatasetError", "ProfileError"])
def test_what_the_user_gave_wrong_is_an_input_error(name):
    assert issubclass(getattr(errors, name), errors.InputError)


def test_a_crash_is_a_device_error():
    assert issubclass(errors.CrashError, errors.DeviceError)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("it broke",), "it broke"),
        (("it broke", "too thin"), "it broke\n  why: too thin"),
        (("it broke", "", "glue it"), "it broke\n  fix: glue it"),
        (("it broke", "too thin", "glue it"), "it broke\n  why: too thin\n  fix: glue it"),
    ],
)
def test_a_message_says_what_then_why_then_how_to_fix_it(parts, text):
    assert str(errors.WorkbenchError(*parts)) == text


@pytest.mark.parametrize("name", EXIT_CODES)
def test_every_error_survives_packing(name):
    error = unpack(pack(getattr(errors, name)("what", "why", "fix")))
    assert type(error).__name__ == name
    assert (error.what, error.why, error.fix) == ("what", "why", "fix")


def test_an_error_of_an_unknown_name_is_unpacked_as_the_root():
    assert type(unpack(("Unheard", "what", "", ""))) is errors.WorkbenchError


def test_the_nearest_word_is_named_before_all_of_them():
    hint = did_you_mean("per_chanel", ["samples", "per_channel", "scheme"])
    assert hint == "did you mean 'per_channel'? (known: per_channel, samples, scheme)"


def test_without_a_near_word_all_are_listed_in_order():
    assert did_you_mean("zzz", ["b", "a"]) == "known: a, b"


def test_without_known_words_it_says_so():
    assert did_you_mean("x", []) == "there are none"


def test_a_value_is_shown_short_whatever_it_is():
    assert shown("x") == "'x'"
    assert shown("x" * 100) == f"'{'x' * 79}…"
    assert shown(16**5000) == "this int"
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    assert shown(nested) == "this list"
