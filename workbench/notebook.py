"""Tables in notebooks: HTML for what a cell shows, and pandas where it is installed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from workbench.errors import DependencyError
from workbench.intervals import Estimate


def html_table(headings: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> str:
    """A table of texts, the first column to the left and the others to the right."""

    def line(cells: Sequence[str], tag: str) -> str:
        sides = ["left", *["right"] * (len(cells) - 1)]
        return "".join(
            f'<{tag} style="text-align:{side}">{escape(cell)}</{tag}>'
            for side, cell in zip(sides, cells, strict=True)
        )

    caption = f"<caption>{escape(title)}</caption>" if title else ""
    body = "".join(f"<tr>{line(cells, 'td')}</tr>" for cells in rows)
    return (
        f"<table>{caption}<thead><tr>{line(headings, 'th')}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def html_lines(lines: Iterable[str]) -> str:
    """A paragraph for each line."""
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def data_frame(records: Sequence[Mapping[str, Any]]) -> Any:
    """A `pandas.DataFrame` with a row for each record.

    An estimate becomes three columns: the value, and the ends of its 95 % interval as NAME_low and
    NAME_high. Raises DependencyError where pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise DependencyError(
            "pandas is not installed", "to_pandas() gives a data frame", "pip install pandas"
        ) from error
    estimates = {
        name for record in records for name, value in record.items() if isinstance(value, Estimate)
    }
    return pandas.DataFrame([_flat(record, estimates) for record in records])


def _flat(record: Mapping[str, Any], estimates: set[str]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name, value in record.items():
        if name not in estimates:
            columns[name] = value
            continue
        parts = (value.value, value.low, value.high) if value is not None else (None, None, None)
        columns |= dict(zip((name, f"{name}_low", f"{name}_high"), parts, strict=True))
    return columns
