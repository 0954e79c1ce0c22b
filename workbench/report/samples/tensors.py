"""The inputs and outputs that a sample's code names, from what the artifact and its file say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from workbench.artifact import Artifact, TensorSpec
from workbench.dataset.preprocess import Preprocess
from workbench.errors import DatasetError
from workbench.inspect.facts import Facts, Tensor, printable

if TYPE_CHECKING:
    from workbench.dataset.facts import DatasetFacts


@dataclass(frozen=True, kw_only=True)
class Image:
    """How pixels become an input: `raw` of rows, columns, channels; (p / scale - mean) / std.

    Attributes:
        raw: uint8 or float32.
        layout: the file's, NCHW or NHWC.
        order: of the channels, as `RGB`; "" where it is not known.
        mean, std: a number a channel, empty where there is none.
        steps: what is to be done to the picture before.
        baked: the file does the arithmetic itself and takes the pixels.
    """

    raw: str
    height: int
    width: int
    channels: int
    layout: str
    order: str = ""
    scale: float | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    steps: tuple[str, ...] = ()
    baked: bool = False

    @property
    def arithmetic(self) -> bool:
        """Whether anything is computed from the pixels."""
        return self.scale is not None or bool(self.mean) or bool(self.std)


@dataclass(frozen=True, kw_only=True)
class SampleTensor:
    """A tensor of the file, as a sample's code names it.

    Attributes:
        shape: with a number for every axis.
        free: the axes that are open.
        quantization: scale and zero point of an integer tensor that stands for real numbers.
        canonical: the model's own name of it where the file has another.
        axes: the model's axes in the file's order, empty where they are the same.
        is_input: an input, whose open axes the sample gives a size.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    free: tuple[int, ...] = ()
    quantization: tuple[float, int] | None = None
    image: Image | None = None
    canonical: str = ""
    axes: tuple[int, ...] = ()
    head: str = ""
    is_input: bool = True

    @property
    def elements(self) -> int:
        """How many numbers it holds, open axes at the sample's sizes."""
        return prod(self.shape)

    @property
    def raw(self) -> str:
        """The type of the numbers that the sample is given for this input."""
        if self.image is not None:
            return self.image.raw
        return "float32" if self.quantization or self.dtype == "float16" else self.dtype

    @property
    def written(self) -> str:
        """dtype and shape for a comment."""

        def size(axis: int) -> str:
            if axis not in self.free:
                return str(self.shape[axis])
            return f"any ({self.shape[axis]} here)" if self.is_input else "any"

        return f"{self.dtype} [{', '.join(map(size, range(len(self.shape))))}]"


class UnclearError(Exception):
    """What keeps a sample from being written; its text is for the README beside the samples."""


def sample_tensors(
    artifact: Artifact, facts: Facts | None, dataset: DatasetFacts
) -> tuple[tuple[SampleTensor, ...], tuple[SampleTensor, ...]]:
    """Inputs and outputs in the artifact's order.

    Raises UnclearError where the file is not clear.
    """
    specs = {spec.name: spec for spec in dataset.inputs}
    inputs = []
    for spec in artifact.inputs:
        source = specs.get(spec.name)
        if source is None and len(specs) == len(artifact.inputs) == 1:
            source = next(iter(specs.values()))
        tensor = _declared(spec, facts.inputs if facts else None)
        image = _image(spec, source, dataset)
        inputs.append(_sample_tensor(spec, tensor, _sizes(spec, source), image))
    outputs = [
        replace(
            _sample_tensor(spec, _declared(spec, facts.outputs if facts else None)), is_input=False
        )
        for spec in artifact.outputs
    ]
    return tuple(inputs), tuple(outputs)


def _declared(spec: TensorSpec, tensors: Sequence[Tensor] | None) -> Tensor:
    """The file's own word on a tensor; the spec's where the format's files have none."""
    named = [tensor for tensor in tensors or () if tensor.name == printable(spec.stored_name)]
    if len(named) > 1:
        raise UnclearError(f"the file has several tensors called {spec.stored_name!r}")
    if "\0" in spec.stored_name:
        raise UnclearError(f"a tensor's name has a NUL character: {spec.stored_name!r}")
    if named and named[0].dtype != "unknown" and named[0].ranked:
        return named[0]
    return Tensor(name=spec.stored_name, dtype=spec.dtype, shape=spec.stored_shape)


def _sample_tensor(
    spec: TensorSpec,
    tensor: Tensor,
    sizes: tuple[int | None, ...] | None = None,
    image: Image | None = None,
) -> SampleTensor:
    shape = []
    for axis, size in enumerate(tensor.shape):
        expected = sizes[axis] if sizes is not None and axis < len(sizes) else None
        shape.append(size if size is not None else 1 if axis == 0 else (expected or 1))
    integer = tensor.dtype.startswith(("int", "uint"))
    return SampleTensor(
        name=spec.stored_name,
        dtype=tensor.dtype,
        shape=tuple(shape),
        free=tuple(axis for axis, size in enumerate(tensor.shape) if size is None),
        quantization=tensor.quantization if integer else None,
        image=image,
        canonical=spec.name if spec.name != spec.stored_name else "",
        axes=spec.permutation,
        head=spec.head,
    )


def _sizes(spec: TensorSpec, source: TensorSpec | None) -> tuple[int | None, ...] | None:
    """The dataset's sizes of an input's axes, in the file's order."""
    if source is None or len(source.shape) != len(spec.shape):
        return None
    return tuple(source.shape[axis] for axis in spec.permutation) or source.shape


def _image(spec: TensorSpec, source: TensorSpec | None, dataset: DatasetFacts) -> Image | None:
    """How pixels become this input; None where it is no image."""
    if spec.pixels is not None:
        return _baked(spec, dataset)
    preprocess, raw = dataset.preprocess, dataset.raw
    if preprocess is None or source is None or source.name not in raw or len(spec.shape) != 4:
        return None
    dtype, raw_shape = raw[source.name]
    applies = not preprocess.inputs or source.name in preprocess.inputs
    touched = preprocess.layout is not None or preprocess.arithmetic
    if not applies or dtype not in ("uint8", "float32") or not (touched or dtype == "uint8"):
        return None
    try:
        layout = preprocess.layout or preprocess.stored_layout(np.empty(raw_shape))
    except DatasetError:
        return None
    canonical = source.shape[1:]
    if layout == "NCHW":
        channels, height, width = canonical
    else:
        height, width, channels = canonical
    moved = {(): layout, (0, 2, 3, 1): "NHWC", (0, 3, 1, 2): "NCHW"}.get(spec.permutation)
    if moved is None or None in canonical or (spec.permutation and moved == layout):
        return None
    assert channels is not None and height is not None and width is not None

    def each(values: tuple[float, ...]) -> tuple[float, ...]:
        return values * channels if len(values) == 1 else values

    return Image(
        raw=dtype,
        height=height,
        width=width,
        channels=channels,
        layout=moved,
        order=preprocess.channels if len(preprocess.channels) == channels else "",
        scale=preprocess.scale,
        mean=each(preprocess.mean),
        std=each(preprocess.std),
        steps=_steps(preprocess),
    )


def _baked(spec: TensorSpec, dataset: DatasetFacts) -> Image:
    """The pixels that a file takes as they are: uint8 rows, columns, channels."""
    _, height, width, channels = spec.stored_shape
    preprocess = dataset.preprocess or Preprocess()
    order = (
        preprocess.channels if dataset.preprocess and len(preprocess.channels) == channels else ""
    )
    if spec.pixels is not None and spec.pixels.reversed:
        order = order[::-1]
    if height is None or width is None or channels is None:
        raise UnclearError(f"the size of the picture that {spec.name!r} takes is open")
    return Image(
        raw="uint8",
        height=height,
        width=width,
        channels=channels,
        layout="NHWC",
        order=order,
        steps=_steps(preprocess),
        baked=True,
    )


def _steps(preprocess: Preprocess) -> tuple[str, ...]:
    steps = []
    if preprocess.resize is not None:
        steps.append(f"resize its shorter side to {preprocess.resize} pixels, bilinear")
    if preprocess.crop is not None:
        steps.append(f"cut out the centred square of {preprocess.crop} x {preprocess.crop} pixels")
    return tuple(steps)
