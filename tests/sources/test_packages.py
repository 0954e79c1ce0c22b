from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from workbench.errors import DependencyError
from workbench.model import ModelSource
from workbench.sources import packages
from workbench.sources.loading import load


@pytest.mark.parametrize(
    ("spec", "package", "extra"),
    [("hf:org/name", "transformers", "hf"), ("timm:resnet18", "timm", "timm"),
     ("torchvision:resnet18", "torchvision", "torchvision")],
)  # fmt: skip
def test_an_absent_package_names_its_extra(
    spec: str, package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as Python marks what is not to be found
    with pytest.raises(DependencyError, match=f"{package} is not installed") as caught:
        load(ModelSource(spec=spec, folder=tmp_path), {}, tmp_path)
    assert caught.value.fix == f"pip install 'mobile-workbench[{extra}]'"
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("spec", ["torchvision:resnet18", "timm:resnet18"])
def test_a_torchvision_of_another_torch_is_said_to_be_that(
    spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("torchvision", "timm")]:
        monkeypatch.delitem(sys.modules, name)
    broken = "raise RuntimeError('operator torchvision::nms does not exist')"
    for name, text in (("torchvision", broken), ("timm", "import torchvision")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(text)
    metadata = tmp_path / "torchvision-9.9.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 9.9\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DependencyError, match=r"torchvision 9\.9 does not match torch") as caught:
        load(ModelSource(spec=spec, folder=tmp_path), {}, tmp_path)
    assert "operator torchvision::nms does not exist" in caught.value.why


def test_a_server_is_reachable_where_it_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        assert packages.is_reachable(address)
    assert not packages.is_reachable(address)
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:1")
    assert packages.is_reachable(address)  # only through it could one tell
