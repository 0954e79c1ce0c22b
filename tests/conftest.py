"""What all tests share: tiers, two workers, a cache of the session's own.

Tiers are what a test costs. `process` starts child processes (workers, converters, the command
line), `matrix` is the long tier; what has neither mark is `unit`, and fails where it starts a
process after all.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

# Two test workers share two cores, each with children: one thread for each library in all of them.
# Before anything is imported that reads them.
for _name in ("OMP", "OPENBLAS", "MKL", "TF_NUM_INTRAOP", "TF_NUM_INTEROP"):
    os.environ.setdefault(f"{_name}_THREADS" if "NUM" in _name else f"{_name}_NUM_THREADS", "1")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

# Files that take longest, longest first: begun last, one of them would keep one worker busy while
# the other has nothing left to do.
LONGEST = (
    "test_structures.py", "run/test_files_profile_devices.py", "arm64/test_profile.py",
    "run/test_baked_job.py", "arm64/test_transports.py", "digits/test_digits.py",
)  # fmt: skip

# A shell's background job ignores Ctrl-C, and would have every process of ours ignore it too.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two workers for the suite or a folder of it; none where single files are named."""
    if any(".py" in argument for argument in config.args):
        return 0
    return min(2, os.cpu_count() or 1)


def pytest_configure() -> None:
    """The seeds of what changes daily: the same in every worker, and printed."""
    os.environ.setdefault("WB_DAY", str(datetime.now(UTC).toordinal()))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if "not matrix" not in config.option.markexpr:
        terminalreporter.write_line(
            f"WB_DAY={os.environ['WB_DAY']} draws the same random nets again"
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if not any(item.get_closest_marker(tier) for tier in ("process", "matrix")):
            item.add_marker("unit")
    places = {here / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))  # stable: the others stay


_started: list[Any] = []
_earlier: set[threading.Thread] = set()  # of earlier tests: what they start is not this test's


def _watched(original: Any) -> Any:
    def start(self: Any, args: Any, *more: Any, **settings: Any) -> None:
        if threading.current_thread() not in _earlier and args[0] != "uname":  # `platform` asks it
            _started.append(args)
        original(self, args, *more, **settings)

    return start


subprocess.Popen.__init__ = _watched(subprocess.Popen.__init__)  # type: ignore[method-assign]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    _started.clear()
    _earlier.clear()
    _earlier.update(set(threading.enumerate()) - {threading.main_thread()})
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    result = yield
    if _started and item.get_closest_marker("unit"):
        pytest.fail(f"a unit test starts no process; mark it `process`: {_started[0]}", False)
    return result


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """No test reads or fills the user's cache; each worker has its own."""
    os.environ["WB_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield


@pytest.fixture
def shared() -> Path:
    """The folder of real models and images; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"needs real models and images in {SHARED}")
    return SHARED
