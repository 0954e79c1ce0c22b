"""The time of each operator, from the profiles that runtimes write."""

from __future__ import annotations

import json


def operator_times(text: str) -> dict[str, float]:
    """Milliseconds of one run by operator, from what ONNX Runtime or LiteRT wrote of several."""
    try:
        events = json.loads(text) if text else []
    except ValueError:
        return {}
    if isinstance(events, dict):  # LiteRT's, by the native runner
        events = events.get("operators", [])
    sums: dict[str, float] = {}
    runs = 0
    for event in events if isinstance(events, list) else []:
        if not isinstance(event, dict):
            continue
        if event.get("name") == "model_run":
            runs += 1
        arguments = event.get("args") or {}
        if event.get("cat") == "Node" and str(event.get("name", "")).endswith("_kernel_time"):
            name = str(arguments.get("op_name", "?"))
            sums[name] = sums.get(name, 0.0) + float(event.get("dur", 0)) / 1e3
        elif "op" in event and "ms" in event:
            name = str(event["op"])
            sums[name] = sums.get(name, 0.0) + float(event["ms"])
    return {name: spent / max(1, runs) for name, spent in sums.items()}
