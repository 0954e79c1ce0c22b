"""`wb recipe` on models of every source, from the shell as a user types it."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import nets, project

pytestmark = pytest.mark.process

RECIPE = '''"""Export and simplify."""
from workbench.recipe import Recipe
from workbench.steps import Export, Simplify
recipe = Recipe(Export(), Simplify())
'''
NET = """
import torch

def build(width, depth=1):
    layers = [torch.nn.Conv2d(3, width, 3), torch.nn.ReLU()] * depth
    return torch.nn.Sequential(*layers[:2], torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
                               torch.nn.Linear(width, 10))
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one model of each kind."""
    folder = project.make(tmp_path_factory.mktemp("sources") / "project")
    (folder / "recipes" / "plain.py").write_text(RECIPE)
    module = nets.build()
    batch = torch.export.Dim("batch", min=1)
    given = (torch.randn(2, 3, 32, 32),)
    program = torch.export.export(module, given, dynamic_shapes=({0: batch},))
    torch.export.save(program, folder / "open.pt2")
    torch.export.save(torch.export.export(module, (given[0][:1],)), folder / "one.pt2")
    torch.jit.trace(module, given).save(str(folder / "traced.pt"))
    (folder / "configured.py").write_text(NET)
    space: dict[str, Any] = {}
    exec(NET, space)
    torch.save(
        {"state_dict": space["build"](6).state_dict(), "config": {"width": 6}},
        folder / "checkpoint.pt",
    )
    return folder


def rows(here: Path, *words: str) -> dict[str, Any]:
    done = project.wb(here, "recipe", "plain", "--no-latency", "--json", *words)
    assert done.returncode == 0, done.stderr
    return project.report(done)


@pytest.mark.parametrize(
    "words",
    [("open.pt2",), ("one.pt2",), ("traced.pt",),
     ("configured.py:build", "--weights", "checkpoint.pt")],
    ids=lambda words: words[0],
)  # fmt: skip
def test_a_model_of_every_source_gives_onnx_with_equal_outputs(
    words: tuple[str, ...], here: Path
) -> None:
    found = rows(here, "--model", *words, "--data", "data.toml")
    last = found["rows"][-1]
    assert last["format"] == "onnx"
    assert last["error"] is None
    artifacts = here / found["folder"] / "artifacts"
    (path,) = artifacts.glob("*.onnx")
    x = nets.normal(1, 3, 32, 32, seed=4)
    if words[0] != "configured.py:build":
        expected = nets.run_torch(nets.build(), x)
        np.testing.assert_allclose(nets.run_onnx(path, x)[0], expected, rtol=1e-3, atol=1e-5)
    notes = project.manifest(here, found)["model"]["notes"]
    if words[0] == "one.pt2":
        assert "the program was exported for one sample at a time" in notes
    if "--weights" in words:
        assert "built with the checkpoint's config: width=6" in notes


def test_a_program_runs_without_samples_and_again_from_the_cache(here: Path) -> None:
    first = rows(here, "--model", "one.pt2")
    assert project.manifest(here, first)["dataset"]["data"] == "random"
    steps = project.manifest(here, rows(here, "--model", "one.pt2"))["steps"]
    assert all(step["cached"] for step in steps)
    program = torch.export.export(nets.build(seed=3), (torch.randn(1, 3, 32, 32),))
    torch.export.save(program, here / "one.pt2")  # another model under the same name
    steps = project.manifest(here, rows(here, "--model", "one.pt2"))["steps"]
    assert not any(step["cached"] for step in steps)


@pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None,
    reason="needs transformers: pip install 'mobile-workbench[hf]'",
)
def test_a_folder_of_transformers_goes_through(here: Path) -> None:
    from workbench.sources import packages

    transformers: Any = packages.import_package("transformers")
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, num_labels=4,
    )  # fmt: skip
    transformers.BertForSequenceClassification(config).save_pretrained(here / "bert")
    np.save(here / "ids.npy", np.random.default_rng(0).integers(0, 50, (16, 10)))
    np.save(here / "mask.npy", np.ones((16, 10), np.int64))
    (here / "text.toml").write_text(
        'source = "numpy"\n[inputs]\ninput_ids = "ids.npy"\nattention_mask = "mask.npy"\n'
        "[split]\ncalibration = 8\n"
    )
    found = rows(here, "--model", "hf:./bert", "--data", "text.toml")
    assert found["rows"][-1]["error"] is None
    assert "task: text-classification" in project.manifest(here, found)["model"]["notes"]


def test_damaged_files_end_with_a_message_and_2(here: Path) -> None:
    for name in ("open.pt2", "traced.pt"):
        content = (here / name).read_bytes()
        for broken in (content[: len(content) // 2], os.urandom(4000)):
            path = here / f"broken{Path(name).suffix}"
            path.write_bytes(broken)
            done = project.wb(here, "recipe", "plain", "--model", path.name, "--data", "data.toml")
            assert done.returncode == 2, done.stderr
            assert done.stderr.startswith(f"error: {path}")
            assert "Traceback" not in done.stderr
