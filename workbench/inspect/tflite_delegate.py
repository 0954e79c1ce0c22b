"""What LiteRT's XNNPACK delegate takes of a `.tflite` file, by asking the runtime."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from workbench.errors import DeviceError, ModelError, first_line


def delegated_nodes(path: Path) -> str:
    """Load the file with LiteRT's default delegate, and say which nodes it took.

    Raises ModelError where LiteRT finds the file damaged, DeviceError where it cannot load it.
    """
    from ai_edge_litert import __version__
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(str(path), num_threads=1)
        interpreter.allocate_tensors()
        nodes = interpreter._get_ops_details()
    except (ValueError, RuntimeError) as error:
        why = first_line(error)
        if "flatbuffer" in why.lower():
            raise ModelError(
                f"{path} cannot be read as TFLite", f"LiteRT says: {why}", "get the file again"
            ) from error
        raise DeviceError("it does not load", why.partition(". ")[0]) from error
    own = [node for node in nodes if node["op_name"] != "DELEGATE"]
    groups = [_replaced(own, node) for node in nodes if node["op_name"] == "DELEGATE"]
    inside = set().union(*groups)
    refused_kinds = Counter(node["op_name"] for node in own if node["index"] not in inside)
    several = "" if len(groups) == 1 else "s"
    text = f"{len(inside)}/{len(own)} nodes, {len(groups)} partition{several}"
    refused = [name for name, _ in refused_kinds.most_common()]
    if refused:
        more = f" and {len(refused) - 6} more" if len(refused) > 6 else ""
        text += f"; not {', '.join(refused[:6])}{more}"
    return f"{text} (LiteRT {__version__}, asked)"


def _replaced(nodes: list[dict[str, Any]], delegate: dict[str, Any]) -> set[int]:
    """The nodes that a delegate's node stands for: from its outputs back to its inputs."""
    producers = {int(name): node for node in nodes for name in node["outputs"]}
    border = {int(name) for name in delegate["inputs"]}
    replaced: set[int] = set()
    waiting = [int(name) for name in delegate["outputs"]]
    while waiting:
        name = waiting.pop()
        node = producers.get(name)
        if name in border or node is None or node["index"] in replaced:
            continue
        replaced.add(node["index"])
        waiting += [int(index) for index in node["inputs"]]
    return replaced
