"""What ToTflite's two jobs are given: a SavedModel made once for all precisions, and samples."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from workbench.artifact import Artifact, TensorSpec, feed, stored_input
from workbench.cache import key_of
from workbench.errors import CrashError, StepError
from workbench.process import Worker
from workbench.tflite.quantized import CONVERSION, QUANTIZED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workbench.recipe import Context

# In these a quantized file keeps its numbers.
GIVEN = ("int8", "int8-io")
Form = Literal["", "wide", "quantized", "hard"]
PACKAGES = (
    "tensorflow", "onnx2tf", "tf_keras", "onnx", "onnxsim", "onnxruntime", "onnx-graphsurgeon",
    "sng4onnx", "numpy", "ai-edge-litert",
)  # fmt: skip


def write_samples(
    subject: Artifact, context: Context, folder: Path, conversion: dict[str, Any], count: int | None
) -> int:
    """Calibration samples as the SavedModel takes them, one `.npy` an input; their number.

    Through files that are mapped, not through memory: the other process reads them one by one.
    """
    import numpy as np

    split, samples = context.dataset.calibrating(count)
    folder.mkdir()
    files: dict[str, Any] = {}
    for batch in split.batches(8, samples):
        inputs = feed(subject.inputs, batch.inputs)
        for spec in subject.inputs:
            layout = conversion["inputs"][spec.stored_name]
            array = _source(spec, inputs[spec.name])
            array = array.transpose(layout["permutation"]) if layout["permutation"] else array
            if spec.name not in files:
                files[spec.name] = np.lib.format.open_memmap(
                    folder / f"{layout['key']}.npy",
                    "w+",
                    array.dtype,
                    (samples, *array.shape[1:]),
                )
            files[spec.name][batch.start : batch.start + len(batch)] = array
    for file in files.values():
        file.flush()
    return samples


def form(subject: Artifact, precision: str) -> Form:
    """The form of the graph that a precision needs.

    `wide`: for activations of 16 bits. `quantized`: the float graph within a QDQ file, which stays
    beside the SavedModel. `hard`: in the operators that INT8 kernels take. '' is everyone's.
    """
    import onnx

    from workbench.quantization.core.qdq_reader import is_quantized
    from workbench.tflite.hard_activations import is_hard

    if precision == "int16":
        return "wide" if any("int" in spec.dtype for spec in subject.inputs) else ""
    if precision not in GIVEN:
        return ""
    model = onnx.load(subject.path, load_external_data=False)
    if is_quantized(model):
        return "quantized"
    return "hard" if is_hard(model) else ""


def saved_model(subject: Artifact, context: Context, worker: Worker, form: Form) -> Path:
    """The SavedModel of an ONNX file in a form, made once for all precisions that take it."""
    import numpy as np
    from filelock import FileLock

    from workbench.device.probe import versions

    work = context.work or context.folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    examples = feed(subject.inputs, context.dataset.examples(4, context.seed))
    inputs = {spec.stored_name: _source(spec, examples[spec.name]) for spec in subject.inputs}
    key = key_of(
        "saved model", subject.sha256, {name: array.shape[1:] for name, array in inputs.items()},
        form, versions(PACKAGES), code=("workbench.tflite.conversion_inputs",),
    )  # fmt: skip
    final = work / f"saved-model-{key}"
    context.progress(0.0, "waiting for the SavedModel")
    with FileLock(work / f"{final.name}.lock"):
        if final.is_dir():
            return final
        context.progress(0.05, "onnx2tf")
        making = work / f"{final.name}.making"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir()
        source = Path(shutil.copyfile(subject.path, making / "model.onnx"))
        _channels_first(source, subject)
        if form == "quantized":
            shutil.copyfile(source, making / QUANTIZED)
        if form in ("quantized", "hard"):
            _rewrite(source)
        np.savez(making / "samples.npz", *inputs.values())
        pixels = any(spec.pixels for spec in subject.inputs)
        try:
            worker.call(
                "saved_model", source, making / "saved_model", list(inputs),
                making / "samples.npz", pixels, form == "wide",
            )  # fmt: skip
        except CrashError as error:
            raise StepError("onnx2tf died", error.why, error.fix) from error
        _say(making / "saved_model" / CONVERSION, form)
        if form == "quantized":
            (making / QUANTIZED).rename(making / "saved_model" / QUANTIZED)
        (making / "saved_model").rename(final)
        shutil.rmtree(making)
    return final


def _rewrite(path: Path) -> None:
    """Leave the float graph of a file in its place, in the operators that INT8 kernels take."""
    import onnx

    from workbench.tflite.hard_activations import taken_apart

    model = onnx.load(path)
    onnx.save(taken_apart(model).model, path)


def _say(path: Path, form: Form) -> None:
    """Add to what is known of a SavedModel the form that it was made in."""
    conversion = json.loads(path.read_text(encoding="utf-8"))
    conversion["form"] = form
    if form == "hard":
        conversion["notes"].append("hard-swish written as x / 6 * relu6(x + 3), for INT8 kernels")
    path.write_text(json.dumps(conversion), encoding="utf-8")


def _channels_first(path: Path, subject: Artifact) -> None:
    """Baked pixels in the layout that onnx2tf expects of images, and turns to channels last."""
    import onnx

    from workbench.onnxgraph import signature

    if any(spec.pixels for spec in subject.inputs):
        model = onnx.load(path)
        signature.channels_first(model, subject.inputs)
        onnx.save(model, path)


def _source(spec: TensorSpec, array: NDArray[Any]) -> NDArray[Any]:
    """A canonical input [N, …] as onnx2tf's source takes it: pixels channels first."""
    if spec.pixels is None:
        return stored_input(spec, array)
    return stored_input(spec, array).transpose(0, 3, 1, 2)
