"""Every test has a cache of the session's own: none reads or fills the user's."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


# A shell's background job ignores Ctrl-C, and would have every process of ours ignore it too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    os.environ["WB_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield


@pytest.fixture
def shared() -> Path:
    """The folder of real models and images; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"needs real models and images in {SHARED}")
    return SHARED
