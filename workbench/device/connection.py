"""A device that is being talked to: what it is, what lies on it, and processes that run there."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.device import runner_programs
from workbench.device.benchmark_model import benchmark_job
from workbench.device.health.prepare import prepare_device
from workbench.device.health.state import Health, health
from workbench.device.runner_jobs import Job, plan_job
from workbench.device.transport import open_transport
from workbench.device.transport.store import Store

if TYPE_CHECKING:
    from workbench.device.bundle import Bundle
    from workbench.device.health.identity import Identity
    from workbench.device.profile import Device
    from workbench.device.runner_plan import Plan
    from workbench.device.transport.base import Done, Transport
    from workbench.measure.latency import Preset


# Where files go on a device: adb's user owns little else, ssh's has a home.
FOLDERS = {"adb": "/data/local/tmp/workbench", "ssh": ".cache/workbench-device"}


def transport_of(device: Device) -> Transport:
    """The way to a device. Nothing is said to it yet."""
    return open_transport(
        device.transport, device.name, host=device.host, port=device.port, serial=device.serial
    )


def resolve_device(device: Device, identity: Identity) -> Device:
    """The profile with what the device says of itself where the profile says nothing."""
    return replace(
        device,
        machine=device.machine or identity.architecture,
        isa=device.isa or identity.isa,
        emulated=device.emulated or identity.emulated,
    )


@dataclass
class Connection:
    """Processes on a device that is prepared: see `connect`.

    Attributes:
        folder: a private one on the device.
        here: one on this machine.
        prefix: of every process, to pin it.
        store: None where the device is this machine, and files stay where they are.
    """

    device: Device
    transport: Transport
    folder: str
    here: Path
    prefix: tuple[str, ...]
    notes: tuple[str, ...]
    store: Store | None
    runner: runner_programs.Runner

    def bring(self, path: Path, program: bool = False) -> str:
        """A file of this machine on the device: its path there."""
        return _bring(self.store, path, program)

    def bring_bytes(self, name: str, data: bytes) -> str:
        """Put bytes into a file on the device; its path there."""
        path = self.here / name
        path.write_bytes(data)
        return self.bring(path)

    def write(self, name: str, plan: Plan) -> str:
        """Put a plan on the device, for as long as the connection stands; its path there."""
        path = self.here / f"{name}.plan"
        path.write_text(plan.text(), encoding="ascii")
        if self.store is None:
            return str(path)
        target = f"{self.folder}/{name}.plan"
        self.transport.push(path, target)
        return target

    def fetch(self, there: str) -> Path:
        """A file that a runner wrote, on this machine, and gone from the device."""
        if self.store is None:
            return Path(there)
        here = self.here / Path(there).name
        self.transport.pull(there, here)
        self.transport.run(["rm", "-f", there])
        return here

    def run(self, arguments: Sequence[str]) -> Done:
        """One process of the runner that ended well."""
        limit = self.device.limits.timeout
        return self.runner.run(self.transport, self.prefix, arguments, limit)

    def job(self, name: str, bundle: Bundle, preset: Preset) -> Job:
        """Bring a bundle, to be asked about."""
        if self.runner.kind == "benchmark_model":
            return benchmark_job(self, name, bundle, preset)
        return plan_job(self, name, bundle, preset)

    def health(self) -> Health:
        """How the device is doing now."""
        return health(self.transport, self.folder)


def _bring(store: Store | None, path: Path, program: bool) -> str:
    return str(path) if store is None else store.put(path, executable=program)


@contextmanager
def connect(
    device: Device, transport: Transport, identity: Identity, runtimes: Sequence[str]
) -> Iterator[Connection]:
    """A connection to a device that was identified: prepared now, and restored afterwards.

    runtimes: those whose libraries the runner needs. Raises DeviceError where the device cannot be
    prepared, DependencyError where the runner or a library is not to be had.
    """
    with ExitStack() as stack:
        here = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wb-device-")))
        store, folder = None, str(here)
        if device.transport != "local":
            where = device.folder or FOLDERS[device.transport]
            store = Store(transport, where, device.capacity_mb * 10**6)
            folder = stack.enter_context(store.scratch())
        runner = runner_programs.install(
            device, identity, runtimes, lambda path, program: _bring(store, path, program)
        )
        ready = stack.enter_context(prepare_device(transport, identity, device.cores))
        yield Connection(
            resolve_device(device, identity), transport, folder, here, ready.prefix, ready.notes,
            store, runner,
        )  # fmt: skip
