"""HTML pages from templates: one head, one style and one escaping for every page that `wb` writes.

A page is a Jinja template that extends `page.html`, which stands beside this file: it has the head
and what all pages share of the style. Everything that is filled in is escaped, but for what is
`Markup`. Pages stand alone: no scripts, no requests, light and dark.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

SHARED = Path(__file__).parent  # the folder of `page.html`


def render_page(template: Path, /, **values: Any) -> str:
    """The page that a template gives with these values, every text of them escaped.

    A name that the template uses and `values` lacks is an error.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([template.parent, SHARED]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template.name).render(**values)
