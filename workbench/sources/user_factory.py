"""A user's factory, `file.py:build` or `package.module:build`, with or without a weights file."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workbench import usercode
from workbench.errors import InputError, ModelError, shown
from workbench.sources import weights
from workbench.sources.plain_module import plain_module

if TYPE_CHECKING:
    import torch

    from workbench.model import ModelSource


def build(source: ModelSource, names: Sequence[str] = ()) -> tuple[torch.nn.Module, list[str]]:
    """The module with its weights, in eval mode, and what a user should know of it.

    A config that the weights' checkpoint carries becomes the factory's arguments. Raises
    ModelError.
    """
    import torch

    try:
        make = usercode.resolve(source.spec, source.folder)
    except InputError as error:
        raise ModelError(error.what, error.why, error.fix) from error
    state, config = None, None
    if source.weights is not None:
        state, config = weights.read_checkpoint(source.weights)
    arguments, notes = _arguments(make, config, source)
    # Every process that loads this source must get the same weights, also from a bare factory.
    torch.manual_seed(source.seed)
    try:
        module = make(**arguments)
    except Exception as error:
        raise ModelError(f"{source.spec} failed", f"{type(error).__name__}: {error}") from error
    if not isinstance(module, torch.nn.Module):
        raise ModelError(
            f"{source.spec} gave a {type(module).__name__}", "", "return a torch.nn.Module"
        )
    module, changes = plain_module(module, source.spec)
    notes += changes
    if state is not None and source.weights is not None:
        notes += weights.fit(module, state, source.weights)
    else:
        notes.append("no --weights given: the weights are whatever the factory set")
    weights.check_finite(module)
    if any(part.training for part in module.modules()):
        notes.append("the model was in training mode and was put in eval mode")
        module.eval()
    return module, notes


def _arguments(
    make: Callable[..., Any], config: Mapping[str, Any] | None, source: ModelSource
) -> tuple[dict[str, Any], list[str]]:
    """What the factory is called with, and what to say of it. Raises ModelError."""
    try:
        parameters = list(inspect.signature(make).parameters.values())
    except (TypeError, ValueError):  # of a builtin
        parameters = []
    has_kwargs = any(item.kind is item.VAR_KEYWORD for item in parameters)
    named = [item for item in parameters
             if item.kind in (item.POSITIONAL_OR_KEYWORD, item.KEYWORD_ONLY)]  # fmt: skip
    accepted = [item.name for item in named]
    required = [item.name for item in named if item.default is item.empty]
    if not config:
        if required:
            held = "no --weights are given" if source.weights is None else (
                f"{source.weights} carries no {' or '.join(weights.CONFIGS)}"
            )  # fmt: skip
            raise ModelError(
                f"{source.spec} needs {', '.join(required)}",
                f"they could come from a checkpoint's config, and {held}",
                "give the arguments defaults, or save torch.save({'state_dict': …, 'config': …})",
            )
        return {}, []
    if not accepted and not has_kwargs:
        note = f"{source.spec} takes no arguments: the checkpoint's config was not given to it"
        return {}, [note]
    if accepted in (["config"], ["cfg"]) and not {*accepted} & {*config}:
        return {accepted[0]: dict(config)}, [
            f"{accepted[0]} is the checkpoint's: {_listed(config)}"
        ]
    unknown = [name for name in config if name not in accepted]
    absent = [name for name in required if name not in config]
    if (unknown and not has_kwargs) or absent:
        does = f"does not take {weights.abbreviate(unknown)}" if unknown and not has_kwargs else ""
        lacks = f"needs {', '.join(absent)}" if absent else ""
        raise ModelError(
            f"{source.spec} {' and '.join(filter(None, (does, lacks)))}",
            f"the config in {source.weights} has {weights.abbreviate(list(config), 12)}; "
            f"the factory takes {', '.join(accepted) or 'anything'}",
            "give the factory these parameters, one parameter `config`, or **kwargs",
        )
    return dict(config), [f"built with the checkpoint's config: {_listed(config)}"]


def _listed(config: Mapping[str, Any]) -> str:
    return weights.abbreviate([f"{name}={shown(value)}" for name, value in config.items()], 8)
