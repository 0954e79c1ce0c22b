"""The TorchScript sample, compiled against the installed PyTorch and run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import toolchains
from tests.nets import TwoInputs, build, normal
from tests.report.samples import cases
from workbench.artifact import Artifact, Format, TensorSpec
from workbench.report import samples


@pytest.mark.process
def test_libtorch_gives_what_python_gives(tmp_path: Path):
    module = build(TwoInputs)
    zebra, apple = normal(1, 3, 12, 10), normal(1, 5)
    path = tmp_path / "model.pt"
    torch.jit.trace(module, (torch.from_numpy(zebra), torch.from_numpy(apple))).save(str(path))
    artifact = Artifact(
        path=path,
        format=Format.TORCHSCRIPT,
        precision="float32",
        inputs=(
            TensorSpec(name="zebra", dtype="float32", shape=(None, 3, 12, 10)),
            TensorSpec(name="apple", dtype="float32", shape=(None, 5)),
        ),
        outputs=(TensorSpec(name="output", dtype="float32", shape=(None, 6)),),
    )
    given = cases.as_given(*artifact.inputs)
    samples.write_all(tmp_path, {"model.pt": (artifact, cases.no_facts(artifact))}, given)
    folder = tmp_path / "samples" / "model.pt"
    place = Path(torch.__file__).parent
    libraries = place / "lib"
    command = [
        toolchains.compiler("g++"), "-std=c++17", "-O0", str(folder / "main.cpp"),
        "-isystem", str(place / "include"),
        "-isystem", str(place / "include/torch/csrc/api/include"),
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
        "-L", str(libraries), f"-Wl,-rpath,{libraries}", "-Wl,--no-as-needed",
        "-ltorch", "-ltorch_cpu", "-lc10", "-o", str(folder / "sample"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = cases.run(folder / "sample", path, zebra, apple)
    with torch.inference_mode():
        expected = module(torch.from_numpy(zebra), torch.from_numpy(apple)).numpy()
    assert list(found) == ["output"]
    np.testing.assert_allclose(found["output"], expected, rtol=1e-4, atol=1e-4)
