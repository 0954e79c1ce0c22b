from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests import nets
from tests.structures import sequences, vision
from workbench.artifact import Artifact, Format
from workbench.device.session import infer, open_session
from workbench.errors import RecipeError, StepError
from workbench.steps import ToTorchScript

pytestmark = [
    pytest.mark.filterwarnings("ignore:::torch"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]

EIGHT = nets.dataset_of(x=nets.normal(8, 8))

ELSEWHERE = """
import sys, numpy, torch
module = torch.jit.load(sys.argv[1])
assert not [name for name in sys.modules if name.split(".")[0] in ("tests", "workbench")]
given = [torch.from_numpy(numpy.load(path)) for path in sys.argv[3:]]
with torch.inference_mode():
    found = module(*given)
numpy.save(sys.argv[2], (found["scores"] if isinstance(found, dict) else found).numpy())
"""


def compiled(
    folder: Path, module: nn.Module, dataset: Any = EIGHT,
    outputs: tuple[str, ...] = ("output",), **options: Any,
) -> Artifact:  # fmt: skip
    model = nets.model_of(module, dataset, outputs)
    return ToTorchScript(**options).run(model, nets.context(folder, dataset))


def elsewhere(made: Artifact, folder: Path, *arrays: Any) -> Any:
    """The archive's output in a process that has neither the model's code nor the workbench."""
    paths = [folder / f"{number}.npy" for number in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        np.save(path, array)
    command = [sys.executable, "-I", "-c", ELSEWHERE, made.path, folder / "found.npy", *paths]
    done = subprocess.run([str(word) for word in command], cwd=folder, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return np.load(folder / "found.npy")


@pytest.mark.process
def test_the_archive_runs_without_the_models_code(tmp_path: Path) -> None:
    module = nets.build()
    made = compiled(tmp_path / "out", module, nets.images())
    assert (made.format, made.precision) == (Format.TORCHSCRIPT, "float32")
    assert made.inputs[0].shape == (None, 3, 32, 32)
    assert made.outputs[0].shape == (None, 10)
    assert made.history == ("to_torchscript method=trace",)
    images = nets.normal(5, 3, 32, 32, seed=3)
    found = elsewhere(made, tmp_path, images)
    np.testing.assert_allclose(found, nets.run_torch(module, images), rtol=1e-3, atol=1e-5)


@pytest.mark.process
def test_a_decision_on_data_is_scripted_and_said(tmp_path: Path) -> None:
    # All samples go one way: a trace of it would pass every check of outputs.
    data = nets.dataset_of(x=np.abs(nets.normal(8, 8)))
    made = compiled(tmp_path / "out", nets.build(nets.Branching), data)
    assert made.notes[0].startswith("scripted, not traced: a trace keeps one way of nets.py:")
    for sign, factor in ((1, 2), (-1, -3)):
        x = sign * np.abs(nets.normal(3, 8, seed=5))
        np.testing.assert_allclose(elsewhere(made, tmp_path, x), factor * x, rtol=1e-6)


def test_a_trace_that_was_asked_for_says_what_it_is(tmp_path: Path) -> None:
    data = nets.dataset_of(x=np.abs(nets.normal(8, 8)))
    made = compiled(tmp_path, nets.build(nets.Branching), data, method="trace")
    assert made.notes[-1].startswith("asked for, and UNSAFE: a trace keeps one way of nets.py:")
    # And not even so where a sample shows that it is wrong.
    with pytest.raises(StepError, match="cannot become TorchScript"):
        compiled(tmp_path / "both", nets.build(nets.Branching), EIGHT, method="trace")


@pytest.mark.process
def test_what_is_wrong_as_a_trace_is_scripted(tmp_path: Path) -> None:
    made = compiled(tmp_path / "out", nets.build(nets.BakedBatch))
    assert made.notes[0].startswith("scripted, not traced: trace: RuntimeError: shape")
    x = nets.normal(5, 8, seed=2)
    expected = nets.run_torch(nets.build(nets.BakedBatch), x)
    np.testing.assert_allclose(elsewhere(made, tmp_path, x), expected, rtol=1e-6)


def test_both_failing_names_both_reasons(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="cannot become TorchScript") as caught:
        compiled(tmp_path, nets.build(nets.Unscriptable))
    assert "a trace keeps one way of nets.py:" in caught.value.why
    assert "script: " in caught.value.why


def test_a_network_that_is_random_in_eval_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="cannot become TorchScript") as caught:
        compiled(tmp_path, nets.build(nets.Noisy))
    assert "trace: to_torchscript: the outputs differ" in caught.value.why


class OneAtATime(nn.Module):
    """Takes a single sample, and says so in no way that Python can read."""

    def forward(self, x: Tensor) -> Tensor:
        return x.view(1, 4, 2).sum(2)


def test_a_network_of_one_sample_at_a_time_keeps_that(tmp_path: Path) -> None:
    made = compiled(tmp_path, OneAtATime().eval(), nets.dataset_of(x=nets.normal(1, 8)))
    assert made.inputs[0].shape == (None, 8)
    eight = nets.dataset_of(x=nets.normal(8, 8))
    model = nets.model_of(OneAtATime().eval(), eight)
    made = ToTorchScript().run(model, nets.context(tmp_path / "eight", eight))
    assert made.inputs[0].shape == (1, 8)
    assert any(note.startswith("takes one sample at a time") for note in made.notes)
    (found,) = infer(open_session(made, threads=1), {"x": nets.normal(3, 8, seed=4)})
    assert found.shape == (3, 4)


@pytest.mark.process
def test_outputs_keep_their_names_and_order(tmp_path: Path) -> None:
    module = nets.build(nets.Outputs)
    made = compiled(tmp_path / "out", module, EIGHT, ("scores", "embedding"))
    assert [(spec.name, spec.shape) for spec in made.outputs] == [
        ("scores", (None, 4)), ("embedding", (None, 6))
    ]  # fmt: skip
    x = nets.normal(3, 8, seed=4)
    scores, embedding = infer(open_session(made, threads=1), {"x": x})
    wanted = nets.run_torch(module, x)
    np.testing.assert_allclose(scores, wanted["scores"], rtol=1e-5)
    np.testing.assert_allclose(embedding, wanted["embedding"], rtol=1e-5)
    np.testing.assert_allclose(elsewhere(made, tmp_path, x), wanted["scores"], rtol=1e-5)


@pytest.mark.process
def test_two_inputs_keep_the_call_order(tmp_path: Path) -> None:
    module = nets.build(nets.Difference)
    data = nets.dataset_of(second=nets.normal(8, 4), first=nets.normal(8, 4, seed=1))
    made = compiled(tmp_path / "out", module, data)
    given = nets.normal(3, 4, seed=2), nets.normal(3, 4, seed=3)
    np.testing.assert_allclose(
        elsewhere(made, tmp_path, *given), 2 * given[0] - given[1], rtol=1e-5
    )


def test_freezing_makes_weights_constants(tmp_path: Path) -> None:
    frozen = compiled(tmp_path / "frozen", nets.build(), nets.images())
    loose = compiled(tmp_path / "loose", nets.build(), nets.images(), freeze=False)
    assert "frozen" in frozen.notes
    assert "frozen" not in loose.notes
    assert not list(torch.jit.load(frozen.path).parameters())
    assert len(list(torch.jit.load(loose.path).parameters())) == 10


def test_freezing_that_changes_outputs_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = torch.jit.freeze

    def wrong(module: Any) -> Any:
        for parameter in module.parameters():
            parameter.data *= 2
        frozen = real(module)
        for parameter in module.parameters():
            parameter.data /= 2
        return frozen

    monkeypatch.setattr(torch.jit, "freeze", wrong)
    made = compiled(tmp_path, nets.build(), nets.images())
    assert any(note.startswith("not frozen: freeze: the outputs differ") for note in made.notes)
    assert len(list(torch.jit.load(made.path).parameters())) == 10


@pytest.mark.parametrize("name", ["vit", "shufflenet", "control_flow", "bert", "lstm", "gru"])
def test_structures_of_every_kind_become_archives(name: str, tmp_path: Path) -> None:
    module = getattr(sequences if hasattr(sequences, name) else vision, name)()
    if name == "bert":
        ids = np.random.default_rng(0).integers(0, 500, (8, 32))
        data = nets.dataset_of(input_ids=ids, attention_mask=np.ones((8, 32), np.int64))
    elif name in ("lstm", "gru"):
        data = nets.dataset_of(x=nets.normal(8, 32, 12))
    else:
        data = nets.dataset_of(image=nets.normal(8, 3, 64, 64))
    made = compiled(tmp_path, module, data)
    assert made.inputs[0].shape[0] is None
    some = {key: array[2:7] for key, array in data.examples(8).items()}
    (found,) = infer(open_session(made, threads=1), some)
    expected = nets.run_torch(module, *some.values())
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("options", [{"method": "guess"}, {"freeze": 1}, {"rtol": -1.0}])
def test_wrong_options_are_refused_at_construction(options: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=next(iter(options))):
        ToTorchScript(**options)
