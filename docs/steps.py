"""Writes the steps of docs/reference.md from the code: `python docs/steps.py`."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench import steps
from workbench.options import describe, options_of

REFERENCE = Path(__file__).with_name("reference.md")
BEGIN, END = "<!-- steps: begin -->\n", "<!-- steps: end -->\n"


def lines() -> Iterator[str]:
    """Each step: its docstring, and its options with their types and defaults."""
    for name in steps.__all__:
        step = getattr(steps, name)
        yield f"### {name} (`{step.name}`)"
        yield ""
        yield f"Takes {' or '.join(step.takes)}, gives {step.gives}."
        yield ""
        yield inspect.cleandoc(step.__doc__)
        yield ""
        known = options_of(step)
        if known:
            yield "| option | takes | default |"
            yield "|---|---|---|"
        for field in dataclasses.fields(step):
            yield f"| `{field.name}` | {describe(known[field.name])} | {written(field.default)} |"
        yield ""


def written(default: Any) -> str:
    """A default as `--set` takes it."""
    if default is None or isinstance(default, bool):
        return str(default).lower()
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def page() -> str:
    """The reference with its steps as the code has them now."""
    before, _, rest = REFERENCE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + "\n" + "\n".join(lines()) + END + after


if __name__ == "__main__":
    REFERENCE.write_text(page(), encoding="utf-8")
