"""onnxruntime's tools, without the PyTorch that their package imports wherever it is installed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

_PACKAGE = "workbench_onnxruntime_tools"


def tools_folder() -> Path:
    """The folder of onnxruntime's tools, found without importing onnxruntime."""
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        raise ImportError("onnxruntime is not installed")
    return Path(spec.origin).parent / "tools"


def tool(name: str) -> Any:
    """A module of onnxruntime's tools, by its name below `onnxruntime.tools`.

    >>> tool("onnx_model_utils").make_input_shape_fixed.__name__
    'make_input_shape_fixed'

    That package imports torch, for seconds and hundreds of MB in each process, and its modules need
    none of it. So they are loaded from the same folder under a package of our own.
    """
    if _PACKAGE not in sys.modules:
        package = types.ModuleType(_PACKAGE)
        package.__path__ = [str(tools_folder())]
        sys.modules[_PACKAGE] = package
    return importlib.import_module(f"{_PACKAGE}.{name}")
