"""`calibration/*.toml` read into a `Dataset`; unknown keys and wrong values are errors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np

from workbench import library, usercode
from workbench.dataset import arrays
from workbench.dataset.core import Dataset, Source, Split
from workbench.dataset.images import Images
from workbench.dataset.preprocess import CHANNELS, LAYOUTS, Preprocess
from workbench.errors import DatasetError, InputError
from workbench.options import Between, options_of
from workbench.toml_keys import Keys, read_table

_SOURCE_KEYS = {"source", "path", "labels", "inputs", "factory", "arguments"}
_TOP_KEYS = {"metric", "preprocess", "split", "calibration", "evaluation"}
_SPLIT_KEYS = {"calibration", "evaluation", "seed"}
_SOURCES = ("images", "numpy", "python")
_Count = Annotated[int, Between(0)]
_Pixels = Annotated[int, Between(1)]


def load(name: str) -> Dataset:
    """The dataset of that name, or at that path.

    Raises DatasetError for anything in the file, or in the samples it names, that cannot be right.
    """
    try:
        path = library.find("calibration", name)
        table = read_table(path, DatasetError)
        names = _SOURCE_KEYS | _TOP_KEYS
        return _build(Keys(table=table, path=path, names=names, error=DatasetError))
    except DatasetError:
        raise
    except InputError as error:
        raise DatasetError(error.what, error.why, error.fix) from error
    except OSError as error:
        raise DatasetError(f"a file of dataset {name} cannot be read", str(error)) from error


def _build(keys: Keys) -> Dataset:
    path = keys.path
    preprocess = _preprocess(keys.inner("preprocess", options_of(Preprocess), section=True))
    metric_name = keys.text("metric")
    metric = usercode.resolve(metric_name, path.parent) if metric_name else None
    apart = [key for key in ("calibration", "evaluation") if key in keys]
    if apart and "source" in keys:
        raise DatasetError(
            f"{path.name} has both a source and [{apart[0]}]",
            "samples are either split by the workbench or given apart",
            "remove one of the two",
        )
    if apart:
        splits = {key: _part(keys, key, preprocess) for key in apart}
    elif "source" in keys:
        source = _source(keys, preprocess)
        splits = _divide(source, keys.inner("split", _SPLIT_KEYS, section=True), preprocess)
    else:
        raise DatasetError(
            f"{path.name} names no samples", "", "give source, or [calibration] and [evaluation]"
        )
    if apart and "split" in keys:
        raise DatasetError(f"{path.name} has [split], but its parts are given apart")
    return Dataset(
        path.stem, splits.get("calibration"), splits.get("evaluation"), metric, metric_name
    )


def _part(keys: Keys, name: str, preprocess: Preprocess) -> Split:
    source = _source(keys.inner(name, _SOURCE_KEYS, section=True), preprocess)
    if not len(source):
        raise DatasetError(f"{keys.path.name}: [{name}] has no samples")
    return Split(name, source, np.arange(len(source)), preprocess)


def _source(keys: Keys, preprocess: Preprocess) -> Source:
    """The samples that a table names: the file's top level, or one of its parts."""
    folder = keys.path.parent
    keys.text("source")
    kind = keys.nearest_of("source", _SOURCES)
    path, labels = keys.text("path"), keys.text("labels")
    key = "factory" if kind == "python" else "path"
    # A numpy source may name a file for each input instead.
    inputs = keys.table.get("inputs")
    named = kind == "numpy" and isinstance(inputs, dict) and inputs
    if key not in keys and not named:
        raise DatasetError(f"{keys.path.name}: a {kind} source needs '{key}'")
    if kind == "python":
        spec = keys.text("factory")
        return arrays.from_factory(
            usercode.resolve(spec, folder), keys.inner("arguments").table, spec
        )
    if kind == "images":
        return Images(folder / path, preprocess, folder / labels if labels else None)
    return _numpy(keys, path, labels)


def _numpy(keys: Keys, path: str, labels: str) -> Source:
    folder, origin = keys.path.parent, keys.path.name
    inputs = keys.table.get("inputs", {})
    names = list(inputs.values()) if isinstance(inputs, dict) else inputs
    if not isinstance(names, list) or not all(
        isinstance(name, str) and "\0" not in name for name in names
    ):
        raise DatasetError(f"{origin}: inputs must be a table or a list of names")
    if isinstance(inputs, dict) and inputs and "path" not in keys:
        opened = {name: arrays.open_npy(folder / str(file)) for name, file in inputs.items()}
        return arrays.Arrays(opened, _labels(folder, labels, origin), origin)
    file = folder / path
    if file.suffix == ".npz":
        # {input = "key"} renames an array, ["key", ...] takes it by its own name.
        members = inputs if isinstance(inputs, dict) else {str(name): str(name) for name in inputs}
        opened, stored_labels = arrays.open_npz(
            file, [str(member) for member in members.values()], labels or None
        )
        if members:
            opened = {name: opened[str(member)] for name, member in members.items()}
        return arrays.Arrays(opened, _checked_labels(stored_labels, origin), file.name)
    if inputs:
        raise DatasetError(
            f"{origin}: inputs chooses arrays of an .npz, but {file.name} is one array",
            "",
            f'to name it, write inputs = {{ name = "{path}" }} and leave path out',
        )
    labels_array = _labels(folder, labels, origin)
    return arrays.Arrays({"input": arrays.open_npy(file)}, labels_array, file.name)


def _labels(folder: Path, file: str, origin: str) -> Any:
    """The labels in a `.npy` file, None where none is named."""
    return _checked_labels(arrays.open_npy(folder / file) if file else None, origin)


def _checked_labels(labels: Any, origin: str) -> Any:
    if labels is None:
        return None
    if labels.dtype.kind in "iu" and labels.size and int(labels.min()) < 0:
        raise DatasetError(f"{origin}: labels out of range: the least is {int(labels.min())}")
    return np.asarray(labels)


def _divide(source: Source, keys: Keys, preprocess: Preprocess) -> dict[str, Split]:
    """Disjoint seeded splits of one source; evaluation takes the rest where it is not given."""
    file, total = keys.path.name, len(source)
    if "calibration" not in keys:
        raise DatasetError(
            f"{file} does not say how to split its samples",
            "",
            "add [split] with calibration = 300 and evaluation = 700, say",
        )
    first = keys.value("calibration", _Count)
    second = keys.value("evaluation", _Count, total - first)
    if first + second > total or first < 1 or second < 1:
        raise DatasetError(
            f"{file}: {first} calibration and {second} evaluation samples asked for, "
            f"but there are {total}",
            "the two never share a sample, and neither may be empty",
            "lower [split] calibration or evaluation, or add samples",
        )
    order = np.random.default_rng(keys.value("seed", _Count, 0)).permutation(total)
    return {
        "calibration": Split("calibration", source, order[:first], preprocess),
        "evaluation": Split("evaluation", source, order[first : first + second], preprocess),
    }


def _preprocess(keys: Keys) -> Preprocess:
    scale = _numbers(keys, "scale")
    if isinstance(keys.table.get("scale"), list):
        raise DatasetError(f"{keys.path.name}: preprocess.scale must be one number")
    inputs = keys.table.get("inputs", [])
    if not isinstance(inputs, list) or not all(isinstance(item, str) for item in inputs):
        raise DatasetError(f"{keys.path.name}: preprocess.inputs must be a list of names")
    std = _numbers(keys, "std")
    if 0 in std or 0 in scale:
        raise DatasetError(
            f"{keys.path.name}: preprocess.std and scale are divisors and cannot be 0"
        )
    return Preprocess(
        resize=keys.value("resize", _Pixels),
        crop=keys.value("crop", _Pixels),
        channels=_choice(keys, "channels", CHANNELS) or Preprocess.channels,
        scale=scale[0] if scale else None,
        mean=_numbers(keys, "mean"),
        std=std,
        layout=_choice(keys, "layout", LAYOUTS),
        stored=_choice(keys, "stored", LAYOUTS),
        inputs=tuple(inputs),
    )


def _numbers(keys: Keys, key: str) -> tuple[float, ...]:
    """A number, or one for each channel; empty where the key is absent."""
    if key not in keys:
        return ()
    value = keys.table[key]
    items = value if isinstance(value, list) else [value]
    if not items or not all(
        isinstance(item, int | float) and not isinstance(item, bool) and abs(item) < 1e300
        for item in items
    ):
        raise keys.wrong(key, "a number or numbers")
    return tuple(float(item) for item in items)


def _choice(keys: Keys, key: str, choices: tuple[str, ...]) -> str | None:
    if key not in keys:
        return None
    return keys.one_of(key, choices, listing=f"one of {', '.join(choices)}")
