"""An arm64 machine behind real daemons; without its root these tests are skipped.

`adb_target` and `ssh_target` give one each: transports with `transport()`, and the daemon, which
tests may stop and start.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.arm64 import target
from tests.arm64.target import Target


@pytest.fixture(scope="session")
def arm64_root() -> Path:
    """The arm64 root; the test is skipped where it cannot be used."""
    why = target.lacking()
    if why:
        pytest.skip(why)
    return target.root()


@pytest.fixture(scope="session")
def arm64_network(arm64_root) -> Iterator[target.Network]:
    with target.network() as found:
        yield found


@pytest.fixture(scope="session")
def adb_target(arm64_network) -> Iterator[Target]:
    with target.adb_target(arm64_network) as found:
        yield found


@pytest.fixture(scope="session")
def ssh_target(arm64_network) -> Iterator[Target]:
    with target.ssh_target(arm64_network) as found:
        yield found


@pytest.fixture(params=["adb", "ssh"])
def any_target(request) -> Target:
    """Each of the two; its daemon runs again after a test that stopped it."""
    found: Target = request.getfixturevalue(f"{request.param}_target")
    yield found
    if found.daemon._process is None:
        found.daemon.start()
