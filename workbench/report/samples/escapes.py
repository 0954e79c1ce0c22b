"""Names out of foreign files as literals and comments of C++, Kotlin and Swift."""

from __future__ import annotations

import json


def cpp(text: str) -> str:
    r"""A string literal in UTF-8: every byte that is not plain as `\ooo`, which takes three digits
    and no more; `\x` would swallow the digits after it. No question mark begins a trigraph.
    """
    special = {ord(letter): f"\\{letter}" for letter in '"\\?'}
    return '"' + "".join(special.get(b) or _plain(b) or f"\\{b:03o}" for b in text.encode()) + '"'


def kotlin(text: str) -> str:
    r"""A string literal in ASCII: `\uXXXX` for each UTF-16 unit; `$` begins no template."""
    special = {ord(letter): f"\\{letter}" for letter in '"\\$'}
    data = text.encode("utf-16-be")
    units = [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)]
    return '"' + "".join(special.get(u) or _plain(u) or f"\\u{u:04x}" for u in units) + '"'


def swift(text: str) -> str:
    r"""A string literal in ASCII: `\u{X}` for each character; no backslash begins an insertion."""
    special = {ord(letter): f"\\{letter}" for letter in '"\\'}
    return (
        '"' + "".join(special.get(o) or _plain(o) or f"\\u{{{o:x}}}" for o in map(ord, text)) + '"'
    )


def _plain(code: int) -> str:
    return chr(code) if 0x20 <= code < 0x7F else ""


def comment(text: str) -> str:
    """For the rest of a line comment, in ASCII: it ends no comment, and in C++ joins no lines.

    In quotes, so that no backslash is the line's last character; a slash is written as its number,
    for Kotlin and Swift count the beginnings of block comments.
    """
    return json.dumps(text).replace("/", "\\u002f")
