"""What the sources from packages share: that the package is there, and that its hub answers."""

from __future__ import annotations

import difflib
import importlib
import os
import socket
import sys
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from workbench.errors import DependencyError, first_line

REACHED = 5.0  # seconds that a hub may take to answer at all

# Before huggingface_hub is imported: it says what it fetches for whom, and transformers asks a
# service to convert what it finds as pickles.
_QUIET = {"HF_HUB_DISABLE_TELEMETRY": "1", "DISABLE_SAFETENSORS_CONVERSION": "1"}


def import_package(name: str) -> ModuleType:
    """An optional package, imported. Raises DependencyError that says how it is got."""
    os.environ.update(_QUIET)
    if name == "transformers":
        hide_torchvision()
    extra = {"transformers": "hf"}.get(name, name)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != name:
            raise _broken(name, error) from error
        raise DependencyError(
            f"{name} is not installed",
            f"--model {extra}:… needs it",
            f"pip install 'mobile-workbench[{extra}]'",
        ) from error
    except Exception as error:
        raise _broken(name, error) from error


def warm(kind: str) -> None:
    """Import what loading a model of `hf:`, `timm:` or `torchvision:` takes."""
    import_package({"hf": "transformers"}.get(kind, kind))
    if kind == "hf":  # which imports its parts as they are used
        importlib.import_module("transformers.modeling_utils")
        importlib.import_module("transformers.models.auto.modeling_auto")


def _broken(name: str, error: Exception) -> DependencyError:
    """A package that is there and cannot be imported: mostly torchvision, for timm too."""
    reason = f"{type(error).__name__}: {first_line(error)}"
    wrong = mismatched_torchvision()
    if wrong:
        return DependencyError(
            f"{name} cannot be imported: torchvision {wrong} does not match torch here",
            f"torch is {metadata.version('torch')}; {reason}",
            "install the torchvision that was built for it, with the same suffix (+cpu, +cu…)",
        )
    return DependencyError(f"{name} cannot be imported", reason, f"pip install --upgrade {name}")


@cache
def hide_torchvision() -> str:
    """Hide a torchvision that does not match torch from this process, and return its version.

    transformers does without torchvision, but fails where it finds one that cannot be imported.
    """
    version = mismatched_torchvision()
    if version:
        sys.modules["torchvision"] = None  # type: ignore[assignment]
    return version


def mismatched_torchvision() -> str:
    """The version of a torchvision that is installed but cannot be imported, '' of none."""
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError:
        return ""
    except Exception:  # noqa: BLE001 - torch raises RuntimeError: an operator does not exist
        return metadata.version("torchvision")
    return ""


def is_reachable(url: str) -> bool:
    """Whether a hub answers, so that nobody waits for its library's retries where it does not."""
    parts = urlsplit(url)
    proxies = urllib.request.getproxies()
    if (proxies.get(parts.scheme) or proxies.get("all")) and not urllib.request.proxy_bypass(
        parts.hostname or ""
    ):
        return True  # only the library can tell, which knows how to go through one
    try:
        port = parts.port or (80 if parts.scheme == "http" else 443)
        socket.create_connection((parts.hostname or "", port), timeout=REACHED).close()
    except OSError:
        return False
    return True


@contextmanager
def offline_hub() -> Iterator[bool]:
    """Keep Hugging Face's hub to its cache where it does not answer; gives whether that is so."""
    hub: Any = import_package("huggingface_hub")
    constants = hub.constants
    before = constants.HF_HUB_OFFLINE
    offline = before or not is_reachable(constants.ENDPOINT)
    constants.HF_HUB_OFFLINE = offline
    try:
        yield offline
    finally:
        constants.HF_HUB_OFFLINE = before


def nearest_names(word: str, names: Iterable[str]) -> str:
    """The names of a zoo that are near a word; all of them would fill a terminal."""
    candidates = list(names)
    matches = difflib.get_close_matches(word, candidates, n=4, cutoff=0.5)
    return f"did you mean {', '.join(matches)}?" if matches else f"it has {len(candidates)} others"
