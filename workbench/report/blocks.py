"""A report's artifacts on another device: a block of its own, beside the first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from workbench.errors import WorkbenchError
from workbench.report.data import Report

if TYPE_CHECKING:
    from workbench.measure.accuracy import Scores
    from workbench.measure.device_scores import Scored
    from workbench.measure.remote import Found


def block(
    report: Report,
    found: Found,
    scored: Mapping[str, Scored | WorkbenchError],
    samples: int,
    original: Scores | None,
) -> Report:
    """The report with what a device gave in place of what this machine did.

    samples: how many were scored there. original: the reference row's scores on them, where that is
    no file.
    """
    timed = found.latencies()
    device = found.device
    rows = []
    for row in report.rows:
        one = scored.get(row.key)
        failed = found.failed.get(row.key)
        if failed is None and isinstance(one, WorkbenchError):
            failed = one
        good = one if one is not None and not isinstance(one, WorkbenchError) else None
        scores = good.scores if good else None
        if row.key == report.reference and row.key == report.eager:
            scores = original
        rows.append(
            replace(
                row,
                latency=timed.get(row.key),
                scores=scores,
                fidelity=good.fidelity if good else None,
                operators=operator_times(found.operators.get(row.key, "")),
                error=row.error or failed,
                placement={},
                left={},
            )
        )
    identity = found.identity
    notes = list(found.notes)
    for word, state in (("before", found.before), ("after", found.after)):
        if state is not None and (said := _state(state)):
            notes.append(f"{word} the measurement: {said}")
    return replace(
        report,
        device=device.name,
        threads=device.threads,
        rows=tuple(rows),
        samples=samples,
        labelled=report.labelled and samples > 0,
        host=facts(device, identity) if identity else {},
        notes=(*report.notes, *notes),
        emulated=device.emulated,
        away=True,
        error=found.error,
        others=(),
    )


def beside(report: Report) -> Report:
    """A block that stands beside the first: what the files are was said there."""
    rows = tuple(replace(row, checks=None, samples=(), quantization=None) for row in report.rows)
    return replace(report, rows=rows, others=())


def facts(device: Any, identity: Any) -> dict[str, Any]:
    """A device as a report names it. No serial numbers."""
    parts = ", ".join(
        f"{count}× {name}" + (f" at {speed} MHz" if speed else "")
        for name, count, speed in identity.cpus
    )
    said = {
        "device": identity.model,
        "soc": identity.soc,
        "cpu": parts,
        "cores": identity.cores,
        "architecture": identity.architecture,
        "isa": list(device.isa),
        "memory_gib": round(identity.memory_bytes / 2**30, 1),
        "system": f"{identity.system} {identity.release}",
        "runner": f"{device.runner} over {device.transport}",
        "INT8": device.quantization,
        "emulated": identity.emulator or ("the profile says so" if device.emulated else ""),
    }
    return {key: value for key, value in said.items() if value}


def _state(state: Any) -> str:
    parts = []
    if state.temperature_c is not None:
        parts.append(f"{state.temperature_c:.0f} °C")
    if state.throttling is not None:
        parts.append(f"thermal status {state.throttling}")
    if state.battery_percent is not None:
        charging = ", charging" if state.charging else ""
        parts.append(f"battery {state.battery_percent:.0f} %{charging}")
    if state.load_1min is not None:
        parts.append(f"load {state.load_1min:.1f}")
    return ", ".join(parts)


def title(report: Report) -> str:
    """A block's heading: the device, and what it is."""
    known = report.host
    parts = [report.device, str(known.get("device") or ""), str(known.get("soc") or "")]
    parts.append(f"{report.threads} {'thread' if report.threads == 1 else 'threads'}")
    if scheme := known.get("INT8"):
        parts.append(f"INT8 as {scheme}")
    if report.emulated:
        parts.append("EMULATED")
    if report.samples:
        parts.append(f"{report.samples} samples")
    return " · ".join(part for part in dict.fromkeys(parts) if part)


def operator_times(text: str) -> dict[str, float]:
    """Milliseconds of one run by operator, from what ONNX Runtime or LiteRT wrote of several."""
    import json

    try:
        events = json.loads(text) if text else []
    except ValueError:
        return {}
    if isinstance(events, dict):  # LiteRT's, by the native runner
        events = events.get("operators", [])
    sums: dict[str, float] = {}
    runs = 0
    for one in events if isinstance(events, list) else []:
        if not isinstance(one, dict):
            continue
        if one.get("name") == "model_run":
            runs += 1
        about = one.get("args") or {}
        if one.get("cat") == "Node" and str(one.get("name", "")).endswith("_kernel_time"):
            name = str(about.get("op_name", "?"))
            sums[name] = sums.get(name, 0.0) + float(one.get("dur", 0)) / 1e3
        elif "op" in one and "ms" in one:
            sums[str(one["op"])] = sums.get(str(one["op"]), 0.0) + float(one["ms"])
    return {name: spent / max(1, runs) for name, spent in sums.items()}
