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
class Wanted:
    """What is measured, the same on every device.

    targets, facts: artifacts by label, and what their files hold. timed: canonical inputs of one
    run, by label. samples: canonical inputs [N, ...] whose outputs come back, by label; none where
    it is empty. operators: whether the time of each operator is asked for. whole: the samples are
    one run, whose first axis need not be theirs.
    """

    targets: Mapping[str, Artifact]
    facts: Mapping[str, Facts]
    timed: Mapping[str, Mapping[str, Array]]
    samples: Mapping[str, Mapping[str, Array]]
    preset: Preset
    operators: bool = False
    whole: bool = False


@dataclass(kw_only=True)
class Found:
    """What one device gave. What is here stays when the device is lost.

    device: its profile with what was probed. rounds: complete ones, in which every artifact ran
    once that did not fail. failed: what ended an artifact there. error: what ended the device.
    before, after: its health around all of it.
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
            label: Latency(tuple(one[label] for one in self.rounds))
            for label in labels
            if all(label in one for one in self.rounds)
        }

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What a measurement tells while it goes on, and asks.

    progress: the fraction done, and a note. message: what the user should know now. finished: is
    called after every round. stop: is set when the run is to end.
    """

    progress: Callable[[float, str], None]
    message: Callable[[str], None]
    finished: Callable[[list[Round]], None]
    stop: threading.Event

    def sleep(self, seconds: float) -> None:
        """Wait. Raises Interrupted as soon as the run is to end."""
        if self.stop.wait(seconds):
            raise Interrupted("the run was ended")


def measure(transport: Transport, found: Found, wanted: Wanted, watch: Watch) -> None:
    """Fill `found` with what is wanted and not there yet.

    A device that is lost is looked for again, `limits.retries` times with growing pauses; an
    artifact that fails is left out, and the others go on. Raises DeviceError where the device
    cannot be used, Unreachable where it stays away.
    """
    device = found.device
    lost = 0
    while True:
        done = len(found.rounds), len(found.outputs)
        try:
            _session(transport, found, wanted, watch)
        except Unreachable as error:
            if (len(found.rounds), len(found.outputs)) != done:
                lost = 0  # it came back, and did something
            if lost == device.limits.retries:
                raise
            pause = BACKOFF * 2**lost
            lost += 1
            watch.message(f"{device.name}: {error.what}; trying again in {pause:.0f} s")
            found.note(f"the connection was lost and came back: {error.what}")
            watch.sleep(pause)
            _reconnect(transport)
        else:
            return


def _reconnect(transport: Transport) -> None:
    try:
        transport.reconnect()
    except Unreachable:
        return  # the next command says so, and counts


def _session(transport: Transport, found: Found, wanted: Wanted, watch: Watch) -> None:
    identity = identify(transport)
    _same(found, identity)
    found.device = resolve_device(found.device, identity)
    left = {label: one for label, one in wanted.targets.items() if label not in found.failed}
    runtimes = sorted({_runtime(one) for one in left.values()} - {""})
    with connect(found.device, transport, identity, runtimes) as place:
        for text in place.notes:
            found.note(text)
        with_inputs = _Bundles(place.here, wanted)
        if wanted.preset.processes > len(found.rounds):
            _time(place, found, wanted, with_inputs, watch)
        for label in left:
            if label in found.failed or label not in wanted.samples or label in found.outputs:
                continue
            watch.progress(0.9, f"outputs of {label}")
            _guarded(found, label, partial(_outputs, place, found, with_inputs, label))
        for label in left if wanted.operators else ():
            if label not in found.failed and label not in found.operators:
                watch.progress(0.95, f"operators of {label}")
                _guarded(found, label, partial(_operators, place, found, with_inputs, label))
        found.after = place.health()
    watch.progress(1.0, "")


def _runtime(artifact: Artifact) -> str:
    from workbench.device.bundle import RUNTIMES

    return RUNTIMES.get(artifact.format, "")


def _same(found: Found, identity: Identity) -> None:
    """What comes back under an address must be the device that was there."""
    before = found.identity
    # Not by its cores: a hot phone takes some of them offline.
    if before is not None and (before.model, before.soc) != (identity.model, identity.soc):
        raise DeviceError(
            f"{found.device.name} is another device than before",
            f"it was {before.model}, and is {identity.model}",
            "give the profile the serial or host of one device",
        )
    found.identity = identity


def _guarded(found: Found, label: str, act: Callable[[], None]) -> None:
    """Do something about one artifact; what it fails of is its own, but for a lost device."""
    try:
        act()
    except (Unreachable, Interrupted):
        raise
    except WorkbenchError as error:
        found.failed[label] = error


@dataclass
class _Bundles:
    """Bundles of the artifacts, made when they are asked for."""

    here: Path
    wanted: Wanted

    def timed(self, label: str) -> Bundle:
        return self._bundle(label, self.wanted.timed[label], 1)

    def chunks(self, label: str) -> Sequence[Bundle]:
        """The samples in parts that one process gets."""
        samples = self.wanted.samples[label]
        if self.wanted.whole:
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
            self.wanted.targets[label], self.wanted.facts[label], inputs, samples, self.here
        )

    def name(self, label: str) -> str:
        """A file name that no other artifact has."""
        return f"a{list(self.wanted.targets).index(label)}"


def _time(place: Connection, found: Found, wanted: Wanted, bundles: _Bundles, watch: Watch) -> None:
    """Rounds until there are as many as the preset asks; each runs every artifact once."""
    jobs: dict[str, Job] = {}

    def load(label: str) -> None:
        jobs[label] = place.job(bundles.name(label), bundles.timed(label), wanted.preset)

    for label in wanted.targets:
        if label not in found.failed:
            watch.progress(0.0, f"sending {label}")
            _guarded(found, label, partial(load, label))
    repeated = 0
    limits = place.device.limits
    while len(found.rounds) < wanted.preset.processes and set(jobs) - set(found.failed):
        before = _until_ready(place, watch)
        found.before = found.before or before
        one = _round(place, found, wanted, jobs, watch)
        if set(jobs) <= set(found.failed):
            break
        wrong = problem(before, place.health(), limits)
        if wrong and repeated < limits.retries:
            repeated += 1
            watch.message(f"{place.device.name}: a round is repeated: {wrong}")
            found.note(f"a round was repeated: {wrong}")
            watch.sleep(max(COOLING, limits.cool_down))
            continue
        if wrong:
            found.note(f"THROTTLED: {wrong}; it was repeated {repeated} times, the figures stand")
        found.rounds.append(one)
        watch.finished(found.rounds)


def _round(
    place: Connection, found: Found, wanted: Wanted, jobs: Mapping[str, Job], watch: Watch
) -> Round:
    made: Round = {}
    for at, (label, job) in enumerate(jobs.items()):
        if label in found.failed:
            continue
        done = len(found.rounds) + at / len(jobs)
        watch.progress(0.9 * done / wanted.preset.processes, label)
        _guarded(found, label, partial(_process, job, made, label))
        watch.sleep(place.device.limits.cool_down)
    return made


def _process(job: Job, made: Round, label: str) -> None:
    ran = job.time()
    made[label] = ProcessSamples(
        ran.load_ns, ran.first_ns, ran.samples_ns, ran.peak_bytes, ran.summary
    )


def _until_ready(place: Connection, watch: Watch) -> Health:
    """The device's health once it is ready. Raises DeviceError where it does not become so."""
    limits = place.device.limits
    waited = 0.0
    while why := ready(now := place.health(), limits.temperature, limits.battery):
        if waited >= limits.wait:
            raise DeviceError(
                f"{place.device.name} is not ready to be measured",
                why,
                "let it cool, charge it, or change limits in its profile",
            )
        watch.message(f"{place.device.name}: waiting, {why}")
        watch.sleep(POLL)
        waited += POLL
    return now


def _outputs(place: Connection, found: Found, bundles: _Bundles, label: str) -> None:

    parts = []
    for at, one in enumerate(bundles.chunks(label)):
        name = f"{bundles.name(label)}.{at}"
        parts.append(place.job(name, one, bundles.wanted.preset).outputs())
    found.outputs[label] = concatenate(parts)


def _operators(place: Connection, found: Found, bundles: _Bundles, label: str) -> None:
    job = place.job(f"{bundles.name(label)}.o", bundles.timed(label), bundles.wanted.preset)
    found.operators[label] = job.operators()
