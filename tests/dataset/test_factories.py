"""The python source: the forms a user's factory may give its samples in, and what may fail."""

from __future__ import annotations

import numpy as np
import pytest

from workbench.dataset import Dataset, load
from workbench.errors import DatasetError

ROWS = np.arange(24, dtype=np.float32).reshape(6, 4)
LABELS = np.array([0, 1, 2, 0, 1, 2])

FACTORIES = """
import numpy as np
X, Y = np.arange(24, dtype=np.float32).reshape(6, 4), np.array([0, 1, 2, 0, 1, 2])

class Items:
    def __init__(self, made): self.made = made
    def __len__(self): return 6
    def __getitem__(self, index): return self.made(index)

def array(): return X
def pair(): return X, Y
def named(): return {"a": X, "b": Y}
def named_pair(): return {"a": X, "b": Y}, Y
def items(): return Items(lambda i: X[i])
def labelled(): return Items(lambda i: (X[i], Y[i]))
def labelled_dicts(): return Items(lambda i: ({"a": X[i], "b": Y[i]}, int(Y[i])))
def counted(count, scale=1): return X[:count] * scale
def failing(): raise OSError("no such camera")
def leaving(): raise SystemExit(0)
def generator(): return (x for x in X)
def nothing(): return None
def no_arrays(): return {}
def ragged(): return {"a": [[1, 2], [3]]}
def single(): return np.float32(3) + np.zeros(())
def texts(): return np.array(["a", "b"])
def objects(): return np.array([{}, {}], dtype=object)
def broken(): return Items(lambda i: X[i] if i < 4 else 1 // 0)
def empty(): return X[:0]
def other_names(): return Items(lambda i: {"a" if i < 4 else "b": X[i]})
"""


def read(folder, name: str, rest: str = "") -> Dataset:
    (folder / "make.py").write_text(FACTORIES)
    (folder / "mine.toml").write_text(
        f'[evaluation]\nsource = "python"\nfactory = "make.py:{name}"\n{rest}\n'
    )
    return load(str(folder / "mine.toml"))


@pytest.mark.parametrize(
    ("name", "inputs", "labels"),
    [
        ("array", ["input"], False),
        ("pair", ["input"], True),
        ("named", ["a", "b"], False),
        ("named_pair", ["a", "b"], True),
        ("items", ["input"], False),
        ("labelled", ["input"], True),
        ("labelled_dicts", ["a", "b"], True),
    ],
)
def test_a_factory_may_give_arrays_or_an_object_of_samples(tmp_path, name, inputs, labels):
    samples = next(read(tmp_path, name).evaluation.batches(100))
    assert list(samples.inputs) == inputs
    np.testing.assert_array_equal(samples.inputs[inputs[0]], ROWS)
    assert (samples.labels.tolist() == LABELS.tolist()) if labels else (samples.labels is None)


def test_arguments_are_passed_to_the_factory(tmp_path):
    split = read(tmp_path, "counted", "arguments = { count = 2, scale = 3 }").evaluation
    np.testing.assert_array_equal(next(split.batches(9)).inputs["input"], 3 * ROWS[:2])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("failing", "make.py:failing failed\n  why: OSError: no such camera"),
        ("leaving", "make.py:leaving failed\n  why: SystemExit: 0"),
        ("counted", "make.py:counted failed\n  why: TypeError"),
        ("generator", "gave a generator"),
        ("nothing", "gave a NoneType"),
        ("no_arrays", "has no arrays"),
        ("ragged", "make.py:ragged"),
        ("single", "make.py:single"),
        ("texts", "make.py:texts"),
        ("objects", "make.py:objects"),
        ("broken", "make.py:broken, sample 4 cannot be read\n  why: ZeroDivisionError"),
        ("empty", "[evaluation] has no samples"),
        ("other_names", "make.py:other_names, sample 4 has inputs b, others a"),
        ("gone", "has no 'gone'"),
    ],
)
def test_a_factory_that_fails_or_gives_something_else_is_named(tmp_path, name, words):
    with pytest.raises(DatasetError) as caught:
        for _ in read(tmp_path, name).evaluation.batches(4):
            pass
    assert words in str(caught.value)
