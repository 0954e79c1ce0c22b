"""Latency: raw samples per process, and every figure derived from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from workbench.intervals import Estimate, bootstrap_median

# Medians of processes that spread further than this say that the machine was not quiet.
UNSTABLE = 0.10


@dataclass(frozen=True)
class Preset:
    """How much to measure: fresh processes, and in each at least `runs` runs and `seconds`."""

    name: str
    processes: int
    warmup: int
    runs: int
    seconds: float


# Six processes are the fewest whose range covers the median of any distribution 95 % of the time
# (1 - 2^-5 = 97 %). Strict follows MLPerf Mobile: 1,024 samples and a minute, for each artifact.
PRESETS = {
    preset.name: preset
    for preset in (
        Preset("none", processes=0, warmup=0, runs=0, seconds=0.0),
        Preset("quick", processes=6, warmup=3, runs=10, seconds=0.25),
        Preset("standard", processes=6, warmup=5, runs=50, seconds=0.4),
        Preset("strict", processes=12, warmup=20, runs=100, seconds=5.0),
    )
}


@dataclass(frozen=True)
class ProcessSamples:
    """One fresh process: nanoseconds to load, of the first inference, and of each timed one.

    summary: the only sample is the median of them all; the tool that ran told no more.
    """

    load_ns: int
    first_ns: int
    samples_ns: tuple[int, ...]
    peak_bytes: int
    summary: bool = False

    def to_json(self) -> dict[str, Any]:
        """As report.json has it."""
        plain = {
            "load_ns": self.load_ns,
            "first_ns": self.first_ns,
            "samples_ns": list(self.samples_ns),
            "peak_bytes": self.peak_bytes,
        }
        return {**plain, "summary": True} if self.summary else plain

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ProcessSamples:
        """What `to_json` gave."""
        return cls(
            data["load_ns"], data["first_ns"], tuple(data["samples_ns"]), data["peak_bytes"],
            data.get("summary", False),
        )  # fmt: skip

    @property
    def median_ms(self) -> float:
        """Milliseconds: the median of the timed runs."""
        return float(np.median(self.samples_ns)) / 1e6

    @property
    def p90_ms(self) -> float:
        """Milliseconds: the 90th percentile of the timed runs."""
        return float(np.quantile(self.samples_ns, 0.9)) / 1e6


@dataclass(frozen=True)
class Latency:
    """All processes of one artifact; the i-th of two artifacts ran in the same round."""

    processes: tuple[ProcessSamples, ...]

    @cached_property
    def median(self) -> Estimate:
        """Milliseconds: the median over processes of each one's median."""
        return bootstrap_median([process.median_ms for process in self.processes])

    @cached_property
    def p90(self) -> Estimate | None:
        """Milliseconds: the median over processes of each one's 90th percentile, where known."""
        if any(process.summary for process in self.processes):
            return None
        return bootstrap_median([process.p90_ms for process in self.processes])

    @property
    def load_ms(self) -> float:
        """Milliseconds: the median over processes."""
        return float(np.median([process.load_ns for process in self.processes])) / 1e6

    @property
    def first_ms(self) -> float:
        """Milliseconds of the first inference: the median over processes."""
        return float(np.median([process.first_ns for process in self.processes])) / 1e6

    @property
    def peak_bytes(self) -> int:
        """The most that loading and running added to a process."""
        return max(process.peak_bytes for process in self.processes)

    @property
    def spread(self) -> float:
        """Interquartile range of the processes' medians, relative to their median."""
        medians = [process.median_ms for process in self.processes]
        low, high = np.quantile(medians, [0.25, 0.75])
        return float((high - low) / np.median(medians))

    @property
    def unstable(self) -> bool:
        """Whether the machine was not quiet."""
        return self.spread > UNSTABLE

    def to_json(self) -> dict[str, Any]:
        """As report.json has it."""
        return {"processes": [process.to_json() for process in self.processes]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Latency:
        """What `to_json` gave."""
        return cls(tuple(ProcessSamples.from_json(samples) for samples in data["processes"]))


def speedup(baseline: Latency, candidate: Latency) -> Estimate:
    """How many times faster than the baseline: the median over rounds of the rounds' ratios.

    Rounds pair processes that ran next to each other, so that slow drift of the machine cancels.
    """
    pairs = zip(baseline.processes, candidate.processes, strict=True)
    return bootstrap_median([own.median_ms / other.median_ms for own, other in pairs])
