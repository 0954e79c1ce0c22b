"""`timm:` and `torchvision:`, with weights that the tests make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import nets
from workbench.errors import ModelError
from workbench.model import Model, ModelSource
from workbench.sources.loading import load

IMAGES = {"image": nets.normal(4, 3, 64, 64)}
TIMM, TORCHVISION = "mobilenetv3_small_050", "squeezenet1_1"


def built(zoo: Any, kind: str) -> torch.nn.Module:
    """The zoo's model as its own package builds it, with weights that are not the initial ones."""
    torch.manual_seed(7)
    module: torch.nn.Module = (
        zoo.create_model(TIMM) if kind == "timm" else zoo.models.get_model(TORCHVISION)
    )
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.01)
    return module.eval()


def spec(kind: str) -> str:
    return f"timm:{TIMM}" if kind == "timm" else f"torchvision:{TORCHVISION}"


@pytest.fixture(params=["timm", "torchvision"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def zoo(kind: str, request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(kind)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_the_users_weights_are_put_in(kind: str, zoo: Any, suffix: str, tmp_path: Path) -> None:
    module = built(zoo, kind)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save({"state_dict": module.state_dict()}, path)
    else:
        from safetensors.torch import save_file

        save_file(module.state_dict(), path)
    model = load(ModelSource(spec=spec(kind), weights=path, folder=tmp_path), IMAGES, tmp_path)
    assert isinstance(model, Model)
    assert model.notes == ()
    expected = nets.run_torch(module, IMAGES["image"])
    np.testing.assert_allclose(model(IMAGES)[0], expected, rtol=1e-5, atol=1e-6)


def test_weights_of_another_network_are_refused(kind: str, zoo: Any, tmp_path: Path) -> None:
    torch.save(nets.build().state_dict(), tmp_path / "other.pt")
    source = ModelSource(spec=spec(kind), weights=tmp_path / "other.pt", folder=tmp_path)
    with pytest.raises(ModelError, match=r"other\.pt does not fit"):
        load(source, IMAGES, tmp_path)


def test_an_unknown_name_is_answered_with_the_nearest(kind: str, zoo: Any, tmp_path: Path) -> None:
    source = ModelSource(spec=f"{kind}:resnet81", folder=tmp_path)
    with pytest.raises(ModelError, match=f"{kind} has no model 'resnet81'") as caught:
        load(source, IMAGES, tmp_path)
    assert "did you mean" in caught.value.fix
    assert "resnet18" in caught.value.fix


def test_weights_out_of_reach_are_said_at_once(
    kind: str, zoo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    from workbench.sources import packages

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(packages, "REACHED", 0.001)  # no hub answers within a millisecond
    started = time.monotonic()
    with pytest.raises(ModelError, match=f"{spec(kind)} cannot be loaded") as caught:
        load(ModelSource(spec=spec(kind), folder=tmp_path), IMAGES, tmp_path)
    assert time.monotonic() - started < 20
    assert "--weights FILE" in caught.value.fix
    assert not list(tmp_path.rglob("*.pth"))
