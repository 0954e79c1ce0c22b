"""Arrays: `.npy` and `.npz` files, mapped and not loaded, and users' factories."""

from __future__ import annotations

import pickle
import resource
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.dataset import Dataset, load
from workbench.errors import DatasetError

ROWS = np.arange(24, dtype=np.float32).reshape(6, 4)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def read(folder, body: str) -> Dataset:
    (folder / "mine.toml").write_text(f"[evaluation]\n{body}\n")
    return load(str(folder / "mine.toml"))


def refused(folder, body: str) -> DatasetError:
    with pytest.raises(DatasetError) as caught:
        for _ in read(folder, body).evaluation.batches(4):
            pass
    return caught.value


def batch(dataset: Dataset):
    return next(dataset.evaluation.batches(100))


@pytest.fixture
def files(tmp_path):
    np.save(tmp_path / "rows.npy", ROWS)
    np.save(tmp_path / "labels.npy", LABELS)
    np.savez(tmp_path / "pack.npz", x=ROWS, ids=LABELS.astype(np.int32), y=LABELS)
    np.savez_compressed(tmp_path / "small.npz", x=ROWS)
    return tmp_path


def test_an_npy_file_is_mapped_and_not_loaded(files):
    dataset = read(files, 'source = "numpy"\npath = "rows.npy"\nlabels = "labels.npy"')
    array = dataset.evaluation.source.arrays["input"]
    assert isinstance(array, np.memmap)
    assert array.mode == "r"
    np.testing.assert_array_equal(batch(dataset).inputs["input"], ROWS)
    np.testing.assert_array_equal(batch(dataset).labels, LABELS)


def test_an_npz_gives_all_its_arrays_but_the_labels_mapped(files):
    dataset = read(files, 'source = "numpy"\npath = "pack.npz"\nlabels = "y"')
    assert all(isinstance(array, np.memmap) for array in dataset.evaluation.source.arrays.values())
    inputs = batch(dataset).inputs
    assert list(inputs) == ["x", "ids"]
    assert (inputs["x"].dtype, inputs["ids"].dtype) == (np.float32, np.int32)
    np.testing.assert_array_equal(inputs["ids"], LABELS)
    np.testing.assert_array_equal(dataset.evaluation.labels, LABELS)


def test_a_compressed_npz_is_read(files):
    dataset = read(files, 'source = "numpy"\npath = "small.npz"')
    np.testing.assert_array_equal(batch(dataset).inputs["x"], ROWS)
    assert dataset.evaluation.labels is None


@pytest.mark.parametrize(
    ("inputs", "names"),
    [('["ids"]', ["ids"]), ('{ image = "x" }', ["image"]), ('{ b = "ids", a = "x" }', ["b", "a"])],
)
def test_arrays_of_an_npz_are_chosen_and_renamed(files, inputs, names):
    dataset = read(files, f'source = "numpy"\npath = "pack.npz"\ninputs = {inputs}')
    assert list(batch(dataset).inputs) == names


def test_each_input_may_be_a_file_of_its_own(files):
    dataset = read(
        files,
        'source = "numpy"\ninputs = { a = "rows.npy", b = "labels.npy" }\nlabels = "labels.npy"',
    )
    assert [str(spec) for spec in dataset.inputs] == ["a: float32[?x4]", "b: int64[?]"]
    np.testing.assert_array_equal(batch(dataset).inputs["b"], LABELS)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "int64", "bool", "float16", "float64"])
def test_the_dtype_stays_as_stored(tmp_path, dtype):
    np.save(tmp_path / "rows.npy", ROWS.astype(dtype))
    dataset = read(tmp_path, 'source = "numpy"\npath = "rows.npy"')
    assert batch(dataset).inputs["input"].dtype == dtype
    assert dataset.inputs[0].dtype == dtype


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('path = "gone.npy"', "there is no file"),
        ('path = "gone.npz"', "there is no file"),
        ('path = "rows.npy"\nlabels = "gone.npy"', "there is no file"),
        ('path = "pack.npz"\ninputs = ["z"]', "has no array 'z'"),
        ('path = "pack.npz"\nlabels = "z"', "has no array 'z'"),
        ('path = "pack.npz"\ninputs = 3', "inputs must be a table or a list of names"),
        ('path = "pack.npz"\ninputs = { x = 3 }', "inputs must be a table or a list of names"),
        ('path = "rows.npy"\nlabels = "short.npy"', "arrays of different lengths"),
        ('inputs = { a = "rows.npy", b = "short.npy" }', "arrays of different lengths"),
        ('path = "negative.npy"\nlabels = "negative.npy"', "labels out of range"),
        ('path = "text.npz"', "has no arrays"),
        ('path = "mixed.npz"\ninputs = ["readme.txt"]', "no array 'readme.txt'\n  why: it has x"),
        ('path = "none.npy"', "[evaluation] has no samples"),
        ('path = "empty.npz"', "has no arrays"),
        ('path = "scalar.npy"', "scalar.npy"),
        ('path = "zipped.npy"', "cannot be read as .npy"),
        ('path = "rows.npy"\ninputs = ["x"]', "inputs"),
        ("inputs = {}", "needs 'path'"),
    ],
)
def test_what_cannot_be_right_is_named(files, body, words):
    np.save(files / "short.npy", LABELS[:3])
    np.save(files / "negative.npy", LABELS - 1)
    np.save(files / "scalar.npy", np.float32(3))
    np.savez(files / "empty.npz")
    (files / "zipped.npy").write_bytes((files / "pack.npz").read_bytes())
    np.save(files / "none.npy", ROWS[:0])
    np.savez(files / "mixed.npz", x=ROWS)
    for name, mode in (("mixed.npz", "a"), ("text.npz", "w")):
        with zipfile.ZipFile(files / name, mode) as archive:
            archive.writestr("readme.txt", "hello")
    assert words in str(refused(files, f'source = "numpy"\n{body}'))


@pytest.mark.parametrize("name", ["objects.npy", "objects.npz"])
def test_pickled_objects_are_refused(tmp_path, name):
    objects = np.array([{"a": 1}, None], dtype=object)
    (np.save if name.endswith("npy") else np.savez)(tmp_path / name, objects, allow_pickle=True)
    error = refused(tmp_path, f'source = "numpy"\npath = "{name}"')
    assert "cannot be read as .npy" in error.what
    assert "objects" in error.why.lower()


class Touching:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickle_called_npy_is_refused_and_never_run(tmp_path):
    (tmp_path / "evil.npy").write_bytes(pickle.dumps(Touching(tmp_path / "touched")))
    error = refused(tmp_path, 'source = "numpy"\npath = "evil.npy"')
    assert "evil.npy cannot be read as .npy" in error.what
    assert not (tmp_path / "touched").exists()
    pickle.loads((tmp_path / "evil.npy").read_bytes())
    assert (tmp_path / "touched").exists(), "or this test shows nothing"


@pytest.mark.parametrize("name", ["rows.npy", "pack.npz", "small.npz"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.97])
def test_a_truncated_file_is_named(files, name, kept):
    path = files / name
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    assert f"{name} cannot be read as" in refused(files, f'source = "numpy"\npath = "{name}"').what


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(["rows.npy", "pack.npz", "small.npz"]),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
)
def test_a_mangled_file_gives_samples_or_a_dataset_error(tmp_path_factory, name, changes):
    folder = tmp_path_factory.getbasetemp() / "mangled-arrays"
    if not folder.exists():
        folder.mkdir()
        np.save(folder / "rows.npy", ROWS)
        np.savez(folder / "pack.npz", x=ROWS, y=LABELS)
        np.savez_compressed(folder / "small.npz", x=ROWS)
    data = bytearray((folder / name).read_bytes())
    for position, value in changes:
        data[int(position * len(data))] = value
    (folder / f"mangled-{name}").write_bytes(data)
    try:
        dataset = read(folder, f'source = "numpy"\npath = "mangled-{name}"')
        assert sum(map(len, dataset.evaluation.batches(4))) == len(dataset.evaluation)
    except DatasetError as error:
        assert error.what


def peak(folder, samples: int) -> int:
    """Bytes held at most while the whole of an `.npy` of so many samples is streamed."""
    shape = (samples, 3, 64, 64)
    np.lib.format.open_memmap(folder / "rows.npy", "w+", np.uint8, shape).flush()
    tracemalloc.start()
    try:
        for batch in read(folder, 'source = "numpy"\npath = "rows.npy"').evaluation.batches(16):
            assert batch.inputs["input"].nbytes == 16 * 3 * 64 * 64
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_number_of_samples(tmp_path):
    peak(tmp_path, 16)
    assert peak(tmp_path, 1024) < 1.3 * peak(tmp_path, 64)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc/self/statm")
def test_the_pages_of_a_mapped_file_are_given_back(tmp_path):
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    shape = (64 * 32, 3, 64, 64)
    np.lib.format.open_memmap(tmp_path / "rows.npy", "w+", np.uint8, shape).flush()
    split = read(tmp_path, 'source = "numpy"\npath = "rows.npy"').evaluation
    before = resident()
    grown = max(resident() - before for _ in split.batches(16))
    assert grown < 8e6 < (tmp_path / "rows.npy").stat().st_size / 3
