"""Images: which files, which labels, and pixels equal to an independent computation."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from workbench.dataset import load
from workbench.dataset.images import Images
from workbench.dataset.preprocess import Preprocess
from workbench.errors import DatasetError


def pixels(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def save(path, width=12, height=10, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(width, height, seed)).save(path)
    return path


def only(folder, **options) -> np.ndarray:
    """The one sample of a folder with one image."""
    images = Images(folder, Preprocess(**options))
    assert len(images) == 1
    return images.sample(0)["input"]


def test_a_folder_per_class_numbers_the_classes_in_sorted_order(tmp_path):
    for number, name in enumerate(["dog/b.png", "dog/a.jpg", "cat/z.png", "eel/c.PNG"]):
        save(tmp_path / name, seed=number)
    (tmp_path / "dog/notes.txt").write_text("no image")
    images = Images(tmp_path, Preprocess())
    assert [images.where(i) for i in range(len(images))] == [
        str(tmp_path / name) for name in ("cat/z.png", "dog/a.jpg", "dog/b.png", "eel/c.PNG")
    ]
    assert images.labels.tolist() == [0, 1, 1, 2]
    np.testing.assert_array_equal(images.sample(0)["input"], pixels(12, 10, 2))


def test_hidden_folders_are_no_classes(tmp_path):
    save(tmp_path / "cat/a.png")
    save(tmp_path / ".thumbnails/a.png")
    images = Images(tmp_path, Preprocess())
    assert (len(images), images.labels.tolist()) == (1, [0])


def test_a_flat_folder_has_no_labels(tmp_path):
    for name in ("b.png", "a.png"):
        save(tmp_path / name)
    images = Images(tmp_path, Preprocess())
    assert [path.name for path in images.files] == ["a.png", "b.png"]
    assert images.labels is None


@pytest.mark.parametrize("header", ["", "file,label\n", "\ufefffile,label\n"])
@pytest.mark.parametrize(
    ("rows", "labels"),
    [
        ("b.png,7\na.png,3\n\nc.png, 0\n", [7, 3, 0]),
        ("b.png,dog\na.png,cat\nc.png,dog\n", [1, 0, 1]),
    ],
)
def test_a_csv_gives_files_in_its_order_with_their_labels(tmp_path, header, rows, labels):
    for name in "abc":
        save(tmp_path / f"images/{name}.png")
    (tmp_path / "labels.csv").write_text(header + rows, encoding="utf-8")
    images = Images(tmp_path / "images", Preprocess(), tmp_path / "labels.csv")
    assert [path.name for path in images.files] == ["b.png", "a.png", "c.png"]
    assert images.labels.tolist() == labels
    assert images.labels.dtype == np.int64


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.png,1\ngone.png,2\n", "line 2 names gone.png, which is not in"),
        ("gone.png,2\na.png,1\n", "line 1 names gone.png, which is not in"),
        ("\n\nfile,label\n\na.png,1\nb\n", "line 6 has no label"),
        ("file,label\na.png,1\ngone.png,2\n", "line 3 names gone.png, which is not in"),
        ("a.png\n", "line 1 has no label"),
        ("a.png,-1\n", "line 1: -1 is no number of a class"),
        (f"a.png,{'9' * 30}\n", "line 1: 99999999999999999999 is no number of a class"),
        (f"a.png,{'9' * 5000}\n", "line 1: 99999999999999999999 is no number of a class"),
        ("", "has no images"),
        ("file,label\n", "has no images"),
    ],
)
def test_a_wrong_csv_names_the_row(tmp_path, text, words):
    save(tmp_path / "images/a.png")
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(DatasetError) as caught:
        Images(tmp_path / "images", Preprocess(), tmp_path / "labels.csv")
    assert words in caught.value.what


def test_absent_and_empty_folders_are_errors(tmp_path):
    with pytest.raises(DatasetError, match="there is no folder"):
        Images(tmp_path / "gone", Preprocess())
    with pytest.raises(DatasetError, match="has no images"):
        Images(tmp_path, Preprocess())
    with pytest.raises(DatasetError, match="cannot be read as CSV"):
        Images(tmp_path, Preprocess(), tmp_path / "gone.csv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("images")


@settings(max_examples=150, deadline=None)
@given(
    data=st.text().map(str.encode)
    | st.binary()
    | st.lists(
        st.tuples(
            st.sampled_from(["a.png", "", "\0", "x" * 300, "file", "x.png"]), st.text(max_size=5)
        ).map(",".join)
    ).map(lambda rows: "\n".join(rows).encode())
)
def test_any_csv_gives_labels_or_a_dataset_error(folder, data):
    save(folder / "files/a.png")
    (folder / "labels.csv").write_bytes(data)
    (folder / "set.toml").write_text(
        '[evaluation]\nsource = "images"\npath = "files"\nlabels = "labels.csv"'
    )
    try:
        split = load(str(folder / "set.toml")).evaluation
    except DatasetError:
        return
    assert len(split.labels) == len(split) > 0


@pytest.mark.parametrize("size", [(12, 10), (10, 12), (31, 7), (9, 9)])
@pytest.mark.parametrize("resize", [6, 8, 20])
def test_resizing_takes_the_shorter_side_and_floors_the_longer(tmp_path, size, resize):
    save(tmp_path / "a.png", *size)
    short, long = min(size), max(size)
    other = resize * long // short
    expected = (resize, other) if size[0] == short else (other, resize)
    reference = Image.fromarray(pixels(*size)).resize(expected, Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(only(tmp_path, resize=resize), np.asarray(reference))


@pytest.mark.parametrize(
    ("size", "crop", "left", "top"),
    [((12, 10), 6, 3, 2), ((12, 10), 10, 1, 0), ((10, 10), 10, 0, 0), ((13, 9), 4, 4, 2)],
)
def test_cropping_takes_the_centre(tmp_path, size, crop, left, top):
    save(tmp_path / "a.png", *size)
    reference = pixels(*size)[top : top + crop, left : left + crop]
    np.testing.assert_array_equal(only(tmp_path, crop=crop), reference)


def test_resizing_comes_before_cropping(tmp_path):
    save(tmp_path / "a.png", 20, 10)
    reference = np.asarray(Image.fromarray(pixels(20, 10)).resize((16, 8), 2))[1:7, 5:11]
    np.testing.assert_array_equal(only(tmp_path, resize=8, crop=6), reference)


def test_channels_are_ordered_or_made_grey(tmp_path):
    save(tmp_path / "a.png")
    rgb = pixels(12, 10)
    np.testing.assert_array_equal(only(tmp_path, channels="BGR"), rgb[:, :, ::-1])
    grey = np.rint(rgb @ np.array([0.299, 0.587, 0.114]))
    array = only(tmp_path, channels="L")
    assert array.shape == (10, 12, 1)
    assert np.abs(array[:, :, 0] - grey).max() <= 1


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK"])
def test_images_of_other_modes_become_rgb(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.fromarray(pixels(12, 10)).convert(mode).save(path)
    reference = Image.open(path).convert("RGB")
    np.testing.assert_array_equal(only(tmp_path), np.asarray(reference))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, suffix):
    values = np.uint16([[0, 128, 129], [256, 32768, 65535]])
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    expected = np.round(values / 257).astype(np.uint8)
    np.testing.assert_array_equal(only(tmp_path, channels="L")[:, :, 0], expected)
    np.testing.assert_array_equal(only(tmp_path), np.repeat(expected[:, :, None], 3, 2))


@pytest.mark.parametrize(("dtype", "word"), [(np.float32, "floats"), (np.int32, "integers")])
def test_pixels_whose_white_is_not_known_are_refused(tmp_path, dtype, word):
    Image.fromarray(np.ones((3, 4), dtype)).save(tmp_path / "a.tif")
    with pytest.raises(DatasetError, match=f"{word} of 32 bits") as caught:
        only(tmp_path)
    assert "numpy source" in caught.value.fix


def test_a_crop_larger_than_the_image_names_both(tmp_path):
    path = save(tmp_path / "a.png")
    with pytest.raises(DatasetError) as caught:
        only(tmp_path, crop=11)
    assert caught.value.what == f"{path} is 12x10, smaller than preprocess.crop = 11"
    assert "preprocess.resize" in caught.value.fix


def bomb(path) -> None:
    """A PNG that says it is 30000 x 30000."""
    head = struct.pack(">II5B", 30000, 30000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT")


@pytest.mark.parametrize("damage", ["text", "empty", "half", "bomb", "folder"])
def test_an_image_that_cannot_be_read_is_named(tmp_path, damage):
    path = save(tmp_path / "a.png")
    match damage:
        case "text":
            path.write_text("this is no image")
        case "empty":
            path.write_bytes(b"")
        case "half":
            path.write_bytes(path.read_bytes()[:150])
        case "bomb":
            bomb(path)
        case "folder":
            path.unlink()
            (tmp_path / "class/a.png").mkdir(parents=True)
    with pytest.raises(DatasetError) as caught:
        only(tmp_path)
    assert "a.png cannot be read as an image" in caught.value.what
    assert caught.value.why
    assert "mend or remove" in caught.value.fix


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=200, deadline=None)
@given(
    form=st.sampled_from(["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP"]),
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=12
    ),
    kept=st.floats(0, 1),
)
def test_a_mangled_image_gives_pixels_or_a_dataset_error(form, changes, kept, folder):
    path = folder / "mangled/a.png"
    path.parent.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    Image.fromarray(pixels(12, 10)).save(buffer, form)
    data = bytearray(buffer.getvalue())
    for position, value in changes:
        # Most of what decides how a file is read stands at its start.
        data[int(position**3 * len(data))] = value
    path.write_bytes(data[: max(1, int(len(data) * (0.2 + kept)))])
    try:
        array = only(path.parent, resize=8)
    except DatasetError:
        return
    assert array.dtype == np.uint8
    assert array.ndim == 3


def test_the_identity_is_the_files_content(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "b.png")
    save(tmp_path / "c.png", seed=1)
    images = Images(tmp_path, Preprocess())
    assert images.identity(0) == images.identity(1) != images.identity(2)
