"""`hf:org/name`, `hf:./folder`: a model of Hugging Face's transformers, by its task.

Code that a model brings along is never run (`trust_remote_code=False`), pickled weights are loaded
with `weights_only=True`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import ModelError, WorkbenchError, did_you_mean, first_line
from workbench.sources import packages, weights

if TYPE_CHECKING:
    import torch

    from workbench.model import ModelSource

# A task with transformers' class for it and the mapping that lists its architectures; the plain
# encoder last, for a model with a head is listed under both.
TASKS = {
    "image-classification": ("AutoModelForImageClassification", "IMAGE_CLASSIFICATION"),
    "image-segmentation": ("AutoModelForSemanticSegmentation", "SEMANTIC_SEGMENTATION"),
    "object-detection": ("AutoModelForObjectDetection", "OBJECT_DETECTION"),
    "depth-estimation": ("AutoModelForDepthEstimation", "DEPTH_ESTIMATION"),
    "text-classification": ("AutoModelForSequenceClassification", "SEQUENCE_CLASSIFICATION"),
    "token-classification": ("AutoModelForTokenClassification", "TOKEN_CLASSIFICATION"),
    "question-answering": ("AutoModelForQuestionAnswering", "QUESTION_ANSWERING"),
    "multiple-choice": ("AutoModelForMultipleChoice", "MULTIPLE_CHOICE"),
    "fill-mask": ("AutoModelForMaskedLM", "MASKED_LM"),
    "text-generation": ("AutoModelForCausalLM", "CAUSAL_LM"),
    "audio-classification": ("AutoModelForAudioClassification", "AUDIO_CLASSIFICATION"),
    "speech-recognition": ("AutoModelForCTC", "CTC"),
    "feature-extraction": ("AutoModel", ""),
}
_HUB = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?", re.ASCII)
_WEIGHTS = (".safetensors", ".bin")


def locate(source: ModelSource) -> tuple[Path | None, str, str | None]:
    """A source's folder, or None; its id on the hub; its revision. Raises ModelError."""
    name = source.spec.partition(":")[2]
    folder = _folder(source, name)
    if folder is not None:
        return folder, "", None
    plain, _, revision = name.partition("@")
    folder = _folder(source, plain)
    if folder is not None or plain.startswith((".", "/", "~")):
        what = f"{plain} has no revisions" if folder is not None else f"there is no folder {name}"
        raise ModelError(what, "", "give hf:./folder with what save_pretrained wrote there")
    if _HUB.fullmatch(plain) is None:
        raise ModelError(
            f"--model does not understand '{source.spec}'",
            "",
            "write hf:org/name, hf:org/name@revision or hf:./folder",
        )
    return None, plain, revision or None


def _folder(source: ModelSource, name: str) -> Path | None:
    try:
        path = source.folder / Path(name).expanduser()
        return path if name and path.is_dir() else None
    except (RuntimeError, OSError, ValueError):  # ~nobody, a name too long
        return None


def local_files(source: ModelSource) -> list[Path]:
    """The files of a local folder that decide the model, its weights last; none for the hub."""
    folder = locate(source)[0]
    if folder is None:
        return []
    files = sorted(path for path in folder.iterdir() if path.is_file())
    decisive = [path for path in files if path.suffix == ".json" or path.suffix in _WEIGHTS]
    ordered = sorted(decisive, key=lambda path: path.suffix in _WEIGHTS)
    if folder / "config.json" not in ordered:
        raise ModelError(
            f"{folder} has no config.json", "", "give a folder that save_pretrained wrote"
        )
    return ordered


def build(source: ModelSource, names: Sequence[str]) -> tuple[torch.nn.Module, list[str]]:
    """The model behind a wrapper that takes the inputs `names` by position. Raises ModelError."""
    from workbench.sources import wrappers

    folder, hub, revision = locate(source)
    transformers: Any = packages.import_package("transformers")
    notes = []
    if version := packages.hide_torchvision():
        notes.append(f"torchvision {version} does not match torch here, and was left out")
    options: dict[str, Any] = {"trust_remote_code": False, "revision": revision or "main"}
    if folder is not None:
        options["local_files_only"] = True
    elif not packages.is_reachable(_endpoint()):
        options["local_files_only"] = True
        notes.append("the hub cannot be reached: the copy in its cache is used")
    origin = str(folder or hub)
    try:
        config = transformers.AutoConfig.from_pretrained(origin, **options)
        task = _task(source, config, transformers)
        notes.append(f"task: {task}")
        for key, value in {"use_cache": False, "return_dict": True}.items():
            setattr(config, key, value)
        kind = getattr(transformers, TASKS[task][0])
        if source.weights is None:
            model = _pretrained(kind, origin, config, options, source)
        else:
            model = kind.from_config(config, trust_remote_code=False)
            notes += weights.fit(model, weights.read(source.weights), source.weights)
    except (WorkbenchError, MemoryError):
        raise
    except Exception as error:
        raise _failed(source, error, options) from error
    if folder is None and (commit := getattr(config, "_commit_hash", None)):
        notes.append(f"revision {commit}")
    input_names, input_notes = _inputs(model, names)
    wrapped: Any = wrappers.with_signature(wrappers.Keywords, tuple(names))
    return wrapped(model.float().eval(), input_names).eval(), notes + input_notes


def _endpoint() -> str:
    hub: Any = packages.import_package("huggingface_hub")
    return str(hub.constants.ENDPOINT)


def _task(source: ModelSource, config: Any, transformers: Any) -> str:
    """The task given, or the one whose architectures list the config's. Raises ModelError."""
    if source.task:
        if source.task not in TASKS:
            raise ModelError(
                f"there is no task '{source.task}'", "", did_you_mean(source.task, TASKS)
            )
        return source.task
    architectures = list(getattr(config, "architectures", None) or [])
    auto = transformers.models.auto.modeling_auto
    for task, (_, listed) in TASKS.items():
        name = f"MODEL_FOR_{listed}_MAPPING_NAMES" if listed else "MODEL_MAPPING_NAMES"
        classes: Mapping[str, Any] = getattr(auto, name, {})
        own = classes.get(config.model_type, ())
        if {own} & set(architectures) if isinstance(own, str) else set(own) & set(architectures):
            return task
    raise ModelError(
        f"{source.spec} does not say what it is for",
        f"its config names {', '.join(architectures) or 'no architecture'}",
        f"give --task: {', '.join(TASKS)}",
    )


def _pretrained(
    kind: Any, origin: str, config: Any, options: dict[str, Any], source: ModelSource
) -> torch.nn.Module:
    import torch

    model, loading = kind.from_pretrained(
        origin, config=config, output_loading_info=True, dtype=torch.float32, **options
    )
    absent = sorted(loading["missing_keys"]) + [
        str(mismatch[0]) for mismatch in loading["mismatched_keys"]
    ]
    if absent:
        raise ModelError(
            f"{source.spec} has no weights for {weights.abbreviate(absent)}",
            "transformers would make them up at random",
            "give the --task that it was trained for, or a checkpoint of it with --weights",
        )
    loaded: torch.nn.Module = model
    return loaded


def _failed(source: ModelSource, error: Exception, options: dict[str, Any]) -> ModelError:
    reason = f"{type(error).__name__}: {first_line(error)}"
    if "trust_remote_code" in str(error):
        return ModelError(
            f"{source.spec} needs code of its own",
            "it would be run as it is; wb never does that",
            "write a factory that builds the model: --model file.py:build",
        )
    folder, hub, revision = locate(source)
    if folder is not None:
        return ModelError(f"{source.spec} cannot be loaded", reason, "check the folder's files")
    tried = f"the hub for {hub}{f' at {revision}' if revision else ''}"
    if options.get("local_files_only"):
        tried = f"the hub, which cannot be reached, and its cache for {hub}"
    return ModelError(
        f"{source.spec} cannot be loaded",
        f"tried {tried}; {reason}",
        "check the name, fetch it where there is a network, or give a folder: hf:./folder",
    )


def _inputs(model: Any, names: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """What the dataset's inputs are called by the model, and what to say of it."""
    accepted = [name for name in inspect.signature(model.forward).parameters if name != "kwargs"]
    if set(names) <= set(accepted):
        return tuple(names), []
    if len(names) == 1:
        return (model.main_input_name,), [f"input '{names[0]}' goes to {model.main_input_name}"]
    unknown = [name for name in names if name not in accepted]
    raise ModelError(
        f"the model takes no {', '.join(unknown)}",
        f"{type(model).__name__} takes {', '.join(accepted[:8])}",
        "name the dataset's inputs as the model's",
    )
