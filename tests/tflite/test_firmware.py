from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.inspect.files import Flatbuffer
from workbench.tflite.firmware import c_array, facts


def signed(flat: Flatbuffer, inputs: list[int], outputs: list[int]) -> None:
    """The signature that TensorFlow writes: `in_0` … and `out_0` … for the tensors."""
    made = schema.SignatureDefT()
    made.signatureKey = b"serving_default"
    for side, places, word in (("inputs", inputs, "in"), ("outputs", outputs, "out")):
        maps = []
        for number, place in enumerate(places):
            one = schema.TensorMapT()
            one.name, one.tensorIndex = f"{word}_{number}", place
            maps.append(one)
        setattr(made, side, maps)
    flat.model.signatureDefs = [made]


def read(flat: Flatbuffer, inputs: list[int], outputs: list[int], folder: Path) -> dict[str, Any]:
    signed(flat, inputs, outputs)
    return facts(flat.save(folder / "model.tflite", inputs, outputs).read_bytes())


def test_what_computes_in_float_is_counted_and_what_only_converts_is_not(tmp_path: Path) -> None:
    flat = Flatbuffer()
    x = flat.tensor("x", (1, 4))
    a = flat.tensor("a", (1, 4), "int8", scales=(0.1,))
    b = flat.tensor("b", (1, 4), "int8", scales=(0.1,))
    c, d, y = (flat.tensor(name, (1, 4)) for name in "cdy")
    flat.operator("QUANTIZE", [x], [a])
    flat.operator("RELU", [a], [b])
    flat.operator("DEQUANTIZE", [b], [c])
    flat.operator("ELU", [c], [d])
    flat.operator("ELU", [d], [y])
    found = read(flat, [x], [y], tmp_path)
    assert found["operators"] == {"QUANTIZE": 1, "RELU": 1, "DEQUANTIZE": 1, "ELU": 2}
    assert found["floats"] == {"ELU": 2}
    assert (found["inputs"], found["outputs"]) == ({"in_0": "x"}, {"out_0": "y"})
    assert found["unscaled"] == []


def test_a_scale_of_zero_is_found(tmp_path: Path) -> None:
    flat = Flatbuffer()
    x = flat.tensor("x", (1, 4), "int16", scales=(0.1,))
    zeros = flat.tensor("z", (4,), "int16", np.zeros(4, np.int16), scales=(0.0,))
    y = flat.tensor("y", (1, 4), "int16", scales=(0.1,))
    flat.operator("SUB", [x, zeros], [y])
    assert read(flat, [x], [y], tmp_path)["unscaled"] == ["SUB"]


def test_the_arena_holds_what_is_alive_at_once(tmp_path: Path) -> None:
    """x (40 bytes) -> a (80) -> b (120); x is added to b's sum y, so that it lives on."""
    flat = Flatbuffer()
    x, a, b, y = (
        flat.tensor(name, (1, size), "int8", scales=(0.1,))
        for name, size in (("x", 40), ("a", 80), ("b", 120), ("y", 40))
    )
    flat.operator("CONCATENATION", [x, x], [a])
    flat.operator("CONCATENATION", [a, x], [b])
    flat.operator("ADD", [b, x], [y])
    assert read(flat, [x], [y], tmp_path)["arena"] == 40 + 80 + 120


def test_reshaping_takes_no_memory_of_its_own(tmp_path: Path) -> None:
    flat = Flatbuffer()
    x = flat.tensor("x", (1, 40), "int8", scales=(0.1,))
    shape = flat.tensor("shape", (2,), "int32", np.array([4, 10], np.int32))
    a = flat.tensor("a", (4, 10), "int8", scales=(0.1,))
    y = flat.tensor("y", (4, 10), "int8", scales=(0.1,))
    flat.operator("RESHAPE", [x, shape], [a])
    flat.operator("RELU", [a], [y])
    assert read(flat, [x], [y], tmp_path)["arena"] == 80


def test_an_open_shape_leaves_the_arena_unknown(tmp_path: Path) -> None:
    flat = Flatbuffer()
    x = flat.tensor("x", (1, 4), signature=(-1, 4))
    y = flat.tensor("y", (1, 4))
    flat.operator("RELU", [x], [y])
    assert read(flat, [x], [y], tmp_path)["arena"] is None


@pytest.mark.process
@pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")
def test_the_array_compiles_to_the_file_and_is_aligned(tmp_path: Path) -> None:
    content = bytes(range(256)) + b"\x00\xff!"
    header, source = c_array(content, "g_model_data")
    (tmp_path / "some.h").write_text(header)
    (tmp_path / "array.cc").write_text(source)
    (tmp_path / "main.cc").write_text(
        '#include "some.h"\n#include "some.h"\n#include <cstdint>\n#include <cstdio>\n'
        "int main() { fwrite(g_model_data, 1, g_model_data_len, stdout);\n"
        "  return reinterpret_cast<uintptr_t>(g_model_data) % 16; }\n"
    )
    command = ["g++", "-std=c++11", "-Wall", "-Werror", "array.cc", "main.cc", "-o", "main"]
    subprocess.run(command, cwd=tmp_path, check=True)
    ran = subprocess.run([tmp_path / "main"], capture_output=True, check=True)
    assert ran.stdout == content
