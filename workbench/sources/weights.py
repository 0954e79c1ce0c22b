"""Weights files into a module: state dicts only, never a pickle of a whole module."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import ModelError

if TYPE_CHECKING:
    import torch

# Where training frameworks put the state dict in a checkpoint, the averaged weights first: they
# are what is evaluated and shipped.
KEYS = ("model_ema", "ema_state_dict", "state_dict", "model_state_dict", "model", "net", "weights")
PREFIXES = ("module.", "_orig_mod.", "model.")


def read(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in a `.safetensors`, `.pt` or `.pth` file.

    Raises ModelError for a file that is corrupted, holds a pickled module, or no state dict.
    """
    if path.suffix == ".safetensors":
        return _safetensors(path)
    return _state_dict(_unpickled(path), path)


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as safetensors", str(error)) from error


def _unpickled(path: Path) -> Any:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch gives one type of error for both; only its text tells them apart.
        if "Unsupported" not in str(error) and "GLOBAL" not in str(error):
            raise ModelError(f"{path} is corrupted", str(error).partition("\n")[0]) from error
        raise ModelError(
            f"{path} holds more than tensors, and is refused",
            "a pickled module runs any code it likes when it is opened",
            "save torch.save(model.state_dict(), FILE), or .safetensors, and give its factory",
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError) as error:
        if "torchscript" in str(error).lower():
            raise ModelError(
                f"{path} is a TorchScript archive, not a state dict", "", "give a state dict"
            ) from error
        raise ModelError(f"{path} is corrupted", str(error).partition("\n")[0]) from error


def _state_dict(found: Any, path: Path) -> dict[str, torch.Tensor]:
    import torch

    if isinstance(found, Mapping):
        for key in KEYS:
            if isinstance(found.get(key), Mapping):
                return _state_dict(found[key], path)
        tensors = {str(k): v for k, v in found.items() if isinstance(v, torch.Tensor)}
        if tensors and len(tensors) == len(found):
            return tensors
    held = ", ".join(map(str, list(found)[:6])) if isinstance(found, Mapping) else type(found)
    raise ModelError(
        f"{path} holds no state dict",
        f"it holds {held}; looked for tensors by name, at the top or under {', '.join(KEYS)}",
        "save torch.save(model.state_dict(), FILE)",
    )


def fit(module: torch.nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """Load a state dict, taking off wrappers' prefixes where that makes the names match.

    Raises ModelError naming the keys that are missing, unexpected or of another shape.
    """
    own = module.state_dict()
    for prefix in PREFIXES:
        stripped = {key.removeprefix(prefix): value for key, value in state.items()}
        if len(own.keys() & stripped.keys()) > len(own.keys() & state.keys()):
            state = stripped
    wrong = [f"{key} has shape {tuple(state[key].shape)}, not {tuple(own[key].shape)}"
             for key in own if key in state and own[key].shape != state[key].shape]  # fmt: skip
    # Absent in checkpoints from before torch 0.4.1; eval mode never reads it.
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    extra = [key for key in state if key not in own]
    problems = [
        f"{label} {_few(keys)}"
        for label, keys in (("missing:", missing), ("unexpected:", extra), ("", wrong))
        if keys
    ]
    if problems:
        raise ModelError(
            f"{path} does not fit the model",
            "; ".join(problem.strip() for problem in problems),
            "check that the factory builds the network that was trained",
        )
    module.load_state_dict(state, strict=False)


def _few(keys: list[str], most: int = 5) -> str:
    rest = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + rest


def check_finite(module: torch.nn.Module) -> None:
    """Raises ModelError naming the first parameters that hold NaN or Inf."""
    import torch

    bad = [name for name, tensor in module.state_dict().items()
           if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())]  # fmt: skip
    if bad:
        raise ModelError(
            f"the weights contain NaN or Inf: {_few(bad)}",
            "the training diverged, or the file is damaged",
            "use an earlier checkpoint",
        )
