"""`wb sensitivity --out`: the table and its plot as one HTML page, and as JSON beside it."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.tools.sensitivity_text import HEADINGS, cells, remarks, summary

if TYPE_CHECKING:
    from workbench.tools.sensitivity import Table

ROW, LEFT, WIDTH, RIGHT = 20, 330, 420, 200  # pixels of the plot
LETTERS = 46  # of a name beside a bar
# Okabe and Ito's, as in the report: of what is in INT8, and of what is in float by default.
INT8, FLOAT = "#D55E00", "#0072B2"

STYLE = """
:root { color-scheme: light dark; --page: #fff; --card: #f6f7f9; --line: #d9dde3; --ink: #1b1f24;
  --muted: #5d6673; --worse: #9a4a00; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --card: #1d2126; --line: #363c45;
  --ink: #e6e9ee; --muted: #9ba5b3; --worse: #f0a35c; } }
body { margin: 0 auto; padding: 2rem 1.5rem 3rem; max-width: 86rem; color: var(--ink);
  background: var(--page); font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; }
.muted { color: var(--muted); max-width: 60rem; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: .87rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .6rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
tr:last-child > * { border-bottom: 0; }
thead th { background: var(--card); }
th:first-child, th:nth-child(2), td:nth-child(2) { text-align: left; }
tbody th { font-weight: 600; }
td.worse { color: var(--worse); font-weight: 600; }
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
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p class="muted">{escape(found.scheme)}, preset {escape(found.preset)}, device
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
<div class="muted">{notes}</div>
</body>
</html>
"""


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
