"""What tests of models from packages share."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest


@pytest.fixture(scope="session")
def torchvision() -> Any:
    """torchvision, also where its operators were built for another torch.

    The registry has no CPU build for every torch. Its Python half only wants to see the operators
    declared; none of the models here calls one.
    """
    import torch

    if importlib.util.find_spec("torchvision") is None and "torchvision" not in sys.modules:
        pytest.skip("needs torchvision: pip install 'mobile-workbench[torchvision]'")
    try:
        return importlib.import_module("torchvision")
    except (ImportError, RuntimeError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]  # half imported, or hidden from transformers
    library = torch.library.Library("torchvision", "FRAGMENT")
    for signature in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    ):
        library.define(signature)
    try:
        module: Any = importlib.import_module("torchvision")
    except ModuleNotFoundError:
        pytest.skip("needs torchvision: pip install 'mobile-workbench[torchvision]'")
    module.declared = library  # as long as the package: declarations go with their library
    return module


@pytest.fixture(scope="session")
def timm(torchvision: Any) -> Any:
    return pytest.importorskip("timm", reason="needs timm: pip install 'mobile-workbench[timm]'")
