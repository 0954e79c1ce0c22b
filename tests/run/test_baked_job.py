"""The recipe whose files take pixels, on the embedded model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import project

ROWS = ["eager", "bake_preprocess", "ort.quantize", "ort.to_ort", "tflite.to_tflite"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[project.Runs]:
    """Both heads share what comes before them, and worker processes."""
    with project.Runs(tmp_path_factory.mktemp("baked")) as runs:
        yield runs


@pytest.mark.process
@pytest.mark.timeout(600)
@pytest.mark.parametrize("head", ["none", "argmax"])
def test_baked_files_keep_their_accuracy_in_every_format(head, runs):
    report = runs.recipe(
        "mobile-int8-baked", model=None, weights=None, data=None,
        settings=[f"bake_preprocess.head={head}", "quantize.preset=fast"],
    )  # fmt: skip
    assert runs.exit_code == 0
    assert [row["key"] for row in report["rows"]] == ROWS
    for row in report["rows"][1:]:
        assert row["error"] is None
        assert row["figures"]["accuracy"] > 97
        assert row["figures"]["agreement"] > 98
        assert (row["figures"]["sqnr"] is None) == (head == "argmax")
        assert row["head"] == ("" if head == "none" else head)
        assert "baked" in row["label"]
        assert "baked: input takes uint8 pixels [N, 96, 96, 1]" in row["notes"]
    plain = report["rows"][1]["figures"]
    assert (plain["agreement"], plain["delta"]["value"]) == (100, 0)
    assert head == "argmax" or plain["sqnr"] > 110
    assert any("preprocess for themselves" in note for note in report["notes"])
