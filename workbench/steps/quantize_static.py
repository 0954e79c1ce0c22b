"""QuantizeStatic: INT8 weights and activations in QDQ form, calibrated in constant memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from workbench.artifact import Artifact, Format, feed, is_fixed_to_one, stored
from workbench.errors import DependencyError, StepError
from workbench.options import Between, validate

if TYPE_CHECKING:
    from workbench.recipe import Context

BATCH = 2  # larger ones are no faster, and hold as many samples' activations

# Why each: u8s8 runs on VNNI and is exact there; without VNNI its 16-bit sums saturate, so weights
# get 7 bits; ARM's dot products are signed, and both are exact. Symmetric is signed with zero
# points of 0, all that TensorRT takes.
SCHEMES: dict[str, tuple[str, bool]] = {
    "u8s8": ("QUInt8", False),
    "u8s8-reduced": ("QUInt8", True),
    "s8s8": ("QInt8", False),
    "s8s8-symmetric": ("QInt8", False),
}


@dataclass(frozen=True, kw_only=True)
class QuantizeStatic:
    """FP32 ONNX to INT8 ONNX (QDQ), with min-max ranges over calibration samples.

    samples: how many, from the calibration split; all of it by default. per_channel: one weight
    scale for each output channel. scheme: activation and weight types; `auto` follows the
    device's ISA.
    """

    samples: Annotated[int, Between(1)] | None = None
    per_channel: bool = True
    scheme: Literal["auto", "u8s8", "u8s8-reduced", "s8s8", "s8s8-symmetric"] = "auto"

    name: ClassVar[str] = "quantize"
    takes: ClassVar[tuple[Format, ...]] = (Format.ONNX,)
    gives: ClassVar[Format] = Format.ONNX
    precision: ClassVar[str] = "int8"
    needs_data: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime", "numpy")
    seconds: ClassVar[float] = 5

    def __post_init__(self) -> None:
        validate(self)

    def run(self, subject: Artifact, context: Context) -> Artifact:
        """Write `model.int8.onnx` and `ranges.json`, the calibrated ranges.

        Raises StepError where nothing was quantized or the file does not run, DatasetError for
        calibration samples that are too few or not finite.
        """
        import onnx
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        from workbench import graph
        from workbench.device.runner import infer, open_session
        from workbench.measure import parity

        scheme = context.device.quantization if self.scheme == "auto" else self.scheme
        activations, reduce_range = SCHEMES[scheme]
        prepared = context.folder / "prepared.onnx"
        context.progress(0.05, "preparing the graph")
        # Symbolic shape inference asserts on some transformers; onnx's own suffices here.
        quant_pre_process(subject.path, prepared, skip_symbolic_shape=True)
        ranges = context.folder / "ranges.json"
        samples = self._calibrate(prepared, ranges, subject, context)
        context.progress(0.85, scheme)
        path = context.folder / "model.int8.onnx"
        quantize_static(
            prepared,
            path,
            quant_format=QuantFormat.QDQ,
            per_channel=self.per_channel,
            reduce_range=reduce_range,
            activation_type=QuantType[activations],
            weight_type=QuantType.QInt8,
            calibration_cache_path=ranges,
            extra_options={"ActivationSymmetric": scheme.endswith("-symmetric")},
            # What makes values of pixels, and probabilities of values, is cheap and exact as it is.
            nodes_to_exclude=[
                node.name
                for node in onnx.load(prepared, load_external_data=False).graph.node
                if node.name.startswith(graph.BAKED)
            ],
        )
        prepared.unlink()
        model = onnx.load(path)
        counts = graph.operators(model)
        if not counts["QuantizeLinear"]:
            raise StepError(
                "nothing could be quantized",
                f"the graph's operators are {', '.join(sorted(counts))}",
                "static INT8 fits convolutional networks; see 'wb recipes' for others",
            )
        inputs, outputs = graph.signature(model, (*subject.inputs, *subject.outputs))
        artifact = Artifact(
            path=path,
            format=Format.ONNX,
            precision="int8",
            inputs=inputs,
            outputs=outputs,
            history=(*subject.history, f"{self.name} {scheme} samples={samples}"),
            companions=(ranges,),
            notes=(f"{scheme}{', per channel' if self.per_channel else ''}, min-max",
                   f"{samples} calibration samples", *subject.notes),
        )  # fmt: skip
        context.progress(0.95, "loading it")
        examples = context.dataset.examples(4, context.seed)
        before = infer(open_session(subject, threads=0), examples)
        found = parity.compare(before, infer(open_session(artifact, threads=0), examples))
        if found.sqnr == float("-inf"):
            raise StepError("the INT8 model gives NaN or Inf", "", "try quantize.per_channel=false")
        return artifact

    def _calibrate(self, path: Path, ranges: Path, subject: Artifact, context: Context) -> int:
        """Write min-max ranges of every tensor, in memory that does not grow with the samples.

        The calibrator keeps what it collected until it is asked for ranges, and merges ranges
        exactly: so it is given one batch at a time. Returns the number of samples.
        """
        try:
            from onnxruntime.quantization.calibrate import (
                CalibrationMethod,
                TensorsData,
                create_calibrator,
                save_tensors_data,
            )
        except ImportError as error:  # a variant, onnxruntime-openvino say, may be behind
            raise DependencyError(
                "static INT8 needs onnxruntime 1.31 or newer",
                str(error),
                "make the files where onnxruntime is, then measure them here: 'wb profile FILE…'",
            ) from error

        split, samples = context.dataset.calibrating(self.samples)
        augmented = context.folder / "augmented.onnx"
        calibrator = create_calibrator(
            path, augmented_model_path=str(augmented), calibrate_method=CalibrationMethod.MinMax
        )
        size = 1 if is_fixed_to_one(subject.inputs) else BATCH
        for batch in split.batches(size, samples):
            given = feed(subject.inputs, batch.inputs)
            calibrator.collect_data(
                _Once({spec.name: stored(spec, given[spec.name]) for spec in subject.inputs})
            )
            done = batch.start + len(batch)
            context.progress(0.1 + 0.7 * done / samples, f"calibrating {done}/{samples}")
        found = calibrator.compute_data()
        if not isinstance(found, TensorsData):
            raise StepError("calibration gave no ranges")
        save_tensors_data(found, ranges)
        augmented.unlink(missing_ok=True)
        return samples


class _Once:
    """A CalibrationDataReader of one batch."""

    def __init__(self, inputs: dict[str, Any]) -> None:
        self._inputs: dict[str, Any] | None = inputs

    def get_next(self) -> dict[str, Any] | None:
        inputs, self._inputs = self._inputs, None
        return inputs
