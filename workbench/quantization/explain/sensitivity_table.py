"""`wb sensitivity MODEL --data DATA`: what INT8 costs each layer in accuracy, and gains in time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench import dataset as datasets
from workbench.artifact import Artifact, Format, is_fixed_to_one, stored_inputs
from workbench.device import profile
from workbench.device.selection import local_only
from workbench.errors import (
    InputError,
    ModelError,
    RecipeError,
    StepError,
    WorkbenchError,
    did_you_mean,
    first_line,
)
from workbench.inspect import artifacts
from workbench.report.data import plain
from workbench.run import align

if TYPE_CHECKING:
    import onnx

    from workbench.dataset import Dataset
    from workbench.device.profile import Device
    from workbench.display import Display
    from workbench.quantization.core.engine import CalibratedNetwork
    from workbench.quantization.search.output_distance import OutputDistance
    from workbench.quantization.search.sensitivity import LayerSensitivity

SAMPLES = 32  # calibration samples that the layers are tried on


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """A line of the table. place: in the network's order. milliseconds: in float and in INT8, None
    where not measured.
    """

    found: LayerSensitivity
    place: int
    milliseconds: tuple[float, float] | None = None

    @property
    def saved(self) -> float | None:
        """Milliseconds that INT8 saves; negative where it is slower."""
        return None if self.milliseconds is None else self.milliseconds[0] - self.milliseconds[1]

    def to_json(self) -> dict[str, Any]:
        one = self.found
        return {
            "layer": one.layer,
            "place": self.place,
            "op": one.op,
            "tensors": list(one.names),
            "parameters": one.parameters,
            "bytes": {"float32": 4 * one.parameters, "int8": one.parameters},
            "alone": _distance(one.alone),
            "left_in_float": {**_distance(one.left), "gained_db": plain(one.gained)},
            "share_of_noise": one.share,
            "modelled_share": one.modelled,
            "milliseconds": None if self.milliseconds is None else
            {"float32": self.milliseconds[0], "int8": self.milliseconds[1]},
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Table:
    """layers: the most costly first. whole: the distance with all of them in INT8. prefix: layers
    that a recipe leaves in float anyway. samples: for calibration, and of these for the figures.
    """

    model: str
    dataset: str
    preset: str
    scheme: str
    device: str
    samples: tuple[int, int]
    whole: OutputDistance
    layers: tuple[LayerRow, ...]
    prefix: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            **{key: getattr(self, key)
               for key in ("model", "dataset", "preset", "scheme", "device", "seconds")},
            "samples": {"calibration": self.samples[0], "figures": self.samples[1]},
            "all_in_int8": _distance(self.whole),
            "layers": [one.to_json() for one in self.layers],
            "prefix": list(self.prefix),
            "notes": list(self.notes),
        }  # fmt: skip


def _distance(found: OutputDistance) -> dict[str, Any]:
    return {"sqnr_db": plain(found.sqnr), "kl": found.kl, "agreement": found.agreement}


def command(
    path: Path, data: str | None, preset: str, samples: int | None, device: str,
    out: Path | None, display: Display,
) -> Table:  # fmt: skip
    """The table of a float ONNX file, and a folder with it as a page where one is asked for.

    Raises InputError for words, files and samples that are wrong; StepError where the engine cannot
    take the network.
    """
    from workbench.quantization.core.presets import PRESETS

    started = time.perf_counter()
    if preset not in PRESETS:
        raise RecipeError(f"there is no preset '{preset}'", "", did_you_mean(preset, PRESETS))
    if samples is not None and samples < 1:
        raise InputError(f"--samples is {samples}", "", "give a whole number from 1")
    if data is None:
        raise InputError(
            "there is no --data",
            "what a layer costs is seen on samples like those that the model will meet",
            "give --data FILE.toml or a name in calibration/; labels are not needed",
        )
    if out is not None and out.exists() and not out.is_dir():
        raise InputError(f"{out} is no folder", "", "give --out a folder")
    where = local_only(profile.load(device), "wb sensitivity")
    display.plan({"files": 2.0, "calibration": 20.0, "layers": 20.0, "times": 5.0})
    display.update("files", 0.0)
    artifact = artifacts.open_artifact(path)
    model = _loaded(artifact)
    dataset = datasets.load(data)
    dataset.check()
    artifact = align.onto_data(artifact, dataset.inputs)
    have = dataset.calibrating(samples)[1]
    display.done("files")
    try:
        found = _measured(
            model, artifact, dataset, where, preset, min(have, PRESETS[preset].samples), display
        )
    except WorkbenchError:
        raise
    except Exception as error:
        raise StepError(
            f"{path.name} cannot be quantized layer by layer",
            f"{type(error).__name__}: {first_line(error)[:300]}",
            "see whether 'wb compare' runs the file on these samples; if it does, report this",
        ) from error
    found = replace(found, seconds=round(time.perf_counter() - started, 2))
    if out is not None:
        from workbench.quantization.explain.sensitivity_page import write

        write(found, out)
    return found


def _loaded(artifact: Artifact) -> onnx.ModelProto:
    """The graph. Raises ModelError for a file that is not ONNX, not float, or of a fixed batch."""
    import onnx

    from workbench.quantization.prepare.passes import already_quantized

    name = artifact.path.name
    if artifact.format is not Format.ONNX:
        raise ModelError(
            f"{name} is no ONNX file", "layers are changed one by one in a float ONNX graph",
            "give the .onnx file that it was made from",
        )  # fmt: skip
    model = onnx.load(artifact.path)
    if kinds := already_quantized(model):
        raise ModelError(
            f"{name} is quantized already", f"it has {kinds}", "give the float file it was made of"
        )
    fixed = {spec.shape[0] for spec in artifact.inputs if spec.shape} - {None, 1}
    if fixed:
        raise ModelError(
            f"{name} takes no single samples", f"its first axis is {max(filter(None, fixed))}",
            "export it with a dynamic batch or one of 1",
        )  # fmt: skip
    return model


def _measured(
    model: onnx.ModelProto, artifact: Artifact, dataset: Dataset, device: Device, preset: str,
    count: int, display: Display,
) -> Table:  # fmt: skip
    from workbench.onnxgraph import signature
    from workbench.quantization.core import engine
    from workbench.quantization.core.float_prefix import noisy_prefix
    from workbench.quantization.core.samples import count_samples, first_samples
    from workbench.quantization.search import sensitivity

    baked = frozenset(one.name for one in model.graph.node if one.name.startswith(signature.BAKED))
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
    tried = sensitivity.LayerTrials(ready, plan, few)
    found = sensitivity.layer_sensitivities(
        ready, placement, plan, few, lambda part, note: display.update("layers", part, note)
    )
    display.done("layers")
    display.update("times", 0.0)
    times, why = _times(ready, placement, plan, device)
    display.done("times", "done" if times else "failed")
    layers = [
        LayerRow(found=one, place=place, milliseconds=times.get(one.layer))
        for place, one in enumerate(found)
    ]
    first = noisy_prefix(ready.network, placement, ready.weighed_stats)
    return Table(
        model=artifact.path.name,
        dataset=dataset.name,
        preset=preset,
        scheme=options.scheme,
        device=device.name,
        samples=(count_samples(ready.samples), count_samples(few)),
        whole=tried.quantize(placement, plan),
        layers=tuple(sorted(layers, key=lambda one: -one.found.alone.noise)),
        prefix=tuple(one.layer for one in found if one.layer in first),
        notes=(*ready.notes, *((why,) if why else ())),
    )


def _times(
    ready: CalibratedNetwork, placement: Any, plan: Any, device: Device
) -> tuple[Mapping[str, tuple[float, float]], str]:
    """Milliseconds by layer, or nothing and why."""
    from workbench.quantization.search.layer_times import time_layers

    try:
        found = time_layers(ready, placement, plan, device)
    except Exception as error:  # noqa: BLE001 - the table stands without times
        return {}, f"times not measured: {first_line(error)[:200]}"
    return found, "" if found else "times not measured: ONNX Runtime does not take both files"


def _batches(
    artifact: Artifact, dataset: Dataset, size: int, count: int
) -> Iterator[Mapping[str, Any]]:
    """Calibration samples as the file takes them, by its names."""
    split, _ = dataset.calibrating(None)
    size = 1 if is_fixed_to_one(artifact.inputs) else size
    for batch in split.batches(size, count):
        yield stored_inputs(artifact.inputs, batch.inputs)
