"""`front.html`: the front's plots with what hovers over them, and every trial in a table."""

from __future__ import annotations

from html import escape

from workbench.report.frame import framed
from workbench.sweep import plot
from workbench.sweep.goals import Goal
from workbench.sweep.result import Point, Result, summary

STYLE = """
tr.front { font-weight: 600; } tr.knee { color: var(--accent); }
tr.dominated, tr.over, tr.failed, tr.running { color: var(--muted); }
.plots { display: flex; flex-wrap: wrap; gap: 1.5rem; }
.plot { position: relative; flex: 1 1 34rem; max-width: 46rem; }
.plot svg { display: block; width: 100%; height: auto; }
.dot { position: absolute; width: 1.4rem; height: 1.4rem; margin: -.7rem 0 0 -.7rem;
  border-radius: 50%; }
.dot:hover, .dot:focus { outline: 2px solid var(--ink); z-index: 2; }
.dot span { display: none; position: absolute; left: 1.6rem; top: -.4rem; padding: .5rem .7rem;
  background: var(--card); border: 1px solid var(--line); border-radius: 6px; white-space: pre;
  font-size: .8rem; line-height: 1.45; pointer-events: none; color: var(--ink); }
.dot.left span { left: auto; right: 1.6rem; } .dot.low span { top: auto; bottom: -.4rem; }
.dot:hover span, .dot:focus span { display: block; }
code { font-size: .85rem; overflow-wrap: anywhere; }
"""


def render(result: Result) -> str:
    """One self-contained page: no scripts, no requests, light and dark."""
    title = f"The front of {result.record.folder.name}"
    lines = "".join(f"<p>{escape(line)}</p>" for line in summary(result))
    plots = "".join(_plot(result, x, y) for x, y in plot.pairs(result))
    head = "".join(f"<th>{escape(name)}</th>" for name in result.headings())
    rows = "".join(_row(result, one) for one in result.points)
    failed = [one.trial for one in result.points if one.state == "failed"]
    errors = "".join(f"<p>trial {one.number}: {escape(one.error)}</p>" for one in failed)
    recipe = escape(result.record.spec.run.recipe)
    body = f"""<div class="muted">{lines}</div>
<div class="plots">{plots}</div>
<p class="muted">Bars are 95 % intervals; what is beyond a limit and far from the rest is in the
table alone. Point at a mark for its options; each trial's folder,
<code>trials/NUMBER</code>, has its files and its own report.
<code>wb recipe {recipe} --from {escape(str(result.record.folder))}:TRIAL</code> repeats one.</p>
<h2>Trials</h2>
<div class="scroll"><table>
<thead><tr>{head}</tr></thead>
<tbody>{rows}</tbody>
</table></div>
{"<h2>Failed</h2>" + errors if errors else ""}"""
    return framed(title, STYLE, body)


def _plot(result: Result, x: Goal, y: Goal) -> str:
    svg = plot.figure(result, x, y)
    points = plot.drawn(result, x, y)
    if not points:
        return f'<div class="plot">{svg}</div>'
    across, up = plot.axes(points, x, y)
    dots = []
    for one in points:
        left = 100 * across.at(one.trial.figures[x.name].value) / plot.WIDTH
        top = 100 * up.at(one.trial.figures[y.name].value) / plot.HEIGHT
        side = f"{' left' if left > 60 else ''}{' low' if top > 60 else ''}"
        text = escape(plot.told(result, one))
        dots.append(
            f'<a class="dot{side}" href="#trial-{one.trial.number}" '
            f'aria-label="trial {one.trial.number}" '
            f'style="left:{left:.2f}%;top:{top:.2f}%"><span>{text}</span></a>'
        )
    return f'<div class="plot">{svg}{"".join(dots)}</div>'


def _row(result: Result, point: Point) -> str:
    cells = "".join(f"<td>{escape(text)}</td>" for text in result.cells(point))
    kind = f"{point.state}{' knee' if point.knee else ''}"
    return f'<tr class="{kind}" id="trial-{point.trial.number}">{cells}</tr>'
