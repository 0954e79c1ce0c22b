"""What the command line's words mean: values for the engine, and its results as text."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from workbench import library
from workbench import recipe as recipes
from workbench.cache import Cache
from workbench.device.profile import Device
from workbench.device.providers import PROVIDERS
from workbench.device.selection import chosen as chosen_devices
from workbench.engine.request import Request
from workbench.errors import InputError, ModelError, RecipeError
from workbench.file_format import format_of
from workbench.measure.plan import MeasurePlan
from workbench.model import ModelSource, parse_inputs
from workbench.sources import torchscript
from workbench.sources.loading import check_files, declared_inputs, source_files

if TYPE_CHECKING:
    from rich.console import Console

    from workbench.dataset.loading import Data
    from workbench.measure.latency import Preset
    from workbench.recipe import Recipe
    from workbench.run.recipe_run import Finished

DEFAULT_MODEL = "workbench.digits.model:build"
DEFAULT_DATA = "digits"
MODELS = (
    "file.py:factory, package.module:factory, hf:org/name, hf:./folder, timm:name, "
    "torchvision:name, or a .onnx, .pt2 or TorchScript .pt file"
)


def request(
    name: str,
    model: str | None,
    weights: Path | None,
    data: str | None,
    settings: list[str],
    inputs: list[str],
    devices: list[str],
    sha256: str | None,
    seed: int,
    presets: dict[str, bool],
    task: str = "",
    max_drop: float | None = None,
    samples: int = 64,
    operators: bool = False,
) -> tuple[Request, MeasurePlan]:
    """A run's request and how it is measured, from the command's words.

    Raises InputError for wrong ones.
    """
    preset = chosen_preset(presets)
    check_samples(data, inputs)
    recipe = recipes.load(name)
    settings = [*settings, *budget(recipe, max_drop)]
    recipe = recipe.with_options(settings)
    source = _source(model, weights, sha256, seed, task)
    from_file = data is None and not inputs and source.kind in ("onnx", "pt2")
    if model is not None and data is None and not inputs and not from_file:
        raise InputError(
            "--model is given without --data",
            "calibration and accuracy need samples that fit the model",
            "give --data FILE.toml, or --input NAME:SHAPE where the recipe needs no samples",
        )
    chosen: Data
    if inputs:
        chosen = parse_inputs(inputs)
    elif from_file:
        chosen = declared_inputs(source)
    else:
        chosen = str(library.find("calibration", data or DEFAULT_DATA))
    profiles = tuple(chosen_devices(devices or ["cpu"]))
    _check_optimize(recipe, profiles[0])
    made = Request(
        recipe=recipe,
        settings=tuple(settings),
        source=source,
        data=chosen,
        device=profiles[0],
    )
    plan = MeasurePlan(devices=profiles, preset=preset, samples=samples, operators=operators)
    return made, plan


def _check_optimize(recipe: Recipe, device: Device) -> None:
    """A step that measures layers does it here: not for another machine's sake."""
    for one in recipe.located():
        if getattr(one.step, "optimize", "") == "latency" and device.remote:
            raise RecipeError(
                f"{one.id}.optimize=latency does not go with --device {device.name}",
                "it times layers in this machine's ONNX Runtime, and not on the device",
                "leave it out, or optimize for --device cpu",
            )


def chosen_preset(presets: dict[str, bool]) -> Preset:
    """The preset whose flag was given. Raises InputError where several were."""
    from workbench.measure.latency import PRESETS

    asked = [preset for preset, given in presets.items() if given]
    if len(asked) > 1:
        raise InputError("--quick, --strict and --no-latency exclude each other")
    return PRESETS[asked[0] if asked else "standard"]


def check_samples(data: str | None, inputs: list[str]) -> None:
    """Raise InputError where both samples and shapes are given."""
    if data is not None and inputs:
        raise InputError(
            "--data and --input exclude each other", "a dataset's samples have shapes of their own"
        )


def budget(recipe: Recipe, max_drop: float | None) -> list[str]:
    """--max-drop as settings of every step that takes it. Raises RecipeError where none does."""
    if max_drop is None:
        return []
    taking = [one.id for one in recipe.located() if hasattr(one.step, "max_drop")]
    if not taking:
        raise RecipeError(
            f"recipe {recipe.name} takes no --max-drop",
            "none of its steps quantizes to INT8 layer by layer",
            "use a recipe with QuantizeStatic or QuantizeDynamic, such as mobile-int8",
        )
    return [f"{step}.max_drop={max_drop!r}" for step in taking]


def beyond_budget(recipe: Recipe) -> list[str]:
    """The last steps of the paths that lose accuracy, and have no step that takes --max-drop."""
    return [
        path[-1].id
        for path in recipe.paths()
        if not any(hasattr(one.step, "max_drop") for one in path)
        and any(getattr(one.step, "precision", "float32") != "float32" for one in path)
    ]


def _source(
    model: str | None, weights: Path | None, sha256: str | None, seed: int, task: str
) -> ModelSource:
    if model is None:
        if weights is not None:
            raise InputError(
                "--weights is given without --model", "", "name the factory: --model file.py:build"
            )
        embedded = Path(__file__).parents[1] / "digits" / "weights.safetensors"
        return ModelSource(spec=DEFAULT_MODEL, weights=embedded, sha256=sha256, folder=Path.cwd())
    suffix = Path(model).suffix
    path = weights.resolve() if weights else None
    source = ModelSource(
        spec=model, weights=path, sha256=sha256, folder=Path.cwd(), seed=seed, task=task
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
    if task and source.kind != "hf":
        raise ModelError(
            "--task is for hf: models", "others have one output already", "leave it out"
        )
    if ":" not in model and not source.is_file:
        why = "weights alone do not say what network they are of" if suffix else ""
        raise ModelError(f"--model does not understand '{model}'", why, f"give {MODELS}")
    if source.kind in ("pt2", "torchscript"):
        check_files(source)
        (torchscript.check if source.kind == "torchscript" else format_of)(source_files(source)[0])
    return source


def print_plan(request: Request, plan: MeasurePlan, cache: Cache, as_json: bool) -> None:
    """The plan of a run: what it would do, and about how long where nothing is cached."""
    from workbench.run.recipe_run import expected

    tasks = expected(request, plan, cache)
    if as_json:
        print(json.dumps({"recipe": request.recipe.to_json(), "expected_seconds": tasks}, indent=1))
        return
    print_recipe(request.recipe)
    source = request.source
    print(f"model    {source.spec}{f' with {source.weights}' if source.weights else ''}")
    print(f"data     {request.data if isinstance(request.data, str) else 'random inputs'}")
    for device in plan.devices:
        where = "" if device.provider == "cpu" else f"{PROVIDERS[device.provider].ort}, "
        known = device.quantization if device.architecture else "its CPU asks, once it is asked"
        print(f"device   {device.name}: {where}{device.threads} thread(s), INT8 as {known}")
    print(f"measure  {plan.preset.name}: {plan.preset.processes} processes an artifact")
    print(f"time     about {sum(tasks.values()):.0f} s where nothing is cached")


def print_recipe(recipe: Recipe) -> None:
    """A recipe's help and its steps with their options, branches indented."""
    print(f"{recipe.name}: {recipe.help}\n")
    for located in recipe.located():
        indent = "    " if located.branch else "  "
        options = dataclasses.asdict(located.step)
        text = "  ".join(f"{key}={_plain(value)}" for key, value in options.items())
        print(f"{indent}{located.id:28} {text}")
    print()


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return (
        ",".join(map(str, value))
        if isinstance(value, tuple)
        else str(value).replace("None", "none")
    )


def print_report(finished: Finished, as_json: bool) -> None:
    """The table in a terminal, or the report as JSON."""
    if as_json:
        json.dump(
            {"folder": str(finished.folder), **finished.report.to_json()}, sys.stdout, indent=1
        )
        print()
        return
    from workbench.report import table

    table.show(finished.report, console())
    print(f"\n{finished.folder}/report.html  ({finished.report.seconds:.1f} s)")


def console() -> Console:
    """Stdout, wide enough for the tables where it is a pipe, which has no width."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=180)


def copy_recipe(name: str, source: str) -> Path:
    """Copy a recipe's file into ./recipes under a new name. Raises RecipeError where it exists."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) is None:
        raise RecipeError(f"'{name}' cannot name a recipe", "", "use letters, digits and '-'")
    origin = library.find("recipes", source)
    target = Path("recipes") / f"{name.replace('-', '_')}.py"
    if target.exists():
        raise RecipeError(f"{target} exists already", "", "choose another name, or edit it")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(origin, target)
    return target
