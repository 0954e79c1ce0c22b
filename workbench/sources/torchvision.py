"""`torchvision:name`: a model of torchvision, with its default weights or the user's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import ModelError, WorkbenchError, first_line
from workbench.sources import packages, weights

if TYPE_CHECKING:
    import torch

    from workbench.model import ModelSource


def build(source: ModelSource, names: Sequence[str] = ()) -> tuple[torch.nn.Module, list[str]]:
    """The model in eval mode. Raises ModelError for an unknown name, or weights out of reach."""
    torchvision: Any = packages.import_package("torchvision")
    zoo = torchvision.models
    name = source.spec.partition(":")[2]
    if name not in zoo.list_models():
        near = packages.nearest_names(name, zoo.list_models())
        raise ModelError(f"torchvision has no model '{name}'", "", near)
    # Detectors have a backbone with weights of its own, which would be fetched for nothing.
    without = {"weights": None, "weights_backbone": None}
    try:
        if source.weights is not None:
            module = _constructed(zoo, name, without)
            notes = weights.fit(module, weights.read(source.weights), source.weights)
            return module.eval(), notes
        _fetch(zoo.get_model_weights(name).DEFAULT)
        return _constructed(zoo, name, {**without, "weights": "DEFAULT"}).eval(), [
            "weights: DEFAULT"
        ]
    except (WorkbenchError, MemoryError):
        raise
    except Exception as error:
        raise ModelError(
            f"{source.spec} cannot be loaded",
            f"tried torchvision's server for its weights; "
            f"{type(error).__name__}: {first_line(error)}",
            "run it where there is a network, or give them: --weights FILE",
        ) from error


def _constructed(zoo: Any, name: str, options: dict[str, Any]) -> torch.nn.Module:
    import inspect

    accepted = inspect.signature(zoo.get_model_builder(name)).parameters
    module: torch.nn.Module = zoo.get_model(
        name, **{k: v for k, v in options.items() if k in accepted}
    )
    return module


def _fetch(entry: Any) -> None:
    """Put the weights in torch's cache, checked: torchvision opens them there as pickles."""
    import torch

    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(entry.url).name
    if not path.is_file() and not packages.is_reachable(entry.url):
        raise ConnectionError(f"{entry.url} cannot be reached, and {path} is not there")
    entry.get_state_dict(progress=False, check_hash=True, weights_only=True)
