"""The form of a report.json: its keys in their order, and what stands under each.

Figures and what is of the machine are left out, so that two runs of the same have the same form.
`WB_FORMS=write` writes the forms anew.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

FORMS = Path(__file__).with_name("forms")

WORDS = {
    "key", "label", "format", "precision", "head", "device", "dataset", "recipe", "preset",
    "metric", "name", "asks", "eager", "onnx", "reference", "what",
}  # fmt: skip
OF_THE_MACHINE = {"host", "versions"}
WHOLE = {"rows", "devices", "checklist", "formats", "artifacts"}  # every item is told


def form(value: Any, key: str = "") -> Any:
    """What stays of a report's value when figures are taken out."""
    if key in OF_THE_MACHINE:
        return "facts" if value else "none"
    if key == "findings":  # there is one more where the machine is not quiet
        return "texts"
    if isinstance(value, dict):
        return {name: form(item, name) for name, item in value.items()}
    if isinstance(value, list):
        forms = [form(item, key) for item in value]
        if key in WHOLE:
            return forms
        return [one for at, one in enumerate(forms) if one not in forms[:at]]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float) or value in ("inf", "-inf", "nan"):
        return "number"
    return value if key in WORDS or value == "" else "text"


def check(report: dict[str, Any], name: str) -> None:
    """Hold a report.json against the form that is kept under a name."""
    path = FORMS / f"{name}.json"
    text = json.dumps(form(report), indent=1) + "\n"
    if os.environ.get("WB_FORMS") == "write":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
