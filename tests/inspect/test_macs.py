"""Multiply-accumulates counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.inspect.files import floats, graph, save_onnx
from workbench.inspect import macs, read
from workbench.inspect.macs import Tally, UnknownError

MS = ', "com.microsoft" : 1'

# The graph, its weights' shapes, and the count by hand.
CASES = {
    "conv": (
        "g (float[1, 3, 8, 8] x) => (float[1, 4, 4, 4] y)"
        "{ y = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w) }",
        {"w": (4, 3, 3, 3)},
        4 * 4 * 4 * 27,
    ),
    "depthwise": (
        "g (float[1, 6, 5, 7] x) => (float[1, 6, 3, 5] y) { y = Conv <group = 6> (x, w) }",
        {"w": (6, 1, 3, 3)},
        6 * 3 * 5 * 9,
    ),
    "conv 1D of a batch": (
        "g (float[N, 2, 10] x) => (float[N, 4, 8] y) { y = Conv (x, w) }",
        {"w": (4, 2, 3)},
        4 * 8 * 2 * 3,
    ),
    "transposed": (
        "g (float[1, 3, 4, 4] x) => (float[1, 2, 9, 9] y)"
        "{ y = ConvTranspose <strides = [2, 2]> (x, w) }",
        {"w": (3, 2, 3, 3)},
        3 * 4 * 4 * 2 * 9,
    ),
    "gemm": (
        "g (float[N, 6] x) => (float[N, 4] y) { y = Gemm <transB = 1> (x, w) }",
        {"w": (4, 6)},
        24,
    ),
    "gemm, both transposed": (
        "g (float[6, 5] x) => (float[5, 4] y) { y = Gemm <transA = 1, transB = 1> (x, w) }",
        {"w": (4, 6)},
        5 * 6 * 4,
    ),
    "matmul, broadcast": (
        "g (float[2, 1, 3, 4] a, float[5, 4, 6] b) => (float[2, 5, 3, 6] y) { y = MatMul (a, b) }",
        {},
        2 * 5 * 3 * 4 * 6,
    ),
    "matmul with a vector": (
        "g (float[7, 3, 4] a, float[4] b) => (float[7, 3] y) { y = MatMul (a, b) }",
        {},
        7 * 3 * 4,
    ),
    "einsum": (
        "g (float[2, 3, 4] a, float[2, 4, 5] b) => (float[2, 3, 5] y)"
        '{ y = Einsum <equation = "bij,bjk->bik"> (a, b) }',
        {},
        2 * 3 * 4 * 5,
    ),
    "lstm, both ways": (
        "g (float[7, N, 6] x) => (float[7, 2, N, 5] y)"
        '{ y = LSTM <hidden_size = 5, direction = "bidirectional"> (x, w, r) }',
        {"w": (2, 20, 6), "r": (2, 20, 5)},
        7 * 2 * 20 * (6 + 5),
    ),
    "gru": (
        "g (float[7, 1, 6] x) => (float[7, 1, 1, 5] y) { y = GRU <hidden_size = 5> (x, w, r) }",
        {"w": (1, 15, 6), "r": (1, 15, 5)},
        7 * 15 * 11,
    ),
    "attention of onnxruntime": (
        "g (float[N, 9, 16] x) => (float[N, 9, 16] y)"
        "{ y = com.microsoft.Attention <num_heads = 2> (x, w, b) }",
        {"w": (16, 48), "b": (48,)},
        9 * 16 * 48 + 2 * 9 * 9 * 16,
    ),
    "heads apart": (
        "g (float[1, 9, 16] q, float[1, 11, 16] k, float[1, 11, 24] v) => (float[1, 9, 24] y)"
        "{ y = com.microsoft.MultiHeadAttention <num_heads = 2> (q, k, v) }",
        {},
        9 * 11 * (16 + 24),
    ),
    "fused": (
        "g (float[1, 3, 4, 4] x) => (float[1, 5, 4, 4] y)"
        '{ y = com.microsoft.FusedConv <activation = "Relu"> (x, w) }',
        {"w": (5, 3, 1, 1)},
        5 * 16 * 3,
    ),
    "nothing that multiplies": (
        "g (float[N, 3] x) => (float[N, 3] y) { y = Relu (x) }",
        {},
        0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_by_hand(name: str, tmp_path: Path) -> None:
    body, weights, expected = CASES[name]
    path = save_onnx(
        tmp_path,
        graph(body, more=MS),
        **{key: floats(*shape) for key, shape in weights.items()},
    )
    facts = read(path)
    assert facts.macs == expected, facts.notes
    assert facts.parameters == sum(int(np.prod(shape)) for shape in weights.values())


UNKNOWN = {
    "an axis besides the batch": (
        "g (float[N, seq, 6] x) => (float[N, seq, 4] y) { y = MatMul (x, w) }",
        r"MatMul: an axis is open; open: axis 1 \(seq\) of x",
    ),
    "a first axis that is no batch": (
        "g (float[seq, 6] x) => (float[seq, 4] y) { y = MatMul (x, w) }",
        r"open: axis 0 \(seq\) of x",
    ),
    "another's operator": (
        "g (float[N, 6] x) => (float[N, 4] y) { y = org.other.Secret (x, w) }",
        "org.other:Secret is no operator that wb knows",
    ),
    "one of onnxruntime's that multiplies": (
        "g (float[N, 6] x) => (float[N, 4] y) { y = com.microsoft.LongformerAttention (x, w) }",
        "com.microsoft:LongformerAttention is not counted",
    ),
    "branches that differ": (
        "g (bool c, float[1, 6] x) => (float[1, 4] y)"
        "{ y = If (c) <then_branch = t () => (float[1, 4] a) { a = MatMul (x, w) },"
        " else_branch = e () => (float[1, 4] b) { b = Slice (x, s, f, o) }> }",
        "If: its branches differ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_cannot_be_known_is_not_guessed(name: str, tmp_path: Path) -> None:
    import re

    body, reason = UNKNOWN[name]
    text = graph(body, more=f'{MS}, "org.other" : 1')
    numbers = {"s": np.array([0]), "f": np.array([4]), "o": np.array([1])}
    facts = read(save_onnx(tmp_path, text, w=floats(6, 4), **numbers))
    assert facts.macs is None
    (note,) = [note for note in facts.notes if note.startswith("MACs unknown")]
    assert re.search(reason, note), note


def test_branches_that_agree_are_counted_once(tmp_path: Path) -> None:
    body = (
        "g (bool c, float[1, 6] x) => (float[1, 4] y)"
        "{ y = If (c) <then_branch = t () => (float[1, 4] a) { a = MatMul (x, w) },"
        " else_branch = e () => (float[1, 4] b) { n = Neg (x) b = MatMul (n, w) }> }"
    )
    facts = read(save_onnx(tmp_path, graph(body), w=floats(6, 4)))
    assert facts.macs == 24
    assert facts.operators == {"MatMul": 2, "If": 1, "Neg": 1}


def test_shapes_are_followed_through_arithmetic(tmp_path: Path) -> None:
    # The width of the last axis is computed in the file: onnx's own inference stops at the Div.
    body = """g (float[N, 32] x) => (float[N, 4, 8, 8] y) {
        s = Shape (x)
        n = Gather <axis = 0> (s, zero)
        d = Gather <axis = 0> (s, one)
        h = Div (d, four)
        axes = Constant <value = int64[1] {0}> ()
        n1 = Unsqueeze (n, axes)
        h1 = Unsqueeze (h, axes)
        f1 = Unsqueeze (four, axes)
        to = Concat <axis = 0> (n1, f1, h1, last)
        q = Reshape (x, to)
        t = Transpose <perm = [0, 1, 3, 2]> (q)
        y = MatMul (q, t)
    }"""
    numbers = {"zero": np.array(0), "one": np.array(1), "four": np.array(4), "last": np.array([1])}
    facts = read(save_onnx(tmp_path, graph(body), **numbers))
    assert facts.macs == 4 * 8 * 8
    assert not list(Path.cwd().glob("sym_shape_infer_temp*"))


def test_the_quantized_forms_cost_as_much(tmp_path: Path) -> None:
    body = (
        "g (uint8[1, 3, 8, 8] x) => (uint8[1, 4, 6, 6] y)"
        "{ y = QLinearConv (x, xs, xz, w, ws, wz, ys, xz) }"
    )
    scales = {key: np.float32(0.1) for key in ("xs", "ws", "ys")}
    path = save_onnx(
        tmp_path,
        graph(body),
        w=np.ones((4, 3, 3, 3), np.int8),
        xz=np.uint8(0),
        wz=np.int8(0),
        **scales,
    )
    facts = read(path)
    assert facts.macs == 4 * 36 * 27
    assert facts.parameters == 108  # scales and zero points are none
    assert facts.precision == "int8"


def test_a_sum_is_unknown_with_one_of_its_parts() -> None:
    tally = Tally()
    tally.add(5)
    assert (tally.total, tally.notes()) == (5, ())
    tally.unknown("x")
    tally.unknown("x")
    tally.unknown("y")
    assert tally.total is None
    assert tally.notes() == ("MACs unknown: x (2 times), and y",)


def test_shapes_that_do_not_fit_are_no_product() -> None:
    with pytest.raises(UnknownError):
        macs.matmul((2, 3), (4, 5))
    with pytest.raises(UnknownError):
        macs.einsum("...ij,jk", [(2, 3), (3, 4)])


def test_onnx_is_not_given_away(tmp_path: Path) -> None:
    """The file is only read."""
    path = save_onnx(tmp_path, graph("g (float[N, 3] x) => (float[N, 3] y) { y = Relu (x) }"))
    before = path.read_bytes()
    read(path)
    assert path.read_bytes() == before
    assert onnx.load(path).graph.node[0].op_type == "Relu"
