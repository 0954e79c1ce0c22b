from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from workbench.artifact import Artifact, Format, TensorSpec
from workbench.errors import ModelError
from workbench.inspect import artifacts
from workbench.inspect.facts import Facts, Tensor


def facts(kind: Format, *inputs: Tensor, outputs: tuple[Tensor, ...] = ()) -> Facts:
    return Facts(path=Path("some.file"), format=kind, bytes=1, sha256="", inputs=inputs,
                 outputs=outputs, opsets={}, operators={}, parameters=None, macs=None,
                 precision="int8", takes={})  # fmt: skip


def tensor(name: str, dtype: str, *shape: int | None) -> Tensor:
    return Tensor(name=name, dtype=dtype, shape=shape)


def file(*inputs: TensorSpec, kind: Format = Format.ONNX) -> Artifact:
    return Artifact(path=Path("some.file"), format=kind, precision="float32", inputs=inputs,
                    outputs=())  # fmt: skip


def spec(name: str, *shape: int | None, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


def test_quantized_inputs_are_floats_to_their_users_and_pixels_are_not() -> None:
    artifact = artifacts.artifact_of(facts(
        Format.TFLITE,
        Tensor(name="x", dtype="int8", shape=(1, 4), quantization=(0.5, 3)),
        tensor("pixels", "uint8", 1, 8, 8, 3),
    ))  # fmt: skip
    assert [declared.dtype for declared in artifact.inputs] == ["float32", "uint8"]
    assert artifact.precision == "int8"


def test_outputs_that_a_file_does_not_tell_come_from_a_run() -> None:
    shown = facts(Format.TORCHSCRIPT, tensor("x", "unknown"),
                  outputs=(tensor("output", "Dict[str, Tensor]"),))  # fmt: skip
    artifact = artifacts.artifact_of(shown)
    assert artifact.outputs == ()
    completed = artifacts.with_outputs(
        artifact, [np.zeros((4, 5), np.float32), np.zeros((4, 2), np.int64)]
    )
    fields = [(output.name, output.stored_name, output.dtype, output.shape)
              for output in completed.outputs]  # fmt: skip
    assert fields == [
        ("output_0", "#0", "float32", (None, 5)), ("output_1", "#1", "int64", (None, 2))
    ]  # fmt: skip
    assert artifacts.with_outputs(completed, []) is completed


def test_known_shapes_need_nothing_and_open_ones_an_input() -> None:
    fixed = file(spec("x", None, 3), spec("y", 1, 2, dtype="int64"))
    assert artifacts.closed_inputs(fixed, ()) == fixed.inputs
    open_one = file(spec("x", None, None, 6))
    with pytest.raises(ModelError, match="open axes") as caught:
        artifacts.closed_inputs(open_one, ())
    assert "--input x:1x…" in caught.value.fix
    (closed,) = artifacts.closed_inputs(open_one, (spec("x", None, 9, 6),))
    assert closed.shape == (None, 9, 6)
    # One alone to one alone, whatever it is called.
    (closed,) = artifacts.closed_inputs(open_one, (spec("tokens", None, 9, 6),))
    assert (closed.name, closed.shape) == ("x", (None, 9, 6))


def test_an_input_must_have_the_files_own_shape_and_takes_its_type() -> None:
    ids = file(spec("ids", None, None, dtype="int64"))
    (closed,) = artifacts.closed_inputs(ids, (spec("ids", None, 32),))
    assert closed.dtype == "int64"
    for wrong in ((None, 3, 4), (None,)):
        with pytest.raises(ModelError, match="another shape"):
            artifacts.closed_inputs(file(spec("x", None, 3, 5)), (spec("x", *wrong),))


def test_torchscript_says_that_it_says_nothing() -> None:
    unknown = file(TensorSpec(name="x", dtype="unknown", shape=()), kind=Format.TORCHSCRIPT)
    with pytest.raises(ModelError, match="does not say what its input 'x' is"):
        artifacts.closed_inputs(unknown, ())
    (closed,) = artifacts.closed_inputs(unknown, (spec("x", None, 8, dtype="int64"),))
    assert (closed.dtype, closed.shape) == ("int64", (None, 8))


def test_what_cannot_be_filled_is_refused() -> None:
    with pytest.raises(ModelError, match="no numbers"):
        artifacts.closed_inputs(file(spec("text", None, 1, dtype="object")), ())
    with pytest.raises(ModelError, match="too large"):
        artifacts.closed_inputs(file(spec("x", None, 1 << 20, 1 << 20)), ())


def test_a_batch_is_fixed_only_where_all_inputs_have_it() -> None:
    assert artifacts.fixed_batch(file(spec("x", 4, 3))) == 4
    assert artifacts.fixed_batch(file(spec("x", None, 3))) is None
    # The first axis of a state is the layers.
    assert artifacts.fixed_batch(file(spec("h", 2, 1, 5), spec("x", 1, 7, 6))) is None
