"""The .pt2: read back and compared, its batch open where torch can, and no file where it cannot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.pruning import nets
from workbench.errors import StepError
from workbench.model import Model
from workbench.pruning import exported_program

pytestmark = [pytest.mark.filterwarnings("ignore")]


def model(module: nn.Module, count: int = 4, batch: int | None = None) -> Model:
    inputs = {"x": nets.image(count).numpy()}
    return Model(module=module.eval(), example_inputs=inputs, output_names=("y",), batch=batch)


def test_it_says_what_it_is(tmp_path):
    made = exported_program.save_program(
        model(nets.seeded(nets.Plain)), tmp_path / "m.pt2", ("a",), ("b",)
    )
    assert (made.history, made.notes, made.precision) == (("a",), ("b",), "float32")
    assert (made.inputs[0].shape, made.outputs[0].name) == ((None, 3, 8, 8), "y")
    program = torch.export.load(str(made.path)).module()
    assert program(torch.zeros(7, 3, 8, 8)).shape == (7, 10)


def test_one_example_is_enough_for_an_open_batch(tmp_path):
    made = exported_program.save_program(
        model(nets.seeded(nets.Plain), 1), tmp_path / "m.pt2", (), ()
    )
    assert made.inputs[0].shape[0] is None


class Fixed(nn.Module):
    """Takes one sample at a time: its batch is written into a shape."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3 * 64, 5)

    def forward(self, x):
        return self.linear(x.reshape(1, -1))


def test_a_module_for_one_sample_is_written_for_one(tmp_path):
    made = exported_program.save_program(model(Fixed(), batch=1), tmp_path / "m.pt2", (), ())
    assert made.inputs[0].shape[0] == 1
    assert "one sample at a time" in made.notes[0]


class Deciding(nn.Module):
    def forward(self, x):
        return x * 2 if bool(x.mean() > 0) else x


def test_what_cannot_be_written_leaves_no_file(tmp_path):
    with pytest.raises(StepError, match=r"cannot be written as a \.pt2") as caught:
        exported_program.save_program(model(Deciding()), tmp_path / "m.pt2", (), ())
    assert "torch.where" in caught.value.fix
    assert not list(tmp_path.iterdir())


def test_a_file_that_disagrees_is_refused(tmp_path, monkeypatch):
    real, other = exported_program._export, nets.seeded(nets.Plain, seed=1)
    monkeypatch.setattr(
        exported_program, "_export", lambda one, batch: real(replace(one, module=other), batch)
    )
    with pytest.raises(StepError, match="other outputs than the module"):
        exported_program.save_program(model(nets.seeded(nets.Plain)), tmp_path / "m.pt2", (), ())


def test_outputs_are_those_of_the_module(tmp_path):
    one = model(nets.seeded(nets.Padded))
    made = exported_program.save_program(one, tmp_path / "m.pt2", (), ())
    program = torch.export.load(str(made.path)).module()
    x = nets.image(3)
    with torch.no_grad():
        np.testing.assert_allclose(program(x), one.module(x), rtol=1e-5, atol=1e-6)
