"""The two TensorFlow jobs behind ToTflite, each run in a worker process of its own.

onnx2tf sets the recursion limit, seeds global generators, raises SystemExit and fetches sample
data; TensorFlow takes seconds to import and hundreds of megabytes. None of it may happen in a
process that does anything else.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench.errors import StepError, first_line

# onnx2tf looks for this sample in its working folder before it asks the network for one.
SAMPLE = "calibration_image_sample_data_20x128x128x3_float32.npy"


def make_saved_model(source: Path, folder: Path, keep: list[str], progress: Any = None) -> None:
    """Convert an ONNX file (which may be overwritten) to a SavedModel with a batch of 1.

    Inputs named in `keep` keep their axis order. Raises StepError naming the operator.
    """
    import numpy as np

    os.chdir(source.parent)
    np.save(SAMPLE, np.zeros((20, 128, 128, 3), np.float32))
    # onnx2tf calls the onnxsim command by name: the one of this environment.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    import onnx2tf

    try:
        onnx2tf.convert(
            input_onnx_file_path=str(source),
            output_folder_path=str(folder),
            batch_size=1,
            output_signaturedefs=True,
            keep_shape_absolutely_input_names=keep or None,
            non_verbose=True,
            verbosity="error",
        )
    except BaseException as error:
        raise StepError("onnx2tf cannot convert the model", _reason(error)) from error
    if not (folder / "saved_model.pb").is_file():
        raise StepError("onnx2tf wrote no SavedModel")
    for extra in folder.glob("*.tflite"):  # converted from it below, with the quantizer's options
        extra.unlink()
    shutil.rmtree(folder / "assets", ignore_errors=True)


def _reason(error: BaseException) -> str:
    """The operator that stopped onnx2tf, from the trace: its modules are named after operators."""
    trace, operator = error.__traceback__, ""
    while trace is not None:
        match = re.search(r"onnx2tf/ops/(\w+)\.py$", trace.tb_frame.f_code.co_filename)
        if match:
            operator = match[1]
            name = getattr(trace.tb_frame.f_locals.get("graph_node"), "name", "")
            operator += f" ({name})" if name else ""
        trace = trace.tb_next
    said = first_line(error)
    at = f"operator {operator}: " if operator else ""
    return f"{at}{type(error).__name__}{f': {said}' if said else ''}"


def make_flatbuffer(
    saved_model: Path, path: Path, precision: str, samples: Path, progress: Any = None
) -> None:
    """Convert a SavedModel to `.tflite` at a precision.

    `samples` is a folder with a `.npy` [N, ...] for each input, read for the INT8 precisions.
    Raises StepError where TensorFlow refuses, naming the operator where it does.
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision in ("int8", "int8-io"):
        # INT8 operators alone: a file that falls back to float silently is not what was asked for.
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        names = _input_names(saved_model)
        converter.representative_dataset = lambda: _representative(names, samples)
    if precision == "int8-io":
        converter.inference_input_type = converter.inference_output_type = tf.int8
    try:
        content = converter.convert()
    except Exception as error:
        said = first_line(error) or type(error).__name__
        missing = sorted(set(re.findall(r"tf\.[A-Z]\w+", str(error))))
        raise StepError(
            f"TensorFlow cannot write the model as {precision} TFLite",
            f"no TFLite operator for {', '.join(missing)}" if missing else said,
        ) from error
    path.write_bytes(content)


def _input_names(saved_model: Path) -> list[str]:
    """The signature's own names, which the quantizer asks for; a loaded function changes some."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    read = SavedModel.FromString((saved_model / "saved_model.pb").read_bytes())
    return list(read.meta_graphs[0].signature_def["serving_default"].inputs)


def _representative(names: list[str], folder: Path) -> Iterator[dict[str, Any]]:
    """Samples one by one, under the SavedModel's names."""
    import numpy as np

    files = {path.stem: np.load(path, mmap_mode="r") for path in folder.glob("*.npy")}
    if len(names) == 1:
        files = dict.fromkeys(names, next(iter(files.values())))
    else:
        files = {name: files[re.sub(r"\W", "_", name).lower()] for name in names}
    for index in range(len(next(iter(files.values())))):
        yield {name: np.asarray(file[index : index + 1]) for name, file in files.items()}
