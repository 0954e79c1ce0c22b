"""What draws: figures by matplotlib, and SVG elements where a drawing is simple; both as SVG text.

Ink is `currentColor`, the background transparent: the page decides what light and dark are. Every
id of a figure starts with the figure's name, so that several may share a page.

    >>> element("text", "a < b", x=4, y=12.5, text_anchor="end")
    '<text x="4" y="12.5" text-anchor="end">a &lt; b</text>'
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from html import escape
from io import StringIO
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Stands for the page's text colour until the SVG is written; no other element has it.
INK = "#010203"
# Okabe and Ito's colours that keep a contrast of 3 on white and on near-black; sky and grey are
# for what stands back.
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, GREY = "#56B4E9", "#9aa3ad"
WIDE = 10  # an axis whose largest value is that many times its smallest is logarithmic
FONT = 10.0


@contextmanager
def plot_settings(name: str) -> Iterator[None]:
    """Settings of our own for a while: neither the user's matplotlibrc nor the time tells."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": FONT, "text.color": INK,
             "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK,
             "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False,
             "axes.axisbelow": True}
        )  # fmt: skip
        yield


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A transparent figure of so many inches, with axes."""
    from matplotlib.figure import Figure

    # 72 dots an inch are SVG's points: what is measured in pixels is what is drawn.
    figure = Figure((width, height), dpi=72, layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    return figure, axes


def figure_svg(figure: Figure, name: str) -> str:
    """The <svg> element alone, its ids unique and its ink the page's."""
    written = StringIO()
    figure.savefig(written, format="svg", metadata={"Date": None}, transparent=True)
    text = written.getvalue()
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'(<[\w:]+ (?:[^<>]*? )?)id="', rf'\1id="{name}-', text)
    text = re.sub(r'(href="|url\()#', rf"\1#{name}-", text)
    return text.replace(INK, "currentColor").strip()


def element(tag: str, content: str = "", /, **attributes: str | float | None) -> Markup:
    """One SVG element. content: text, which is escaped, or elements, which are `Markup`.

    attributes: by their names with `_` for `-`, `class_` for `class`; floats get one decimal, and
    None is left out.
    """
    named = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_attribute(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    inner = content if isinstance(content, Markup) else escape(content, quote=False)
    return Markup(f"<{tag}{named}>{inner}</{tag}>" if inner else f"<{tag}{named}/>")  # noqa: S704


def _attribute(value: str | float) -> str:
    return f"{value:.1f}" if isinstance(value, float) else escape(str(value))


def join_elements(elements: Iterable[Markup]) -> Markup:
    """Elements side by side, each on a line."""
    return Markup("\n").join(elements)


def label_svg(svg: str, label: str) -> Markup:
    """A finished <svg> as a picture with a name, which screen readers say instead of its texts."""
    # Its texts were escaped by what drew it, the label is here.
    return Markup(svg.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1))  # noqa: S704
