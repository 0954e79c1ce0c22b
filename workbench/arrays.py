"""Named batches of arrays: how many samples they hold, one of them, and several put together.

Nothing here imports numpy before it is called. All but `concatenate` work on torch tensors too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

if TYPE_CHECKING:
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"
Rows = TypeVar("Rows", bound=Any)  # an array or tensor, whose first axis is the batch


def batch_size(inputs: Mapping[str, Any]) -> int:
    """How many samples are in arrays [N, ...] by name.

    >>> batch_size({"ids": [[1, 2], [3, 4], [5, 6]]})
    3
    """
    return len(next(iter(inputs.values())))


def slice_batch(inputs: Mapping[str, Rows], start: int, stop: int) -> dict[str, Rows]:
    """The samples from `start` up to `stop`, by name.

    >>> slice_batch({"ids": [[1], [2], [3]]}, 1, 3)
    {'ids': [[2], [3]]}
    """
    return {name: array[start:stop] for name, array in inputs.items()}


def split_samples(inputs: Mapping[str, Rows]) -> Iterator[dict[str, Rows]]:
    """Each sample alone, as a batch of one.

    >>> list(split_samples({"ids": [[1, 2], [3, 4]]}))
    [{'ids': [[1, 2]]}, {'ids': [[3, 4]]}]
    """
    for index in range(batch_size(inputs)):
        yield slice_batch(inputs, index, index + 1)


def channel_axis(rank: int) -> int:
    """Where the channels of a tensor of that rank stand: [N, C, ...], or [N, T, C] of tokens.

    >>> [channel_axis(rank) for rank in (2, 3, 4)]
    [1, 2, 1]
    """
    return rank - 1 if rank in (2, 3) else 1


def concatenate(batches: Iterable[Sequence[Array]]) -> list[Array]:
    """The outputs of several batches as those of one: each output's arrays joined along the batch.

    Raises ValueError where the batches have different numbers of outputs.
    """
    import numpy as np

    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]
