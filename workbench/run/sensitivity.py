"""`wb sensitivity MODEL --data DATA`: the file and the samples checked, then the table measured."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from workbench import dataset as datasets
from workbench.artifact import Artifact, Format
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
from workbench.run import align

if TYPE_CHECKING:
    import onnx

    from workbench.display import Display
    from workbench.quantization.explain.sensitivity_table import SensitivityTable


def measure_sensitivity(
    path: Path, data: str | None, preset: str, samples: int | None, device: str,
    out: Path | None, display: Display,
) -> SensitivityTable:  # fmt: skip
    """The table of a float ONNX file, and a folder with it as a page where one is asked for.

    samples: for calibration; as many as the preset takes, without. Raises InputError for words,
    files and samples that are wrong; StepError where the engine cannot take the network.
    """
    from workbench.quantization.core.presets import PRESETS
    from workbench.quantization.explain.sensitivity_table import measure_table

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
    host = local_only(profile.load(device), "wb sensitivity")
    display.plan({"files": 2.0, "calibration": 20.0, "layers": 20.0, "times": 5.0})
    display.update("files", 0.0)
    artifact = artifacts.open_artifact(path)
    model = _load_float_graph(artifact)
    dataset = datasets.load(data)
    dataset.check()
    artifact = align.onto_data(artifact, dataset.inputs)
    count = min(dataset.calibrating(samples)[1], PRESETS[preset].samples)
    display.done("files")
    try:
        table = measure_table(model, artifact, dataset, host, preset, count, display)
    except WorkbenchError:
        raise
    except Exception as error:
        raise StepError(
            f"{path.name} cannot be quantized layer by layer",
            f"{type(error).__name__}: {first_line(error)[:300]}",
            "see whether 'wb compare' runs the file on these samples; if it does, report this",
        ) from error
    table = replace(table, seconds=round(time.perf_counter() - started, 2))
    if out is not None:
        from workbench.report.sensitivity_page import write

        write(table, out)
    return table


def _load_float_graph(artifact: Artifact) -> onnx.ModelProto:
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
