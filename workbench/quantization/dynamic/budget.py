"""`max_drop` of dynamic INT8: which layers go back to float, told by each one's noise alone.

As post-training mixed precision has it (Dong et al., HAWQ, 2019; here the noise is measured, at the
outputs, and needs no Hessian): layers are ranked by the noise that each alone gives, and the fewest
stay float with which the loss is allowed (`budget_search`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workbench.arrays import concatenate, split_samples
from workbench.errors import StepError
from workbench.onnxgraph.rewrites import Array, Weights, replace_nodes
from workbench.onnxgraph.session import working_session
from workbench.progress import Progress, ignore_progress, span_progress
from workbench.quantization.dynamic.operators import INTEGER_KERNELS, WEIGHT_INPUTS
from workbench.quantization.dynamic.weight_only import rows_to_int8
from workbench.quantization.search.budget_search import BudgetResult, BudgetSearch, FloatStage
from workbench.quantization.search.output_distance import output_distance
from workbench.quantization.search.predictions import evaluation_predictions

if TYPE_CHECKING:
    import onnx

    from workbench.artifact import Artifact
    from workbench.recipe import Context

SAMPLES = 16  # whose outputs tell the noise of each layer
SWITCHES = "workbench_switches"


@dataclass(frozen=True)
class DynamicLadder:
    """A FloatLadder of files with dynamic INT8; its candidates are the layers in float.

    Attributes:
        model: the float graph, as it goes to the quantizer.
        layers: its nodes for INT8, name to operator.
        quantize: makes the file that quantizes some of them.
        samples: [N, ...] by input name, as the graph takes them.
    """

    model: onnx.ModelProto
    layers: Mapping[str, str]
    quantize: Callable[[dict[str, str]], onnx.ModelProto]
    samples: Mapping[str, Array]

    def stages(self, progress: Progress) -> Sequence[FloatStage]:
        """From no layer in float to all, the noisiest first."""
        noise = layer_noise(self.model, self.layers, self.samples, progress)
        ranked = sorted(noise, key=lambda name: -noise[name])
        return [
            FloatStage(tuple(ranked[:count]), sum(noise[name] for name in ranked[count:]))
            for count in range(len(ranked) + 1)
        ]

    def sketch(self, floats: tuple[str, ...]) -> onnx.ModelProto:
        """The file with these layers in float."""
        return self.quantize({name: op for name, op in self.layers.items() if name not in floats})

    def make(self, floats: tuple[str, ...]) -> tuple[tuple[str, ...], onnx.ModelProto]:
        """The same, and the layers."""
        return floats, self.sketch(floats)


def hold_budget(
    ladder: DynamicLadder, subject: Artifact, context: Context, max_drop: float
) -> BudgetResult[tuple[str, ...]]:
    """The fewest layers in float with which at most `max_drop` points are lost; `candidate`: which.

    Raises StepError without evaluation samples, or for outputs that are no classes.
    """
    import onnx

    model = onnx.load(subject.path)
    score = evaluation_predictions(model, subject, context.dataset, single=True)
    if score is None:
        raise StepError(
            "an accuracy budget needs evaluation samples",
            f"{context.dataset.name} has none",
            "give a dataset with an evaluation split: --data NAME; or leave max_drop out",
        )
    progress = span_progress(context.progress, 0.2, 0.7)
    return BudgetSearch(ladder, score, max_drop, context.seed, progress).run()


def layer_noise(
    model: onnx.ModelProto,
    layers: Mapping[str, str],
    samples: Mapping[str, Array],
    progress: Progress = ignore_progress,
) -> dict[str, float]:
    """What each layer's INT8 alone adds to the outputs, as a share of their power, by name.

    One session of one file, in which every layer's noise has a switch (`add_noise_switches`).
    Samples are run one after another: activations get their range from one, as in an app.
    """
    session = working_session(add_noise_switches(model, layers))

    def run(switches: Array) -> list[Array]:
        feeds = ({**sample, SWITCHES: switches} for sample in split_samples(samples))
        return concatenate(session.run(None, feed) for feed in feeds)

    expected = run(np.zeros(len(layers), np.float32))
    noise: dict[str, float] = {}
    for name, switches in zip(layers, np.eye(len(layers), dtype=np.float32), strict=True):
        progress(len(noise) / len(layers), f"layer {len(noise) + 1} of {len(layers)}")
        noise[name] = output_distance(expected, run(switches)).noise
    return noise


def add_noise_switches(model: onnx.ModelProto, layers: Mapping[str, str]) -> onnx.ModelProto:
    """The float graph with an input `SWITCHES` [layers]: 1 adds the noise of that layer's INT8.

    The noise is that of 8-bit weights, each output channel its scale, and of an input quantized as
    it comes. What an LSTM has inside, its state, is not in it.
    """
    import onnx
    from onnx import helper

    switched = onnx.ModelProto()
    switched.CopyFrom(model)
    graph = switched.graph
    weights = Weights(graph)
    numbers = {name: number for number, name in enumerate(layers)}
    graph.input.append(
        helper.make_tensor_value_info(SWITCHES, onnx.TensorProto.FLOAT, [len(layers)])
    )
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.name in numbers:
            op, prefix = layers[node.name], f"workbench_{numbers[node.name]}"
            index = weights.add(f"{prefix}_index", np.array(numbers[node.name], np.int64))
            switch = f"{prefix}_switch"
            nodes.append(helper.make_node("Gather", [SWITCHES, index], [switch]))
            for position in WEIGHT_INPUTS[op]:
                array = weights.get(node.input[position])
                assert array is not None
                error = weights.add(f"{prefix}_{position}_error", _rounding_error(array, op))
                nodes += _add_switched(node, position, error, switch, f"{prefix}_{position}")
            if op in INTEGER_KERNELS:  # whose input is quantized too
                x = f"{prefix}_x"
                parts = [f"{x}_{part}" for part in ("q", "scale", "zero")]
                nodes += [
                    helper.make_node("DynamicQuantizeLinear", [node.input[0]], parts),
                    helper.make_node("DequantizeLinear", parts, [f"{x}_dq"]),
                    helper.make_node("Sub", [f"{x}_dq", node.input[0]], [f"{x}_error"]),
                ]
                nodes += _add_switched(node, 0, f"{x}_error", switch, x)
        nodes.append(node)
    replace_nodes(graph, nodes)
    return switched


def _add_switched(
    node: onnx.NodeProto, position: int, error: str, switch: str, prefix: str
) -> list[onnx.NodeProto]:
    """Let a node take its input + switch · error; the nodes that compute it."""
    from onnx import helper

    added = [
        helper.make_node("Mul", [error, switch], [f"{prefix}_share"]),
        helper.make_node("Add", [node.input[position], f"{prefix}_share"], [f"{prefix}_sum"]),
    ]
    node.input[position] = f"{prefix}_sum"
    return added


def _rounding_error(array: Array, op: str) -> Array:
    """What rounding to INT8 adds to weights: columns of products, rows of recurrent ones."""
    columns = op in ("MatMul", "Attention")
    rows = array.T if columns else array.reshape(-1, array.shape[-1])
    integers, scales = rows_to_int8(rows)
    rounded = integers.astype(np.float32) * scales[:, None]
    error: Array = (rounded.T if columns else rounded.reshape(array.shape)) - array
    return error.astype(np.float32)
