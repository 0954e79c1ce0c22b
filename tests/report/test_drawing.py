"""SVG elements and pages: what is filled in is escaped, once."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import jinja2
import pytest
from markupsafe import Markup

from workbench.report.drawing import element, join_elements, label_svg
from workbench.report.pages import render_page


def test_an_element_escapes_its_text_and_attributes():
    text = element("text", "<b> & 'c'", x=1, y=2.25, class_='"d"', text_anchor="end", fill=None)
    parsed = ElementTree.fromstring(text)
    assert parsed.text == "<b> & 'c'"
    assert parsed.attrib == {"x": "1", "y": "2.2", "class": '"d"', "text-anchor": "end"}


def test_elements_inside_of_an_element_are_not_escaped_again():
    inner = join_elements([element("title", "a < b"), element("line", x1=0)])
    parsed = ElementTree.fromstring(element("g", inner))
    assert [(child.tag, child.text) for child in parsed] == [("title", "a < b"), ("line", None)]


def test_a_label_is_escaped_and_the_drawing_is_not():
    parsed = ElementTree.fromstring(label_svg("<svg width='1'><g/></svg>", 'a "b" <c>'))
    assert parsed.attrib == {"width": "1", "role": "img", "aria-label": 'a "b" <c>'}
    assert [child.tag for child in parsed] == ["g"]


@pytest.fixture
def template(tmp_path):
    path = tmp_path / "own.html"
    path.write_text(
        '{% extends "page.html" %}\n'
        "{% block style %}i { color: red; }{% endblock %}\n"
        "{% block body %}{{ text }}{{ drawing }}{% endblock %}\n"
    )
    return path


def test_a_page_escapes_texts_and_leaves_drawings(template):
    page = render_page(template, title="<t>", text="<b>", drawing=Markup("<svg/>"))
    assert page.startswith("<!doctype html>\n")
    assert page.endswith("</html>\n")
    assert "<title>&lt;t&gt;</title>" in page
    assert "&lt;b&gt;<svg/>" in page
    assert "i { color: red; }" in page.partition("</style>")[0]


def test_a_page_that_lacks_a_value_is_an_error(template):
    with pytest.raises(jinja2.UndefinedError, match="text"):
        render_page(template, title="t", drawing="")
