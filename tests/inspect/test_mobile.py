"""What NNAPI, CoreML and XNNPACK take of an ONNX graph."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.inspect.files import floats, graph, save_onnx
from workbench.inspect import mobile, onnx_facts, read

NET = """g (float[N, 3, 8, 8] x) => (float[N, 4, 1, 1] y) {
    c = Conv (x, w, b)
    r = Relu (c)
    e = Erf (r)
    d = Conv <group = 4> (e, v)
    y = GlobalAveragePool (d)
}"""
WEIGHTS = {"w": floats(4, 3, 3, 3), "b": floats(4), "v": floats(4, 1, 3, 3)}


def tool_verdicts(path: Path) -> dict[str, str]:
    """What onnxruntime's own tool concludes of a file, from its printed report."""
    from onnxruntime.tools.mobile_helpers.usability_checker import analyze_model

    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.extend(record.getMessage().splitlines())

    logger = logging.Logger("usability", logging.INFO)
    logger.addHandler(Keep())
    analyze_model(path, skip_optimize=True, logger=logger)
    verdicts: dict[str, str] = {}
    provider = counts = ""
    for line in lines:
        if match := re.search(r"Checking (NNAPI|CoreML \w+)$", line):
            provider = match[1]
        elif match := re.search(r"(\d+) partitions with a total of (\d+)/(\d+) nodes", line):
            several = "" if match[1] == "1" else "s"
            counts = f"{match[2]}/{match[3]} nodes, {match[1]} partition{several}"
        elif match := re.search(r"perform well with .* (as is|fixed input shapes): (\w+)", line):
            fixed = "" if match[1] == "as is" else " with fixed shapes"
            verdicts[provider] = f"{match[2].lower()}{fixed} ({counts})"
    return verdicts


QDQ = """g (float[N, 3, 8, 8] x) => (float[N, 4, 6, 6] y) {
    q = QuantizeLinear (x, s, z)
    d = DequantizeLinear (q, s, z)
    v = DequantizeLinear (w, s, wz)
    c = Conv (d, v)
    e = Erf (c)
    p = QuantizeLinear (e, s, z)
    y = DequantizeLinear (p, s, z)
}"""


def quantized(folder: Path) -> Path:
    scales = {"s": np.float32(0.1), "z": np.uint8(3), "wz": np.int8(0)}
    return save_onnx(folder, graph(QDQ), w=np.ones((4, 3, 3, 3), np.int8), **scales)


def fixed(folder: Path) -> Path:
    return save_onnx(folder, graph(NET.replace("[N", "[1")), **WEIGHTS)


def open_batch(folder: Path) -> Path:
    return save_onnx(folder, graph(NET), **WEIGHTS)


@pytest.mark.parametrize("make", [quantized, fixed, open_batch])
def test_the_verdicts_are_those_of_onnxruntimes_tool(make, tmp_path: Path) -> None:
    path = make(tmp_path)
    model = onnx.load(path)
    onnx_facts.strip(model)
    verdicts = {name: str(verdict) for name, verdict in mobile.verdicts(model).items()}
    assert set(verdicts) == {"NNAPI", "CoreML NeuralNetwork", "CoreML MLProgram"}
    assert verdicts == tool_verdicts(path)


def test_operators_that_are_not_taken_are_named(tmp_path: Path) -> None:
    takes = read(open_batch(tmp_path)).takes
    assert takes["NNAPI"] == "maybe with fixed shapes (4/5 nodes, 2 partitions); not Erf"
    # GlobalAveragePool is not in XNNPACK's list; the Relu goes with the convolution before it.
    assert takes["XNNPACK"].startswith("3/5 nodes, 2 partitions; not ")
    assert {"Erf", "GlobalAveragePool"} == set(takes["XNNPACK"].partition("; not ")[2].split(", "))


def test_constant_nodes_are_weights(tmp_path: Path) -> None:
    text = graph(
        """g (float[1, 2] x) => (float[1, 2] y)
        { w = Constant <value = float[2, 2] {1, 2, 3, 4}> () y = MatMul (x, w) }"""
    )
    takes = read(save_onnx(tmp_path, text)).takes
    assert takes["NNAPI"] == "yes (1/1 nodes, 1 partition)"
    assert takes["XNNPACK"] == "1/1 nodes, 1 partition"


# One operator alone, and whether the documented list has it in this form.
XNNPACK = {
    "2D convolution": (
        "g (float[1, 3, 8, 8] x) => (float[1, 4, 6, 6] y) { y = Conv (x, w) }", True, 17),
    "1D convolution": (
        "g (float[1, 3, 8] x) => (float[1, 4, 6] y) { y = Conv (x, w1) }", False, 17),
    "convolution by a computed weight": (
        "g (float[1, 3, 8, 8] x, float[4, 3, 3, 3] k) => (float[1, 4, 6, 6] y)"
        " { y = Conv (x, k) }", False, 17),
    "2D pool": (
        "g (float[1, 3, 8, 8] x) => (float[1, 3, 7, 7] y)"
        " { y = MaxPool <kernel_shape = [2, 2]> (x) }", True, 17),
    "1D pool": (
        "g (float[1, 3, 8] x) => (float[1, 3, 7] y)"
        " { y = AveragePool <kernel_shape = [2]> (x) }", False, 17),
    "softmax over the last axis": (
        "g (float[1, 3] x) => (float[1, 3] y) { y = Softmax <axis = 1> (x) }", True, 17),
    "softmax over another": (
        "g (float[1, 3, 4] x) => (float[1, 3, 4] y) { y = Softmax <axis = 1> (x) }", False, 17),
    "softmax over another, long ago": (
        "g (float[1, 3, 4] x) => (float[1, 3, 4] y) { y = Softmax <axis = 1> (x) }", True, 12),
    "bilinear resize": (
        "g (float[1, 3, 8, 8] x) => (float[1, 3, 16, 16] y)"
        ' { y = Resize <mode = "linear"> (x, , s) }', True, 17),
    "nearest resize": (
        "g (float[1, 3, 8, 8] x) => (float[1, 3, 16, 16] y)"
        ' { y = Resize <mode = "nearest"> (x, , s) }', False, 17),
    "2D product": (
        "g (float[N, 6] x) => (float[N, 4] y) { y = MatMul (x, m) }", True, 17),
    "3D product": (
        "g (float[N, 5, 6] x) => (float[N, 5, 4] y) { y = MatMul (x, m) }", False, 17),
    "a Relu alone": ("g (float[1, 3] x) => (float[1, 3] y) { y = Relu (x) }", False, 17),
}  # fmt: skip


@pytest.mark.parametrize("name", XNNPACK)
def test_xnnpack_takes_what_its_list_says(name: str, tmp_path: Path) -> None:
    body, taken, opset = XNNPACK[name]
    weights = {"w": floats(4, 3, 3, 3), "w1": floats(4, 3, 3), "m": floats(6, 4),
               "s": np.array([1, 1, 2, 2], np.float32)}  # fmt: skip
    used = {key: array for key, array in weights.items() if re.search(rf"\b{key}\)", body)}
    takes = read(save_onnx(tmp_path, graph(body, opset=opset), **used)).takes
    assert takes["XNNPACK"].startswith("1/1 nodes" if taken else "0/1 nodes"), takes


def test_xnnpack_takes_quantized_convolutions_with_what_is_around_them(tmp_path: Path) -> None:
    # The two DequantizeLinear and the Conv; the others belong to Erf and the graph's ends.
    assert read(quantized(tmp_path)).takes["XNNPACK"] == "3/7 nodes, 1 partition; not Erf"


@pytest.mark.process
def test_asking_imports_no_torch(tmp_path: Path) -> None:
    path = open_batch(tmp_path)
    code = (
        "import sys; from pathlib import Path; from workbench.inspect import read;"
        "facts = read(Path(sys.argv[1])); assert 'NNAPI' in facts.takes;"
        "print(sorted({'torch', 'tensorflow', 'sympy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
