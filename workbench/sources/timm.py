"""`timm:name`: a model of PyTorch Image Models, with its own weights or the user's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from workbench.errors import ModelError, WorkbenchError, first_line
from workbench.sources import packages, weights

if TYPE_CHECKING:
    import torch

    from workbench.model import ModelSource


def build(source: ModelSource, names: Sequence[str] = ()) -> tuple[torch.nn.Module, list[str]]:
    """The model in eval mode. Raises ModelError for an unknown name, or weights out of reach."""
    timm: Any = packages.import_package("timm")
    name = source.spec.partition(":")[2]
    # `hf_hub:org/name` and `local-dir:folder` are timm's own.
    if ":" not in name and not timm.is_model(name.partition(".")[0]):
        near = packages.nearest_names(name, timm.list_models())
        raise ModelError(f"timm has no model '{name}'", "", near)
    notes = []
    try:
        if source.weights is not None:
            module = timm.create_model(name, pretrained=False)
            notes += weights.fit(module, weights.read(source.weights), source.weights)
        else:
            with packages.offline_hub() as offline:
                module = timm.create_model(name, pretrained=True)
            notes.append("weights of timm" + (", from the hub's cache" if offline else ""))
    except (WorkbenchError, MemoryError):
        raise
    except Exception as error:
        raise ModelError(
            f"{source.spec} cannot be loaded",
            f"tried timm's hub for its weights; {type(error).__name__}: {first_line(error)}",
            "run it where there is a network, or give them: --weights FILE",
        ) from error
    evaluated: torch.nn.Module = module.eval()
    return evaluated, notes
