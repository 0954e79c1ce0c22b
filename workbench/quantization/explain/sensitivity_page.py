"""`wb sensitivity --out`: the table and its plot as one HTML page, and as JSON beside it."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.quantization.explain.sensitivity_text import HEADINGS, cells, remarks, summary
from workbench.report.frame import framed

if TYPE_CHECKING:
    from workbench.quantization.explain.sensitivity_table import Table

ROW, LEFT, WIDTH, RIGHT = 20, 330, 420, 200  # pixels of the plot
LETTERS = 46  # of a name beside a bar
# Okabe and Ito's, as in the report: of what is in INT8, and of what is in float by default.
INT8, FLOAT = "#D55E00", "#0072B2"

STYLE = """
th:first-child { text-align: left; }
tbody th { font-weight: 600; }
td.worse { color: var(--accent); font-weight: 600; }
figure { margin: 0; } figcaption { color: var(--muted); font-size: .87rem; max-width: 60rem; }
svg { display: block; max-width: 100%; height: auto; font-size: 12px; }
"""


def write(found: Table, folder: Path) -> None:
    """Write `sensitivity.html` and `sensitivity.json`; other files of the folder stay."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sensitivity.html").write_text(page(found), encoding="utf-8")
    text = json.dumps(found.to_json(), indent=1, allow_nan=False)
    (folder / "sensitivity.json").write_text(text + "\n", encoding="utf-8")


def page(found: Table) -> str:
    """One self-contained page: no scripts, no requests, light and dark."""
    calibration, figures = found.samples
    title = f"What INT8 costs {found.model}, layer by layer"
    head = "".join(f"<th>{escape(name)}</th>" for name in HEADINGS if name)
    rows = []
    for layer in found.layers:
        name, *rest = cells(layer)
        slower = layer.saved is not None and layer.saved < 0
        marked = [
            f'<td class="worse">{escape(text)}</td>'
            if slower and text == rest[-1]
            else f"<td>{escape(text)}</td>"
            for text in rest
        ]
        rows.append(f"<tr><th>{escape(name)}</th>{''.join(marked)}</tr>")
    notes = "".join(f"<p>{escape(line)}</p>" for line in remarks(found))
    kept = "; blue: what a recipe leaves in float by default" if found.prefix else ""
    body = f"""<p class="muted">{escape(found.scheme)}, preset {escape(found.preset)}, device
{escape(found.device)}. {calibration} calibration samples of {escape(found.dataset)}, figures on
{figures} of these. No labels are used.</p>
<p>All {len(found.layers)} layers in INT8: {escape(summary(found.whole))}.</p>
<h2>Where the noise is from</h2>
<figure>
{plot(found)}
<figcaption>Share of the noise that each layer adds to the outputs alone, in the network's order,
its weights and the tensors it makes together{kept}.</figcaption>
</figure>
<h2>Layers, the most costly first</h2>
<div class="scroll"><table>
<thead><tr>{head}</tr></thead>
<tbody>
{chr(10).join(rows)}
</tbody>
</table></div>
<div class="muted">{notes}</div>"""
    return framed(title, STYLE, body)


def plot(found: Table) -> str:
    """Bars of the noise's shares in the network's order, as an <svg> element."""
    layers = sorted(found.layers, key=lambda one: one.place)
    most = max((one.found.share for one in layers), default=0.0) or 1.0
    height = ROW * len(layers) + 8
    parts = []
    for number, layer in enumerate(layers):
        one, top = layer.found, ROW * number + 4
        name = one.layer if len(one.layer) <= LETTERS else f"…{one.layer[1 - LETTERS :]}"
        wide = max(WIDTH * one.share / most, 1.0)
        colour = FLOAT if one.layer in found.prefix else INT8
        parts += [
            f'<text x="{LEFT - 8}" y="{top + 13}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{LEFT}" y="{top + 2}" width="{wide:.1f}" height="{ROW - 6}" '
            f'fill="{colour}"><title>{escape(one.layer)}</title></rect>',
            f'<text x="{LEFT + wide + 6:.1f}" y="{top + 13}">{100 * one.share:.1f} %, '
            f"{one.gained + 0.0:+.2f} dB in float</text>",
        ]
    return (
        f'<svg viewBox="0 0 {LEFT + WIDTH + RIGHT} {height}" width="{LEFT + WIDTH + RIGHT}" '
        f'role="img" aria-label="share of noise by layer" fill="currentColor">\n'
        + "\n".join(parts)
        + "\n</svg>"
    )
