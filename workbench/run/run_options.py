"""`RunOptions`: what a recipe run is asked for, in its user's words, and what the words mean.

>>> request, plan = RunOptions(recipe="mobile-int8", preset="quick").resolve()
>>> request.source.spec, plan.preset.processes
('workbench.digits.model:build', 6)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workbench import library
from workbench import recipe as recipes
from workbench.device.profile import Device
from workbench.device.selection import select_devices
from workbench.engine.request import Request
from workbench.errors import InputError, ModelError, RecipeError, did_you_mean
from workbench.file_format import format_of
from workbench.measure.plan import MeasurePlan
from workbench.model import ModelSource, parse_inputs
from workbench.options import has_option
from workbench.sources import torchscript
from workbench.sources.loading import check_files, declared_inputs, source_files

if TYPE_CHECKING:
    from workbench.dataset.loading import Data
    from workbench.measure.latency import Preset
    from workbench.recipe import Recipe

DEFAULT_MODEL = "workbench.digits.model:build"
DEFAULT_DATA = "digits"
STANDARD = "standard"  # the preset where none is asked for
MODELS = (
    "file.py:factory, package.module:factory, hf:org/name, hf:./folder, timm:name, "
    "torchvision:name, or a .onnx, .pt2 or TorchScript .pt file"
)


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model, and which samples it takes, in the words of the command line.

    Attributes:
        model: file.py:factory, package.module:factory, hf:…, timm:…, torchvision:…, or a file; the
            embedded digits classifier where there is none.
        weights: a state dict for the factory.
        task: what an hf: model is for, where its config does not tell.
        sha256: the digest that the weights (or the ONNX file) must have.
        seed: of a factory without weights.
        data: a dataset's name or .toml file.
        inputs: NAME:SHAPE[:DTYPE] of each input, where there is no data.
    """

    model: str | None = None
    weights: Path | None = None
    task: str = ""
    sha256: str | None = None
    seed: int = 0
    data: str | None = None
    inputs: tuple[str, ...] = ()

    def samples_for(self, source: ModelSource) -> Data:
        """Which dataset; or the input specs by which samples are drawn. Raises InputError."""
        if self.inputs:
            return parse_inputs(list(self.inputs))
        if self.data is None and source.kind in ("onnx", "pt2"):
            return declared_inputs(source)
        if self.data is None and self.model is not None:
            raise InputError(
                "--model is given without --data",
                "calibration and accuracy need samples that fit the model",
                "give --data FILE.toml, or --input NAME:SHAPE where the recipe needs no samples",
            )
        return str(library.find("calibration", self.data or DEFAULT_DATA))

    def source(self) -> ModelSource:
        """Where the model comes from. Raises ModelError for what names no model."""
        model, weights = self.model, self.weights
        if model is None:
            if weights is not None:
                raise InputError(
                    "--weights is given without --model",
                    "",
                    "name the factory: --model file.py:build",
                )
            embedded = Path(__file__).parents[1] / "digits" / "weights.safetensors"
            return ModelSource(
                spec=DEFAULT_MODEL, weights=embedded, sha256=self.sha256, folder=Path.cwd()
            )
        suffix = Path(model).suffix
        path = weights.resolve() if weights else None
        source = ModelSource(
            spec=model,
            weights=path,
            sha256=self.sha256,
            folder=Path.cwd(),
            seed=self.seed,
            task=self.task,
        )
        if suffix in (".tflite", ".ort"):
            raise ModelError(
                f"{model} can be profiled and compared, not re-quantized",
                "its operators are those of one runtime already: recipes start from a float model",
                f"wb profile {model}, or wb compare {model} OTHER",
            )
        if source.is_file and weights is not None:
            kind = {"onnx": "an ONNX file", "pt2": "a .pt2 file"}.get(source.kind, "TorchScript")
            raise ModelError(f"{kind} has its own weights", "", "leave --weights out")
        if self.task and source.kind != "hf":
            raise ModelError(
                "--task is for hf: models", "others have one output already", "leave it out"
            )
        if ":" not in model and not source.is_file:
            why = "weights alone do not say what network they are of" if suffix else ""
            raise ModelError(f"--model does not understand '{model}'", why, f"give {MODELS}")
        if source.kind in ("pt2", "torchscript"):
            check_files(source)
            check_content = torchscript.check if source.kind == "torchscript" else format_of
            check_content(source_files(source)[0])
        return source


@dataclass(frozen=True, kw_only=True)
class RunOptions(ModelOptions):
    """What a recipe run is asked for, in the words of `wb recipe`; `resolve` makes values of them.

    Attributes (beside those of `ModelOptions`):
        recipe: a recipe's name or file.
        settings: STEP.OPTION=VALUE, each in place of a step's option.
        max_drop: points of accuracy that INT8 may lose.
        devices: names of profiles, tag:NAME, class:NAME, or all; the CPU of this machine where
            there are none.
        preset: how long is measured: quick, standard, strict, or none.
        samples: evaluation samples whose outputs a device gives back.
        operators: whether devices are asked for the time of each operator.
    """

    recipe: str
    settings: tuple[str, ...] = ()
    max_drop: float | None = None
    devices: tuple[str, ...] = ()
    preset: str = STANDARD
    samples: int = 64
    operators: bool = False

    def resolve(self) -> tuple[Request, MeasurePlan]:
        """What is made, and how it is measured. Raises InputError for words that are wrong."""
        preset = find_preset(self.preset)
        check_samples(self.data, self.inputs)
        recipe = recipes.load(self.recipe)
        settings = (*self.settings, *budget_settings(recipe, self.max_drop))
        recipe = recipe.with_options(settings)
        source = self.source()
        samples = self.samples_for(source)
        devices = tuple(select_devices(self.devices or ("cpu",)))
        _check_optimize(recipe, devices[0])
        request = Request(
            recipe=recipe, settings=settings, source=source, data=samples, device=devices[0]
        )
        plan = MeasurePlan(
            devices=devices, preset=preset, samples=self.samples, operators=self.operators
        )
        return request, plan


def _check_optimize(recipe: Recipe, device: Device) -> None:
    """A step that measures layers does it here: not for another machine's sake."""
    for located in recipe.located():
        if located.step.optimize == "latency" and device.remote:
            raise RecipeError(
                f"{located.id}.optimize=latency does not go with --device {device.name}",
                "it times layers in this machine's ONNX Runtime, and not on the device",
                "leave it out, or optimize for --device cpu",
            )


def find_preset(name: str) -> Preset:
    """How long is measured, by name. Raises InputError, with the nearest, for one there is not."""
    from workbench.measure.latency import PRESETS

    if name not in PRESETS:
        raise InputError(f"there is no preset '{name}'", "", did_you_mean(name, PRESETS))
    return PRESETS[name]


def check_samples(data: object, inputs: Sequence[str]) -> None:
    """Raise InputError where both samples and shapes are given."""
    if data is not None and inputs:
        raise InputError(
            "--data and --input exclude each other", "a dataset's samples have shapes of their own"
        )


def budget_settings(recipe: Recipe, max_drop: float | None) -> list[str]:
    """--max-drop as settings of every step that takes it. Raises RecipeError where none does."""
    if max_drop is None:
        return []
    taking = [located.id for located in recipe.located() if has_option(located.step, "max_drop")]
    if not taking:
        raise RecipeError(
            f"recipe {recipe.name} takes no --max-drop",
            "none of its steps quantizes to INT8 layer by layer",
            "use a recipe with QuantizeStatic or QuantizeDynamic, such as mobile-int8",
        )
    return [f"{step}.max_drop={max_drop!r}" for step in taking]


def steps_beyond_budget(recipe: Recipe) -> list[str]:
    """The last steps of the paths that lose accuracy, and have no step that takes --max-drop."""
    return [
        path[-1].id
        for path in recipe.paths()
        if not any(has_option(located.step, "max_drop") for located in path)
        and any(located.step.precision not in ("", "float32") for located in path)
    ]
