from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from tests import nets
from workbench.onnxgraph.session import run_samples
from workbench.tflite import lowering as rewrites
from workbench.tflite.attention_masks import bounded_masks
from workbench.tflite.lowering import LEAST

pytestmark = pytest.mark.filterwarnings("ignore:::torch")


class Attention(nn.Module):
    """Words attending to words, `kind` saying how the masked ones are kept out."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.words = nn.Embedding(20, 8)
        self.register_buffer("causal", torch.full((6, 6), -1e9).triu(1))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.words(ids)
        scores = x @ x.transpose(1, 2)
        if self.kind == "product":
            scores = scores + (1.0 - mask[:, None, :].to(x.dtype)) * -10000.0
        elif self.kind == "filled":
            scores = scores.masked_fill(mask[:, None, :] == 0, float("-inf"))
        elif self.kind == "least":
            bias = torch.zeros_like(scores).masked_fill(mask[:, None, :] == 0, -3.4e38)
            scores = scores + bias
        elif self.kind == "causal":
            scores = scores + self.causal
        elif self.kind == "small":
            scores = scores + (1.0 - mask[:, None, :].to(x.dtype)) * -5.0
        result: Tensor = scores.softmax(-1) @ x
        return result


def prepared(kind: str, folder: Path, *, empty: bool = False) -> Any:
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    lengths = generator.integers(2, 7, 8)
    samples = {
        "ids": generator.integers(0, 20, (8, 6)),
        "mask": (np.arange(6) < lengths[:, None]).astype(np.int64),
    }
    if empty:
        samples["mask"][0] = 0
    made = nets.exported(folder, Attention(kind).eval(), nets.dataset_of(**samples))
    model = onnx.load(made.path)
    taken = {value.name for value in model.graph.input}
    samples = {name: array for name, array in samples.items() if name in taken}
    for rewrite in (rewrites.fixed_shapes, rewrites.simplified, rewrites.settled):
        model, _ = rewrite(model, samples)
    return model, samples


def least(model: onnx.ModelProto) -> float:
    """The smallest constant of the graph."""
    floats = [
        array
        for one in model.graph.initializer
        if (array := onnx.numpy_helper.to_array(one)).dtype.kind == "f"
    ]
    return min(float(array.min()) for array in floats)


@pytest.mark.parametrize("kind", ["product", "filled", "least", "causal"])
def test_a_mask_is_no_larger_than_it_takes(kind: str, tmp_path: Path) -> None:
    model, samples = prepared(kind, tmp_path)
    assert least(model) <= -1000
    made, note = bounded_masks(model, samples)
    kept = onnx.ModelProto.FromString(made.SerializeToString())
    rewrites.simplified(kept, samples)
    used = {name for node in made.graph.node for name in node.input}
    unused = [one for one in made.graph.initializer if one.name not in used]
    for one in unused:
        made.graph.initializer.remove(one)
    assert -200 < least(made) < -20
    assert f"bounded at {least(made):.0f}" in note
    wanted, found = run_samples(model, samples)[0], run_samples(made, samples)[0]
    assert nets.decibels(wanted, found) > LEAST


def test_a_mask_that_matters_by_its_size_stays(tmp_path: Path) -> None:
    """All words masked: -3.4e38 makes their weights equal, -30 would not."""
    model, samples = prepared("least", tmp_path, empty=True)
    made, note = bounded_masks(model, samples)
    assert note == ""
    assert least(made) <= -1000


def test_a_bias_is_no_mask(tmp_path: Path) -> None:
    model, samples = prepared("small", tmp_path)
    before = model.SerializeToString()
    made, note = bounded_masks(model, samples)
    assert (made.SerializeToString(), note) == (before, "")
