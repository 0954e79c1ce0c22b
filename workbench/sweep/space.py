"""What a sweep varies: options of steps, as lists or ranges, typed by the steps themselves."""

from __future__ import annotations

import math
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from workbench.errors import RecipeError, did_you_mean
from workbench.options import Between, describe, options_of
from workbench.recipe import Recipe

DIGITS = 4  # of a number drawn from a range: what is stored is what a user can type again


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One option that varies.

    Attributes:
        name: as in --set, `prune.macs`.
        values: the texts of a list; none for a range.
        low, high: the ends of a range, both included.
        step: of a range that has one.
        log: whether the range is logarithmic.
        whole: whether it is of whole numbers.
    """

    name: str
    values: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    whole: bool = False

    @property
    def grid(self) -> tuple[str, ...]:
        """Every text that it may take. Raises RecipeError for a range without steps."""
        if self.values:
            return self.values
        step = self.step or (1.0 if self.whole and not self.log else None)
        if step is None:
            raise RecipeError(
                f"--vary {self.name}: a range without a step has no end of values",
                "a grid tries every one",
                f"write {self.name}={self.low:g}:{self.high:g}:STEP, a list, or --search tpe",
            )
        count = math.floor((self.high - self.low) / step + 1e-9) + 1
        return tuple(self.text(self.low + number * step) for number in range(count))

    @property
    def count(self) -> float:
        """How many texts it may take; infinite for a range without steps."""
        stepped = self.values or self.step or (self.whole and not self.log)
        return len(self.grid) if stepped else math.inf

    def text(self, value: Any) -> str:
        """A value that a sampler drew, as --set takes it."""
        if isinstance(value, str):
            return value
        return str(round(value)) if self.whole else f"{value:.{DIGITS}g}"


def parse(texts: Sequence[str], recipe: Recipe) -> tuple[Dimension, ...]:
    """`--vary` texts as dimensions of a recipe, every value tried on the recipe.

    `step.option=a,b,c` is a list, `=low:high` a range, `=low:high:step` and `=low:high:log` too;
    without `=`, what the option's own type allows. Raises RecipeError.
    """
    if not texts:
        raise RecipeError(
            "a sweep varies nothing", "", "give --vary STEP.OPTION=A,B or =LOW:HIGH, repeatable"
        )
    dimensions: list[Dimension] = []
    for text in texts:
        dimension = _dimension(text, recipe)
        if any(earlier.name == dimension.name for earlier in dimensions):
            raise RecipeError(
                f"--vary {dimension.name} is given twice", "", "give all its values in one"
            )
        ends = dimension.values or (dimension.text(dimension.low), dimension.text(dimension.high))
        for value in ends:
            recipe.with_options([f"{dimension.name}={value}"])
        dimensions.append(dimension)
    return tuple(dimensions)


def combinations(space: Sequence[Dimension]) -> Iterator[dict[str, str]]:
    """Every point of a grid, the last dimension fastest."""
    for texts in product(*(dimension.grid for dimension in space)):
        yield {dimension.name: text for dimension, text in zip(space, texts, strict=True)}


def _dimension(text: str, recipe: Recipe) -> Dimension:
    name, equals, values = (part.strip() for part in text.partition("="))
    annotation = _annotation(name, recipe)
    if not equals:
        return _whole_type(name, annotation)
    if not values:
        raise RecipeError(f"--vary {name}= gives no values", f"it takes {describe(annotation)}")
    low, colon, rest = values.partition(":")
    if colon and (kind := _number(annotation)) is not None:
        high, _, step = rest.partition(":")
        return _range(name, (low, high, step), kind, annotation)
    listed = tuple(part.strip() for part in values.split(",") if part.strip())
    return Dimension(name=name, values=tuple(dict.fromkeys(listed)))


def _range(name: str, parts: tuple[str, str, str], kind: type, annotation: Any) -> Dimension:
    first, last, step = (part.strip() for part in parts)
    try:
        low, high = float(first), float(last)
        step_size = float(step) if step and step != "log" else None
        if kind is int and any(
            number is not None and number % 1 for number in (low, high, step_size)
        ):
            raise ValueError
    except ValueError:
        raise RecipeError(
            f"--vary {name} does not understand '{':'.join(part for part in parts if part)}'",
            f"it takes {describe(annotation)}",
            "write LOW:HIGH, LOW:HIGH:STEP or LOW:HIGH:log",
        ) from None
    if not low < high:
        raise RecipeError(
            f"--vary {name}: the bounds are reversed",
            f"{first} is not below {last}",
            f"write {name}={last}:{first}",
        )
    if step == "log" and low <= 0:
        raise RecipeError(f"--vary {name}: a logarithmic range begins above 0, not at {first}")
    if step_size is not None and not 0 < step_size <= high - low:
        raise RecipeError(f"--vary {name}: a step of {step} does not fit between the bounds")
    return Dimension(
        name=name, low=low, high=high, step=step_size, log=step == "log", whole=kind is int
    )


def _annotation(name: str, recipe: Recipe) -> Any:
    """The annotation of an option, whose step is named as in --set. Raises RecipeError."""
    path, dot, option = name.rpartition(".")
    located = recipe.located()
    steps = {key: node.step for node in located for key in (node.id, node.name)}
    if not dot or path not in steps:
        names = {f"{node.id}.{key}" for node in located for key in options_of(type(node.step))}
        names |= {f"{node.name}.{key}" for node in located for key in options_of(type(node.step))}
        raise RecipeError(f"no option '{name}' in recipe {recipe.name}", "", _nearest(name, names))
    options = options_of(type(steps[path]))
    if option not in options:
        raise RecipeError(f"no option '{option}' in {path}", "", did_you_mean(option, options))
    return options[option]


def _nearest(name: str, names: set[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"did you mean {', '.join(near)}?" if near else "'wb show RECIPE' lists the options"


def _bare(annotation: Any) -> tuple[Any, Between | None]:
    """An annotation without None and without bounds, and the bounds."""
    bounds = None
    while True:
        origin, args = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            bounds = next(
                (argument for argument in args[1:] if isinstance(argument, Between)), bounds
            )
            annotation = args[0]
        elif origin in (Union, types.UnionType) and type(None) in args:
            rest = [argument for argument in args if argument is not type(None)]
            if len(rest) > 1:
                return annotation, bounds
            annotation = rest[0]
        else:
            return annotation, bounds


def _number(annotation: Any) -> type | None:
    bare, _ = _bare(annotation)
    return bare if bare in (int, float) else None


def _whole_type(name: str, annotation: Any) -> Dimension:
    """All that an option's type allows: a Literal's values, true and false, or its bounds."""
    bare, bounds = _bare(annotation)
    if get_origin(bare) is Literal:
        return Dimension(name=name, values=tuple(map(str, get_args(bare))))
    if bare is bool:
        return Dimension(name=name, values=("true", "false"))
    if bare in (int, float) and bounds is not None and math.isfinite(bounds.high - bounds.low):
        return Dimension(name=name, low=bounds.low, high=bounds.high, whole=bare is int)
    raise RecipeError(
        f"--vary {name} needs values",
        f"it takes {describe(annotation)}, which has no end",
        f"write {name}=A,B or {name}=LOW:HIGH",
    )
