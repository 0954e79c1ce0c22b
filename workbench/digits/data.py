"""scikit-learn's handwritten digits as 96x96 samples, in three fixed splits.

The 1,797 images are 8x8 with 17 grey levels. Training takes the first 897 and evaluation the last
900, in the dataset's own order: digits of one writer mostly stand together in it, so a shuffled
split would put more of the same hands on both sides. Calibration is a fixed choice out of the
training images.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIZE = 96
# Of the training images, over all pixels, with ink in 0..1 (0.3074 and 0.3772 at 8x8).
MEAN = 0.307
STD = 0.377

TRAINING = 897  # images before this index train, those from it on evaluate
CALIBRATION = 256
SEED = 0


@cache
def _digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Every image in the dataset's order: ink in 0..1, float32 [1797, 8, 8], and labels [1797]."""
    table = _table()
    images, labels = table[:, :-1].reshape(-1, 8, 8), table[:, -1]
    return (images / 16).astype(np.float32), labels.astype(np.int64)


def _table() -> NDArray[np.float64]:
    """scikit-learn's table [1797, 65]: 64 grey levels and the label.

    Read from its file: importing scikit-learn takes seconds, in every process that reads a sample.
    """
    package = importlib.util.find_spec("sklearn")
    for folder in (package.submodule_search_locations or ()) if package else ():
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    table: NDArray[np.float64] = np.column_stack([bunch.data, bunch.target])
    return table


class Digits:
    """Some of the images, each enlarged when it is asked for.

    pixels: 8-bit, as an app has them, which calibration/digits.toml says how to normalize; else
    normalized and not rounded, as the network was trained on them.
    """

    def __init__(self, indices: Sequence[int], pixels: bool = False) -> None:
        self.indices = tuple(indices)
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[NDArray[Any], int]:
        """Sample float32 [1, 96, 96], or uint8 [96, 96, 1] of pixels, and label 0..9.

        Raises IndexError past the last.
        """
        from PIL import Image

        images, labels = _digits()
        row = self.indices[index]
        large = Image.fromarray(images[row]).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        ink = np.asarray(large, dtype=np.float32)
        if self.pixels:
            return np.round(ink * 255).astype(np.uint8)[:, :, np.newaxis], int(labels[row])
        sample = (ink - MEAN) / STD
        return sample[np.newaxis], int(labels[row])


def _training_indices() -> list[int]:
    """Images before TRAINING, less any that is equal to an evaluation image.

    scikit-learn 1.9's copy has no two equal images, so all 897 stay.
    """
    images, _ = _digits()
    held_out = {image.tobytes() for image in images[TRAINING:]}
    return [index for index in range(TRAINING) if images[index].tobytes() not in held_out]


def training() -> Digits:
    """The 897 images that `train.py` learns from."""
    return Digits(_training_indices())


def calibration(pixels: bool = False) -> Digits:
    """256 of the training images, chosen with a fixed seed."""
    indices = np.random.default_rng(SEED).permutation(_training_indices())[:CALIBRATION]
    return Digits(sorted(indices.tolist()), pixels)


def evaluation(pixels: bool = False) -> Digits:
    """The last 900 images, which neither training nor calibration sees."""
    return Digits(range(TRAINING, len(_digits()[0])), pixels)
