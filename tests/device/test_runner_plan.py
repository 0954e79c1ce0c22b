"""What runners are asked for and give: written plainly, read with suspicion."""

from __future__ import annotations

import json
import struct
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.device.runner_plan import MAGIC, Plan, lay_out, outputs_of, parse_answer
from workbench.errors import DeviceError

GOOD = {"wb": 1, "version": "1.32", "load_ns": 5, "first_ns": 7, "samples_ns": [3, 4],
        "peak_bytes": 0}  # fmt: skip


def plan(**changes) -> Plan:
    known = {
        "runtime": "onnxruntime", "library": "", "model": "/m", "inputs": "/i",
        "tensors": (("x", "float32", (1, 2), 0),), "output_names": ("y",),
    }  # fmt: skip
    return Plan(**{**known, **changes})


def record(array: np.ndarray, code: int = 1) -> bytes:
    head = struct.pack(f"<4sII{array.ndim}q", MAGIC, code, array.ndim, *array.shape)
    return head + struct.pack("<Q", array.nbytes) + array.tobytes()


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_a_name_of_any_characters_is_one_word(name):
    text = plan(tensors=((name, "int8", (1, 3), 64),), output_names=(name,), library=name).text()
    lines = [line.split(" ") for line in text.splitlines()]
    assert text.isascii()
    words = {line[0]: line[1:] for line in lines}
    assert [unquote(words[key][0]) for key in ("input", "output", "library")] == [name] * 3
    assert words["input"][1:] == ["int8", "2", "1", "3", "64"]


def test_what_is_not_asked_is_not_in_the_plan():
    words = [line.split()[0] for line in plan().text().splitlines()]
    assert {"library", "provider", "option", "outputs", "profile"}.isdisjoint(words)
    assert words[0] == "wb"


def test_inputs_lie_one_after_another_each_aligned():
    a, b = np.arange(6, dtype=np.float32).reshape(3, 2), np.arange(3, dtype=np.int64)
    data, tensors = lay_out({"a": a, "b": b})
    assert tensors == (("a", "float32", (1, 2), 0), ("b", "int64", (1,), 64))
    assert np.frombuffer(data, np.float32, 6).reshape(3, 2).tolist() == a.tolist()
    assert np.frombuffer(data, np.int64, 3, 64).tolist() == [0, 1, 2]


def test_one_sample_may_be_a_batch():
    _, tensors = lay_out({"a": np.zeros((4, 2), np.float32), "s": np.float32(1).reshape(())}, 1)
    assert [shape for _, _, shape, _ in tensors] == [(4, 2), ()]


def test_a_dtype_that_no_runner_takes_is_refused():
    with pytest.raises(DeviceError, match="complex64"):
        lay_out({"a": np.zeros((1, 2), np.complex64)})


def test_the_last_line_counts():
    assert parse_answer(f"noise\n{json.dumps(GOOD)}\n", "it").samples_ns == (3, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it printed nothing"),
        ("Segmentation fault", "Segmentation fault"),
        (json.dumps(GOOD)[:40], "did not answer"),
        ("[1]", "did not answer"),
        (json.dumps({"wb": 2}), "did not answer"),
        (json.dumps({"wb": 1, "error": "no such file"}), "no such file"),
        (json.dumps({**GOOD, "samples_ns": [0, 4]}), "zero or negative"),
        (json.dumps({**GOOD, "samples_ns": [-3]}), "zero or negative"),
        (json.dumps({**GOOD, "first_ns": 0}), "zero or negative"),
        (json.dumps({**GOOD, "load_ns": "5"}), "no whole number"),
        (json.dumps({**GOOD, "load_ns": True}), "no whole number"),
        (json.dumps({**GOOD, "samples_ns": 3}), "cannot be true"),
        (json.dumps({"wb": 1}), "cannot be true"),
    ],
)
def test_a_lying_runner_is_not_believed(text, message):
    with pytest.raises(DeviceError) as caught:
        parse_answer(text, "the native runner")
    assert "the native runner" in caught.value.what
    assert message in str(caught.value)


@given(st.text())
def test_any_text_is_an_answer_or_an_error(text):
    with pytest.raises(DeviceError):
        parse_answer(text, "it")


def test_outputs_are_joined_over_the_samples(tmp_path):
    path = tmp_path / "o"
    one, two = np.float32([[1, 2]]), np.float32([[3, 4]])
    label = np.int64(7).reshape(())
    path.write_bytes(record(one) + record(label, 7) + record(two) + record(label, 7))
    first, second = outputs_of(path, 2, ("a", "b"), "it")
    assert first.tolist() == [[1, 2], [3, 4]]
    assert second.tolist() == [7, 7]


GOOD_FILE = record(np.float32([[1, 2]]))


@pytest.mark.parametrize(
    "data",
    [
        b"", GOOD_FILE[:-1], GOOD_FILE + b"x", GOOD_FILE[:20], b"XXXX" + GOOD_FILE[4:],
        record(np.float32([1, 2]), 99),
        struct.pack("<4sIIqQ", MAGIC, 1, 1, -1, 4) + b"1234",
        struct.pack("<4sIIqqQ", MAGIC, 1, 2, 1 << 40, 1 << 40, 8) + b"12345678",
        struct.pack("<4sII", MAGIC, 1, 4_000_000_000),
    ],
)  # fmt: skip
def test_a_file_that_is_not_whole_is_refused(tmp_path, data):
    path = tmp_path / "o"
    path.write_bytes(data)
    with pytest.raises(DeviceError, match="not whole"):
        outputs_of(path, 1, ("a",), "it")


@given(st.binary(max_size=80))
def test_any_bytes_are_outputs_or_an_error(data):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder, pytest.raises(DeviceError):
        path = Path(folder) / "o"
        path.write_bytes(data)
        outputs_of(path, 1, ("a", "b"), "it")
