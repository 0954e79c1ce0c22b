"""The processes that scoring borrows: what goes back to the pool, and what is run at all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests import nets
from workbench.artifact import Artifact
from workbench.errors import WorkbenchError
from workbench.measure.host import accuracies
from workbench.model import ModelSource
from workbench.worker_pool import Pool

pytestmark = pytest.mark.process

DATASET = replace(
    nets.dataset_of(x=nets.normal(8, 8)),
    evaluation=nets.split_of("evaluation", x=nets.normal(6, 8)),
)


@pytest.fixture(scope="module")
def mlp(tmp_path_factory) -> Artifact:
    return nets.exported(tmp_path_factory.mktemp("mlp"), nets.build(nets.Mlp), DATASET)


@pytest.fixture
def pool():
    made = Pool()
    yield made
    made.close()


def scored(targets, pool, **more):
    return accuracies(targets, "one", DATASET, pool, lambda *_: None, **more)


def test_processes_go_back_to_the_pool_and_serve_again(mlp, pool):
    pool.call("warm", ("numpy",))
    first = set(pool._idle)
    started = []
    for _ in range(2):
        found = scored({"one": mlp, "two": mlp}, pool)
        assert found["two"].noise.tolist() == [0.0] * 6
        assert len(pool._idle) == 2
        started.append(set(pool._idle))
    assert first < started[0] == started[1]


def test_a_process_whose_target_failed_does_not_go_back(mlp, pool, tmp_path):
    pool.call("warm", ("numpy",))  # which the first target gets
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no graph")
    found = scored({"bad": replace(mlp, path=broken), "one": mlp}, pool)
    assert isinstance(found["bad"], WorkbenchError)
    assert len(found["one"]) == 6
    (kept,) = pool._idle
    assert "infer" in kept.jobs  # the one whose file opened


def test_a_reference_whose_outputs_are_known_is_not_run(mlp, pool):
    kept = []
    wanted = scored({"one": mlp, "two": mlp}, pool, observe=lambda made: kept.append(made["one"]))
    outputs = np.concatenate([made[0] for made in kept])
    found = scored(
        {"one": ModelSource(spec="nowhere.py:build"), "two": mlp},
        pool,
        known=lambda batch: [outputs[batch.start : batch.start + len(batch)]],
    )
    assert found["two"].to_json() == wanted["two"].to_json()
