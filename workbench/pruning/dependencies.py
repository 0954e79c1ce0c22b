"""What depends on what in a module: torch-pruning's graph, its faults named."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from workbench.errors import ModelError, first_line
from workbench.model import flatten

if TYPE_CHECKING:
    import torch

    Module = torch.nn.Module


def trace_dependencies(module: Module, inputs: Sequence[torch.Tensor]) -> Any:
    """The dependency graph. Raises ModelError with the module that was running when it failed."""
    import torch
    import torch_pruning

    running: list[str] = []
    hooks = []
    for name, layer in module.named_modules():
        hooks.append(layer.register_forward_pre_hook(_entering(running, name or "the model")))
        hooks.append(layer.register_forward_hook(_leaving(running)))
    try:
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of parameters outside layers: they are tried below
            return torch_pruning.DependencyGraph().build_dependency(
                module,
                example_inputs=list(inputs),
                forward_fn=lambda model, arguments: model(*arguments),
                output_transform=lambda output: [tensor for _, tensor in flatten(output)],
                verbose=False,
            )
    except Exception as error:  # whatever a model's code or a graph that nobody met raises
        suspects = [running[-1]] if running else _recurrent_layers(module)
        where = "".join(f" in {name} ({_class_name(module, name)})" for name in suspects[:1])
        raise ModelError(
            f"torch-pruning cannot trace the model{where}",
            f"{type(error).__name__}: {first_line(error)}",
            "give a model of plain layers, or leave the step Prune out",
        ) from error
    finally:
        for hook in hooks:
            hook.remove()


def _entering(running: list[str], name: str) -> Callable[..., None]:
    return lambda *_: running.append(name)


def _leaving(running: list[str]) -> Callable[..., None]:
    def leave(*_: Any) -> None:
        running.pop()

    return leave


def _class_name(module: Module, name: str) -> str:
    return type(dict(module.named_modules()).get(name, module)).__name__


def _recurrent_layers(module: Module) -> list[str]:
    """Layers that it meets as many operators, none of which it knows."""
    from torch import nn

    return [name for name, layer in module.named_modules() if isinstance(layer, nn.RNNBase)]


def follow_groups(graph: Any, kinds: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """What hangs together, from each layer that no group before holds; and layers without an end.

    As torch-pruning's own `get_all_groups`, which goes round for ever where channels are split and
    joined such that the same ones come back under other numbers.
    """
    from torch_pruning.dependency.group import Group

    class EndlessError(Exception):
        pass

    add, most = Group.add_dep, 8 * len(graph.module2node) + 100

    def add_bounded(group: Any, dep: Any, idxs: Any) -> None:
        if len(group) > most:
            raise EndlessError
        add(group, dep, idxs)

    groups: list[Any] = []
    endless: list[Any] = []
    seen: set[Any] = set(graph.IGNORED_LAYERS_IN_TRACING)
    Group.add_dep = add_bounded
    try:
        for layer in list(graph.module2node):
            pruner = graph.get_pruner_of_module(layer)
            if not isinstance(layer, tuple(kinds)) or layer in seen or pruner is None:
                continue
            channels = list(range(pruner.get_out_channels(layer)))
            try:
                group = graph.get_pruning_group(layer, pruner.prune_out_channels, channels)
            except EndlessError:
                endless.append(layer)
                continue
            seen |= {
                dep.target.module
                for dep, _ in group
                if graph.is_out_channel_pruning_fn(dep.handler)
            }
            groups.append(group)
    finally:
        Group.add_dep = add
    return groups, endless
