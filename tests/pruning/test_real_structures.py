"""Every real structure pruned: a smaller .pt2 that runs and takes any batch, or a named reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests import nets as common
from tests import structures
from workbench import dataset as datasets
from workbench.errors import WorkbenchError
from workbench.model import ModelSource
from workbench.sources.live import load_module
from workbench.steps import Prune

pytestmark = [pytest.mark.process, pytest.mark.filterwarnings("ignore")]

# Structure: what its error says.
REASONS: dict[str, str] = {
    # Its last layers are grouped convolutions, and the others end in them.
    "shufflenet": "no layer of the model can be pruned",
    "control_flow": r"cannot be written as a \.pt2",
    "lstm": r"torch-pruning cannot trace the model in \w+ \(LSTM\)",
    "gru": "no layer of the model can be pruned",
}


@pytest.mark.parametrize("name", structures.STRUCTURES)
def test_it_is_pruned_and_goes_on(name, tmp_path, monkeypatch):
    project = structures.write(name, tmp_path)
    monkeypatch.chdir(project)
    dataset = datasets.load("data.toml")
    inputs = dict(dataset.examples(8, 0))
    source = ModelSource(spec="net.py:build", folder=Path(project))
    model = load_module(source, inputs)
    step = Prune(macs=0.8, recover="batchnorm", round_to=4)
    context = common.context(tmp_path / "step", dataset, work=tmp_path)
    if name in REASONS:
        with pytest.raises(WorkbenchError, match=REASONS[name]):
            step.run(model, context)
        assert not list(context.folder.iterdir())
        return
    made = step.run(model, context)
    loaded = load_module(ModelSource(spec=str(made.path)), inputs)
    before = sum(one.numel() for one in model.module.parameters())
    after = sum(one.numel() for one in loaded.module.parameters())
    assert after < before
    for one, other in zip(loaded(inputs), model(inputs), strict=True):
        assert one.shape == other.shape
        assert np.isfinite(one).all()
    (said,) = [note for note in made.notes if note.startswith("pruned to ")]
    assert float(said.split()[2]) <= 0.8
