"""Calibration: an ONNX network run over samples, its tensors' statistics taken as they come.

Samples run one at a time: a kernel may add up in another order in a larger batch, and then ranges
would depend on the batch size. It costs no time, for counting takes most of it, and holds one
sample's activations only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.errors import DatasetError, StepError, did_you_mean, first_line
from workbench.onnx_session import working_session
from workbench.quantization.ranges import Estimator, Method, MinMax, MovingAverage
from workbench.quantization.ranges_search import Nonlinearity

if TYPE_CHECKING:
    import onnx

    from workbench.quantization.plan import Range

Array = NDArray[Any]
Batches = Callable[[], Iterable[Mapping[str, Array]]]

ROWS = 2048  # channels that are counted apart in one run over the samples: 100 MB at most


def calibrate(
    model: onnx.ModelProto,
    tensors: Sequence[str] | None,
    batches: Batches,
    method: Method | None = None,
    *,
    after: Mapping[str, Nonlinearity] | None = None,
    importance: Mapping[str, Array] | None = None,
    threads: int = 0,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Range]:
    """The range of each of `tensors` (all of floats by default) over the samples of `batches()`.

    batches: gives the samples anew at each call, as feeds [samples, ...] of any sizes. after,
    importance: see Estimator.ranges; tensors with importances are counted by channel, and where
    those are many the samples are run over more than once. threads: of ONNX Runtime; 0 for its
    choice. progress: is told the number of samples that are done in the run. Raises StepError for
    names that the graph has not, DatasetError for a sample with NaN or infinity.
    """
    names = list(tensors) if tensors is not None else float_tensors(model)
    weights = importance or {}
    counted = not isinstance(method or MinMax(), MinMax | MovingAverage)
    found: dict[str, Range] = {}
    for group in _groups(names, {name: len(weights[name]) for name in weights if counted}):
        apart = [name for name in group if name in weights and counted]
        estimator = Estimator(per_channel=apart, histogram=counted)
        observe(model, group, batches(), estimator, threads=threads, progress=progress)
        chosen = {name: weights[name] for name in apart}
        found.update(estimator.ranges(method, after=after, importance=chosen))
    return {name: found[name] for name in names if name in found}


def observe(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    batches: Iterable[Mapping[str, Array]],
    estimator: Estimator,
    *,
    threads: int = 0,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Run the samples once and give the named tensors' values to `estimator`, one by one.

    The network's own inputs may be among the tensors; integer tensors are passed over.
    """
    import onnxruntime as ort

    given = {value.name for value in model.graph.input}
    inner = [name for name in dict.fromkeys(tensors) if name not in given]
    session = _session(model, inner, threads)
    quiet = ort.RunOptions()
    quiet.log_severity_level = 3
    fixed = {value.name: value.shape for value in session.get_inputs()}
    number = 0
    for batch in batches:
        for feed in _single(batch, fixed):
            try:
                outputs = session.run(inner, feed, quiet) if inner else []
            except Exception as error:
                raise DatasetError(
                    f"the network cannot run on calibration sample {number}",
                    first_line(error),
                    "a sample must have the shapes and types of the network's inputs",
                ) from error
            values = {**feed, **dict(zip(inner, outputs, strict=True))}
            for name in dict.fromkeys(tensors):
                estimator.observe_sample(name, values[name], number)
            # Gone before the next run allocates its own.
            del outputs, values
            number += 1
            if progress is not None:
                progress(number)
    if not number:
        raise DatasetError("there are no calibration samples", "", "give some: 50 to 300 are usual")


def float_tensors(model: onnx.ModelProto) -> list[str]:
    """Names of float tensors between nodes of the main graph, inputs first; no constants."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model).graph
    constants = {tensor.name for tensor in inferred.initializer}
    constants |= {node.output[0] for node in inferred.node if node.op_type == "Constant"}
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    floats = {
        value.name
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
        if value.type.tensor_type.elem_type in kinds
    }
    made = [value.name for value in inferred.input]
    made += [name for node in inferred.node for name in node.output]
    return [name for name in made if name in floats and name not in constants]


def _groups(names: Collection[str], rows: Mapping[str, int]) -> Iterator[list[str]]:
    """The names in runs, so that no run counts more than ROWS channels apart."""
    group: list[str] = []
    total = 0
    for name in names:
        if group and rows.get(name, 0) and total + rows[name] > ROWS:
            yield group
            group, total = [], 0
        group.append(name)
        total += rows.get(name, 0)
    if group:
        yield group


def _session(model: onnx.ModelProto, tensors: Sequence[str], threads: int) -> Any:
    """A session that gives the named tensors."""
    import onnx

    made = {name for node in model.graph.node for name in node.output}
    if unknown := [name for name in tensors if name not in made]:
        raise StepError(
            f"the graph has no tensor '{unknown[0]}'",
            "no node of the main graph makes it, and it is no input",
            did_you_mean(unknown[0], made),
        )
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    for name in tensors:  # without types, which ONNX Runtime infers
        watched.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    if not tensors:
        watched.graph.output.extend(model.graph.output)
    # Arenas keep what the largest sample took, and here every activation leaves as an output.
    return working_session(watched, arena=False, threads=threads)


def _single(
    batch: Mapping[str, Array], fixed: Mapping[str, Sequence[object]]
) -> Iterator[dict[str, Array]]:
    """Feeds of one sample each.

    A network whose batch is fixed to more than 1, or that has an input without it, gets the batch
    as it is, as one sample.
    """
    arrays = {name: np.asarray(values) for name, values in batch.items() if name in fixed}
    counts = {len(values) for values in arrays.values() if values.ndim}
    shapes = [list(fixed[name]) for name in arrays]
    alone = all(shape and (shape[0] == 1 or not isinstance(shape[0], int)) for shape in shapes)
    if not (alone and len(counts) == 1):
        yield arrays
        return
    for index in range(counts.pop()):
        yield {name: values[index : index + 1] for name, values in arrays.items()}
