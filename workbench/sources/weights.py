"""Weights files into a module: state dicts only, never a pickle of a whole module."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import ModelError

if TYPE_CHECKING:
    import torch

# Where training frameworks put the state dict in a checkpoint, the averaged weights first: they
# are what is evaluated and shipped.
KEYS = ("model_ema", "ema_state_dict", "state_dict_ema", "state_dict", "model_state_dict",
        "model", "net", "weights")  # fmt: skip
PREFIXES = ("module.", "_orig_mod.", "model.")
# Where a checkpoint keeps what its network was built with.
CONFIGS = ("config", "hyper_parameters")


def read(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in a `.safetensors`, `.pt` or `.pth` file.

    Raises ModelError for a file that is corrupted, holds a pickled module, or no state dict.
    """
    return read_checkpoint(path)[0]


def read_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any] | None]:
    """`read`, with the config that stands beside the state dict, or None."""
    if path.suffix == ".safetensors":
        return _safetensors(path), None
    checkpoint = _unpickled(path)
    return _state_dict(checkpoint, path), _config(checkpoint)


def _config(checkpoint: Any) -> dict[str, Any] | None:
    """The first of CONFIGS that a checkpoint has, its keys as text."""
    for key in CONFIGS:
        if isinstance(checkpoint, Mapping) and isinstance(config := checkpoint.get(key), Mapping):
            return {str(name): value for name, value in config.items()}
    return None


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
        # torch gives one type of error for both; only its text tells them apart. Its first line
        # advises to open the file without the check, and is never quoted.
        refused = re.search(r"GLOBAL (\S+)|allowlisted", str(error))
        if refused is None:
            problem = re.search(r"WeightsUnpickler error:\s*(.+)", str(error))
            raise ModelError(
                f"{path} is corrupted",
                f"not what torch.save writes: {problem[1] if problem else '?'}",
            ) from error
        held = f"it holds {refused[1]}; " if refused[1] else ""
        raise ModelError(
            f"{path} holds more than tensors, and is refused",
            f"{held}a pickled object runs any code it likes when it is opened",
            "where the training is yours, save torch.save(model.state_dict(), FILE) there, or "
            ".safetensors, without the objects beside it, and give its factory",
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # torch's readers raise all kinds on a damaged file
        if "torchscript" in str(error).lower():
            raise ModelError(
                f"{path} is a TorchScript archive, not a state dict", "", "give a state dict"
            ) from error
        first = str(error).partition("\n")[0]
        raise ModelError(f"{path} is corrupted", f"{type(error).__name__}: {first}") from error


def _state_dict(checkpoint: Any, path: Path) -> dict[str, torch.Tensor]:
    import torch

    if isinstance(checkpoint, Mapping):
        for key in KEYS:
            if isinstance(checkpoint.get(key), Mapping):
                return _state_dict(checkpoint[key], path)
        tensors = {str(k): v for k, v in checkpoint.items() if isinstance(v, torch.Tensor)}
        if tensors and len(tensors) == len(checkpoint):
            return tensors
    held = (
        ", ".join(map(str, list(checkpoint)[:6]))
        if isinstance(checkpoint, Mapping)
        else type(checkpoint)
    )
    raise ModelError(
        f"{path} holds no state dict",
        f"it holds {held}; looked for tensors by name, at the top or under {', '.join(KEYS)}",
        "save torch.save(model.state_dict(), FILE)",
    )


def fit(module: torch.nn.Module, state: dict[str, torch.Tensor], path: Path) -> list[str]:
    """Load a state dict, taking off wrappers' prefixes where that makes the names match.

    What a training loop keeps beside the network, a criterion or a metric, is left out, and named
    in the notes that are returned. Raises ModelError naming the keys that are missing, of another
    shape, or inside the network's own parts and not expected: of a deeper network, as it seems.
    """
    own = module.state_dict()
    state = _unwrapped(state, own)
    wrong = [f"{key} has shape {tuple(state[key].shape)}, not {tuple(own[key].shape)}"
             for key in own if key in state and own[key].shape != state[key].shape]  # fmt: skip
    # Absent in checkpoints from before torch 0.4.1; eval mode never reads it.
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    # `n_averaged` is the counter of torch's AveragedModel.
    surplus = [key for key in state if key not in own and key != "n_averaged"]
    parts = {key.partition(".")[0] for key in own}
    extra = [key for key in surplus if missing or wrong or key.partition(".")[0] in parts]
    problems = [
        f"{label} {abbreviate(keys)}"
        for label, keys in (("missing:", missing), ("unexpected:", extra), ("", wrong))
        if keys
    ]
    if problems:
        raise ModelError(
            f"{path} does not fit the model",
            "; ".join(problem.strip() for problem in problems),
            "check that this is the network that was trained, classes and sizes too",
        )
    module.load_state_dict(state, strict=False)
    names = abbreviate(surplus)
    return [f"of {path.name} not the network's, and left out: {names}"] if surplus else []


def _unwrapped(
    state: dict[str, torch.Tensor], own: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The state dict without the prefixes, up to three, that keep its names from matching."""
    best, layer = state, [state]
    for _ in range(3):
        layer = [{key.removeprefix(prefix): value for key, value in candidate.items()}
                 for candidate in layer for prefix in PREFIXES
                 if any(key.startswith(prefix) for key in candidate)]  # fmt: skip
        for candidate in layer:
            if len(own.keys() & candidate.keys()) > len(own.keys() & best.keys()):
                best = candidate
    return best


def abbreviate(keys: list[str], most: int = 5) -> str:
    """The first of many names, and how many more there are."""
    rest = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + rest


def check_finite(module: torch.nn.Module) -> None:
    """Raises ModelError naming the first parameters that hold NaN or Inf."""
    import torch

    bad = [name for name, tensor in module.state_dict().items()
           if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())]  # fmt: skip
    if bad:
        raise ModelError(
            f"the weights contain NaN or Inf: {abbreviate(bad)}",
            "the training diverged, or the file is damaged",
            "use an earlier checkpoint",
        )
