"""scikit-learn's handwritten digits as float32 [1, 96, 96] samples, in three fixed splits.

The 1,797 images are 8x8 with 17 grey levels. Training takes the first 897 and evaluation the last
900, in the dataset's own order: digits of one writer mostly stand together in it, so a shuffled
split would put more of the same hands on both sides. Calibration is a fixed choice out of the
training images.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

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
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return (bunch.images / 16).astype(np.float32), bunch.target.astype(np.int64)


class Digits:
    """Some of the images, each enlarged and normalized when it is asked for."""

    def __init__(self, indices: Sequence[int]) -> None:
        self.indices = tuple(indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], int]:
        """Sample float32 [1, 96, 96] and label 0..9. Raises IndexError past the last."""
        from PIL import Image

        images, labels = _digits()
        place = self.indices[index]
        large = Image.fromarray(images[place]).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        sample = (np.asarray(large, dtype=np.float32) - MEAN) / STD
        return sample[np.newaxis], int(labels[place])


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


def calibration() -> Digits:
    """256 of the training images, chosen with a fixed seed."""
    chosen = np.random.default_rng(SEED).permutation(_training_indices())[:CALIBRATION]
    return Digits(sorted(chosen.tolist()))


def evaluation() -> Digits:
    """The last 900 images, which neither training nor calibration sees."""
    return Digits(range(TRAINING, len(_digits()[0])))
