"""The step: a smaller `.pt2` that torch alone loads, that goes on, and that says what it is."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tests import nets as common
from tests.pruning import nets
from workbench.artifact import Format
from workbench.dataset import Dataset
from workbench.errors import RecipeError, StepError
from workbench.model import Model, ModelSource
from workbench.recipe import Recipe
from workbench.sources.live import load_module
from workbench.steps import Export, Prune

pytestmark = [pytest.mark.filterwarnings("ignore:::torch")]


def data(count: int = 40, labels: bool = False) -> Dataset:
    found = common.dataset_of(x=nets.image(count).numpy())
    if labels:
        split = found.calibration
        split.source.labels = np.arange(count) % 10
    return found


def subject(make=nets.Plain, dataset: Dataset | None = None) -> Model:
    return common.model_of(nets.seeded(make), dataset or data())


def pruned(folder, dataset=None, make=nets.Plain, **options):
    dataset = dataset or data()
    known = {"epochs": 1, "macs": 0.6, "batch": 16}
    step = Prune(**{**known, **options})
    work = folder / "work"
    work.mkdir(exist_ok=True)
    context = common.context(folder / "step", dataset, work=work)
    return step.run(subject(make, dataset), context), context


@pytest.mark.process
def test_the_file_loads_without_the_pruning_library_and_takes_any_batch(tmp_path):
    made, context = pruned(tmp_path)
    assert made.format is Format.PT2
    assert made.inputs[0].shape == (None, 3, 8, 8)
    assert made.outputs[0].shape == (None, 10)
    code = (
        f"import torch; p = torch.export.load({str(made.path)!r}).module();"
        "print([tuple(p(torch.zeros(n, 3, 8, 8)).shape) for n in (1, 5)]);"
        "import sys; assert 'torch_pruning' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[(1, 10), (5, 10)]"
    assert [path.name for path in context.folder.iterdir()] == ["model.pt2"]
    assert list(context.work.iterdir()) == []


def test_it_is_as_small_as_asked_and_says_so(tmp_path):
    made, _ = pruned(tmp_path)
    loaded = load_module(ModelSource(spec=str(made.path)), {"x": nets.image(2).numpy()})
    sizes = {tuple(one.shape) for one in loaded.module.state_dict().values() if one.ndim == 4}
    assert sizes == {(8, 3, 3, 3), (24, 8, 3, 3)}
    (said,) = [note for note in made.notes if note.startswith("pruned to ")]
    assert float(said.split()[2]) <= 0.6
    assert "not narrowed: linear: it makes the outputs" in made.notes
    assert made.history == ("prune macs=0.6 l2",)


def test_it_goes_on_through_export(tmp_path):
    made, _ = pruned(tmp_path)
    inputs = {"x": nets.image(5).numpy()}
    loaded = load_module(ModelSource(spec=str(made.path)), inputs)
    file = Export().run(loaded, common.context(tmp_path / "export", data()))
    (found,) = common.run_onnx(file.path, inputs["x"])
    np.testing.assert_allclose(found, loaded(inputs)[0], rtol=1e-3, atol=1e-5)


def test_both_targets_hold_and_rounds_end_there(tmp_path):
    made, _ = pruned(tmp_path, macs=0.7, parameters=0.6, rounds=2, recover="batchnorm", round_to=4)
    (said,) = [note for note in made.notes if note.startswith("pruned to ")]
    assert float(said.split()[2]) <= 0.7
    assert float(said.split()[7]) <= 0.6


def test_labels_are_used_where_there_are_some(tmp_path):
    pruned(tmp_path, data(labels=True), recover="labels")
    with pytest.raises(StepError, match="recover=labels needs labels"):
        pruned(tmp_path, recover="labels")


def test_a_loop_of_ones_own_is_called(tmp_path, monkeypatch):
    (tmp_path / "loop.py").write_text(
        "import torch\n"
        "def fit(module, original, samples):\n"
        "    assert samples.trained == 36\n"
        "    with torch.no_grad():\n"
        "        module.linear.bias.fill_(7.0)\n"
    )
    monkeypatch.chdir(tmp_path)
    made, _ = pruned(tmp_path, recover="loop.py:fit")
    loaded = load_module(ModelSource(spec=str(made.path)), {"x": nets.image(2).numpy()})
    assert any(bool((one == 7).all()) for one in loaded.module.state_dict().values())


def test_a_run_that_was_killed_goes_on(tmp_path):
    dataset = data()
    step = Prune(epochs=6, macs=0.6, batch=16, features=0.0)
    seen = []

    def kill(fraction, note):
        if note.startswith("epoch 4"):
            raise KeyboardInterrupt

    work = tmp_path / "work"
    work.mkdir()
    first = common.context(tmp_path / "one", dataset, work=work, progress=kill)
    with pytest.raises(KeyboardInterrupt):
        step.run(subject(dataset=dataset), first)
    again = common.context(
        tmp_path / "two", dataset, work=work, progress=lambda _, note: seen.append(note)
    )
    step.run(subject(dataset=dataset), again)
    epochs = [note for note in seen if note.startswith("epoch")]
    assert epochs[0].startswith("epoch 4")


def test_a_target_out_of_reach_is_an_error_and_leaves_no_file(tmp_path):
    with pytest.raises(StepError, match=r"cannot be brought to 0\.05"):
        pruned(tmp_path, macs=0.05)
    assert not list((tmp_path / "step").iterdir())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"macs": None}, "give macs, parameters, latency or sparsity"),
        ({"macs": 0.0}, "macs cannot be"),
        ({"importance": "l3"}, "importance cannot be"),
        ({"recover": "distil"}, "recover cannot be 'distil'"),
        ({"rounds": 0}, "rounds cannot be"),
    ],
)
def test_wrong_options_are_said_before_any_work(options, said):
    with pytest.raises(RecipeError, match=said):
        Prune(**options)


def test_what_follows_takes_the_file():
    assert Recipe(Prune(), Export()).located()[1].step.takes == (Format.TORCH, Format.PT2)


def test_a_latency_is_met_on_the_device(tmp_path, monkeypatch):
    """The clock is the test's: a real one is tested where the stopwatch is."""
    from workbench.intervals import Estimate
    from workbench.pruning import timing

    asked = []

    def latency_ratio(self, model):
        count = sum(one.numel() for one in model.module.parameters() if one.ndim == 4)
        value = 0.2 + 0.8 * count / (16 * 27 + 24 * 16 * 9)
        asked.append(value)
        return Estimate(value, value - 0.01, value + 0.01)

    monkeypatch.setattr(timing.Stopwatch, "latency_ratio", latency_ratio)
    made, _ = pruned(tmp_path, macs=None, latency=0.7, recover="none", round_to=2)
    (said,) = [note for note in made.notes if note.startswith("latency ")]
    assert float(said.split()[1]) <= 0.7
    assert "of the original's on testing, as FP32 ONNX" in said
    assert asked[-1] <= 0.7
    assert made.history == ("prune latency=0.7 l2",)
    with pytest.raises(StepError, match=r"latency cannot be brought to 0\.1"):
        pruned(tmp_path, macs=None, latency=0.1, recover="none")


def test_zeros_alone_keep_the_shape_and_survive_recovery(tmp_path):
    made, _ = pruned(tmp_path, macs=None, sparsity=0.6, epochs=2)
    loaded = load_module(ModelSource(spec=str(made.path)), {"x": nets.image(2).numpy()})
    weights = [one for one in loaded.module.state_dict().values() if one.ndim > 1]
    share = sum(int((one == 0).sum()) for one in weights) / sum(one.numel() for one in weights)
    assert share == pytest.approx(0.6, abs=0.01)
    assert {tuple(one.shape) for one in weights if one.ndim == 4} == {(16, 3, 3, 3), (24, 16, 3, 3)}
    assert "60 % of the weights are zero: no faster, smaller compressed" in made.notes
