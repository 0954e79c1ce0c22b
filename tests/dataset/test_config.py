"""Dataset files: what each key does, and every mistake named."""

from __future__ import annotations

import numpy as np
import pytest

from workbench.dataset import Dataset, load
from workbench.errors import DatasetError

ROWS = np.arange(40, dtype=np.float32).reshape(10, 4)
NUMPY = 'source = "numpy"\npath = "rows.npy"\nlabels = "labels.npy"\n'


def read(folder, text: str) -> Dataset:
    (folder / "mine.toml").write_text(text, encoding="utf-8")
    return load(str(folder / "mine.toml"))


def rows_of(split) -> set[float]:
    return {row[0] for batch in split.batches(3) for row in batch.inputs["input"]}


def test_splits_are_disjoint_and_evaluation_takes_the_rest(folder):
    data = read(folder, f"{NUMPY}[split]\ncalibration = 3")
    calibration, evaluation = rows_of(data.calibration), rows_of(data.evaluation)
    assert (len(calibration), len(evaluation)) == (3, 7)
    assert calibration | evaluation == set(ROWS[:, 0])
    assert data.name == "mine"
    for split in (data.calibration, data.evaluation):
        for batch in split.batches(4):
            assert ((batch.inputs["input"][:, 0] / 4) % 3 == batch.labels).all()


def test_evaluation_may_leave_samples_out(folder):
    data = read(folder, f"{NUMPY}[split]\ncalibration = 3\nevaluation = 2")
    assert (len(data.calibration), len(data.evaluation)) == (3, 2)
    assert not rows_of(data.calibration) & rows_of(data.evaluation)


def test_a_seed_decides_the_split(folder):
    def calibration(seed: str) -> list[int]:
        split = read(folder, f"{NUMPY}[split]\ncalibration = 5\n{seed}").calibration
        return split.indices.tolist()

    assert calibration("seed = 1") == calibration("seed = 1")
    assert calibration("seed = 1") != calibration("seed = 2")
    assert calibration("") == calibration("seed = 0")
    assert calibration("") != sorted(calibration("")), "a file's order is no random order"


@pytest.mark.parametrize(
    ("calibration", "evaluation"), [(8, 3), (10, None), (11, None), (0, 5), (5, 0), (2**62, 1)]
)
def test_counts_that_do_not_fit_say_how_many_there_are(folder, calibration, evaluation):
    counts = f"calibration = {calibration}\n" + (f"evaluation = {evaluation}" if evaluation else "")
    counts += "evaluation = 0" if evaluation == 0 else ""
    with pytest.raises(DatasetError, match="but there are 10") as caught:
        read(folder, f"{NUMPY}[split]\n{counts}")
    assert "neither may be empty" in caught.value.why


def test_parts_given_apart_keep_their_own_order(folder):
    data = read(
        folder,
        '[calibration]\nsource = "python"\nfactory = "make.py:rows"\n'
        '[evaluation]\nsource = "images"\npath = "images"\n[preprocess]\nlayout = "NCHW"\n'
        'stored = "NHWC"\ninputs = ["none"]',
    )
    assert (len(data.calibration), len(data.evaluation)) == (4, 2)
    assert data.calibration.labels is None
    assert data.evaluation.labels.tolist() == [0, 1]
    alone = read(folder, '[evaluation]\nsource = "images"\npath = "flat"\nlabels = "labels.csv"')
    assert (alone.calibration, alone.evaluation.labels.tolist()) == (None, [1])


def test_a_sample_in_both_parts_is_found(folder):
    same = 'source = "numpy"\npath = "rows.npy"\n'
    data = read(folder, f"[calibration]\n{same}[evaluation]\n{same}")
    with pytest.raises(DatasetError, match="10 of 10 evaluation samples are calibration samples"):
        data.check()


def test_a_metric_is_the_users_function(folder):
    data = read(folder, f'metric = "make.py:score"\n{NUMPY}[split]\ncalibration = 3')
    assert (data.metric(None, None), data.metric_name) == (0.5, "make.py:score")


def test_every_key_of_preprocess_is_read(folder):
    data = read(
        folder,
        '[evaluation]\nsource = "images"\npath = "images"\n[preprocess]\nresize = 8\ncrop = 6\n'
        'channels = "BGR"\nscale = 255\nmean = [1, 2, 3]\nstd = 0.5\nlayout = "NCHW"\n'
        'stored = "NHWC"\ninputs = ["input"]',
    )
    array = next(data.evaluation.batches(1)).inputs["input"]
    value = len("images/cat/a.png") / 255
    reference = np.broadcast_to((value - np.array([1, 2, 3]))[:, None, None] / 0.5, (3, 6, 6))
    np.testing.assert_allclose(array[0], reference, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("", "names no samples", "[calibration] and [evaluation]"),
        (f"sorce = 1\n{NUMPY}", "no key 'sorce'", "did you mean 'source'?"),
        (f"{NUMPY}[preproces]", "no key 'preproces'", "did you mean 'preprocess'?"),
        (f"{NUMPY}[split]\ncalibraton = 3", "[split]: no key 'calibraton'", "'calibration'?"),
        (f"{NUMPY}[preprocess]\nsize = 3", "[preprocess]: no key 'size'", "'resize'"),
        ('[evaluation]\nsorce = "numpy"', "[evaluation]: no key 'sorce'", "'source'?"),
        (NUMPY, "does not say how to split", "[split]"),
        (f"{NUMPY}split = 3", "split must be a table", ""),
        ('source = "nump"', "source cannot be 'nump'", "did you mean 'numpy'?"),
        ('source = "numpy"', "a numpy source needs 'path'", ""),
        ('source = "images"', "a images source needs 'path'", ""),
        ('source = "python"', "a python source needs 'factory'", ""),
        ('source = "images"\npath = 3', "path must be text, not 3", ""),
        ('source = "images"\npath = "a\\u0000"', "path must be text", ""),
        ('source = "images"\npath = "gone"', "there is no folder", ""),
        ('source = "python"\nfactory = "make.py:row"', "has no 'row'", "did you mean 'rows'?"),
        (f'metric = "make.py:scor"\n{NUMPY}', "has no 'scor'", "did you mean 'score'?"),
        (f"{NUMPY}[evaluation]", "both a source and [evaluation]", "remove one"),
        (f"[evaluation]\n{NUMPY}[split]\ncalibration = 1", "its parts are given apart", ""),
        (f"{NUMPY}[split]\ncalibration = 3.0", "calibration must be a whole number", ""),
        (f"{NUMPY}[split]\ncalibration = true", "calibration must be a whole number", ""),
        (f"{NUMPY}[split]\ncalibration = 3\nseed = -1", "seed must be a whole number", ""),
        (f"{NUMPY}[preprocess]\ncrop = 0", "crop must be a whole number, at least 1", ""),
        (f"{NUMPY}[preprocess]\nmean = []", "preprocess.mean must be a number", ""),
        (f"{NUMPY}[preprocess]\nmean = [nan]", "preprocess.mean must be a number", ""),
        (f"{NUMPY}[preprocess]\nscale = [1, 2]", "preprocess.scale must be one number", ""),
        (f"{NUMPY}[preprocess]\nstd = [1, 0]", "divisors and cannot be 0", ""),
        (f"{NUMPY}[preprocess]\nscale = 0", "divisors and cannot be 0", ""),
        (f'{NUMPY}[preprocess]\nlayout = "NHCW"', "layout cannot be 'NHCW'", "NCHW, NHWC"),
        (f'{NUMPY}[preprocess]\nchannels = "RGBA"', "channels cannot be 'RGBA'", "RGB, BGR, L"),
        (f"{NUMPY}[preprocess]\ninputs = 3", "preprocess.inputs must be a list", ""),
        (f"{NUMPY}[preprocess]\ninputs = [3]", "preprocess.inputs must be a list", ""),
        ("source = ", "is not valid TOML", "Invalid value"),
    ],
)
def test_a_mistake_is_named(folder, text, what, hint):
    with pytest.raises(DatasetError) as caught:
        read(folder, text)
    assert what in caught.value.what
    assert hint in f"{caught.value.why} {caught.value.fix}"


def test_an_unknown_dataset_names_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError, match="there is no dataset named 'digit'") as caught:
        load("digit")
    assert "did you mean 'digits'?" in caught.value.fix
