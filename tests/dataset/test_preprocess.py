"""Preprocessing: numbers and layouts against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.dataset.preprocess import Preprocess
from workbench.errors import DatasetError

IMAGE = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def applied(array: np.ndarray, **options) -> np.ndarray:
    return Preprocess(**options)({"input": array}, "here")["input"]


def test_without_options_a_sample_is_left_as_it_is():
    assert applied(IMAGE) is IMAGE


@pytest.mark.parametrize(
    ("options", "reference"),
    [
        ({"scale": 255.0}, lambda x: x / 255),
        ({"scale": 255.0, "mean": MEAN, "std": STD}, lambda x: (x / 255 - MEAN) / STD),
        ({"mean": (127.5,), "std": (127.5,)}, lambda x: (x - 127.5) / 127.5),
        ({"mean": (104.0, 117.0, 123.0)}, lambda x: x - (104, 117, 123)),
        ({"std": (2.0,)}, lambda x: x / 2),
        ({"mean": (0.5,), "std": STD, "scale": 255.0}, lambda x: (x / 255 - 0.5) / STD),
    ],
)
def test_scale_comes_before_mean_and_std_in_float32(options, reference):
    array = applied(IMAGE, **options)
    assert array.dtype == np.float32
    np.testing.assert_allclose(array, reference(IMAGE.astype(np.float64)), rtol=1e-5, atol=1e-5)


@settings(max_examples=200, deadline=None)
@given(
    st.floats(0.01, 300),
    st.lists(st.floats(-200, 200), min_size=3, max_size=3),
    st.lists(st.floats(0.01, 100), min_size=3, max_size=3),
)
def test_the_arithmetic_is_that_of_numpy(scale, mean, std):
    array = applied(IMAGE, scale=scale, mean=tuple(mean), std=tuple(std))
    reference = (IMAGE / scale - mean) / std
    # One rounding of each term in float32: the larger term decides the error where they cancel.
    size = np.abs(IMAGE / scale / std) + np.abs(np.divide(mean, std))
    assert (np.abs(array - reference) <= 1e-6 * size + 1e-30).all()


def test_a_layout_moves_the_channels_and_keeps_the_dtype():
    planes = IMAGE.transpose(2, 0, 1)
    for stored, array in (("NHWC", IMAGE), ("NCHW", planes)):
        for options in ({}, {"stored": stored}):
            chw = applied(array, layout="NCHW", **options)
            hwc = applied(array, layout="NHWC", **options)
            np.testing.assert_array_equal(chw, planes)
            np.testing.assert_array_equal(hwc, IMAGE)
            assert chw.flags.c_contiguous
            assert chw.dtype == hwc.dtype == np.uint8


def test_arithmetic_alone_keeps_the_stored_layout():
    planes = np.ascontiguousarray(IMAGE.transpose(2, 0, 1))
    array = applied(planes, mean=(1.0, 2.0, 3.0))
    np.testing.assert_array_equal(array, planes - np.float32([1, 2, 3])[:, None, None])


@pytest.mark.parametrize(("layout", "shape"), [("NCHW", (1, 6, 8)), ("NHWC", (6, 8, 1))])
@pytest.mark.parametrize("stored", [None, "NHWC", "NCHW"])
def test_a_grey_image_of_two_dimensions_gets_its_channel(layout, shape, stored):
    array = applied(IMAGE[:, :, 0], layout=layout, stored=stored)
    np.testing.assert_array_equal(array, IMAGE[:, :, 0].reshape(shape))


@pytest.mark.parametrize("shape", [(3, 8, 3), (5, 6, 7), (4, 4, 4)])
def test_a_layout_that_cannot_be_told_must_be_given(shape):
    array = np.zeros(shape, np.float32)
    with pytest.raises(DatasetError) as caught:
        applied(array, layout="NCHW")
    assert str(shape) in caught.value.what
    assert "preprocess.stored" in caught.value.fix
    assert applied(array, layout="NCHW", stored="NHWC").shape == (shape[2], *shape[:2])


def test_only_the_inputs_named_are_touched():
    sample = {"image": IMAGE, "ids": np.arange(5)}
    preprocessed = Preprocess(scale=255.0, layout="NCHW", inputs=("image",))(sample, "here")
    assert preprocessed["image"].shape == (3, 6, 8)
    assert preprocessed["ids"] is sample["ids"]


@pytest.mark.parametrize("shape", [(5,), (), (2, 6, 8, 3)])
def test_what_is_no_image_is_named(shape):
    with pytest.raises(DatasetError) as caught:
        applied(np.zeros(shape), scale=2.0)
    assert caught.value.what.startswith("here: [preprocess] takes images of 3 dimensions")
    assert f"this has {len(shape)}" in caught.value.what
    assert "preprocess.inputs" in caught.value.fix


@pytest.mark.parametrize(
    "options",
    [
        {"mean": (1.0, 2.0)},
        {"std": (1.0, 2.0)},
        {"mean": (1.0, 2.0, 3.0, 4.0)},
        {"mean": (1.0, 2.0), "std": (1.0, 2.0, 3.0)},
    ],
)
def test_means_of_another_number_of_channels_are_refused(options):
    with pytest.raises(DatasetError, match=r"here: 3 channels, but preprocess\.mean and std have"):
        applied(IMAGE, **options)
