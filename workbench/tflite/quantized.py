"""A QDQ file as an INT8 `.tflite` file: what is done in the process that has TensorFlow."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.arrays import batch_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

# The channels-first QDQ file, beside the SavedModel that its float graph became.
QUANTIZED = "quantized.onnx"
# What is known of a SavedModel, beside it.
CONVERSION = "conversion.json"
# Real samples on which tensors are known again by their values.
SAMPLES = 2


def is_own(saved_model: Path) -> bool:
    """Whether TensorFlow's ranges are not taken as they are: see `measure_ranges`."""
    path = saved_model / CONVERSION
    conversion = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return conversion.get("form", "") in ("quantized", "hard")


def quantize(
    calibrated: bytes, saved_model: Path, samples: Path, all_integer: bool
) -> tuple[bytes, dict[str, int] | None]:
    """A calibrated float file as INT8, on the grids of the QDQ file beside its SavedModel if any.

    samples: a folder of `.npy`. all_integer: INT8 inputs and outputs, and nothing left float.
    Returns the file and, where there is a QDQ file, what came from where, counted: of `tensors`
    activations `own` keep TensorFlow's range and `moved` are on another grid than the wanted one,
    `outputs` of the network have 8 bits that are float there, `weights` operators have the QDQ
    file's integers, `rounded` have not, `hybrids` give floats from INT8 weights.
    """
    import onnx
    import tensorflow as tf
    from tensorflow.lite.python.convert import deduplicate_readonly_buffers, mlir_quantize

    from workbench.tflite.hard_activations import taken_apart
    from workbench.tflite.injection import with_integers, with_ranges

    kind = tf.int8 if all_integer else tf.float32
    kinds = {"input_data_type": kind, "output_data_type": kind}
    calibrated = measure_ranges(calibrated, stored_samples(samples))
    if not (saved_model / QUANTIZED).is_file():
        return bytes(deduplicate_readonly_buffers(mlir_quantize(calibrated, **kinds))), None
    stripped = taken_apart(onnx.load(saved_model / QUANTIZED))
    places = json.loads((saved_model / CONVERSION).read_text(encoding="utf-8"))["inputs"]
    chosen = with_ranges(calibrated, stripped, _samples(samples, places), all_integer)
    content = mlir_quantize(chosen.content, denylisted_nodes=set(chosen.floats) or None, **kinds)
    content, counts = with_integers(content, chosen, stripped)
    return bytes(deduplicate_readonly_buffers(content)), {
        **counts,
        "own": chosen.own,
        "tensors": chosen.tensors,
        "outputs": chosen.outputs,
    }


def stored_samples(folder: Path) -> Iterator[dict[str, Array]]:
    """Samples one by one, under the signature's names, which the files have."""
    import numpy as np

    files = {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}
    for index in range(batch_size(files)):
        yield {name: np.asarray(file[index : index + 1]) for name, file in files.items()}


def measure_ranges(calibrated: bytes, samples: Iterable[Mapping[str, Array]]) -> bytes:
    """A calibrated float file with min-max ranges taken anew.

    TensorFlow's calibrator looks at what an operator takes after it ran, when the operator may have
    written its results over it: the range is then that of both, 8 times too wide for the x / 6 of a
    hard-swish.
    """
    from workbench.tflite.flatbuffer import Flatbuffer
    from workbench.tflite.tensor_matching import tflite_tensors

    flat = Flatbuffer(calibrated)
    ranges: dict[int, tuple[float, float]] = {}
    for tensors in tflite_tensors(calibrated, flat, samples):
        for number, array in tensors:
            if array.size and flat.has_range(number):
                low, high = ranges.get(number, (float("inf"), float("-inf")))
                ranges[number] = min(low, float(array.min())), max(high, float(array.max()))
    for number, (low, high) in ranges.items():
        flat.set_range(number, low, high)
    return flat.packed()


def _samples(
    folder: Path, places: dict[str, Any]
) -> list[tuple[dict[str, Array], dict[str, Array]]]:
    """A few samples, each as the ONNX graph takes it and as the SavedModel does."""
    import numpy as np

    pairs = []
    for sample in itertools.islice(stored_samples(folder), SAMPLES):
        before = {}
        for name, layout in places.items():
            order = layout["permutation"]
            array = sample[layout["key"]]
            before[name] = array.transpose(np.argsort(order)) if order else array
        pairs.append((before, sample))
    return pairs


def notes(counts: dict[str, int]) -> tuple[str, ...]:
    """What of the file came from the QDQ file and what did not, for the user."""
    operators = counts["weights"] + counts["rounded"]
    lines = ["s8s8, per channel, the quantized ONNX file's ranges, weights and biases"]
    if counts["own"]:
        lines.append(f"{counts['own']} of {counts['tensors']} tensors keep TensorFlow's ranges")
    if counts["moved"]:
        lines.append(
            f"{counts['moved']} of {counts['tensors']} tensors are on the grid that TFLite's "
            "operators ask for"
        )
    if counts["outputs"]:
        lines.append(
            "outputs that the quantized ONNX file leaves float are 8 bits: of many classes the "
            "largest tie, and the first is taken"
        )
    if counts["rounded"]:
        lines.append(f"weights of {counts['rounded']} of {operators} operators rounded anew")
    if counts["hybrids"]:
        plural = "s" * (counts["hybrids"] > 1)
        lines.append(f"{counts['hybrids']} operator{plural} with INT8 weights and float outputs")
    return tuple(lines)
