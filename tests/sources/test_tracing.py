from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests import nets
from workbench.sources import tracing

EIGHT = nets.dataset_of(x=nets.normal(8, 8))


def places(module: nn.Module, dataset=EIGHT) -> tuple[str, ...]:
    return tracing.data_dependent_lines(nets.model_of(module, dataset))


class Reads(nn.Module):
    """Reads a value from its input in one of Python's ways."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        top = x.max()
        value = {
            "bool": lambda: bool(top > 1),
            "int": lambda: int(top * 100),
            "float": lambda: float(top),
            "item": lambda: 2 * top.item(),
            "list": lambda: sum(x[0].tolist()),
            "numpy": lambda: x.numpy().sum(),
            "array": lambda: np.asarray(x).sum(),
            "index": lambda: [1, 2, 3][(top > 1).long()],
            "equal": lambda: torch.equal(x.relu(), x),
            "contains": lambda: bool(0.0 in x.round()),
        }[self.how]()
        return x * float(value)


@pytest.mark.parametrize("how", ["bool", "int", "float", "item", "list", "numpy", "array", "index",
                                 "contains", "equal"])  # fmt: skip
def test_every_way_of_reading_a_value_is_seen_with_its_line(how: str) -> None:
    lines = places(Reads(how))
    assert lines, how
    assert lines[0].startswith("test_tracing.py:")
    assert "lambda" in lines[0]
    assert "top" in lines[0] or "x" in lines[0]


@pytest.mark.parametrize("kind", [nets.Mlp, nets.Constants, nets.Noisy, nets.Outputs])
def test_what_reads_nothing_from_its_data_may_be_traced(kind: type[nn.Module]) -> None:
    assert places(nets.build(kind)) == ()


def test_a_decision_that_no_sample_turns_is_found_by_samples_made_up() -> None:
    data = nets.dataset_of(x=np.abs(nets.normal(8, 8)))
    (line,) = places(nets.build(nets.Branching), data)
    assert line.endswith("(if x.mean() > 0:)")


class Guarded(nn.Module):
    """Refuses what it was not made for, as assertions in networks do."""

    def forward(self, x: Tensor) -> Tensor:
        if not bool(torch.isfinite(x).all()):
            raise ValueError("not finite")
        if float(x.abs().max()) > 20:
            raise ValueError("too large")
        return 2 * x


def test_a_refusal_of_made_up_inputs_is_no_end() -> None:
    # The largest element is read, and is another for each sample.
    assert len(places(Guarded())) == 1


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 4)

    def forward(self, ids: Tensor) -> Tensor:
        result: Tensor = self.table(ids).sum(1)
        return result * int(ids[0, 0])


def test_made_up_indices_stay_in_their_table() -> None:
    data = nets.dataset_of(ids=np.random.default_rng(0).integers(0, 50, (8, 6)))
    (line,) = places(nets.build(Tokens), data)
    assert "int(ids[0, 0])" in line


def test_a_long_line_is_shortened() -> None:
    line = places(Reads("bool"))[0]
    assert len(line) < 120


class Aware(nn.Module):
    """Takes a short way where its data allow it, and when traced the way that always holds."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.jit.is_tracing() and bool((x > 0).all()):
            return x
        return x.clamp(min=0)


def test_code_that_knows_that_it_is_traced_may_be() -> None:
    assert places(Aware()) == ()


class Refusing(nn.Module):
    """Cannot be traced: it returns what a trace has no type for."""

    def forward(self, x: Tensor) -> object:
        return {"value": x * float(x.max()), "name": "refusing"}


def test_of_what_cannot_be_traced_its_own_runs_tell() -> None:
    (line,) = places(Refusing())
    assert "float(x.max())" in line


def test_zeros_and_ones_are_swapped_to_find_a_decision_on_a_mask() -> None:
    class Masked(nn.Module):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return x if bool(mask.all()) else x * mask

    data = nets.dataset_of(x=nets.normal(8, 4), mask=np.ones((8, 4), np.int64))
    assert len(places(Masked(), data)) == 1
