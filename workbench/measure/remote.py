"""One device measured through its runner, and looked for again when it is lost."""

from __future__ import annotations

from workbench.device.transport.base import Transport, Unreachable
from workbench.measure.device_run import Assignment, DeviceRun, Watch
from workbench.measure.device_session import measure_connected

BACKOFF = 2.0  # seconds before a lost device is looked for, doubled each time


def measure(transport: Transport, run: DeviceRun, assignment: Assignment, watch: Watch) -> None:
    """Do of an assignment what the device's run has not yet.

    A device that is lost is looked for again, `limits.retries` times with growing pauses; an
    artifact that fails is left out, and the others go on. Raises DeviceError where the device
    cannot be used, Unreachable where it stays away.
    """
    device = run.device
    lost = 0
    while True:
        done = len(run.rounds), len(run.outputs)
        try:
            measure_connected(transport, run, assignment, watch)
        except Unreachable as error:
            if (len(run.rounds), len(run.outputs)) != done:
                lost = 0  # it came back, and did something
            if lost == device.limits.retries:
                raise
            pause = BACKOFF * 2**lost
            lost += 1
            watch.message(f"{device.name}: {error.what}; trying again in {pause:.0f} s")
            run.note(f"the connection was lost and came back: {error.what}")
            watch.sleep(pause)
            _reconnect(transport)
        else:
            return


def _reconnect(transport: Transport) -> None:
    try:
        transport.reconnect()
    except Unreachable:
        return  # the next command says so, and counts
