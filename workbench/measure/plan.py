"""`MeasurePlan`: how files are measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.device.profile import Device
    from workbench.measure.latency import Preset


@dataclass(frozen=True, kw_only=True)
class MeasurePlan:
    """Where and how much to measure.

    Attributes:
        devices: in the report's order, at least one.
        preset: how many processes, runs and seconds.
        samples: how many evaluation samples are run on devices with a runner, for their outputs.
        operators: whether to time each operator, as `wb profile --op-profile` does.
        only: the rows whose latency is measured, beside the baseline's; all where it is empty.
        resume: whether rounds that an interrupted run finished on a device are kept.
        users_files: whether the files are a user's, who asks for their figures of now: latency is
            measured anew, though it is in the cache, and a file that a device cannot run is an
            error. A recipe's files are looked into besides: where their nodes ran, and what an app
            must know of them.
    """

    devices: tuple[Device, ...]
    preset: Preset
    samples: int = 64
    operators: bool = False
    only: tuple[str, ...] = ()
    resume: bool = True
    users_files: bool = False
