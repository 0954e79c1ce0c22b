"""The frame of a small page: its head and the style that all share; light and dark, no scripts."""

from __future__ import annotations

from html import escape

STYLE = """
:root { color-scheme: light dark; --page: #fff; --card: #f6f7f9; --line: #d9dde3; --ink: #1b1f24;
  --muted: #5d6673; --accent: #9a4a00; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --card: #1d2126; --line: #363c45;
  --ink: #e6e9ee; --muted: #9ba5b3; --accent: #f0a35c; } }
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
td:nth-child(2), th:nth-child(2) { text-align: left; }
"""


def framed(title: str, style: str, body: str) -> str:
    """A whole page. style: its own rules, after the shared ones; body: HTML, escaped already."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>{STYLE}{style}</style>
</head>
<body>
<h1>{escape(title)}</h1>
{body}
</body>
</html>
"""
