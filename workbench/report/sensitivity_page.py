"""`wb sensitivity --out`: the table and its plot as one HTML page, and as JSON beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.report.drawing import BLUE, VERMILION, element, join_elements
from workbench.report.pages import render_page
from workbench.report.sensitivity_text import (
    HEADINGS,
    cells,
    largest_share,
    remarks,
    shorten,
    summary,
)

if TYPE_CHECKING:
    from markupsafe import Markup

    from workbench.quantization.explain.sensitivity_table import SensitivityRow, SensitivityTable

TEMPLATE = Path(__file__).with_name("sensitivity.html")
ROW, LEFT, WIDTH, RIGHT = 20, 330, 420, 200  # pixels of the plot
LETTERS = 46  # of a name beside a bar
INT8, FLOAT = VERMILION, BLUE  # of what is in INT8, and of what is in float by default


def write(table: SensitivityTable, folder: Path) -> None:
    """Write `sensitivity.html` and `sensitivity.json`; other files of the folder stay."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sensitivity.html").write_text(page(table), encoding="utf-8")
    text = json.dumps(table.to_json(), indent=1, allow_nan=False)
    (folder / "sensitivity.json").write_text(text + "\n", encoding="utf-8")


def page(table: SensitivityTable) -> str:
    """One self-contained page."""
    return render_page(
        TEMPLATE,
        title=f"What INT8 costs {table.model}, layer by layer",
        table=table,
        whole=summary(table.whole),
        plot=plot(table),
        headings=[heading for heading in HEADINGS if heading],
        rows=[_marked_cells(row) for row in table.layers],
        remarks=list(remarks(table)),
    )


def _marked_cells(row: SensitivityRow) -> tuple[str, list[tuple[str, str]]]:
    """A layer's name, and its other cells with their class: `worse` for time that INT8 costs."""
    name, *others = cells(row)
    slower = row.saved is not None and row.saved < 0
    return name, [(text, "worse" if slower and text == others[-1] else "") for text in others]


def plot(table: SensitivityTable) -> Markup:
    """Bars of the noise's shares in the network's order, as an <svg> element."""
    rows = sorted(table.layers, key=lambda row: row.position)
    width = LEFT + WIDTH + RIGHT
    bars = [bar for top, row in enumerate(rows) for bar in _bar(table, row, ROW * top + 4)]
    return element(
        "svg", join_elements(bars), viewBox=f"0 0 {width} {ROW * len(rows) + 8}", width=width,
        role="img", aria_label="share of noise by layer", fill="currentColor",
    )  # fmt: skip


def _bar(table: SensitivityTable, row: SensitivityRow, top: int) -> Iterator[Markup]:
    """A layer's name, its bar and its figures, `top` pixels from the upper edge."""
    layer = row.sensitivity
    width = max(WIDTH * layer.share / largest_share(table), 1.0)
    yield element("text", shorten(layer.layer, LETTERS), x=LEFT - 8, y=top + 13, text_anchor="end")
    yield element(
        "rect", element("title", layer.layer), x=LEFT, y=top + 2, width=width, height=ROW - 6,
        fill=FLOAT if layer.layer in table.prefix else INT8,
    )  # fmt: skip
    figures = f"{100 * layer.share:.1f} %, {layer.gained + 0.0:+.2f} dB in float"
    yield element("text", figures, x=LEFT + width + 6, y=top + 13)
