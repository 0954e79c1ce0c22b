"""The two TensorFlow jobs behind ToTflite, each run in a worker process.

onnx2tf sets the recursion limit, seeds global generators, raises SystemExit and fetches sample
data; TensorFlow takes seconds to import and hundreds of megabytes. None of it may happen in a
process that does anything else.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from workbench.errors import StepError, first_line
from workbench.onnxgraph.rewrites import copy_model
from workbench.tflite.firmware import INT8
from workbench.tflite.quantized import CONVERSION
from workbench.tflite.saved_model import (
    DIFFERS,
    compare_outputs,
    first_wrong,
    make_serving,
    moved_axes,
    places,
    write,
)

Array = NDArray[Any]

# onnx2tf looks for this sample in its working folder before it asks the network for one.
SAMPLE = "calibration_image_sample_data_20x128x128x3_float32.npy"


@dataclass(frozen=True)
class Attempt:
    """A way to ask onnx2tf.

    Attributes:
        strict: it compares every operator's outputs, slow on large graphs.
        moved: images go from NCHW to NHWC.
        written: PRelu is written out.
        note: what to say where this one did.
    """

    note: str = ""
    strict: bool = True
    moved: bool = True
    written: bool = False


ATTEMPTS = (
    Attempt(),
    Attempt("PRelu written out", written=True),
    Attempt("converted without onnx2tf's strict mode", strict=False),
    Attempt("converted with its inputs' axes as they are", moved=False),
)


def make_saved_model(
    source: Path,
    folder: Path,
    names: list[str],
    samples: Path,
    last: bool = False,
    wide: bool = False,
    progress: Any = None,
) -> None:
    """Convert an ONNX file to a SavedModel with a batch of 1, and say in CONVERSION how it came.

    samples: `.npz` with the inputs `names` [N, …]. last: images must come channels last. wide: for
    activations of 16 bits. Raises StepError naming the operator, or the output that disagrees,
    where no attempt gives the file's outputs.
    """
    import numpy as np

    from workbench.tflite.lowering import write_prelu
    from workbench.tflite.onnx_preparation import name_plainly, prepare_graph

    with np.load(samples) as stored:
        inputs = dict(zip(names, stored.values(), strict=True))
    model, expected, notes = prepare_graph(source, inputs, wide)
    output_names = [value.name for value in model.graph.output]
    name_plainly(model, inputs)
    problems = []
    unrolled = any("unrolled" in note for note in notes)
    for attempt in _attempts(model, inputs, large=unrolled, last=last):
        try:
            asked = write_prelu(copy_model(model), inputs)[0] if attempt.written else model
            network = _network(asked, list(inputs.values()), attempt, source.parent)
            serve = make_serving(network, names, output_names)
            outputs = compare_outputs(serve, inputs, expected, output_names, attempt.moved)
        except BaseException as error:  # noqa: BLE001 - SystemExit among them; the next may do
            problems.append(_reason(error))
            continue
        write(serve, folder)
        own_notes = [attempt.note] if attempt.note and not unrolled else []
        conversion = {
            "notes": notes + own_notes,
            "inputs": places(inputs, [moved_axes(a, attempt.moved) for a in inputs.values()]),
            "outputs": places(dict(zip(output_names, expected, strict=True)), outputs),
        }
        (folder / CONVERSION).write_text(json.dumps(conversion), encoding="utf-8")
        return
    why = problems[0]
    if DIFFERS in why:
        plain = dict(zip([value.name for value in model.graph.input], inputs.values(), strict=True))
        first = ATTEMPTS[2 if unrolled else 0]

        def again(asked: Any) -> Any:
            return _network(asked, list(plain.values()), first, source.parent)

        wrong = first_wrong(model, plain, first.moved, again)
        why = f"operator {wrong} gives something else; {why}" if wrong else why
    raise StepError(
        "onnx2tf cannot convert the model",
        why,
        "the branches for ONNX Runtime stand; onnx2tf's README has what it takes",
    )


def _attempts(
    model: Any, inputs: Mapping[str, Array], *, large: bool, last: bool
) -> Iterator[Attempt]:
    """The attempts that can differ for this model, in their order."""
    images = any(array.ndim in (4, 5) for array in inputs.values())
    prelu = any(node.op_type == "PRelu" for node in model.graph.node)
    for attempt in ATTEMPTS:
        possible = attempt.moved or (images and not last)
        if possible and not (attempt.strict and large) and (prelu or not attempt.written):
            yield attempt


def _network(model: Any, inputs: Sequence[Array], attempt: Attempt, work: Path) -> Any:
    """onnx2tf's Keras model. It compares operators on the first real sample: on its own zeros and
    ones many wrong axis orders look right.
    """
    import numpy as np
    import onnx
    import onnx2tf
    import tf_keras

    os.chdir(work)
    path = work / "asked.onnx"  # which it overwrites
    onnx.save(model, path)
    np.save(SAMPLE, np.random.default_rng(0).random((20, 128, 128, 3), dtype=np.float32))
    names = [value.name for value in model.graph.input]
    kept, input_arrays = [], []
    for name, array in zip(names, inputs, strict=True):
        order = moved_axes(array, attempt.moved)
        kept += [] if order else [name]
        np.save(work / f"{name}.npy", array[:1].transpose(order) if order else array[:1])
        input_arrays.append([name, str(work / f"{name}.npy"), 0, 1])
    tf_keras.backend.clear_session()
    return onnx2tf.convert(
        input_onnx_file_path=str(path),
        output_folder_path=str(work / "onnx2tf"),
        not_use_onnxsim=True,  # it has been, and theirs runs the command three times
        disable_model_save=True,
        keep_shape_absolutely_input_names=kept or None,
        custom_input_op_name_np_data_path=input_arrays,
        non_verbose=True,
        verbosity="error",
        disable_strict_mode=not attempt.strict,
    )


def _reason(error: BaseException) -> str:
    """The operator that stopped onnx2tf, from the trace: its modules are named after operators."""
    if isinstance(error, StepError):
        return error.what
    trace, operator = error.__traceback__, ""
    while trace is not None:
        match = re.search(r"onnx2tf/ops/(\w+)\.py$", trace.tb_frame.f_code.co_filename)
        if match:
            operator = match[1]
            name = getattr(trace.tb_frame.f_locals.get("graph_node"), "name", "")
            operator += f" ({name})" if name else ""
        trace = trace.tb_next
    message = first_line(error)
    if missing := re.search(r"No module named 'onnx2tf\.ops\.(\w+)'", message):
        return f"operator {missing[1]}: onnx2tf does not have it"
    at = f"operator {operator}: " if operator else ""
    return f"{at}{type(error).__name__}{f': {message}' if message else ''}"


def make_flatbuffer(
    saved_model: Path, path: Path, precision: str, samples: Path, progress: Any = None
) -> dict[str, Any]:
    """Convert a SavedModel to `.tflite` at a precision; what the file holds (see `flatbuffer`).

    `samples` is a folder with a `.npy` [N, ...] for each input, read for the quantized precisions.
    A SavedModel that was made of a QDQ file has it beside it: the file then gets its numbers, and
    `injected` says how many (see `tflite_quantized`).

    Raises StepError where TensorFlow refuses, naming the operator where it does, and for a file
    with operators that LiteRT itself does not have.
    """
    from workbench.tflite import firmware
    from workbench.tflite.quantized import is_own, quantize

    content, injected = None, None
    own = precision in ("int8", "int8-io") and is_own(saved_model)
    for mixed in (False, True) if precision in ("int8", "int16") else (False,):
        try:
            if own:
                calibrated = _calibrate(saved_model, precision, samples, mixed)
                whole = precision == "int8-io"
                content, injected = quantize(calibrated, saved_model, samples, whole)
            else:
                content = _convert(saved_model, precision, samples, mixed)
            break
        except Exception as error:  # noqa: BLE001 - whatever it raises is the step's error
            # Without float kernels first: what needs them is to be said, not to go unseen.
            message = first_line(error) or type(error).__name__
            missing = sorted(set(re.findall(r"tf\.[A-Z]\w+|(?<=op: ')\w+", str(error))))
            refused = StepError(
                f"TensorFlow cannot write the model as {precision} TFLite",
                f"no TFLite operator for {', '.join(missing)}" if missing else message,
            )
            refused.__cause__ = error
    if content is None:
        raise refused
    facts = {**firmware.facts(content), "injected": injected}
    foreign = [name for name in facts["operators"] if name.startswith("CUSTOM")]
    if foreign:
        raise StepError(
            f"the {precision} TFLite file would need operators that LiteRT does not have",
            ", ".join(foreign),
            "the branches for ONNX Runtime stand",
        )
    if facts["unscaled"]:
        raise StepError(
            f"the {precision} TFLite file would crash LiteRT",
            f"TensorFlow gave a constant of zeros a scale of 0: {', '.join(facts['unscaled'])}",
            "take another precision",
        )
    path.write_bytes(content)
    return facts


def _convert(saved_model: Path, precision: str, samples: Path, mixed: bool) -> bytes:
    content: bytes = _converter(saved_model, precision, samples, mixed).convert()
    return content


def _calibrate(saved_model: Path, precision: str, samples: Path, mixed: bool) -> bytes:
    """The float file that TensorFlow's quantizer takes, with a range for every activation."""
    converter = _converter(saved_model, precision, samples, mixed)
    converter._experimental_calibrate_only = True
    content: bytes = converter.convert()
    return content


def _converter(saved_model: Path, precision: str, samples: Path, mixed: bool) -> Any:
    import tensorflow as tf

    from workbench.tflite.quantized import stored_samples

    sets = tf.lite.OpsSet
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision in INT8:
        quantized = (
            sets.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
            if precision == "int16"
            else sets.TFLITE_BUILTINS_INT8
        )
        converter.target_spec.supported_ops = [quantized, *([sets.TFLITE_BUILTINS] * mixed)]
        converter.representative_dataset = lambda: stored_samples(samples)
    if precision == "int8-io":
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter
