from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from workbench.quantization.core.activation_store import (
    HELD,
    ActivationStore,
    StoredBatches,
    affordable_memory,
)

BATCHES = [torch.full((2, 8), float(number)) for number in range(5)]  # 64 bytes each


@pytest.mark.parametrize("held", [0, 150, 10_000])
def test_batches_come_back_from_memory_and_from_files(held: int) -> None:
    with ActivationStore(held) as store:
        shelf = StoredBatches(store)
        for one in BATCHES:
            shelf.append(one.clone())
        shelf.replace(1, BATCHES[1] + 10)
        shelf.replace(4, BATCHES[4] + 10)
        assert len(shelf) == 5
        for found in (list(shelf), [shelf[place] for place in range(5)], shelf[0:5]):
            assert [float(one[0, 0]) for one in found] == [0, 11, 2, 3, 14]
        assert [float(one[0, 0]) for one in shelf[::-2]] == [14, 2, 0]


@pytest.mark.parametrize(("free", "held"), [(1 << 30, HELD), (16 << 30, 1 << 30)])
def test_a_machine_with_more_memory_holds_more(
    free: int, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = SimpleNamespace(available=free)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert affordable_memory() == held
    assert ActivationStore().left == held


def test_memory_is_kept_to_and_given_back() -> None:
    with ActivationStore(150) as store:
        shelf = StoredBatches(store)
        for one in BATCHES:
            shelf.append(one)
        assert store.left == 150 - 2 * 64
        folder = store.new_path().parent
        assert len(list(folder.glob("*.npy"))) == 3
        shelf.clear()
        assert (store.left, len(shelf), list(folder.glob("*.npy"))) == (150, 0, [])
        again = StoredBatches(store)
        again.append(BATCHES[0])
        assert store.left == 150 - 64
    assert not Path(folder).exists()
