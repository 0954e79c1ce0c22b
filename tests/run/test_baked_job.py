"""The recipe whose files take pixels, on the embedded model."""

from __future__ import annotations

import pytest

from tests import project

ROWS = ["eager", "bake_preprocess", "ort.quantize", "ort.to_ort", "tflite.to_tflite"]


@pytest.mark.process
@pytest.mark.parametrize("head", ["none", "argmax"])
def test_baked_files_keep_their_accuracy_in_every_format(head, tmp_path):
    done = project.wb(
        tmp_path, "recipe", "mobile-int8-baked", "--no-latency", "--json",
        "--set", f"bake_preprocess.head={head}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = project.report(done)
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
