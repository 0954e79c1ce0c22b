"""The real structures: every kind of network that the workbench's users bring, and its samples.

`write` makes of each what a user would have: a folder with `net.py`, samples and `data.toml`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

IMAGES = (
    "mobilenet_v2", "mobilenet_v3", "efficientnet", "resnet", "shufflenet", "vit", "unet",
    "detector", "control_flow",
)  # fmt: skip
SEQUENCES = ("bert", "lstm", "gru")
STRUCTURES = (*IMAGES, "two_inputs", *SEQUENCES)

CALIBRATION, EVALUATION = 16, 48

_PREPROCESS = """
[preprocess]
scale = 255
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
layout = "NCHW"
"""
_SPLIT = f"\n[split]\ncalibration = {CALIBRATION}\nevaluation = {EVALUATION}\n"


def photos(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth coloured fields with grain [count, 64, 64, 3], half of them dark."""
    generator = np.random.default_rng(seed)
    coarse = generator.uniform(0, 1, (count, 5, 5, 3))
    grid = np.linspace(0, 4, 64)
    low, part = np.minimum(grid.astype(int), 3), (grid - np.minimum(grid.astype(int), 3))
    rows = coarse[:, low] * (1 - part)[None, :, None, None]
    rows += coarse[:, low + 1] * part[None, :, None, None]
    fields = rows[:, :, low] * (1 - part)[None, None, :, None]
    fields += rows[:, :, low + 1] * part[None, None, :, None]
    light = np.where(np.arange(count) % 2, 0.5, 1.0)[:, None, None, None]
    grainy = fields * light + generator.normal(0, 0.05, fields.shape)
    return (255 * np.clip(grainy, 0, 1)).round().astype(np.uint8)


def write(name: str, folder: Path, count: int = CALIBRATION + EVALUATION) -> Path:
    """The structure as a user's project in `folder/name`: net.py with `build`, and data.toml."""
    here = Path(__file__).parent
    project = folder / name
    project.mkdir(parents=True)
    module = "sequences" if name in SEQUENCES else "vision"
    text = (here / f"{module}.py").read_text(encoding="utf-8")
    (project / "net.py").write_text(f"{text}\n\nbuild = {name}\n", encoding="utf-8")
    generator = np.random.default_rng(1)
    arrays: dict[str, NDArray[np.generic]] = {}
    preprocess = ""
    if name == "bert":
        arrays["input_ids"] = generator.integers(0, 500, (count, 32))
        lengths = generator.integers(8, 33, count)
        arrays["attention_mask"] = (np.arange(32) < lengths[:, None]).astype(np.int64)
    elif name in SEQUENCES:
        arrays["x"] = generator.standard_normal((count, 32, 12)).astype(np.float32).cumsum(1) / 3
    else:
        arrays["image"] = photos(count)
        preprocess = _PREPROCESS
    if name == "two_inputs":
        arrays["sensors"] = generator.standard_normal((count, 6)).astype(np.float32)
        preprocess += 'inputs = ["image"]\n'
    for key, array in arrays.items():
        np.save(project / f"{key}.npy", array)
    inputs = "".join(f'{key} = "{key}.npy"\n' for key in arrays)
    (project / "data.toml").write_text(
        f'source = "numpy"\n[inputs]\n{inputs}{preprocess}{_SPLIT}', encoding="utf-8"
    )
    return project
