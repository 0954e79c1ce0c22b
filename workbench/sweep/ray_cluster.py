"""Trials on a Ray cluster: made there, their files brought here, where they are measured."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from workbench.errors import (
    CrashError,
    DependencyError,
    DeviceError,
    WorkbenchError,
    first_line,
    pack,
    unpack,
)
from workbench.process import Worker
from workbench.sweep.shipped import cache_name, pack_entries, unpack_entries
from workbench.sweep.trial import thread_settings

TRIES = 3  # of a trial whose worker is lost


class Cluster:
    """The workers of a Ray cluster, instead of this machine's processes.

    address: `ray` for a cluster that runs on this machine or, where none does, begins here;
    `ray://host:port` for another. jobs: trials at once; as many as its CPUs take, without. notice:
    is told of trials that are tried again. Raises DependencyError without the package, DeviceError
    where no cluster answers.
    """

    def __init__(self, address: str, jobs: int | None, notice: Callable[[str], None]) -> None:
        try:
            import ray
        except ImportError as error:
            raise DependencyError(
                "--on ray needs Ray, and it is not installed",
                "it is an extra: few sweeps need it",
                "pip install 'mobile-workbench[ray]'",
            ) from error
        # Nothing leaves this machine but the trials: Ray counts its users unless notice not to.
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        self._ray, self._notice = ray, notice
        self.finishes = False
        self.apart = address != "ray"
        self._folder = "" if self.apart else str(Path.cwd())
        self._own = not ray.is_initialized()
        if self._own:
            _connect(ray, address)
        cpus = int(ray.cluster_resources().get("CPU", 1))
        self.jobs = min(jobs or cpus, cpus)
        # A task that asks for more than any node has would wait for ever.
        widest = max((int(node["Resources"].get("CPU", 0)) for node in ray.nodes()), default=1)
        self._share = max(1, min(widest, cpus // self.jobs))
        self._make = ray.remote(num_cpus=self._share, max_retries=0)(_make_trial)
        self._begun: dict[Any, tuple[int, tuple[Any, ...], int]] = {}

    def submit(self, number: int, job: str, *arguments: Any) -> None:
        """Begin to make a trial on one of the cluster's workers."""
        assert job == "make"
        self._submit(number, arguments, 1)

    def _submit(self, number: int, arguments: tuple[Any, ...], tried: int) -> None:
        task = self._make.remote(*arguments, cache_name(), self._share, self._folder)
        self._begun[task] = (number, arguments, tried)

    def wait(self) -> list[tuple[int, Any]]:
        """Wait for some that were begun; what they made is in this machine's cache then."""
        while True:
            done, _ = self._ray.wait(list(self._begun), num_returns=1, timeout=0.5)
            ended = [pair for task in done for pair in self._ended(task)]
            if ended:
                return ended

    def _ended(self, task: Any) -> list[tuple[int, Any]]:
        number, arguments, tried = self._begun.pop(task)
        try:
            error, archive = self._ray.get(task)
        except self._ray.exceptions.RayError as lost:
            if tried < TRIES:
                self._notice(f"trial {number}: its worker was lost, and it is tried again")
                self._submit(number, arguments, tried + 1)
                return []
            return [(number, CrashError("a Ray worker was lost", first_line(lost)))]
        if error is not None:
            return [(number, unpack(error))]
        unpack_entries(archive)
        return [(number, None)]

    def close(self) -> None:
        """Cancel what runs, and leave the cluster where this process joined it."""
        for task in self._begun:
            self._ray.cancel(task, force=True)
        if self._own:
            self._ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    variables = {"RAY_USAGE_STATS_ENABLED": "0"}
    if address == "ray" and (cache := os.environ.get("WB_CACHE")):
        variables["WB_CACHE"] = cache  # on this machine all share one
    runtime: dict[str, Any] = {"env_vars": variables}
    quiet: Mapping[str, Any] = {
        "logging_level": "ERROR", "log_to_driver": False, "configure_logging": False
    }  # fmt: skip
    try:
        if address != "ray":
            # The user's recipes, code and data go along; what sweeps and runs made does not.
            runtime |= {"working_dir": str(Path.cwd()), "excludes": ["runs", ".git", "*.tar"]}
            ray.init(address, runtime_env=runtime, **quiet)
            return
        try:
            ray.init("auto", runtime_env=runtime, **quiet)
        except ConnectionError:
            ray.init(include_dashboard=False, runtime_env=runtime, **quiet)
    except Exception as error:
        if isinstance(error, WorkbenchError):
            raise
        raise DeviceError(
            f"the Ray cluster {address} does not answer",
            first_line(error),
            "'ray status' there says whether it runs; --on ray begins one on this machine",
        ) from error


def _make_trial(
    spec: Mapping[str, Any], settings: tuple[str, ...], name: str, threads: int, folder: str
) -> tuple[Any, bytes]:
    """A Ray task: a trial's error, or what the cache there has of it, unless the caller shares it.

    folder: the user's, where that is on this machine; Ray has put its copy in place otherwise.
    It runs in a process of the workbench's own: a crash in a converter is the trial's.
    """
    if folder:
        os.chdir(folder)
    try:
        used = _worker(threads).call("trial_make", spec, settings)
    except CrashError as error:
        _workers.pop().close()
        return pack(error), b""
    except WorkbenchError as error:
        return pack(error), b""
    if cache_name() == name:
        return None, b""
    with tempfile.TemporaryDirectory() as scratch:
        return None, pack_entries(used, Path(scratch))


_workers: list[Worker] = []  # in a Ray worker: what it imported stays for the next trial


def _worker(threads: int) -> Worker:
    if not _workers:
        _workers.append(Worker(thread_settings(threads)))
    return _workers[0]
