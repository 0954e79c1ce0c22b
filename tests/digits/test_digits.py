"""The embedded model is what its documentation says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import torch

from workbench import dataset, library
from workbench.digits import data, train
from workbench.model import Model, ModelSource
from workbench.sources.user_factory import build

WEIGHTS = Path(data.__file__).with_name("weights.safetensors")


def test_weights_are_under_a_megabyte():
    assert WEIGHTS.stat().st_size < 1_000_000


def test_the_images_are_scikit_learns_with_and_without_its_file(monkeypatch):
    from sklearn.datasets import load_digits

    bunch = load_digits()
    for _ in range(2):
        table = data._table()
        np.testing.assert_array_equal(table, np.column_stack([bunch.data, bunch.target]))
        monkeypatch.setattr(Path, "is_file", lambda path: False)


def test_no_evaluation_image_was_trained_or_calibrated_on():
    seen = {data.training()[i][0].tobytes() for i in range(len(data.training()))}
    calibration = data.calibration()
    assert all(calibration[i][0].tobytes() in seen for i in range(len(calibration)))
    evaluation = data.evaluation()
    assert not any(evaluation[i][0].tobytes() in seen for i in range(len(evaluation)))


def test_top1_is_the_figure_that_the_training_script_states():
    module, _ = build(ModelSource(spec="workbench.digits.model:build", weights=WEIGHTS))
    model = Model(module=module, example_inputs={"input": np.zeros(1)}, output_names=())
    evaluation = data.evaluation()
    right = 0
    # Few at once, channels last: what passes between layers then stays in the processor's caches.
    module.to(memory_format=torch.channels_last)
    for start in range(0, len(evaluation), 5):
        pairs = [evaluation[i] for i in range(start, min(start + 5, len(evaluation)))]
        outputs = model({"input": np.stack([sample for sample, _ in pairs])})[0]
        right += int((outputs.argmax(1) == np.array([label for _, label in pairs])).sum())
    stated = re.search(r"(\d+\.\d+) ?%", train.__doc__ or "")
    assert stated is not None
    assert round(100 * right / len(evaluation), 2) == float(stated[1])


def test_the_defaults_pixels_are_the_same_images_in_8_bits():
    table = tomllib.loads(library.find("calibration", "digits").read_text())
    assert (table["preprocess"]["mean"], table["preprocess"]["std"]) == ([data.MEAN], [data.STD])
    digits = dataset.load("digits")
    assert digits.calibration is not None
    assert digits.evaluation is not None
    for split, plain in ((digits.calibration, data.calibration()),
                         (digits.evaluation, data.evaluation())):  # fmt: skip
        batch = next(split.batches(20))
        expected = np.stack([plain[i][0] for i in range(20)])
        assert batch.inputs["input"].shape == expected.shape
        # Half a step of 1/255, normalized.
        assert np.abs(batch.inputs["input"] - expected).max() < 0.5 / 255 / data.STD + 1e-6
        assert batch.labels is not None
        assert batch.labels.tolist() == [plain[i][1] for i in range(20)]
        assert len(split) == len(plain)
