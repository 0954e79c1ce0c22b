"""A step's options: its dataclass fields, validated at construction and parsed from text.

An option's type is its annotation: bool, int, float, str, a Literal, `X | None`, a tuple of one
of these, and `Annotated[int, Between(13, 21)]` for bounds, which a sweep can read too.
"""

from __future__ import annotations

import dataclasses
import math
import types
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from workbench.errors import RecipeError, did_you_mean

_WORDS = {"true": True, "yes": True, "on": True, "1": True,
          "false": False, "no": False, "off": False, "0": False}  # fmt: skip
_NOTHING = ("none", "null", "")


@dataclass(frozen=True)
class Between:
    """Bounds of a number, both included."""

    low: float = -math.inf
    high: float = math.inf

    def __str__(self) -> str:
        low, high = (f"{n:g}" if isinstance(n, float) else str(n) for n in (self.low, self.high))
        return f"at least {low}" if math.isinf(self.high) else f"{low} to {high}"


def options_of(step: type) -> dict[str, Any]:
    """The option names of a step class with their annotations."""
    hints = get_type_hints(step, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(step)}


def describe(annotation: Any) -> str:
    """An annotation in a user's words: `true or false`, `a whole number, 13 to 21`."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return ", ".join([describe(args[0]), *(str(extra) for extra in args[1:])])
    if origin is Literal:
        return "one of " + ", ".join(str(value) for value in args)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(arg) for arg in args)
    if origin is tuple:
        return f"a comma-separated list, each {describe(args[0])}"
    plain = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return "none" if annotation is type(None) else plain.get(annotation, str(annotation))


def accepts(annotation: Any, value: Any) -> bool:
    """Whether a value is of an annotation's type and within its bounds."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        bounds = [extra for extra in args[1:] if isinstance(extra, Between)]
        if not accepts(args[0], value):
            return False
        return value is None or all(b.low <= value <= b.high for b in bounds)
    if origin is Literal:
        return any(value == arg and type(value) is type(arg) for arg in args)
    if origin in (Union, types.UnionType):
        return any(accepts(arg, value) for arg in args)
    if origin is tuple:
        return isinstance(value, tuple) and all(accepts(args[0], item) for item in value)
    if annotation is float:
        return (
            isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
        )
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, annotation)


def has_option(step: Any, name: str) -> bool:
    """Whether a step has an option of that name."""
    return name in options_of(type(step))


def validate(step: Any) -> None:
    """Check every option of a step; a step calls it in `__post_init__`."""
    for name, annotation in options_of(type(step)).items():
        value = getattr(step, name)
        if not accepts(annotation, value):
            raise RecipeError(
                f"{type(step).__name__}: {name} cannot be {value!r}",
                f"it takes {describe(annotation)}",
            )


def parse(text: str, annotation: Any) -> Any:
    """The value that a text stands for under an annotation. Raises ValueError where none does."""
    origin, args = get_origin(annotation), get_args(annotation)
    word = text.strip()
    if origin is Annotated:
        return parse(text, args[0])
    if origin is Literal:
        return (
            next(arg for arg in args if str(arg) == word) if word in map(str, args) else _no(text)
        )
    if origin in (Union, types.UnionType):
        if type(None) in args and word.lower() in _NOTHING:
            return None
        return _parse_any(text, [arg for arg in args if arg is not type(None)])
    if origin is tuple:
        return tuple(parse(item, args[0]) for item in word.split(",") if item.strip())
    if annotation is bool:
        return _WORDS[word.lower()] if word.lower() in _WORDS else _no(text)
    if annotation is int or annotation is float:
        return annotation(word)
    return text if annotation is str else _no(text)


def _parse_any(text: str, annotations: list[Any]) -> Any:
    for annotation in annotations:
        try:
            return parse(text, annotation)
        except ValueError:
            continue
    return _no(text)


def _no(text: str) -> Any:
    raise ValueError(text)


def value_of(step: Any, option: str, text: str, where: str) -> Any:
    """What a text stands for as a value of one of a step's options.

    Raises RecipeError for an unknown option (with the nearest name) or a wrong value; `where` is
    the step's name in a message.
    """
    options = options_of(type(step))
    if option not in options:
        raise RecipeError(f"no option '{option}' in {where}", "", did_you_mean(option, options))
    annotation = options[option]
    try:
        value = parse(text, annotation)
        if not accepts(annotation, value):
            _no(text)
    except (ValueError, OverflowError) as error:
        raise RecipeError(
            f"{where}.{option} cannot be '{text}'", f"it takes {describe(annotation)}"
        ) from error
    return value
