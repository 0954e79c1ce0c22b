"""The places of ONNX Runtime's functions, held against its own header."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests import toolchains
from workbench.device.native import build

HEADER = Path(build.__file__).with_name("ort_api.h")
PLACES = re.compile(r"X\((\w+), (\d+), ([\w *]+), \((.*)\)\)")

CHECK = """
#include <stddef.h>
#include "onnxruntime_c_api.h"
enum { WB_ALL = ORT_ENABLE_ALL };
#define WB_ORT_PLACES_ONLY
#include "ort_api.h"
#define HOLD(name, place, result, words) \\
  _Static_assert(offsetof(OrtApi, name) == (place) * sizeof(void *), #name);
ORT_FUNCTIONS(HOLD)
_Static_assert(ORT_VERSION_NEEDED <= ORT_API_VERSION, "version");
_Static_assert(ORT_LOG_ERROR == ORT_LOGGING_LEVEL_ERROR, "log level");
_Static_assert((int)ORT_ENABLE_ALL == (int)WB_ALL, "optimization");
_Static_assert(ORT_ARENA_ALLOCATOR == OrtArenaAllocator, "allocator");
_Static_assert(ORT_MEM_DEFAULT == OrtMemTypeDefault, "memory");
"""


def checked(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    # Both headers define the base's type.
    own = HEADER.read_text().replace("OrtApiBase", "WbApiBase")
    (folder / "ort_api.h").write_text(own)
    (folder / "check.c").write_text(text)
    return subprocess.run(
        [toolchains.compiler("cc"), "-std=c11", "-fsyntax-only", f"-I{folder}",
         f"-I{toolchains.headers()}", str(folder / "check.c")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.process
def test_each_function_is_where_the_header_has_it(tmp_path: Path) -> None:
    done = checked(tmp_path, CHECK)
    assert done.returncode == 0, done.stderr
    wrong = CHECK.replace("(place) *", "(place + 1) *")
    assert checked(tmp_path, wrong).returncode != 0


def test_each_function_takes_as_many_words_as_in_the_header() -> None:
    header = (toolchains.headers() / "onnxruntime_c_api.h").read_text(encoding="utf-8")
    header = re.sub(r"//[^\n]*|/\*.*?\*/", "", header, flags=re.DOTALL)
    found = PLACES.findall(HEADER.read_text())
    assert len(found) > 20
    for name, _, result, words in found:
        if result.strip() == "void":  # ORT_CLASS_RELEASE: one word
            assert words.count(",") == 0, name
            continue
        declared = re.search(
            rf"(?:ORT_API2_STATUS\({name},|\(ORT_API_CALL\*\s*{name}\)\()(.*?)\)[^;()]*;",
            header, flags=re.DOTALL,
        )  # fmt: skip
        assert declared is not None, name
        assert declared[1].count(",") == words.count(","), name


@pytest.fixture(autouse=True)
def _headers() -> None:
    toolchains.headers()
