"""A folder with a file of every kind that a dataset can name."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    datasets = tmp_path_factory.mktemp("datasets")
    np.save(datasets / "rows.npy", np.arange(40, dtype=np.float32).reshape(10, 4))
    np.save(datasets / "labels.npy", np.arange(10) % 3)
    np.savez(
        datasets / "pack.npz", x=np.arange(40, dtype=np.float32).reshape(10, 4), y=np.arange(10)
    )
    for name in ("images/cat/a.png", "images/dog/b.png", "flat/c.png"):
        (datasets / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 9, 3), len(name), np.uint8)).save(datasets / name)
    (datasets / "labels.csv").write_text("c.png,1")
    (datasets / "make.py").write_text(
        "import numpy as np\n"
        "def rows(**options): return np.ones((4, 2), np.float32)\n"
        "def score(predictions, labels): return 0.5\n"
    )
    return datasets
