"""Calibration samples for training: on disk, in constant memory, in another order each epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.arrays import batch_size

if TYPE_CHECKING:
    import torch

    from workbench.dataset import Split

Array = NDArray[Any]
READ = 64  # samples at a time
SHIFT = 1 / 8  # of an image's side: the padding of He et al. 2016 for CIFAR is 4 of 32


@dataclass(frozen=True)
class TrainingSamples:
    """Preprocessed samples, mapped from files.

    Attributes:
        inputs: [N, ...] by name in call order.
        labels: [N] or None.
        held: how many of the last are not trained on, but held back to judge by.
    """

    inputs: Mapping[str, Array]
    labels: Array | None
    held: int

    @property
    def trained(self) -> int:
        """How many are trained on."""
        return batch_size(self.inputs) - self.held

    def batches(
        self, size: int, generator: np.random.Generator
    ) -> Iterator[tuple[list[torch.Tensor], torch.Tensor | None]]:
        """One epoch in a random order; a last batch of one is left out (it has no variance)."""
        order = generator.permutation(self.trained)
        for start in range(0, len(order), size):
            rows = np.sort(order[start : start + size])
            if len(rows) > 1 or self.trained == 1:
                yield self._take(rows)

    def judged(self, size: int) -> Iterator[tuple[list[torch.Tensor], torch.Tensor | None]]:
        """The samples that are held back."""
        total = self.trained + self.held
        for start in range(self.trained, total, size):
            yield self._take(np.arange(start, min(start + size, total)))

    def _take(self, rows: Array) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        import torch

        tensors = [
            torch.from_numpy(np.ascontiguousarray(array[rows])) for array in self.inputs.values()
        ]
        labels = None if self.labels is None else torch.from_numpy(np.asarray(self.labels[rows]))
        return tensors, labels


def gather_samples(
    split: Split, count: int, folder: Path, names: tuple[str, ...], held: float, seed: int
) -> TrainingSamples:
    """The first `count` samples of a split, read once into files under a folder.

    Args:
        names: inputs in call order.
        held: the share of them that is held back, drawn at random.
    """
    files: dict[str, Array] = {}
    order = np.random.default_rng(seed).permutation(count)
    labels = None if split.labels is None else np.empty(count, np.asarray(split.labels).dtype)
    if labels is not None and np.asarray(split.labels).ndim > 1:
        labels = None  # boxes and masks are for the user's own loop
    for batch in split.batches(READ, count):
        rows = order[batch.start : batch.start + len(batch)]
        for name in names:
            array = batch.inputs[name]
            if name not in files:
                files[name] = np.lib.format.open_memmap(
                    folder / f"{len(files)}.npy", "w+", array.dtype, (count, *array.shape[1:])
                )
            files[name][rows] = array
        if labels is not None and batch.labels is not None:
            labels[rows] = batch.labels
    few = min(count - 1, max(1, round(held * count))) if count > 1 else 0
    return TrainingSamples({name: files[name] for name in names}, labels, few)


def vary_images(batch: torch.Tensor, generator: np.random.Generator, mixed: bool) -> torch.Tensor:
    """Images [N, C, H, W] mirrored by chance and shifted together; anything else as it is.

    What is distilled is the teacher's function, of whatever it is given: "Knowledge distillation: A
    good teacher is patient and consistent", Beyer et al., CVPR 2022. Both get the same images.

    Args:
        mixed: half the batches are blended, each image with another, as mixup does (Zhang et al.,
            ICLR 2018).
    """
    import torch

    if not is_image(batch):
        return batch
    if mixed and generator.random() < 0.5:
        share = generator.random()
        batch = share * batch + (1 - share) * batch.flip(0)
    mirrored = torch.from_numpy(generator.random(len(batch)) < 0.5).view(-1, 1, 1, 1)
    batch = torch.where(mirrored, batch.flip(3), batch)
    rooms = [round(side * SHIFT) for side in batch.shape[2:]]
    down, right = (int(generator.integers(-room, room + 1)) for room in rooms)
    padded = torch.nn.functional.pad(
        batch, [abs(right), abs(right), abs(down), abs(down)], mode="replicate"
    )
    top, left = abs(down) + down, abs(right) + right
    return padded[:, :, top : top + batch.shape[2], left : left + batch.shape[3]]


def is_image(batch: torch.Tensor) -> bool:
    """Whether a tensor is [N, C, H, W] of one or three channels."""
    return batch.ndim == 4 and batch.is_floating_point() and batch.shape[1] in (1, 3)
