"""Artifacts with their samples, and a compiler for the C++ ones."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests import toolchains
from workbench import inspect
from workbench.artifact import Artifact, TensorSpec
from workbench.dataset import Dataset
from workbench.dataset.arrays import Arrays
from workbench.dataset.core import Split
from workbench.dataset.facts import DatasetFacts
from workbench.dataset.preprocess import Preprocess
from workbench.inspect import Facts
from workbench.report import samples

PREPROCESS = Preprocess(
    scale=255.0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), layout="NCHW"
)


def pictures(count: int = 12, height: int = 32, width: int = 24) -> NDArray[np.uint8]:
    """Random pixels, uint8 [N, H, W, 3]; height and width differ, so that swapping them shows."""
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def photos(preprocess: Preprocess = PREPROCESS) -> Dataset:
    """`pictures` as a dataset's samples of the input `image`."""
    source = Arrays({"image": pictures()}, None, "photos.npz")
    split = Split("calibration", source, np.arange(len(source)), preprocess)
    return Dataset("photos", split, None)


def described(dataset: Dataset) -> DatasetFacts:
    """What the engine knows of a dataset, as far as samples ask."""
    split = dataset.calibration
    raw = split.source.sample(0) if split is not None else {}
    return DatasetFacts(
        name=dataset.name,
        inputs=dataset.inputs,
        preprocess=split.preprocess if split is not None else None,
        raw={name: (str(array.dtype), array.shape) for name, array in raw.items()},
    )


def as_given(*specs: TensorSpec) -> DatasetFacts:
    """A dataset of these inputs without samples."""
    return DatasetFacts(name="random inputs", inputs=specs)


def written(folder: Path, artifact: Artifact, dataset: DatasetFacts) -> Path:
    """The folder of an artifact's samples."""
    folder.mkdir(exist_ok=True)
    name = artifact.path.name
    samples.write_all(folder, {name: (artifact, inspect.read(artifact.path))}, dataset)
    return folder / "samples" / name


def compiled(folder: Path, *more: str) -> Path:
    """`main.cpp` of a folder of samples, built against ONNX Runtime with every warning an error."""
    include = toolchains.headers()
    library = toolchains.library(folder)
    command = [
        toolchains.compiler("g++"), "-std=c++17", "-O0", "-Wall", "-Wextra", "-Werror",
        str(folder / "main.cpp"), "-isystem", str(include), "-L", str(library),
        f"-Wl,-rpath,{library}", "-lonnxruntime", "-o", str(folder / "sample"), *more,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "sample"


def run(program: Path, model: Path, *inputs: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """What a compiled sample prints for raw inputs: values by name, in the shapes it says."""
    files = []
    for number, array in enumerate(inputs):
        path = program.with_name(f"raw{number}.bin")
        path.write_bytes(np.ascontiguousarray(array).tobytes())
        files.append(str(path))
    done = subprocess.run(
        [str(program), str(model), *files], capture_output=True, text=True, check=False,
        env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = {}
    # A name may have a line's end in it; numbers have none.
    for match in re.finditer(r"(.*?) \[([\d, ]*)\]([^\n]*)\n", done.stdout, re.DOTALL):
        shape = tuple(int(size) for size in match[2].split(",") if size.strip())
        found[match[1]] = np.asarray(match[3].split(), np.float64).reshape(shape)
    return found


def no_facts(artifact: Artifact) -> Facts:
    """Facts of a file that says nothing of its tensors."""
    return Facts(
        path=artifact.path, format=artifact.format, bytes=1, sha256="", inputs=(), outputs=(),
        opsets={}, operators={}, parameters=None, macs=None, precision="", takes={},
    )  # fmt: skip
