"""`calibration/*.toml` read into a `Dataset`; unknown keys and wrong values are errors."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from workbench import library, usercode
from workbench.dataset import arrays
from workbench.dataset.core import Dataset, Source, Split
from workbench.dataset.images import Images
from workbench.dataset.preprocess import CHANNELS, LAYOUTS, Preprocess
from workbench.errors import DatasetError, InputError, did_you_mean, shown

_SOURCE_KEYS = {"source", "path", "labels", "inputs", "factory", "arguments"}
_TOP_KEYS = {"metric", "preprocess", "split", "calibration", "evaluation"}
_SPLIT_KEYS = {"calibration", "evaluation", "seed"}
_SOURCES = ("images", "numpy", "python")


def load(name: str) -> Dataset:
    """The dataset of that name, or at that path.

    Raises DatasetError for anything in the file, or in the samples it names, that cannot be right.
    """
    try:
        path = library.find("calibration", name)
        return _build(_read(path), path)
    except DatasetError:
        raise
    except InputError as error:
        raise DatasetError(error.what, error.why, error.fix) from error
    except OSError as error:
        raise DatasetError(f"a file of dataset {name} cannot be read", str(error)) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, bad UTF-8, a huge number
        raise DatasetError(f"{path} is not valid TOML", str(error)) from error


def _build(table: dict[str, Any], path: Path) -> Dataset:
    _known(table, _SOURCE_KEYS | _TOP_KEYS, path.name)
    preprocess = _preprocess(_table(table, "preprocess", path.name), path.name)
    metric_name = _text(table, "metric", path.name)
    metric = usercode.resolve(metric_name, path.parent) if metric_name else None
    apart = [key for key in ("calibration", "evaluation") if key in table]
    if apart and "source" in table:
        raise DatasetError(
            f"{path.name} has both a source and [{apart[0]}]",
            "samples are either split by the workbench or given apart",
            "remove one of the two",
        )
    if apart:
        splits: dict[str, Split] = {
            key: _part(_table(table, key, path.name), key, preprocess, path) for key in apart
        }
    elif "source" in table:
        source = _source({k: v for k, v in table.items() if k in _SOURCE_KEYS}, preprocess, path)
        splits = _divide(source, _table(table, "split", path.name), preprocess, path)
    else:
        raise DatasetError(
            f"{path.name} names no samples", "", "give source, or [calibration] and [evaluation]"
        )
    if apart and "split" in table:
        raise DatasetError(f"{path.name} has [split], but its parts are given apart")
    return Dataset(
        path.stem, splits.get("calibration"), splits.get("evaluation"), metric, metric_name or ""
    )


def _part(table: dict[str, Any], name: str, preprocess: Preprocess, path: Path) -> Split:
    _known(table, _SOURCE_KEYS, f"{path.name} [{name}]")
    source = _source(table, preprocess, path)
    if not len(source):
        raise DatasetError(f"{path.name}: [{name}] has no samples")
    return Split(name, source, np.arange(len(source)), preprocess)


def _source(table: dict[str, Any], preprocess: Preprocess, path: Path) -> Source:
    kind = _text(table, "source", path.name)
    place, labels = _text(table, "path", path.name), _text(table, "labels", path.name)
    if kind not in _SOURCES:
        raise DatasetError(
            f"{path.name}: source cannot be {shown(kind)}", "", did_you_mean(str(kind), _SOURCES)
        )
    wants = "factory" if kind == "python" else "path"
    # A numpy source may name a file for each input instead.
    named = kind == "numpy" and isinstance(table.get("inputs"), dict) and table["inputs"]
    if wants not in table and not named:
        raise DatasetError(f"{path.name}: a {kind} source needs '{wants}'")
    if kind == "python":
        spec = _text(table, "factory", path.name) or ""
        return arrays.from_factory(  # type: ignore[no-any-return]
            usercode.resolve(spec, path.parent), _table(table, "arguments", path.name), spec
        )
    if kind == "images":
        csv = path.parent / labels if labels else None
        return Images(path.parent / str(place), preprocess, csv)
    return _numpy(table, place, labels, path)


def _numpy(table: dict[str, Any], place: str | None, labels: str | None, path: Path) -> Source:
    names = table.get("inputs", {})
    listed = list(names.values()) if isinstance(names, dict) else names
    if not isinstance(listed, list) or not all(
        isinstance(n, str) and "\0" not in n for n in listed
    ):
        raise DatasetError(f"{path.name}: inputs must be a table or a list of names")
    if isinstance(names, dict) and names and place is None:
        opened = {name: arrays.open_npy(path.parent / str(file)) for name, file in names.items()}
        found = arrays.open_npy(path.parent / labels) if labels else None
        return arrays.Arrays(opened, _labels(found, path), path.name)
    file = path.parent / str(place)
    if file.suffix == ".npz":
        # {input = "key"} renames an array, ["key", ...] takes it by its own name.
        renamed = names if isinstance(names, dict) else {str(name): str(name) for name in names}
        opened, found = arrays.open_npz(file, [str(key) for key in renamed.values()], labels)
        if renamed:
            opened = {name: opened[str(key)] for name, key in renamed.items()}
        return arrays.Arrays(opened, _labels(found, path), file.name)
    if names:
        raise DatasetError(
            f"{path.name}: inputs chooses arrays of an .npz, but {file.name} is one array",
            "",
            f'to name it, write inputs = {{ name = "{place}" }} and leave path out',
        )
    found = arrays.open_npy(path.parent / labels) if labels else None
    return arrays.Arrays({"input": arrays.open_npy(file)}, _labels(found, path), file.name)


def _labels(found: Any, path: Path) -> Any:
    if found is None:
        return None
    if found.dtype.kind in "iu" and found.size and int(found.min()) < 0:
        raise DatasetError(f"{path.name}: labels out of range: the least is {int(found.min())}")
    return np.asarray(found)


def _divide(
    source: Source, table: dict[str, Any], preprocess: Preprocess, path: Path
) -> dict[str, Split]:
    """Disjoint seeded splits of one source; evaluation takes the rest where it is not given."""
    _known(table, _SPLIT_KEYS, f"{path.name} [split]")
    total = len(source)
    if "calibration" not in table:
        raise DatasetError(
            f"{path.name} does not say how to split its samples",
            "",
            "add [split] with calibration = 300 and evaluation = 700, say",
        )
    wanted = _whole(table, "calibration", path.name)
    rest = _whole(table, "evaluation", path.name) if "evaluation" in table else total - wanted
    if wanted + rest > total or wanted < 1 or rest < 1:
        raise DatasetError(
            f"{path.name}: {wanted} calibration and {rest} evaluation samples asked for, "
            f"but there are {total}",
            "the two never share a sample, and neither may be empty",
            "lower [split] calibration or evaluation, or add samples",
        )
    seed = _whole(table, "seed", path.name) if "seed" in table else 0
    order = np.random.default_rng(seed).permutation(total)
    return {
        "calibration": Split("calibration", source, order[:wanted], preprocess),
        "evaluation": Split("evaluation", source, order[wanted : wanted + rest], preprocess),
    }


def _preprocess(table: dict[str, Any], name: str) -> Preprocess:
    _known(table, {field.name for field in fields(Preprocess)}, f"{name} [preprocess]")
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key in ("resize", "crop"):
            values[key] = _whole(table, key, name, least=1)
        elif key in ("mean", "std"):
            values[key] = tuple(_numbers(value, key, name))
        elif key == "scale":
            values[key] = _numbers(value, key, name)[0]
            if isinstance(value, list):
                raise DatasetError(f"{name}: preprocess.scale must be one number")
        elif key == "inputs":
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise DatasetError(f"{name}: preprocess.inputs must be a list of names")
            values[key] = tuple(value)
        else:
            values[key] = _choice(table, key, CHANNELS if key == "channels" else LAYOUTS, name)
    if 0 in values.get("std", ()) or values.get("scale") == 0:
        raise DatasetError(f"{name}: preprocess.std and scale are divisors and cannot be 0")
    return Preprocess(**values)


def _known(table: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise DatasetError(f"{where}: no key '{key}'", "", did_you_mean(key, known))


def _table(table: dict[str, Any], key: str, name: str) -> dict[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise DatasetError(f"{name}: {key} must be a table, [{key}]")
    return value


def _text(table: dict[str, Any], key: str, name: str) -> str | None:
    value = table.get(key)
    if value is not None and (not isinstance(value, str) or "\0" in value):
        raise DatasetError(f"{name}: {key} must be text, not {shown(value)}")
    return value


def _whole(table: dict[str, Any], key: str, name: str, least: int = 0) -> int:
    value = table[key]
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63:
        raise DatasetError(
            f"{name}: {key} must be a whole number, at least {least}, not {shown(value)}"
        )
    return value


def _numbers(value: Any, key: str, name: str) -> list[float]:
    items = value if isinstance(value, list) else [value]
    if not items or not all(
        isinstance(item, int | float) and not isinstance(item, bool) and abs(item) < 1e300
        for item in items
    ):
        raise DatasetError(
            f"{name}: preprocess.{key} must be a number or numbers, not {shown(value)}"
        )
    return [float(item) for item in items]


def _choice(table: dict[str, Any], key: str, known: tuple[str, ...], name: str) -> str:
    value = table[key]
    if value not in known:
        raise DatasetError(
            f"{name}: preprocess.{key} cannot be {shown(value)}", f"it is one of {', '.join(known)}"
        )
    return str(value)
