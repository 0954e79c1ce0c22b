"""Artifacts and tensor specs, and the inputs that a user describes."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from workbench.artifact import (
    Artifact,
    Format,
    Pixels,
    TensorSpec,
    canonical_output,
    digest,
    feed,
    is_fixed_to_one,
    stored_input,
)
from workbench.errors import InputError, ModelError
from workbench.model import parse_inputs

IMAGE = TensorSpec(name="image", dtype="float32", shape=(None, 3, 8, 8))
MASK = TensorSpec(
    name="mask", dtype="int64", shape=(1, 8), stored="serving_mask:0", permutation=(0, 2, 3, 1)
)


PHOTO = replace(
    IMAGE,
    permutation=(0, 2, 3, 1),
    pixels=Pixels(factor=(0.5, 0.25, 2.0), offset=(1.0, 0.0, -3.0), reversed=True),
)
CLASSES = TensorSpec(name="classes", dtype="float32", shape=(None, 4), head="argmax")


def artifact(folder: Path) -> Artifact:
    return Artifact(
        path=folder / "model.onnx",
        format=Format.ONNX,
        precision="int8",
        inputs=(IMAGE, MASK, PHOTO),
        outputs=(IMAGE, CLASSES),
        history=("export", "quantize"),
        companions=(folder / "model.onnx.data",),
        notes=("a note",),
    )


def test_an_artifact_round_trips_through_json_in_another_folder(tmp_path):
    original = artifact(tmp_path / "here")
    data = original.to_json()
    assert "here" not in str(data)
    assert Artifact.from_json(data, tmp_path / "there") == original.in_folder(tmp_path / "there")
    assert Artifact.from_json(data, tmp_path / "here") == original


def test_moving_takes_the_companions_along(tmp_path):
    moved = artifact(tmp_path / "here").in_folder(tmp_path / "there")
    assert moved.path == tmp_path / "there/model.onnx"
    assert moved.companions == (tmp_path / "there/model.onnx.data",)


def test_size_and_digest_are_the_files(tmp_path):
    original = artifact(tmp_path)
    original.path.write_bytes(b"12345")
    original.companions[0].write_bytes(b"not counted")
    assert original.size == 5
    assert original.sha256 == digest(original.path) == hashlib.sha256(b"12345").hexdigest()


def test_a_spec_prints_its_dynamic_axes():
    assert str(IMAGE) == "image: float32[?x3x8x8]"


def test_a_tensor_stored_under_its_own_name_has_that_name():
    assert (IMAGE.stored_name, MASK.stored_name) == ("image", "serving_mask:0")


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_the_inverse_of_a_permutation_undoes_it(order):
    spec = TensorSpec(name="x", dtype="float32", shape=(1, 2, 3, 4), permutation=order)
    kept_shape = [spec.shape[axis] for axis in order]
    assert tuple(kept_shape[axis] for axis in spec.inverse) == spec.shape


def test_inputs_are_fed_by_name_in_the_artifacts_order():
    given_inputs = {"mask": 1, "image": 2, "extra": 3}
    assert list(feed((IMAGE, MASK), given_inputs).items()) == [("image", 2), ("mask", 1)]


def test_a_single_input_is_fed_whatever_it_is_called():
    assert feed((IMAGE,), {"input": 5}) == {"image": 5}


@pytest.mark.parametrize("inputs", [{"image": 1}, {"image": 1, "input": 2}, {}])
def test_inputs_that_cannot_be_matched_name_both_sides(inputs):
    with pytest.raises(InputError) as caught:
        feed((IMAGE, MASK), inputs)
    assert caught.value.what == (
        f"the model takes image, mask, the dataset gives {', '.join(inputs)}"
    )


def test_a_batch_axis_of_one_takes_one_sample_at_a_time():
    assert is_fixed_to_one((IMAGE, MASK))
    assert not is_fixed_to_one((IMAGE,))
    assert not is_fixed_to_one((TensorSpec(name="s", dtype="float32", shape=()),))


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("x:1x3x8x8", TensorSpec(name="x", dtype="float32", shape=(None, 3, 8, 8))),
        ("ids:8x128:int64", TensorSpec(name="ids", dtype="int64", shape=(None, 128))),
        ("on:1:bool", TensorSpec(name="on", dtype="bool", shape=(None,))),
        ("a.b/c-0:1x2", TensorSpec(name="a.b/c-0", dtype="float32", shape=(None, 2))),
    ],
)
def test_a_described_input_is_a_spec_with_a_batch_axis(text, spec):
    assert parse_inputs([text]) == (spec,)


def test_several_inputs_keep_their_order():
    assert [spec.name for spec in parse_inputs(["b:1x2", "a:1x3"])] == ["b", "a"]
    assert parse_inputs([]) == ()


@pytest.mark.parametrize(
    "text",
    ["", "x", "x:", ":1x3", "x:1x", "x:axb", "x:-1x3", "x:1x3:float", "x:1x3:", "x:1 x 3",
     "x:1x" + "9" * 5000],
)  # fmt: skip
def test_an_input_that_cannot_be_read_shows_how_to_write_it(text):
    with pytest.raises(ModelError) as caught:
        parse_inputs([text])
    assert caught.value.what == f"--input does not understand '{text}'"
    assert "name:1x3x224x224" in caught.value.fix


@pytest.mark.parametrize("text", ["x:1x0", "x:1x16777217", "x:0x3"])
def test_sizes_out_of_range_are_refused(text):
    with pytest.raises(ModelError, match="sizes must be between 1 and 16777216"):
        parse_inputs([text])


@settings(max_examples=200, deadline=None)
@given(
    st.text()
    | st.from_regex(r"\A\w{0,3}:[\dx]{0,30}(:\w{0,7})?\Z")
    | st.builds("x:1x{}:{}".format, st.integers(), st.sampled_from(["int64", "bool", "int"]))
)
@example("x:" + "1" * 5000)
def test_any_text_gives_a_spec_or_a_model_error(text):
    try:
        (spec,) = parse_inputs([text])
    except ModelError:
        return
    assert spec.shape[0] is None
    assert all(size >= 1 for size in spec.shape[1:])


def test_the_shape_in_the_file_is_told_from_the_canonical_one():
    assert IMAGE.stored_shape == IMAGE.shape
    assert PHOTO.stored_shape == (None, 8, 8, 3)
    assert CLASSES.stored_shape == (None,)


def test_a_value_becomes_the_pixel_that_it_was_made_of():
    pixels = np.arange(2 * 8 * 8 * 3).reshape(2, 8, 8, 3).astype(np.uint8)
    values = pixels[..., ::-1] * [0.5, 0.25, 2.0] + [1.0, 0.0, -3.0]
    pixels_again = stored_input(PHOTO, values.transpose(0, 3, 1, 2).astype(np.float32))
    assert pixels_again.dtype == np.uint8
    assert pixels_again.flags.c_contiguous
    assert (pixels_again == pixels).all()


def test_values_are_rounded_and_clipped_to_pixels():
    spec = replace(IMAGE, pixels=Pixels(factor=(2.0,), offset=(-1.0,)))
    values = np.array([-9, -1, 0.1, 508, 509, 900], np.float32).reshape(1, 1, 1, 6)
    assert stored_input(spec, values).ravel().tolist() == [0, 0, 1, 254, 255, 255]


@given(
    mean=st.floats(0, 1),
    std=st.floats(0.05, 2),
    scale=st.sampled_from([1, 127.5, 255]),
)
def test_every_pixel_comes_back_from_its_float32_value(mean, std, scale):
    factor, offset = np.float32(1 / (scale * std)), np.float32(-mean / std)
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    values = pixels.astype(np.float32) * factor + offset
    baked = Pixels(factor=(float(factor),), offset=(float(offset),))
    assert (stored_input(replace(IMAGE, pixels=baked), values) == pixels).all()


def test_an_array_of_no_pixels_is_only_turned():
    array = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    assert stored_input(IMAGE, array) is array
    turned = replace(IMAGE, permutation=(0, 2, 3, 1))
    assert stored_input(turned, array).shape == (1, 3, 4, 2)
    assert (canonical_output(turned, stored_input(turned, array)) == array).all()


def test_the_index_of_a_class_becomes_ones_and_zeros():
    one_hot = canonical_output(CLASSES, np.array([2, 0]))
    assert one_hot.dtype == np.float32
    assert one_hot.tolist() == [[0, 0, 1, 0], [1, 0, 0, 0]]
