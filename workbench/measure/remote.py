"""One device measured through its runner: rounds, outputs, health; and when it is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from workbench.arrays import batch_size, concatenate
from workbench.artifact import Artifact
from workbench.device.bundle import bundle
from workbench.device.connection import Connection, connect, resolve_device
from workbench.device.health.identity import Identity, identify
from workbench.device.health.state import Health, problem, ready
from workbench.device.profile import Device
from workbench.device.transport.base import Interrupted, Transport, Unreachable
from workbench.errors import DeviceError, WorkbenchError
from workbench.measure.latency import Latency, Preset, ProcessSamples

if TYPE_CHECKING:
    from workbench.device.bundle import Bundle
    from workbench.device.runner_jobs import Job
    from workbench.inspect.facts import Facts

Array = NDArray[Any]
Round = dict[str, ProcessSamples]

BACKOFF = 2.0  # seconds before a lost device is looked for, doubled each time
POLL = 5.0  # seconds between two looks at a device that is too hot
COOLING = 15.0  # seconds before a round that was throttled is repeated
BYTES = 32 << 20  # of inputs that one process gets


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What is measured, the same on every device.

    Attributes:
        targets, facts: artifacts by label, and what their files hold.
        timed: canonical inputs of one run, by label.
        samples: canonical inputs [N, ...] whose outputs come back, by label; none where empty.
        preset: how many processes, runs and seconds.
        operators: whether the time of each operator is asked for.
        whole: the samples are one run, whose first axis need not be theirs.
    """

    targets: Mapping[str, Artifact]
    facts: Mapping[str, Facts]
    timed: Mapping[str, Mapping[str, Array]]
    samples: Mapping[str, Mapping[str, Array]]
    preset: Preset
    operators: bool = False
    whole: bool = False


@dataclass(kw_only=True)
class DeviceRun:
    """What one device gave so far. It stays when the device is lost.

    Attributes:
        device: its profile with what was probed.
        identity: what it says of itself; None before it answered.
        rounds: complete ones, in which every artifact ran once that did not fail.
        outputs: of the samples [N, ...], by label.
        operators: the runtime's own profile as it wrote it, by label.
        failed: what ended an artifact there, by label.
        before, after: its health around all of it.
        notes: what happened meanwhile.
        error: what ended the device.
    """

    device: Device
    identity: Identity | None = None
    rounds: list[Round] = field(default_factory=list)
    outputs: dict[str, list[Array]] = field(default_factory=dict)
    operators: dict[str, str] = field(default_factory=dict)
    failed: dict[str, WorkbenchError] = field(default_factory=dict)
    before: Health | None = None
    after: Health | None = None
    notes: list[str] = field(default_factory=list)
    error: WorkbenchError | None = None

    def latencies(self) -> dict[str, Latency]:
        """Latency by label, of the artifacts that ran in every round."""
        labels = self.rounds[0] if self.rounds else {}
        return {
            label: Latency(tuple(samples[label] for samples in self.rounds))
            for label in labels
            if all(label in samples for samples in self.rounds)
        }

    def note(self, text: str) -> None:
        """Keep a note, once."""
        if text not in self.notes:
            self.notes.append(text)


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What a measurement tells while it goes on, and asks.

    Attributes:
        progress: takes the fraction done, and a note.
        message: takes what the user should know now.
        finished: is called after every round, with all of them.
        stop: is set when the run is to end.
    """

    progress: Callable[[float, str], None]
    message: Callable[[str], None]
    finished: Callable[[list[Round]], None]
    stop: threading.Event

    def sleep(self, seconds: float) -> None:
        """Wait. Raises Interrupted as soon as the run is to end."""
        if self.stop.wait(seconds):
            raise Interrupted("the run was ended")


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
            _session(transport, run, assignment, watch)
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


def _session(transport: Transport, run: DeviceRun, assignment: Assignment, watch: Watch) -> None:
    identity = identify(transport)
    _same(run, identity)
    run.device = resolve_device(run.device, identity)
    left = {label: file for label, file in assignment.targets.items() if label not in run.failed}
    runtimes = sorted({_runtime(file) for file in left.values()} - {""})
    with connect(run.device, transport, identity, runtimes) as connection:
        for text in connection.notes:
            run.note(text)
        with_inputs = _Bundles(connection.here, assignment)
        if assignment.preset.processes > len(run.rounds):
            _time(connection, run, assignment, with_inputs, watch)
        for label in left:
            if label in run.failed or label not in assignment.samples or label in run.outputs:
                continue
            watch.progress(0.9, f"outputs of {label}")
            _guarded(run, label, partial(_outputs, connection, run, with_inputs, label))
        for label in left if assignment.operators else ():
            if label not in run.failed and label not in run.operators:
                watch.progress(0.95, f"operators of {label}")
                _guarded(run, label, partial(_operators, connection, run, with_inputs, label))
        run.after = connection.health()
    watch.progress(1.0, "")


def _runtime(artifact: Artifact) -> str:
    from workbench.device.bundle import RUNTIMES

    return RUNTIMES.get(artifact.format, "")


def _same(run: DeviceRun, identity: Identity) -> None:
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


def _guarded(run: DeviceRun, label: str, act: Callable[[], None]) -> None:
    """Do something about one artifact; what it fails of is its own, but for a lost device."""
    try:
        act()
    except (Unreachable, Interrupted):
        raise
    except WorkbenchError as error:
        run.failed[label] = error


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


def _time(
    connection: Connection, run: DeviceRun, assignment: Assignment, bundles: _Bundles, watch: Watch
) -> None:
    """Rounds until there are as many as the preset asks; each runs every artifact once."""
    jobs: dict[str, Job] = {}

    def load(label: str) -> None:
        jobs[label] = connection.job(bundles.name(label), bundles.timed(label), assignment.preset)

    for label in assignment.targets:
        if label not in run.failed:
            watch.progress(0.0, f"sending {label}")
            _guarded(run, label, partial(load, label))
    repeated = 0
    limits = connection.device.limits
    while len(run.rounds) < assignment.preset.processes and set(jobs) - set(run.failed):
        before = _until_ready(connection, watch)
        run.before = run.before or before
        samples = _round(connection, run, assignment, jobs, watch)
        if set(jobs) <= set(run.failed):
            break
        wrong = problem(before, connection.health(), limits)
        if wrong and repeated < limits.retries:
            repeated += 1
            watch.message(f"{connection.device.name}: a round is repeated: {wrong}")
            run.note(f"a round was repeated: {wrong}")
            watch.sleep(max(COOLING, limits.cool_down))
            continue
        if wrong:
            run.note(f"THROTTLED: {wrong}; it was repeated {repeated} times, the figures stand")
        run.rounds.append(samples)
        watch.finished(run.rounds)


def _round(
    connection: Connection,
    run: DeviceRun,
    assignment: Assignment,
    jobs: Mapping[str, Job],
    watch: Watch,
) -> Round:
    samples: Round = {}
    for at, (label, job) in enumerate(jobs.items()):
        if label in run.failed:
            continue
        done = len(run.rounds) + at / len(jobs)
        watch.progress(0.9 * done / assignment.preset.processes, label)
        _guarded(run, label, partial(_process, job, samples, label))
        watch.sleep(connection.device.limits.cool_down)
    return samples


def _process(job: Job, samples: Round, label: str) -> None:
    times = job.time()
    samples[label] = ProcessSamples(
        times.load_ns, times.first_ns, times.samples_ns, times.peak_bytes, times.summary
    )


def _until_ready(connection: Connection, watch: Watch) -> Health:
    """The device's health once it is ready. Raises DeviceError where it does not become so."""
    limits = connection.device.limits
    waited = 0.0
    while why := ready(now := connection.health(), limits.temperature, limits.battery):
        if waited >= limits.wait:
            raise DeviceError(
                f"{connection.device.name} is not ready to be measured",
                why,
                "let it cool, charge it, or change limits in its profile",
            )
        watch.message(f"{connection.device.name}: waiting, {why}")
        watch.sleep(POLL)
        waited += POLL
    return now


def _outputs(connection: Connection, run: DeviceRun, bundles: _Bundles, label: str) -> None:
    parts = []
    for at, chunk in enumerate(bundles.chunks(label)):
        name = f"{bundles.name(label)}.{at}"
        parts.append(connection.job(name, chunk, bundles.assignment.preset).outputs())
    run.outputs[label] = concatenate(parts)


def _operators(connection: Connection, run: DeviceRun, bundles: _Bundles, label: str) -> None:
    job = connection.job(
        f"{bundles.name(label)}.o", bundles.timed(label), bundles.assignment.preset
    )
    run.operators[label] = job.operators()
