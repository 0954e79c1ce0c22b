"""QuantizeStatic: INT8 weights and activations in QDQ form, by the quantization engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from workbench.artifact import Artifact, Format, is_fixed_to_one, stored_inputs
from workbench.errors import StepError, did_you_mean
from workbench.options import Between, validate
from workbench.recipe import Context, Step

if TYPE_CHECKING:
    import onnx

    from workbench.quantization.core.engine import CalibratedNetwork
    from workbench.quantization.search.choice import PlacementChoice
    from workbench.quantization.search.predictions import PredictionScore

FEW = 32  # calibration samples below which a user is told so


@dataclass(frozen=True, kw_only=True)
class QuantizeStatic(Step):
    """FP32 ONNX to INT8 ONNX (QDQ), near to FP32 without labels or training.

    The graph is equalized, weights are rounded and biases corrected so that the outputs keep what
    they were, on calibration samples. Weights have one scale for each output channel.

    preset: how much is done: `fast` without rounding by reconstruction and with at most 64 samples,
    `balanced` and `best` with at most 300. runtime: whose kernels it is for; a file for `tflite` is
    what ToTflite takes. optimize: `latency` also leaves float what is slower in INT8 on the device,
    measured there, and hands on the FP32 file where no INT8 file is faster. max_drop: points of
    top-1 (of agreement with FP32 where there are no labels) that may be lost; layers go back to
    float until it holds. samples: how many, from the calibration split; by default, and at most,
    what the preset takes. scheme: activation and weight types; `auto` follows the device's ISA, for
    TFLite it is `s8s8`. exclude: names of nodes to leave in float. whole: every layer in INT8, even
    first ones that cost accuracy and gain no time.
    """

    preset: Literal["fast", "balanced", "best"] = "balanced"
    runtime: Literal["ort", "tflite"] = "ort"
    optimize: Literal["accuracy", "latency"] = "accuracy"
    max_drop: Annotated[float, Between(0, 100)] | None = None
    samples: Annotated[int, Between(1)] | None = None
    scheme: Literal["auto", "u8s8", "u8s8-reduced", "s8s8", "s8s8-symmetric"] = "auto"
    exclude: tuple[str, ...] = ()
    whole: bool = False

    name: ClassVar[str] = "quantize"
    takes: ClassVar[tuple[Format, ...]] = (Format.ONNX,)
    gives: ClassVar[Format] = Format.ONNX
    precision: ClassVar[str] = "int8"
    needs_data: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime", "torch", "numpy")
    seconds: ClassVar[float] = 20

    def __post_init__(self) -> None:
        validate(self)

    def run(self, subject: Artifact, context: Context) -> Artifact:
        """Write `model.int8.onnx`, `ranges.json` (onnxruntime's calibration file) and
        `quantization.json`: every layer's figures and what each technique gave.

        Raises StepError where nothing was quantized, where the model is quantized already, or the
        file does not run; DatasetError for calibration samples that are too few or not finite.
        """
        import onnx

        from workbench.quantization.core import engine
        from workbench.quantization.explain.evidence import gather_evidence
        from workbench.quantization.float_copy import keep_float
        from workbench.quantization.prepare.classifier_head import attach_head, detach_head
        from workbench.quantization.search.choice import PlacementGoals, choose_placement
        from workbench.quantization.search.latency import TimingSetup

        whole = onnx.load(subject.path)
        self._check(whole)
        model, head = detach_head(whole)
        scheme = self._scheme(context)
        options = engine.QuantizationOptions(
            preset=self.preset, scheme=scheme, runtime=self.runtime,
            floats=frozenset((*self.exclude, *_baked(model))), whole=self.whole, seed=context.seed,
        )  # fmt: skip
        samples = self._samples(context)
        ready = engine.calibrate(
            model, lambda size: _batches(subject, context, size, samples), options, context.progress
        )
        floats = frozenset(_baked(ready.network.model))
        if not ready.place(floats).nodes:
            return self._nothing(model, subject, context)
        score = self._score(model, subject, context)
        goals = PlacementGoals(self.optimize == "latency", self.max_drop, score)
        setup = TimingSetup(context.device, context.folder)
        choice = choose_placement(ready, floats, goals, setup, model, context.progress)
        if choice.planned is None:
            return keep_float(subject, context, choice.notes)
        path = context.folder / "model.int8.onnx"
        written = ready.write(choice.planned.placement, choice.planned.plan)
        context.progress(0.92, "what each layer lost")
        evidence = gather_evidence(ready, choice, written, model)
        onnx.save(attach_head(written, head, whole), path)
        artifact = self._artifact(subject, written, ready, choice, scheme, samples, context)
        evidence.save(artifact.companions[1])
        context.progress(0.98, "loading it")
        _check_outputs(artifact, subject, context)
        return artifact

    def _check(self, model: onnx.ModelProto) -> None:
        """Raise StepError for what is quantized already, and for names that are not there."""
        from workbench.quantization.prepare.passes import already_quantized

        if kinds := already_quantized(model):
            raise StepError(
                "the model is quantized already",
                f"it has {kinds}",
                "give the float model; 'wb profile FILE' measures this one as it is",
            )
        names = {node.name for node in model.graph.node if node.name}
        if unknown := [name for name in self.exclude if name not in names]:
            raise StepError(
                f"there is no node '{unknown[0]}' to leave alone",
                "",
                did_you_mean(unknown[0], names),
            )

    def _scheme(self, context: Context) -> str:
        if self.scheme != "auto":
            return self.scheme
        # LiteRT's kernels are signed, and exact, everywhere.
        return "s8s8" if self.runtime == "tflite" else context.device.quantization

    def _samples(self, context: Context) -> int:
        """How many calibration samples are used."""
        from workbench.quantization.core.presets import PRESETS

        _, have = context.dataset.calibrating(self.samples)
        return min(have, PRESETS[self.preset].samples)

    def _score(
        self, model: onnx.ModelProto, subject: Artifact, context: Context
    ) -> PredictionScore | None:
        """What the budget is held on, where there is one: the evaluation split, if there is one."""
        if self.max_drop is None or context.dataset.evaluation is None:
            return None
        from workbench.quantization.search.predictions import evaluation_predictions

        return evaluation_predictions(model, subject, context.dataset)

    def _nothing(self, model: onnx.ModelProto, subject: Artifact, context: Context) -> Artifact:
        """What becomes of a graph without a layer for INT8: refused, or left to TFLite's own."""
        from workbench.onnxgraph import signature
        from workbench.quantization.float_copy import keep_float

        if self.runtime == "tflite":
            note = "no layer for INT8 in the ONNX graph: TensorFlow's converter quantizes"
            return keep_float(subject, context, (note,))
        raise StepError(
            "nothing could be quantized",
            f"the graph's operators are {', '.join(sorted(signature.operators(model)))}",
            "static INT8 fits convolutional networks; see 'wb recipes' for others",
        )

    def _artifact(
        self, subject: Artifact, written: onnx.ModelProto, ready: CalibratedNetwork,
        choice: PlacementChoice, scheme: str, samples: int, context: Context,
    ) -> Artifact:  # fmt: skip
        """The artifact with its ranges beside it."""
        from workbench.onnxgraph import signature
        from workbench.quantization.core.calibration_file import save_calibration

        assert choice.planned is not None
        ranges = context.folder / "ranges.json"
        save_calibration(choice.planned.plan.ranges, ranges)
        inputs, outputs = signature.signature(written, (*subject.inputs, *subject.outputs))
        target = " for tflite" if self.runtime == "tflite" else ""
        return Artifact(
            path=context.folder / "model.int8.onnx",
            format=Format.ONNX,
            precision="int8",
            inputs=inputs,
            outputs=outputs,
            history=(
                *subject.history, f"{self.name} {scheme} {self.preset}{target} samples={samples}"
            ),
            companions=(ranges, context.folder / signature.EVIDENCE),
            intermediate=self.runtime == "tflite",
            notes=(f"{scheme}, per channel, {self.preset}{target}",
                   *self._notes(ready, choice, samples), *subject.notes),
        )  # fmt: skip

    def _notes(
        self, ready: CalibratedNetwork, choice: PlacementChoice, samples: int
    ) -> Iterator[str]:
        from workbench.quantization.core.placement import weighted_nodes
        from workbench.quantization.search.budget_search import name_layers

        most = self.samples or 0
        yield f"{samples} calibration samples" + (
            f" of the {most} asked for: preset {self.preset} takes no more"
            if most > samples
            else ""
        )
        if samples < FEW:
            yield (
                f"fewer than {FEW} calibration samples: ranges and biases are less certain, "
                "100 to 300 are better"
            )
        assert choice.planned is not None
        layers = [node.name for node in weighted_nodes(ready.network)]
        inside = sum(name in choice.planned.placement.nodes for name in layers)
        yield f"{inside} of {len(layers)} layers in INT8"
        if first := [name for name in choice.prefix if name in layers]:
            yield f"first layers in float, where 8 bits cost most: {name_layers(first)}"
        if self.exclude:
            yield f"in float as asked: {', '.join(self.exclude)}"
        yield from choice.notes
        folded = [note for note in ready.notes if note[:1].isdigit()]
        if folded:
            yield f"prepared: {', '.join(folded)}"
        yield from (note for note in ready.notes if note not in folded)


def _baked(model: onnx.ModelProto) -> list[str]:
    """What makes values of pixels, and probabilities of values: cheap and exact as it is."""
    from workbench.onnxgraph import signature

    return [node.name for node in model.graph.node if node.name.startswith(signature.BAKED)]


def _batches(
    subject: Artifact, context: Context, size: int, samples: int
) -> Iterator[Mapping[str, Any]]:
    """Calibration samples as the file takes them, by its names."""
    split, _ = context.dataset.calibrating(None)
    size = 1 if is_fixed_to_one(subject.inputs) else size
    for batch in split.batches(size, samples):
        yield stored_inputs(subject.inputs, batch.inputs)
        done = batch.start + len(batch)
        context.progress(0.05 * done / samples, f"reading samples {done}/{samples}")


def _check_outputs(artifact: Artifact, subject: Artifact, context: Context) -> None:
    """Raise StepError where the file does not run, or gives NaN where the float file does not."""
    from workbench import parity
    from workbench.device.session import outputs_of

    examples = context.dataset.examples(4, context.seed)
    before, after = (outputs_of(file, examples) for file in (subject, artifact))
    if parity.compare(before, after).sqnr == float("-inf"):
        raise StepError(
            "the INT8 model gives NaN or Inf", "", "leave layers out: --set quantize.exclude=NAME"
        )
