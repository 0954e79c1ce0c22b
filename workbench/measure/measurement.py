"""`Measurement`, `DeviceMeasurements`: what a device gave, before anything is derived of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workbench.device.placement import Placement

if TYPE_CHECKING:
    from workbench.device.profile import Device
    from workbench.errors import WorkbenchError
    from workbench.measure.accuracy import Scores
    from workbench.measure.checks import Checks
    from workbench.measure.latency import Latency


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What one target gave on one device; None or empty where it was not measured.

    Attributes:
        latency: raw samples of every process.
        scores: of its outputs, against the labels and the first target's.
        fidelity: of a device's outputs to this machine's, of the same file.
        placement: where its nodes ran.
        checks: what the decision tables rest on.
        operators: milliseconds of a run by operator, as the runtime's own profile has them.
        on_cpu: its runtime knows nothing of the device, and ran it on the CPU.
        error: what ended it; what was measured before stays.
    """

    latency: Latency | None = None
    scores: Scores | None = None
    fidelity: Scores | None = None
    placement: Placement = field(default_factory=Placement)
    checks: Checks | None = None
    operators: Mapping[str, float] = field(default_factory=dict)
    on_cpu: bool = False
    error: WorkbenchError | None = None


@dataclass(frozen=True, kw_only=True)
class DeviceMeasurements:
    """What a device gave of all targets.

    Attributes:
        device: its profile, with what was probed.
        targets: by key, of those that can be run.
        samples: how many were scored.
        host: facts of the machine, by name.
        notes: what happened meanwhile.
        measured: ISO date of the latencies; '' where there are none.
        seconds: by task, of what was not in the cache.
        error: what ended the whole device.
    """

    device: Device
    targets: Mapping[str, Measurement]
    samples: int = 0
    host: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    measured: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    error: WorkbenchError | None = None
