"""What INT8 costs each layer in accuracy, and gains in time: the values behind `wb sensitivity`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.artifact import Artifact, is_fixed_to_one, stored_inputs
from workbench.codec import to_plain
from workbench.errors import ModelError, first_line

if TYPE_CHECKING:
    import onnx

    from workbench.dataset import Dataset
    from workbench.device.profile import Device
    from workbench.display import Display
    from workbench.quantization.core.engine import CalibratedNetwork
    from workbench.quantization.core.placement import OperatorPlacement
    from workbench.quantization.core.plan import QuantizationPlan
    from workbench.quantization.search.output_distance import OutputDistance
    from workbench.quantization.search.sensitivity import LayerSensitivity

SAMPLES = 32  # calibration samples that the layers are tried on


@dataclass(frozen=True, kw_only=True)
class SensitivityRow:
    """One layer's line of the table.

    Attributes:
        sensitivity: what INT8 costs the layer.
        position: from 0, in the network's order.
        milliseconds: a run takes in float and in INT8; None where not measured.
    """

    sensitivity: LayerSensitivity
    position: int
    milliseconds: tuple[float, float] | None = None

    @property
    def saved(self) -> float | None:
        """Milliseconds that INT8 saves; negative where it is slower."""
        return None if self.milliseconds is None else self.milliseconds[0] - self.milliseconds[1]

    def to_json(self) -> dict[str, Any]:
        """The line as it stands in `sensitivity.json`."""
        layer = self.sensitivity
        return {
            "layer": layer.layer,
            "place": self.position,
            "op": layer.op,
            "tensors": list(layer.names),
            "parameters": layer.parameters,
            "bytes": {"float32": 4 * layer.parameters, "int8": layer.parameters},
            "alone": _distance(layer.alone),
            "left_in_float": {**_distance(layer.left), "gained_db": to_plain(layer.gained)},
            "share_of_noise": layer.share,
            "modelled_share": layer.modelled,
            "milliseconds": None if self.milliseconds is None else
            {"float32": self.milliseconds[0], "int8": self.milliseconds[1]},
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SensitivityTable:
    """What INT8 costs the layers of one file on one dataset.

    Attributes:
        samples: how many calibrated, and on how many of these the figures are.
        whole: the distance from FP32 with all layers in INT8.
        layers: the most costly first.
        prefix: layers that a recipe leaves in float anyway.
        seconds: that the table took.
    """

    model: str
    dataset: str
    preset: str
    scheme: str
    device: str
    samples: tuple[int, int]
    whole: OutputDistance
    layers: tuple[SensitivityRow, ...]
    prefix: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The content of `sensitivity.json`."""
        return {
            **{key: getattr(self, key)
               for key in ("model", "dataset", "preset", "scheme", "device", "seconds")},
            "samples": {"calibration": self.samples[0], "figures": self.samples[1]},
            "all_in_int8": _distance(self.whole),
            "layers": [row.to_json() for row in self.layers],
            "prefix": list(self.prefix),
            "notes": list(self.notes),
        }  # fmt: skip


def _distance(distance: OutputDistance) -> dict[str, Any]:
    return {
        "sqnr_db": to_plain(distance.sqnr), "kl": distance.kl, "agreement": distance.agreement
    }  # fmt: skip


def measure_table(
    model: onnx.ModelProto, artifact: Artifact, dataset: Dataset, device: Device, preset: str,
    count: int, display: Display,
) -> SensitivityTable:  # fmt: skip
    """The table of a float graph, `seconds` left at 0.

    artifact: the graph's file, its inputs mapped onto the dataset's. count: calibration samples.
    Raises ModelError where no layer can be in INT8.
    """
    from workbench.onnxgraph import signature
    from workbench.quantization.core import engine
    from workbench.quantization.core.float_prefix import noisy_prefix
    from workbench.quantization.core.samples import count_samples, first_samples
    from workbench.quantization.search import sensitivity

    baked = frozenset(
        node.name for node in model.graph.node if node.name.startswith(signature.BAKED)
    )
    options = engine.QuantizationOptions(preset, device.quantization, floats=baked, whole=True)
    ready = engine.calibrate(
        model, lambda size: _batches(artifact, dataset, size, count), options,
        lambda part, note: display.update("calibration", part, note),
    )  # fmt: skip
    placement = ready.place()
    if not sensitivity.tensors_by_layer(ready.network, placement):
        raise ModelError(
            f"{artifact.path.name} has no layer for INT8",
            f"its operators are {', '.join(sorted(signature.operators(model)))}",
            "convolutions and matrix products with constant weights are what is quantized",
        )
    plan = ready.plan(placement)
    display.done("calibration")
    few = first_samples(ready.samples, SAMPLES)
    trials = sensitivity.LayerTrials(ready, plan, few)
    layers = sensitivity.layer_sensitivities(
        ready, placement, plan, few, lambda part, note: display.update("layers", part, note)
    )
    display.done("layers")
    display.update("times", 0.0)
    times, why = _layer_times(ready, placement, plan, device)
    display.done("times", "done" if times else "failed")
    rows = [
        SensitivityRow(sensitivity=layer, position=position, milliseconds=times.get(layer.layer))
        for position, layer in enumerate(layers)
    ]
    prefix = noisy_prefix(ready.network, placement, ready.weighed_stats)
    return SensitivityTable(
        model=artifact.path.name,
        dataset=dataset.name,
        preset=preset,
        scheme=options.scheme,
        device=device.name,
        samples=(count_samples(ready.samples), count_samples(few)),
        whole=trials.quantize(placement, plan),
        layers=tuple(sorted(rows, key=lambda row: -row.sensitivity.alone.noise)),
        prefix=tuple(layer.layer for layer in layers if layer.layer in prefix),
        notes=(*ready.notes, *((why,) if why else ())),
    )


def _layer_times(
    ready: CalibratedNetwork, placement: OperatorPlacement, plan: QuantizationPlan, device: Device
) -> tuple[Mapping[str, tuple[float, float]], str]:
    """Milliseconds by layer, or nothing and why."""
    from workbench.quantization.search.layer_times import time_layers

    try:
        times = time_layers(ready, placement, plan, device)
    except Exception as error:  # noqa: BLE001 - the table stands without times
        return {}, f"times not measured: {first_line(error)[:200]}"
    return times, "" if times else "times not measured: ONNX Runtime does not take both files"


def _batches(
    artifact: Artifact, dataset: Dataset, size: int, count: int
) -> Iterator[Mapping[str, Any]]:
    """Calibration samples as the file takes them, by its names."""
    split, _ = dataset.calibrating(None)
    size = 1 if is_fixed_to_one(artifact.inputs) else size
    for batch in split.batches(size, count):
        yield stored_inputs(artifact.inputs, batch.inputs)
