"""Dataset files of any content: a dataset, or an error that says what is wrong."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from workbench.dataset import load
from workbench.errors import DatasetError

NUMPY = 'source = "numpy"\npath = "rows.npy"\nlabels = "labels.npy"\n'

HUGE = ["9" * 400, "-" + "9" * 400, f"0x{'f' * 5000}", "9223372036854775808"]
PLACES = [
    "rows.npy", "labels.npy", "pack.npz", "images", "flat", "labels.csv", "make.py:rows",
    "make.py:gone", "make.py", "..", "x", "y", "input", "a\0b", "~nobody-here/x.py:f", "a" * 9000,
    "numpy", "python", "NCHW", "NHWC", "BGR", "L", "json.decoder:JSONDecodeError", ".:x",
]  # fmt: skip
TOP = ["source", "path", "labels", "inputs", "factory", "arguments", "metric", "preprocess",
       "split", "calibration", '"a b"', "x.y"]  # fmt: skip
PREPROCESS = ["resize", "crop", "channels", "scale", "mean", "std", "layout", "stored", "inputs"]
BASES = [
    {"source": '"numpy"', "path": '"rows.npy"', "labels": '"labels.npy"'},
    {"source": '"numpy"', "path": '"pack.npz"'},
    {"source": '"numpy"', "inputs": '{ a = "rows.npy" }'},
    {"source": '"images"', "path": '"images"'},
    {"source": '"images"', "path": '"flat"', "labels": '"labels.csv"'},
    {"source": '"python"', "factory": '"make.py:rows"'},
    {},
]
PLAIN = ["nan", "-inf", "1e999", "-0.0", "0", "-1", "1", "2.5", "true", "1979-05-27", "[1, 2, 3]"]


def quoted(text: str) -> str:
    return '"' + "".join(c if c.isalnum() else f"\\U{ord(c):08x}" for c in text) + '"'


VALUES = st.recursive(
    st.sampled_from([*PLAIN, *HUGE])
    | st.integers().map(str)
    | st.floats().map(str)
    | st.sampled_from(PLACES).map(quoted)
    | st.text().map(quoted),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]")
        | st.tuples(st.sampled_from(TOP), inner).map(lambda pair: f"{{ {pair[0]} = {pair[1]} }}")
    ),
    max_leaves=6,
)


def tables(keys):
    return st.dictionaries(st.sampled_from(keys), VALUES, max_size=2)


def document(base, top, preprocess, part, options, header) -> str:
    """A base with some of its keys replaced, at the top of the file or as a part of its own."""
    source = "\n".join(f"{key} = {value}" for key, value in {**base, **top}.items())
    tail = "\n".join(f"{key} = {value}" for key, value in preprocess.items())
    split = "\n".join(f"{key} = {value}" for key, value in options.items())
    lines = [source, f"[{part}]", split] if part == "split" else [f"[{part}]", source]
    return "\n".join([*lines, "[preprocess]", tail, header])


def survives(folder, data: bytes) -> None:
    (folder / "any.toml").write_bytes(data)
    try:
        dataset = load(str(folder / "any.toml"))
        dataset.check()
        for split in (dataset.calibration, dataset.evaluation):
            for _ in split.batches(4) if split else ():
                pass
    except DatasetError as error:
        assert len(str(error)) < 60_000


@settings(max_examples=150, deadline=None)
@given(st.binary() | st.text().map(str.encode))
@example(f"source{'.a' * 5000} = 1".encode())
@example(b"source = " + b"[" * 5000)
def test_any_bytes_are_a_dataset_or_a_dataset_error(folder, data):
    survives(folder, data)


@settings(max_examples=400, deadline=None)
@given(
    st.builds(
        document,
        st.sampled_from(BASES),
        tables(TOP),
        tables(PREPROCESS),
        st.sampled_from(["split", "split", "calibration", "evaluation"]),
        st.just({"calibration": "1"})
        | tables(["calibration", "evaluation", "seed"]).map({"calibration": "1"}.__or__),
        st.just("") | st.sampled_from(["[evaluation]", "[[source]]", "[x]"]),
    )
)
@example(f"{NUMPY}[preprocess]\nmean = {HUGE[0]}")
@example(f"{NUMPY}[preprocess]\ninputs = [{HUGE[2]}]")
@example(f"{NUMPY}[split]\ncalibration = {HUGE[2]}")
@example(f"source = {HUGE[2]}")
@example(f"path = {HUGE[2]}\nsource = 'numpy'")
@example(f"{NUMPY}[preprocess]\nlayout{'.a' * 5000} = 1")
def test_any_document_is_a_dataset_or_a_dataset_error(folder, text):
    survives(folder, text.encode())
