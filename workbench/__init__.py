"""An edge/mobile model-optimization workbench: from a checkpoint to measured mobile artifacts.

    import workbench as wb

gives the functions of `workbench.api`, each imported when it is first asked for; docs/python.md
shows them.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.api import (
        load_dataset,
        load_model,
        profile,
        quantize,
        run_recipe,
        run_sweep,
    )
    from workbench.run.run_options import RunOptions

# onnxruntime sends telemetry by default from 1.29 on; it reads this when it is first imported, so
# it is set before anything here can import it, and child processes inherit it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__version__ = "0.1.0"
__all__ = [
    "RunOptions", "load_dataset", "load_model", "profile", "quantize", "run_recipe", "run_sweep",
]  # fmt: skip

# Where each name is. No name is a submodule's: importing that would put the module in its place.
_MODULES = {
    "RunOptions": "workbench.run.run_options",
    "load_dataset": "workbench.api",
    "load_model": "workbench.api",
    "profile": "workbench.api",
    "quantize": "workbench.api",
    "run_recipe": "workbench.api",
    "run_sweep": "workbench.api",
}


def __getattr__(name: str) -> Any:
    """A name of the Python face, from the module that has it."""
    if name not in _MODULES:
        raise AttributeError(f"module 'workbench' has no attribute '{name}'")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
