"""Every real structure through every recipe: each row a file that agrees, or a reason named here.

What fails is listed with the words of its reason. A cell that begins to work, or fails for another
reason, fails its test: the list, and docs/matrix.md, must say what is so.
"""

from __future__ import annotations

import dataclasses
import re
from contextlib import closing

import pytest

from tests import structures
from workbench.cache import Cache
from workbench.display import Quiet
from workbench.errors import WorkbenchError
from workbench.measure.latency import PRESETS
from workbench.run import words
from workbench.run.recipe_run import execute

RECIPES = (
    "mobile-int8", "mobile-int8-baked", "mobile-dynamic-int8", "mobile-float16", "tiny-int8",
    "torchscript",
)  # fmt: skip

# Structure, recipe, and the row's key (or `run`, where the whole run ends): what its error says.
REASONS: dict[tuple[str, str, str], str] = {
    # What they have of matrices is too small to gain, and dynamic convolutions are slow.
    **{
        (name, "mobile-dynamic-int8", "ort.quantize_dynamic"): r"nothing that dynamic INT8 makes"
        for name in (*structures.IMAGES, "two_inputs")
        if name != "vit"
    },
    # onnxruntime's quantizer does not go into the branches of an If.
    ("control_flow", "mobile-int8", "ort.quantize"): r"nothing could be quantized.*\n.*\bIf\b",
    (
        "control_flow",
        "mobile-int8-baked",
        "ort.quantize",
    ): r"nothing could be quantized.*\n.*\bIf\b",
    # There are no pixels.
    **{(name, "mobile-int8-baked", "run"): "no input is an image" for name in structures.SEQUENCES},
}

# The least SQNR in dB against PyTorch eager by precision: float ones to rounding.
LEAST = {
    "float32": 90, "float16": 40, "dynamic-int8": 15, "int16": 30, "mixed-int8": 20, "int8": 8,
}  # fmt: skip

ONE_PROCESS = dataclasses.replace(
    PRESETS["quick"], name="one process", processes=1, warmup=1, runs=3, seconds=0.0
)


@pytest.fixture(scope="module")
def projects(tmp_path_factory):
    """Each structure's project, and a cache that all recipes share."""
    folder = tmp_path_factory.mktemp("structures")
    made = {name: structures.write(name, folder) for name in structures.STRUCTURES}
    with closing(Cache(folder / "cache")) as cache:
        yield made, cache


@pytest.mark.heavy
@pytest.mark.timeout(600)
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", structures.STRUCTURES)
def test_structure(projects, name, recipe, tmp_path):
    made, cache = projects
    project = made[name]
    request, _ = words.request(
        recipe, f"{project}/net.py:build", None, f"{project}/data.toml", [], [], ["cpu"], None, 0,
        {"quick": True},
    )  # fmt: skip
    whole = REASONS.get((name, recipe, "run"))
    try:
        report = execute(request, ONE_PROCESS, cache, Quiet(), tmp_path / "run").report
    except WorkbenchError as error:
        assert whole, f"the run ended: {error}"
        assert re.search(whole, str(error))
        return
    assert whole is None, "this run is listed as one that fails, and does not"
    assert len(report.rows) > 1
    for row in report.rows:
        wanted = REASONS.get((name, recipe, row.key))
        if row.error is not None:
            assert wanted, f"{row.key}: {row.error}"
            assert re.search(wanted, str(row.error))
            continue
        assert wanted is None, f"{row.key} is listed as failing, and does not"
        figures = report.figures[row.key]
        assert figures.median is not None
        assert figures.median.value > 0
        if row.key != report.reference:
            assert figures.sqnr is not None
            assert figures.sqnr > LEAST[row.precision], row.key


def test_nothing_is_listed_that_is_not_run():
    for name, recipe, _ in REASONS:
        assert name in structures.STRUCTURES
        assert recipe in RECIPES
