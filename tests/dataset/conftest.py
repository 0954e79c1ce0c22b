"""A folder with a file of every kind that a dataset can name."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("datasets")
    np.save(made / "rows.npy", np.arange(40, dtype=np.float32).reshape(10, 4))
    np.save(made / "labels.npy", np.arange(10) % 3)
    np.savez(made / "pack.npz", x=np.arange(40, dtype=np.float32).reshape(10, 4), y=np.arange(10))
    for name in ("images/cat/a.png", "images/dog/b.png", "flat/c.png"):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 9, 3), len(name), np.uint8)).save(made / name)
    (made / "labels.csv").write_text("c.png,1")
    (made / "make.py").write_text(
        "import numpy as np\n"
        "def rows(**options): return np.ones((4, 2), np.float32)\n"
        "def score(predictions, labels): return 0.5\n"
    )
    return made
