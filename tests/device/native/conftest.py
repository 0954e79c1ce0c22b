"""The runners as fixtures: the one in C is built once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.device.native.runners import Runner
from workbench.device.native import build
from workbench.errors import DependencyError

SCRIPT = Path(build.__file__).with_name("runner.py")


def built(folder: Path, sanitize: bool = False) -> Path:
    """The runner in C for this machine; skips where it cannot be."""
    if not build.host_target():
        pytest.skip("the native runner is for Linux on x86_64 and aarch64")
    try:
        return build.build(build.host_target(), folder, sanitize=sanitize)
    except DependencyError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("program"))


@pytest.fixture(params=["native", "python"])
def runner(request: pytest.FixtureRequest, tmp_path: Path) -> Runner:
    """Each of the two."""
    if request.param == "python":
        return Runner("python", (sys.executable, str(SCRIPT)), tmp_path)
    return Runner("native", (str(request.getfixturevalue("program")),), tmp_path)


@pytest.fixture
def native(program: Path, tmp_path: Path) -> Runner:
    return Runner("native", (str(program),), tmp_path)
