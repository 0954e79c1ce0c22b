"""Every real structure through every recipe: each row a file that agrees, or a reason named here.

What fails is listed with the words of its reason. A cell that begins to work, or fails for another
reason, fails its test: the list, and docs/matrix.md, must say what is so.

Every change takes all structures through the main recipe and telling ones through the others. The
whole matrix, with latency and docs/matrix.md, is the long tier: `make matrix`, or
`pytest -m matrix`.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from tests import structures
from tests.structures import matrix
from workbench.cache import Cache
from workbench.library import recipe_summaries
from workbench.measure import cached
from workbench.measure.checks import Checks
from workbench.measure.latency import PRESETS, Preset
from workbench.worker_pool import Pool

MAIN = "mobile-int8"
OTHERS = (
    "mobile-int8-baked", "mobile-dynamic-int8", "mobile-float16", "tiny-int8", "torchscript",
)  # fmt: skip
# Hard-swish, a transformer with two inputs, a recurrent network, control flow.
TELLING = ("mobilenet_v3", "bert", "lstm", "control_flow")
EVERY_CHANGE = (
    *((name, MAIN) for name in structures.STRUCTURES),
    *((name, recipe) for name in TELLING for recipe in OTHERS),
    ("vit", "mobile-int8-baked"),  # the transformer that takes pixels
)
# One cell for each format: PyTorch, ONNX, ORT, TFLite; TorchScript.
MEASURED = (("mobilenet_v3", MAIN), ("mobilenet_v3", "torchscript"))

# Structure, recipe, and the row's key (or `run`, where the whole run ends): what its error says.
REASONS: dict[tuple[str, str, str], str] = {
    # What they have of matrices is too small to gain, and dynamic convolutions are slow.
    **{
        (name, "mobile-dynamic-int8", "ort.quantize_dynamic"): r"nothing that dynamic INT8 makes"
        for name in (*structures.IMAGES, "two_inputs")
        if name != "vit"
    },
    # onnxruntime's quantizer does not go into the branches of an If.
    **{
        ("control_flow", recipe, "ort.quantize"): r"nothing could be quantized.*\bIf\b"
        for recipe in (MAIN, "mobile-int8-baked")
    },
    # There are no pixels.
    **{(name, "mobile-int8-baked", "run"): "no input is an image" for name in structures.SEQUENCES},
    ("shufflenet", "mobile-pruned-int8", "run"): "no layer of the model can be pruned",
    ("gru", "mobile-pruned-int8", "run"): "no layer of the model can be pruned",
    ("lstm", "mobile-pruned-int8", "run"): r"cannot trace the model in cell \(LSTM\)",
    ("control_flow", "mobile-pruned-int8", "run"): r"cannot be written as a \.pt2",
}

# The least SQNR in dB against PyTorch eager by precision: float ones to rounding.
LEAST = {
    "float32": 90, "float16": 40, "dynamic-int8": 15, "int16": 30, "mixed-int8": 20, "int8": 8,
}  # fmt: skip

ONE_PROCESS = dataclasses.replace(PRESETS["quick"], name="one process", processes=1)

Through = Callable[[str, str, Preset], matrix.Outcome]


@pytest.fixture(scope="module")
def through(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Through]:
    """Takes a structure through a recipe; all runs share a cache and worker processes."""
    folder = tmp_path_factory.mktemp("structures")
    projects = {name: structures.write(name, folder) for name in structures.STRUCTURES}
    with closing(Cache(folder / "cache")) as cache, closing(Pool()) as pool:
        yield lambda name, recipe, preset: matrix.run(projects[name], recipe, preset, cache, pool)


@pytest.fixture(scope="module")
def outcomes() -> dict[str, dict[str, matrix.Outcome]]:
    """What the long tier found, by recipe and structure, for the page that tells of it."""
    return {}


def check(outcome: matrix.Outcome, name: str, recipe: str, measured: bool) -> None:
    """The outcome is what `REASONS` and `LEAST` say."""
    whole = REASONS.get((name, recipe, "run"))
    if "error" in outcome and "rows" not in outcome:
        assert whole, f"the run ended: {outcome['error']}"
        assert re.search(whole, outcome["error"])
        return
    assert whole is None, "this run is listed as one that fails, and does not"
    assert len(outcome["rows"]) > 1
    for row in outcome["rows"]:
        listed = REASONS.get((name, recipe, row["key"]))
        if row["error"] is not None:
            assert listed, f"{row['key']}: {matrix.reason(row)}"
            assert re.search(listed, matrix.reason(row), re.DOTALL)
            continue
        assert listed is None, f"{row['key']} is listed as failing, and does not"
        median = row["figures"]["median"]
        assert median["value"] > 0 if measured else median is None
        if row["key"] != outcome["baselines"]["reference"]:
            sqnr = row["figures"]["sqnr"]
            assert sqnr is not None
            if recipe != "mobile-pruned-int8":  # a smaller network, whose outputs are others
                assert float(sqnr) > LEAST[row["precision"]], row["key"]


@pytest.mark.process
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "recipe"), EVERY_CHANGE)
def test_structure(
    through: Through, monkeypatch: pytest.MonkeyPatch, name: str, recipe: str
) -> None:
    measured = (name, recipe) in MEASURED
    if not measured:  # made and scored, no more
        monkeypatch.setattr(
            cached, "checks_of", lambda targets, *_: dict.fromkeys(targets, Checks())
        )
    outcome = through(name, recipe, ONE_PROCESS if measured else PRESETS["none"])
    check(outcome, name, recipe, measured)


@pytest.mark.matrix
@pytest.mark.timeout(600)
@pytest.mark.parametrize("recipe", sorted(recipe_summaries()))
@pytest.mark.parametrize("name", structures.STRUCTURES)
def test_the_whole_matrix(
    through: Through, outcomes: dict[str, dict[str, matrix.Outcome]], name: str, recipe: str
) -> None:
    outcome = through(name, recipe, ONE_PROCESS)
    outcomes.setdefault(recipe, {})[name] = outcome
    check(outcome, name, recipe, measured=True)


@pytest.mark.matrix
def test_the_page_of_the_matrix_says_what_is_so(
    outcomes: dict[str, dict[str, matrix.Outcome]],
) -> None:
    cells = sum(map(len, outcomes.values()))
    if cells < len(structures.STRUCTURES) * len(recipe_summaries()):
        pytest.skip(f"only {cells} cells of the matrix were run")
    page = matrix.page(outcomes)
    if os.environ.get("WB_WRITE_MATRIX"):
        matrix.PAGE.write_text(page, encoding="utf-8")
    said = matrix.without_figures(matrix.PAGE.read_text(encoding="utf-8"))
    assert said == matrix.without_figures(page), "docs/matrix.md is not so: run `make matrix`"


def test_nothing_is_listed_that_is_not_run() -> None:
    for name, recipe, _ in REASONS:
        assert name in structures.STRUCTURES
        assert recipe in recipe_summaries()
    assert {MAIN, *OTHERS} <= set(recipe_summaries())
    assert set(TELLING) <= set(structures.STRUCTURES)
