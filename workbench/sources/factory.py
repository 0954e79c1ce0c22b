"""A user's factory, `file.py:build` or `package.module:build`, with or without a weights file."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench import factory
from workbench.errors import InputError, ModelError
from workbench.model import Model, ModelSource, flatten
from workbench.sources import weights

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray


def load_factory(source: ModelSource, examples: Mapping[str, NDArray[Any]], folder: Path) -> Model:
    """The factory's module in eval mode, tried on the examples. Raises ModelError."""
    module, notes = build(source)
    ordered = in_call_order(module, examples)
    names, outputs = _try(module, ordered)
    for name, tensor in zip(names, outputs, strict=True):
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ModelError(
                f"output '{name}' contains NaN or Inf for real samples",
                "",
                "check the preprocessing in the dataset, and the weights",
            )
    return Model(module=module, example_inputs=ordered, output_names=names, notes=tuple(notes))


def build(source: ModelSource) -> tuple[torch.nn.Module, list[str]]:
    """The module with its weights, in eval mode, and what a user should know of it."""
    import torch

    try:
        make = factory.resolve(source.spec, source.folder)
    except InputError as error:
        raise ModelError(error.what, error.why, error.fix) from error
    notes = []
    # Every process that loads this source must get the same weights, also from a bare factory.
    torch.manual_seed(source.seed)
    try:
        module = make()
    except Exception as error:
        raise ModelError(f"{source.spec} failed", f"{type(error).__name__}: {error}") from error
    if not isinstance(module, torch.nn.Module):
        raise ModelError(
            f"{source.spec} gave a {type(module).__name__}", "", "return a torch.nn.Module"
        )
    if source.weights is not None:
        weights.fit(module, weights.read(source.weights), source.weights)
    else:
        notes.append("no --weights given: the weights are whatever the factory set")
    weights.check_finite(module)
    if any(part.training for part in module.modules()):
        notes.append("the model was in training mode and was put in eval mode")
        module.eval()
    return module, notes


def in_call_order(
    module: torch.nn.Module, examples: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """The examples in the order of forward's parameters, by name where all names match."""
    known = list(inspect.signature(module.forward).parameters)
    if len(examples) > 1 and set(examples) <= set(known):
        return {name: examples[name] for name in known if name in examples}
    return dict(examples)


def _try(
    module: torch.nn.Module, examples: Mapping[str, NDArray[Any]]
) -> tuple[tuple[str, ...], list[torch.Tensor]]:
    import torch

    shapes = ", ".join(f"{name} {array.shape}" for name, array in examples.items())
    try:
        with torch.inference_mode():
            found = module(*(torch.from_numpy(array) for array in examples.values()))
        named = flatten(found)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"the model does not take the dataset's samples ({shapes})",
            f"{type(error).__name__}: {error}",
            "check preprocess.crop, layout and channels in the dataset, or --input",
        ) from error
    if not named:
        raise ModelError("the model returns no tensors")
    if len(named) == 1:
        return (named[0][0] or "output",), [named[0][1]]
    taken: dict[str, torch.Tensor] = {}
    for number, (name, tensor) in enumerate(named):
        taken[name if name and name not in taken else f"output_{number}"] = tensor
    return tuple(taken), list(taken.values())
