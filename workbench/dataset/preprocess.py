"""Preprocessing: from a stored sample to what the model takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.errors import DatasetError

CHANNELS = ("RGB", "BGR", "L")
LAYOUTS = ("NCHW", "NHWC")


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How a sample becomes a model's input; each field is a key of `[preprocess]`.

    Attributes:
        resize: the shorter side in pixels.
        crop: the side in pixels of the square cut out of the centre.
        channels: RGB, BGR or L, of images.
        scale: what values are divided by.
        mean: what is subtracted, after `scale`: one for all channels, or one for each.
        std: what is divided by then, as mean.
        layout: NCHW or NHWC, as the model takes it.
        stored: the layout of a numpy source, guessed from the number of channels where absent.
        inputs: the names it applies to, all by default.
    """

    resize: int | None = None
    crop: int | None = None
    channels: str = "RGB"
    scale: float | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: str | None = None
    stored: str | None = None
    inputs: tuple[str, ...] = ()

    def __call__(self, sample: Mapping[str, NDArray[Any]], where: str) -> dict[str, NDArray[Any]]:
        return {
            name: self._apply(array, where) if not self.inputs or name in self.inputs else array
            for name, array in sample.items()
        }

    @property
    def arithmetic(self) -> bool:
        """Whether values are changed, not only cut, resized and laid out."""
        return self.scale is not None or bool(self.mean) or bool(self.std)

    @cached_property
    def affine(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(x / scale - mean) / std as one multiplication and one addition, in float32."""
        std = np.asarray(self.std or (1.0,), np.float64)
        mean = np.asarray(self.mean or (0.0,), np.float64)
        return (1 / ((self.scale or 1.0) * std)).astype(np.float32), (-mean / std).astype(
            np.float32
        )

    def _apply(self, array: NDArray[Any], where: str) -> NDArray[Any]:
        if self.layout is None and not self.arithmetic:
            return array
        if array.ndim == 2 and self.layout is not None:
            array = array[:, :, None] if self.stored_layout(array) == "NHWC" else array[None]
        if array.ndim != 3:
            raise DatasetError(
                f"{where}: [preprocess] takes images of 3 dimensions, this has {array.ndim}",
                "",
                "name the inputs it applies to with preprocess.inputs, or leave it out",
            )
        stored = self.stored_layout(array)
        pixels = array if stored == "NHWC" else array.transpose(1, 2, 0)
        if self.arithmetic:
            if not {len(self.mean), len(self.std)} <= {0, 1, pixels.shape[2]}:
                raise DatasetError(
                    f"{where}: {pixels.shape[2]} channels, but preprocess.mean and std have "
                    f"{len(self.mean)} and {len(self.std)} values"
                )
            factor, offset = self.affine
            pixels = pixels.astype(np.float32) * factor + offset
        layout = self.layout or stored
        return np.ascontiguousarray(pixels if layout == "NHWC" else pixels.transpose(2, 0, 1))

    def stored_layout(self, array: NDArray[Any]) -> str:
        """The layout, NHWC or NCHW, of an image as its source has it, before preprocessing.

        Raises DatasetError where it cannot be told from the shape and is not given.
        """
        if self.stored is not None:
            return self.stored
        if array.ndim == 2:
            return "NHWC"
        last, first = array.shape[2] in (1, 3, 4), array.shape[0] in (1, 3, 4)
        if last == first:
            raise DatasetError(
                f"the layout of an image of shape {array.shape} cannot be told from its shape",
                "",
                'give preprocess.stored = "NHWC" or "NCHW"',
            )
        return "NHWC" if last else "NCHW"
