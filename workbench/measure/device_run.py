"""What one device is asked to measure, and what it gave so far."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from workbench.artifact import Artifact
from workbench.device.health.identity import Identity
from workbench.device.health.state import Health
from workbench.device.profile import Device
from workbench.device.transport.base import Interrupted
from workbench.errors import WorkbenchError
from workbench.measure.latency import Latency, Preset, ProcessSamples

if TYPE_CHECKING:
    from workbench.inspect.facts import Facts

Array = NDArray[Any]
Round = dict[str, ProcessSamples]


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
