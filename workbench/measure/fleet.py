"""Many devices at once: side by side, each under its lock, its failures its own."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from workbench.cache import Cache, key_of
from workbench.device.connection import transport_of
from workbench.device.health.identity import identify
from workbench.device.profile import Device
from workbench.device.quarantine import Quarantine
from workbench.device.transport.base import Interrupted, Unreachable
from workbench.errors import DeviceError, WorkbenchError
from workbench.measure.device_run import Assignment, DeviceRun, Round, Watch
from workbench.measure.latency import ProcessSamples
from workbench.measure.remote import measure

if TYPE_CHECKING:
    from workbench.device.transport.base import Transport
    from workbench.display import Display


def run_on_devices(
    devices: Sequence[Device],
    assignment: Assignment,
    cache: Cache,
    display: Display,
    *,
    resume: bool,
) -> dict[str, DeviceRun]:
    """What every device gave, by its profile's name; what ended a device is its run's `error`.

    Devices are measured side by side, but for those that are this machine: one after another, once
    the rest are done, for what runs here would be measured with them. resume: rounds that an
    earlier run finished are taken from the cache. On Ctrl-C what was set on the devices is restored
    before it goes on.
    """
    fleet = _Fleet(assignment, cache, display, resume)
    runs = fleet.together([device for device in devices if device.transport != "local"])
    for device in devices:
        if device.transport == "local":
            runs |= fleet.together([device])
    return {device.name: runs[device.name] for device in devices}


class _Fleet:
    def __init__(
        self, assignment: Assignment, cache: Cache, display: Display, resume: bool
    ) -> None:
        self.assignment = assignment
        self.cache = cache
        self.display = display
        self.resume = resume
        self.stop = threading.Event()
        self.transports: list[Transport] = []
        self.quarantine = Quarantine(cache.folder)

    def together(self, devices: Sequence[Device]) -> dict[str, DeviceRun]:
        """Run on several devices at once, each in a thread of its own."""
        if not devices:
            return {}
        with ThreadPoolExecutor(len(devices), thread_name_prefix="device") as threads:
            futures = {device.name: threads.submit(self._run, device) for device in devices}
            try:
                # In short waits: a signal is seen between two of them.
                while wait(futures.values(), 0.2, FIRST_EXCEPTION).not_done:
                    pass
            except BaseException:
                self.stop.set()
                for transport in self.transports:
                    transport.interrupt()
                raise  # after the threads, which restore what they set
        return {name: future.result() for name, future in futures.items()}

    def _run(self, device: Device) -> DeviceRun:
        """A device under its lock. Its WorkbenchError is in what it gave, never raised."""
        run = DeviceRun(device=device)
        task = f"device {device.name}"
        self.display.update(task, 0.0)
        try:
            with self._locked(device):
                self._measured(device, run, task)
        except WorkbenchError as error:
            run.error = error
        self.display.done(task, "failed" if run.error else "done")
        return run

    def _measured(self, device: Device, run: DeviceRun, task: str) -> None:
        transport = transport_of(device)
        self.transports.append(transport)
        try:
            self._probe(device, transport)
            key = self._key(device)
            if self.resume:
                run.rounds = _rounds(self.cache.record(key))
            watch = Watch(
                progress=lambda fraction, note: self.display.update(task, fraction, note),
                message=self.display.message,
                finished=lambda rounds: self.cache.store(key, {"rounds": _plain(rounds)}),
                stop=self.stop,
            )
            measure(transport, run, self.assignment, watch)
        except Interrupted:
            raise
        except DeviceError as error:
            self.quarantine.failed(device, error.what)
            raise
        else:
            self.quarantine.succeeded(device)
        finally:
            with suppress(DeviceError):
                transport.close()

    def _probe(self, device: Device, transport: Transport) -> None:
        """One look at a device in quarantine, without a second try."""
        record = self.quarantine.record(device)
        if not record.quarantined:
            return
        try:
            identify(transport)
        except Unreachable as error:
            raise DeviceError(
                f"{device.name} is in quarantine, and does not answer yet: {error.what}",
                str(record),
                "see to the device: the first probe that succeeds takes it out of quarantine",
            ) from error
        self.display.message(f"{device.name} answers again: out of quarantine")

    def _locked(self, device: Device) -> Any:
        waiting = f"{device.name} is being measured by another run: waiting"
        return self.cache.locked(device.lock, lambda: self.display.message(waiting), self.stop)

    def _key(self, device: Device) -> str:
        """Of everything that decides the figures of a device."""
        assignment = self.assignment
        return key_of(
            "rounds",
            {label: file.sha256 for label, file in assignment.targets.items()},
            vars(assignment.preset),
            device.to_json(),
            {name: vars(library) for name, library in device.libraries.items()},
            {label: {name: _digest(array) for name, array in inputs.items()}
             for label, inputs in assignment.timed.items()},
            code=("workbench.measure.fleet",),
        )  # fmt: skip


def _digest(array: Any) -> str:
    import hashlib

    return hashlib.sha256(f"{array.dtype} {array.shape}".encode() + array.tobytes()).hexdigest()


def _plain(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    return [{label: samples.to_json() for label, samples in each.items()} for each in rounds]


def _rounds(record: dict[str, Any] | None) -> list[Round]:
    rounds = record["rounds"] if record else []
    return [
        {label: ProcessSamples.from_json(samples) for label, samples in each.items()}
        for each in rounds
    ]
