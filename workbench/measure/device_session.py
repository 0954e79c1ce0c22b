"""One connection to a device: rounds, outputs and operators of an assignment, while it lasts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.arrays import batch_size, concatenate
from workbench.device.bundle import RUNTIMES, bundle
from workbench.device.connection import Connection, connect, resolve_device
from workbench.device.health.identity import Identity, identify
from workbench.device.health.state import Health, problem, ready
from workbench.device.transport.base import Interrupted, Transport, Unreachable
from workbench.errors import DeviceError, WorkbenchError
from workbench.measure.device_run import Array, Assignment, DeviceRun, Round, Watch
from workbench.measure.latency import ProcessSamples

if TYPE_CHECKING:
    from workbench.device.bundle import Bundle
    from workbench.device.runner_jobs import Job

POLL = 5.0  # seconds between two looks at a device that is too hot
COOLING = 15.0  # seconds before a round that was throttled is repeated
BYTES = 32 << 20  # of inputs that one process gets


def measure_connected(
    transport: Transport, run: DeviceRun, assignment: Assignment, watch: Watch
) -> None:
    """Do of an assignment what the device's run has not yet, as long as the device stays.

    An artifact that fails is left out, and the others go on. Raises DeviceError where the device
    cannot be used, Unreachable where it is lost.
    """
    identity = identify(transport)
    _check_same(run, identity)
    run.device = resolve_device(run.device, identity)
    left = [label for label in assignment.targets if label not in run.failed]
    formats = {assignment.targets[label].format for label in left}
    runtimes = sorted({RUNTIMES[format] for format in formats if format in RUNTIMES})
    with connect(run.device, transport, identity, runtimes) as connection:
        for text in connection.notes:
            run.note(text)
        DeviceSession(connection, run, assignment, watch).measure(left)


def _check_same(run: DeviceRun, identity: Identity) -> None:
    """What comes back under an address must be the device that was there."""
    before = run.identity
    # Not by its cores: a hot phone takes some of them offline.
    if before is not None and (before.model, before.soc) != (identity.model, identity.soc):
        raise DeviceError(
            f"{run.device.name} is another device than before",
            f"it was {before.model}, and is {identity.model}",
            "give the profile the serial or host of one device",
        )
    run.identity = identity


class DeviceSession:
    """What is done over one connection. All that it gets goes to the device's run at once."""

    def __init__(
        self, connection: Connection, run: DeviceRun, assignment: Assignment, watch: Watch
    ) -> None:
        self.connection = connection
        self.run = run
        self.assignment = assignment
        self.watch = watch
        self.bundles = _Bundles(connection.here, assignment)

    def measure(self, labels: Sequence[str]) -> None:
        """Rounds first, then outputs and operators: of each artifact what is missing."""
        run, assignment, progress = self.run, self.assignment, self.watch.progress
        if assignment.preset.processes > len(run.rounds):
            self._time()
        for label in labels:
            if label in run.failed or label not in assignment.samples or label in run.outputs:
                continue
            progress(0.9, f"outputs of {label}")
            self._guarded(label, partial(self._read_outputs, label))
        for label in labels if assignment.operators else ():
            if label not in run.failed and label not in run.operators:
                progress(0.95, f"operators of {label}")
                self._guarded(label, partial(self._read_operators, label))
        run.after = self.connection.health()
        progress(1.0, "")

    def _guarded(self, label: str, act: Callable[[], None]) -> None:
        """Do something about one artifact; an error is its own, but for a lost device."""
        try:
            act()
        except (Unreachable, Interrupted):
            raise
        except WorkbenchError as error:
            self.run.failed[label] = error

    def _time(self) -> None:
        """Rounds until there are as many as the preset asks; each runs every artifact once."""
        run, watch = self.run, self.watch
        device = self.connection.device
        limits = device.limits
        jobs = self._load_jobs()
        repeated = 0
        while len(run.rounds) < self.assignment.preset.processes and set(jobs) - set(run.failed):
            before = self._wait_until_ready()
            run.before = run.before or before
            samples = self._time_round(jobs)
            if set(jobs) <= set(run.failed):
                break
            wrong = problem(before, self.connection.health(), limits)
            if wrong and repeated < limits.retries:
                repeated += 1
                watch.message(f"{device.name}: a round is repeated: {wrong}")
                run.note(f"a round was repeated: {wrong}")
                watch.sleep(max(COOLING, limits.cool_down))
                continue
            if wrong:
                run.note(f"THROTTLED: {wrong}; it was repeated {repeated} times, the figures stand")
            run.rounds.append(samples)
            watch.finished(run.rounds)

    def _load_jobs(self) -> dict[str, Job]:
        """Every artifact sent to the device, with the inputs of one run."""
        jobs: dict[str, Job] = {}
        preset = self.assignment.preset

        def load(label: str) -> None:
            bundles = self.bundles
            jobs[label] = self.connection.job(bundles.name(label), bundles.timed(label), preset)

        for label in self.assignment.targets:
            if label not in self.run.failed:
                self.watch.progress(0.0, f"sending {label}")
                self._guarded(label, partial(load, label))
        return jobs

    def _time_round(self, jobs: Mapping[str, Job]) -> Round:
        samples: Round = {}

        def time(label: str) -> None:
            times = jobs[label].time()
            samples[label] = ProcessSamples(
                times.load_ns, times.first_ns, times.samples_ns, times.peak_bytes, times.summary
            )

        for position, label in enumerate(jobs):
            if label in self.run.failed:
                continue
            done = len(self.run.rounds) + position / len(jobs)
            self.watch.progress(0.9 * done / self.assignment.preset.processes, label)
            self._guarded(label, partial(time, label))
            self.watch.sleep(self.connection.device.limits.cool_down)
        return samples

    def _wait_until_ready(self) -> Health:
        """The device's health once it is ready. Raises DeviceError where it does not become so."""
        name, limits = self.connection.device.name, self.connection.device.limits
        waited = 0.0
        while why := ready(health := self.connection.health(), limits.temperature, limits.battery):
            if waited >= limits.wait:
                raise DeviceError(
                    f"{name} is not ready to be measured",
                    why,
                    "let it cool, charge it, or change limits in its profile",
                )
            self.watch.message(f"{name}: waiting, {why}")
            self.watch.sleep(POLL)
            waited += POLL
        return health

    def _read_outputs(self, label: str) -> None:
        preset, name = self.assignment.preset, self.bundles.name(label)
        self.run.outputs[label] = concatenate(
            [
                self.connection.job(f"{name}.{position}", chunk, preset).outputs()
                for position, chunk in enumerate(self.bundles.chunks(label))
            ]
        )

    def _read_operators(self, label: str) -> None:
        bundles, preset = self.bundles, self.assignment.preset
        job = self.connection.job(f"{bundles.name(label)}.o", bundles.timed(label), preset)
        self.run.operators[label] = job.operators()


@dataclass
class _Bundles:
    """Bundles of the artifacts, made when they are asked for."""

    here: Path
    assignment: Assignment

    def timed(self, label: str) -> Bundle:
        """An artifact with the inputs of one timed run."""
        return self._bundle(label, self.assignment.timed[label], 1)

    def chunks(self, label: str) -> Sequence[Bundle]:
        """The samples in parts that one process gets."""
        samples = self.assignment.samples[label]
        if self.assignment.whole:
            return [self._bundle(label, samples, 1)]
        count = batch_size(samples)
        each = max(1, sum(array.nbytes for array in samples.values()) // count)
        size = max(1, min(count, BYTES // each))
        return [
            self._bundle(
                label,
                {name: array[at : at + size] for name, array in samples.items()},
                min(size, count - at),
            )
            for at in range(0, count, size)
        ]

    def _bundle(self, label: str, inputs: Mapping[str, Array], samples: int) -> Bundle:
        return bundle(
            self.assignment.targets[label], self.assignment.facts[label], inputs, samples, self.here
        )

    def name(self, label: str) -> str:
        """A file name that no other artifact has."""
        return f"a{list(self.assignment.targets).index(label)}"
