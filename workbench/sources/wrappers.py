"""Modules that stand before another: they give it its inputs, by position, as it wants them.

Imported only where torch is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from workbench.artifact import TensorSpec


class PositionalProgram(nn.Module):
    """The graph of an exported program, called by position in the order of `specs`.

    The last of its inputs may be `keywords` of the graph. batch: the only number of samples that
    the program was exported for, None where the batch is dynamic.
    """

    def __init__(
        self, graph: nn.Module, specs: tuple[TensorSpec, ...], keywords: tuple[str, ...]
    ) -> None:
        super().__init__()
        self.program = graph
        self.specs = specs
        self.keywords = keywords
        sizes = {spec.shape[0] for spec in specs if spec.shape} - {None}
        self.batch = max((size for size in sizes if size is not None), default=None)

    def forward(self, *tensors: Tensor) -> Any:
        """The program's outputs, for its inputs in the order of `specs`."""
        first = len(tensors) - len(self.keywords)
        named = dict(zip(self.keywords, tensors[first:], strict=True))
        return self.program(*tensors[:first], **named)


class Keywords(nn.Module):
    """A model that takes its inputs by keyword, called by position in the order of `names`.

    Of what it returns only the tensors are kept, by name: no caches, no hidden states.
    """

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *tensors: Tensor) -> dict[str, Tensor]:
        """The model's tensors by name, for its inputs in the order of `names`."""
        outputs = self.model(**dict(zip(self.names, tensors, strict=True)))
        return {key: value for key, value in outputs.items() if isinstance(value, Tensor)}


def with_signature(kind: type[nn.Module], names: tuple[str, ...]) -> type[nn.Module]:
    """A class whose forward says which arguments it takes: exporters name their inputs so.

    Of the class and not of one instance, which a deep copy would take along.
    """
    inner: Callable[..., Any] = kind.forward

    def forward(self: nn.Module, *tensors: Tensor) -> Any:
        return inner(self, *tensors)

    either = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, either) for name in ("self", *names)]
    forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return type(kind.__name__, (kind,), {"forward": forward})
