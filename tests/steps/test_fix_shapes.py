from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from tests import nets
from tests.structures import sequences, vision
from workbench.artifact import Artifact
from workbench.errors import StepError
from workbench.steps import FixShapes, FuseTransformer, Simplify

pytestmark = [
    pytest.mark.filterwarnings("ignore:::torch"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]

TOKENS = nets.dataset_of(
    input_ids=np.random.default_rng(0).integers(0, 500, (8, 32)),
    attention_mask=np.ones((8, 32), np.int64),
)


def fixed(subject: Artifact, dataset: Any, folder: Path) -> Artifact:
    return FixShapes().run(subject, nets.context(folder / "fixed", dataset))


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes that the file declares, by value; 0 is an open axis."""
    graph = onnx.load(path).graph
    return {
        value.name: tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.output, *graph.value_info)
    }


def made_by(path: Path) -> set[str]:
    return {name for node in onnx.load(path).graph.node for name in node.output}


def test_every_value_gets_a_static_shape_and_outputs_stay(tmp_path: Path) -> None:
    subject = nets.exported(tmp_path / "open", nets.build(), nets.images())
    made = fixed(subject, nets.images(), tmp_path)
    found = shapes(made.path)
    assert found["image"] == (1, 3, 32, 32)
    assert found["output"] == (1, 10)
    assert made_by(made.path) <= found.keys()
    assert all(0 not in shape for shape in found.values())
    assert made.inputs[0].shape == (1, 3, 32, 32)
    assert made.notes[-2:] == (
        "shapes fixed: image 1x3x32x32", "every value has a static shape"
    )  # fmt: skip
    one = nets.normal(1, 3, 32, 32, seed=4)
    before, after = (nets.run_onnx(path, one)[0] for path in (subject.path, made.path))
    np.testing.assert_array_equal(after, before)
    with pytest.raises(Exception, match="Expected: 1"):
        nets.run_onnx(made.path, nets.normal(2, 3, 32, 32))


def test_shapes_inside_fused_operators_are_known_too(tmp_path: Path) -> None:
    subject = nets.exported(tmp_path / "open", sequences.bert(), TOKENS)
    subject = Simplify().run(subject, nets.context(tmp_path / "simple", TOKENS))
    subject = FuseTransformer().run(subject, nets.context(tmp_path / "fused", TOKENS))
    made = fixed(subject, TOKENS, tmp_path)
    assert "every value has a static shape" in made.notes
    assert "shapes fixed: input_ids 1x32, attention_mask 1x32" in made.notes
    assert made_by(made.path) <= shapes(made.path).keys()


def test_several_outputs_and_a_vision_transformer(tmp_path: Path) -> None:
    data = nets.dataset_of(image=nets.normal(8, 3, 64, 64))
    for name, outputs in (("detector", ("boxes", "scores")), ("vit", ("output",))):
        module = getattr(vision, name)()
        made = fixed(nets.exported(tmp_path / name, module, data, outputs), data, tmp_path / name)
        assert "every value has a static shape" in made.notes
        assert [spec.shape[0] for spec in made.outputs] == [1] * len(outputs)


class Chosen(nn.Module):
    """The sum of the elements above zero: how many there are depends on the data."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x[torch.where(x > 0)].sum()


def test_what_depends_on_the_data_is_said_to_have_no_shape(tmp_path: Path) -> None:
    data = nets.dataset_of(x=nets.normal(8, 6))
    made = fixed(nets.exported(tmp_path / "open", Chosen().eval(), data), data, tmp_path)
    (note,) = [note for note in made.notes if note.startswith("no static shape: ")]
    assert "NonZero" in note
    assert made.inputs[0].shape == (1, 6)


def test_a_file_that_is_fixed_already_says_so(tmp_path: Path) -> None:
    subject = nets.exported(
        tmp_path / "one", nets.build(), nets.images(), dynamic_batch=False
    )  # fmt: skip
    made = fixed(subject, nets.images(), tmp_path)
    assert "its inputs were fixed already" in made.notes


@pytest.mark.parametrize(
    ("sample", "said"), [((3, 16, 16), "cannot become 1x3x16x16"), ((48,), "4 axes")]
)
def test_samples_of_another_shape_are_refused(
    sample: tuple[int, ...], said: str, tmp_path: Path
) -> None:
    subject = nets.exported(tmp_path / "open", nets.build(), nets.images())
    with pytest.raises(StepError, match=said):
        fixed(subject, nets.dataset_of(image=nets.normal(8, *sample)), tmp_path)
