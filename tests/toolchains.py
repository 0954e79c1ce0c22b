"""Where tests find what compiles the samples: ONNX Runtime's headers, compilers, grammars.

No Python package has ONNX Runtime's headers. `python -m tests.toolchains` gets them from an npm
package that repackages the Android archive of a release, with its headers and Java classes, into
`~/.cache/workbench-tests`; `WB_ORT_INCLUDE` names a folder of one's own.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest

PACKAGE = "com.github.asus4.onnxruntime@0.4.9"  # ONNX Runtime 1.29, 150 MB to download
HEADER = "onnxruntime_cxx_api.h"


def folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "workbench-tests" / "onnxruntime"


def headers() -> Path:
    """The folder of ONNX Runtime's C++ headers; skips where there are none, or too new ones."""
    import onnxruntime

    given = os.environ.get("WB_ORT_INCLUDE")
    places = [Path(given)] if given else [
        folder() / "headers", Path("/usr/include/onnxruntime"), Path("/usr/local/include"),
        Path("/usr/local/include/onnxruntime"),
    ]  # fmt: skip
    place = next((one for one in places if (one / HEADER).is_file()), None)
    if place is None:
        pytest.skip(
            "ONNX Runtime's C++ headers are not here: run 'python -m tests.toolchains', or set "
            "WB_ORT_INCLUDE"
        )
    text = (place / "onnxruntime_c_api.h").read_text(encoding="utf-8")
    version = int(re.search(r"#define ORT_API_VERSION (\d+)", text)[1])
    if version > int(onnxruntime.__version__.split(".")[1]):
        pytest.skip(f"the headers in {place} are newer than onnxruntime {onnxruntime.__version__}")
    return place


def classes() -> Path:
    """The archive of ONNX Runtime's Java classes; skips where it is not here."""
    place = folder() / "classes.jar"
    if not place.is_file():
        pytest.skip("ONNX Runtime's Java classes are not here: run 'python -m tests.toolchains'")
    return place


def compiler(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not here")
    return found


def library(into: Path) -> Path:
    """A folder with the installed onnxruntime's library, under the names it is loaded by."""
    import onnxruntime

    found = list((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    if not found:
        pytest.skip("the installed onnxruntime has no shared library")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (into / name).symlink_to(found[0])
    return into


def get() -> None:
    """Download the npm package and keep its headers and classes."""
    if (folder() / "headers" / HEADER).is_file():
        return
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=place, check=True, timeout=600)
        with tarfile.open(next(Path(place).glob("*.tgz"))) as package:
            member = package.extractfile("package/Plugins/Android/onnxruntime.aar")
            assert member is not None
            archive = zipfile.ZipFile(io.BytesIO(member.read()))
        made = Path(place) / "made"
        for name in archive.namelist():
            if name == "classes.jar" or re.fullmatch(r"headers/[\w.]+", name):
                archive.extract(name, made)
        folder().parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder(), ignore_errors=True)
        shutil.move(made, folder())


if __name__ == "__main__":
    get()
    sys.stdout.write(f"{folder()}\n")
