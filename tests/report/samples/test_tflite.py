"""The TFLite samples: the C++ one compiled and run on LiteRT, through the C API that it calls.

No package has LiteRT's C headers with a library that exports them, so the calls go through
`litert/shim.cpp` to LiteRT's Python interpreter: the file, its tensors and the code are the real
ones.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import toolchains
from tests.nets import ConvNet, build, context, exported
from tests.report.samples import cases
from workbench.artifact import Artifact
from workbench.device.session import infer, open_session
from workbench.steps import Simplify, ToTflite

SHIM = Path(__file__).parent / "litert"


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """A network on pictures of 32x24 as float TFLite, and as INT8 in, through and out."""
    folder = tmp_path_factory.mktemp("converted")
    photos = cases.photos()
    network = exported(folder / "export", build(ConvNet), photos)
    network = Simplify().run(network, context(folder / "simplify", photos))
    return {
        precision: ToTflite(precision=precision).run(
            network, context(folder / precision, photos, work=folder / "work")
        )
        for precision in ("float32", "int8-io")
    }


def compiled(folder: Path) -> Path:
    command = [
        toolchains.compiler("g++"), "-std=c++17", "-O0", "-Wall", "-Wextra", "-Werror",
        str(folder / "main.cpp"), str(SHIM / "shim.cpp"), "-I", str(SHIM),
        "-o", str(folder / "sample"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "sample"


@pytest.mark.process
@pytest.mark.parametrize("precision", ["float32", "int8-io"])
def test_pixels_go_in_and_the_outputs_are_those_of_python(
    converted: dict[str, Artifact], precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    artifact, photos = converted[precision], cases.photos()
    program = compiled(cases.written(tmp_path, artifact, cases.described(photos)))
    monkeypatch.setitem(os.environ, "WB_LITERT", f"{sys.executable} {SHIM / 'answer.py'}")
    found = cases.run(program, artifact.path, cases.pictures()[0])
    expected = infer(open_session(artifact, threads=1), photos.examples(1))[0]
    assert [values.shape for values in found.values()] == [(1, 10)]
    np.testing.assert_allclose(next(iter(found.values())), expected, rtol=1e-4, atol=1e-4)
