"""`max_drop` of dynamic INT8: which layers go back to float, told by each one's noise alone.

As post-training mixed precision has it (Dong et al., HAWQ, 2019; here the noise is measured, at the
outputs, and needs no Hessian): layers are ranked by the noise that each alone gives, and the fewest
stay float with which the loss is allowed (`budget_search`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import StepError
from workbench.onnxgraph.rewrites import Array, Weights, replace_nodes
from workbench.onnxgraph.session import working_session
from workbench.quantization.dynamic.weight_only import rows_to_int8
from workbench.quantization.search.budget_search import Found, Progress, Search, Stage
from workbench.steps.quantize_dynamic import LIBRARY, WEIGHTS

if TYPE_CHECKING:
    import onnx

    from workbench.artifact import Artifact
    from workbench.recipe import Context

SAMPLES = 16  # whose outputs tell the noise of each layer
SWITCHES = "workbench_switches"


@dataclass(frozen=True)
class Files:
    """A Ladder of files with dynamic INT8. model: the float graph, as it goes to the quantizer.
    chosen: its nodes for INT8, name to operator. written: the file that quantizes some of them.
    samples: as the graph takes them.
    """

    model: onnx.ModelProto
    chosen: Mapping[str, str]
    written: Callable[[dict[str, str]], onnx.ModelProto]
    samples: Mapping[str, Array]

    def stages(self, progress: Progress) -> Sequence[Stage]:
        alone = noise(self.model, self.chosen, self.samples, progress)
        ranked = sorted(alone, key=lambda name: -alone[name])
        return [
            Stage(tuple(ranked[:count]), sum(alone[name] for name in ranked[count:]))
            for count in range(len(ranked) + 1)
        ]

    def sketched(self, floats: tuple[str, ...]) -> onnx.ModelProto:
        return self.written({n: kind for n, kind in self.chosen.items() if n not in floats})

    def made(self, floats: tuple[str, ...]) -> tuple[tuple[str, ...], onnx.ModelProto]:
        return floats, self.sketched(floats)


def within(
    files: Files, subject: Artifact, context: Context, max_drop: float
) -> Found[tuple[str, ...]]:
    """The fewest layers in float with which at most `max_drop` points are lost; `made`: which.

    Raises StepError without evaluation samples, or for outputs that are no classes.
    """
    import onnx

    from workbench.quantization.core import scores

    score = scores.of_dataset(onnx.load(subject.path), subject, context.dataset, each=True)
    if score is None:
        raise StepError(
            "an accuracy budget needs evaluation samples",
            f"{context.dataset.name} has none",
            "give a dataset with an evaluation split: --data NAME; or leave max_drop out",
        )
    return Search(
        files, score, max_drop, context.seed,
        lambda part, note: context.progress(0.2 + 0.5 * part, note),
    ).found()  # fmt: skip


def noise(
    model: onnx.ModelProto, chosen: Mapping[str, str], samples: Mapping[str, Array],
    progress: Progress = lambda _fraction, _note: None,
) -> dict[str, float]:  # fmt: skip
    """What each layer's INT8 alone adds to the outputs, as a share of their power, by name.

    One session of one file, in which every layer's noise has a switch (`switched`).
    """

    from workbench.quantization.core.distance import distance

    session = working_session(switched(model, chosen))

    def run(on: int | None) -> list[Any]:
        flags = np.zeros(len(chosen), np.float32)
        if on is not None:
            flags[on] = 1
        found = [session.run(None, {**one, SWITCHES: flags}) for one in _each(samples)]
        return [np.concatenate(parts) for parts in zip(*found, strict=True)]

    expected = run(None)
    found = {}
    for number, name in enumerate(chosen):
        progress(number / len(chosen), f"layer {number + 1} of {len(chosen)}")
        found[name] = distance(expected, run(number)).noise
    return found


def _each(samples: Mapping[str, Array]) -> list[dict[str, Array]]:
    """One sample after another: activations get their range from one, as in an app."""
    count = len(next(iter(samples.values())))
    return [{name: one[i : i + 1] for name, one in samples.items()} for i in range(count)]


def switched(model: onnx.ModelProto, chosen: Mapping[str, str]) -> onnx.ModelProto:
    """The float graph with an input `SWITCHES` [layers]: 1 adds the noise of that layer's INT8.

    The noise is that of 8-bit weights, each output channel its scale, and of an input quantized as
    it comes. What an LSTM has inside, its state, is not in it.
    """
    import onnx
    from onnx import helper

    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    weights = Weights(graph)
    number = {name: place for place, name in enumerate(chosen)}
    graph.input.append(
        helper.make_tensor_value_info(SWITCHES, onnx.TensorProto.FLOAT, [len(chosen)])
    )
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.name in number:
            prefix = f"workbench_{number[node.name]}"
            place = weights.add(f"{prefix}_place", np.array(number[node.name], np.int64))
            switch = f"{prefix}_switch"
            nodes.append(helper.make_node("Gather", [SWITCHES, place], [switch]))
            kind = chosen[node.name]
            for index in WEIGHTS[kind]:
                array = weights.get(node.input[index])
                assert array is not None
                error = weights.add(f"{prefix}_{index}_error", _error(array, kind))
                added = _added(node.input[index], error, switch, f"{prefix}_{index}")
                nodes += added
                node.input[index] = added[-1].output[0]
            if kind in LIBRARY:  # whose input is quantized too
                name = f"{prefix}_x"
                parts = [f"{name}_{part}" for part in ("q", "scale", "zero")]
                nodes += [
                    helper.make_node("DynamicQuantizeLinear", [node.input[0]], parts),
                    helper.make_node("DequantizeLinear", parts, [f"{name}_dq"]),
                    helper.make_node("Sub", [f"{name}_dq", node.input[0]], [f"{name}_error"]),
                ]
                added = _added(node.input[0], f"{name}_error", switch, name)
                nodes += added
                node.input[0] = added[-1].output[0]
        nodes.append(node)
    replace_nodes(graph, nodes)
    return made


def _added(value: str, error: str, switch: str, prefix: str) -> list[onnx.NodeProto]:
    """The nodes of value + switch · error, the sum last."""
    from onnx import helper

    return [
        helper.make_node("Mul", [error, switch], [f"{prefix}_share"]),
        helper.make_node("Add", [value, f"{prefix}_share"], [f"{prefix}_sum"]),
    ]


def _error(array: Array, kind: str) -> Array:
    """What rounding to INT8 adds to weights: columns of products, rows of recurrent ones."""
    columns = kind in ("MatMul", "Attention")
    rows = array.T if columns else array.reshape(-1, array.shape[-1])
    stored, scales = rows_to_int8(rows)
    rounded = stored.astype(np.float32) * scales[:, None]
    found: Array = (rounded.T if columns else rounded.reshape(array.shape)) - array
    return found.astype(np.float32)
