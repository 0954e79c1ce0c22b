"""Escapes, undone by decoders of their own, on any text."""

from __future__ import annotations

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from workbench.report.samples import escapes

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def decoded(literal: str, undo: dict[str, str], pattern: str, read: object) -> str:
    assert literal[0] == literal[-1] == '"'
    assert literal.isascii()
    assert literal.isprintable()
    inner = literal[1:-1]
    assert '"' not in re.sub(r"\\.", "", inner)
    return re.sub(pattern, lambda found: undo.get(found[0]) or read(found), inner)


@given(TEXTS)
def test_cpp(text: str):
    literal = escapes.cpp(text)
    plain = {'\\"': '"', "\\\\": "\\", "\\?": "?"}
    found = decoded(literal, plain, r"\\([0-7]{3}|.)", lambda m: chr(int(m[1], 8)))
    assert found.encode("latin-1").decode() == text
    assert "??" not in literal


@given(TEXTS)
def test_kotlin(text: str):
    literal = escapes.kotlin(text)
    plain = {'\\"': '"', "\\\\": "\\", "\\$": "$"}
    found = decoded(literal, plain, r"\\(u[0-9a-f]{4}|.)", lambda m: chr(int(m[1][1:], 16)))
    assert found.encode("utf-16", "surrogatepass").decode("utf-16") == text
    assert not re.search(r"(?<!\\)(\\\\)*\$", literal)  # no template begins


@given(TEXTS)
def test_swift(text: str):
    plain = {'\\"': '"', "\\\\": "\\"}
    literal = escapes.swift(text)
    found = decoded(literal, plain, r"\\(u\{[0-9a-f]+\}|.)", lambda m: chr(int(m[1][2:-1], 16)))
    assert found == text


@given(TEXTS)
def test_a_comment_stays_one(text: str):
    comment = escapes.comment(text)
    assert json.loads(comment) == text
    assert comment.isascii()
    assert len(comment.splitlines()) == 1
    assert not comment.endswith("\\")
    assert "/" not in comment
