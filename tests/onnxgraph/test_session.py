"""Sessions of the workbench's own: any form of a model, and this process's share of the cores."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from workbench.onnxgraph.session import working_session

GRAPH = onnx.parser.parse_graph(
    "g (float[2] x) => (float[2] y) { one = Identity(x) two = Neg(one) y = Neg(two) }"
)
MODEL = onnx.helper.make_model(
    GRAPH, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
)


@pytest.mark.parametrize("optimized", [True, False])
def test_a_model_a_file_and_bytes_give_the_same(tmp_path, optimized):
    path = tmp_path / "model.onnx"
    onnx.save(MODEL, path)
    x = np.array([1, -2], np.float32)
    for given in (MODEL, path, path.read_bytes()):
        (found,) = working_session(given, optimized=optimized).run(None, {"x": x})
        assert found.tolist() == [1, -2]


@pytest.mark.parametrize(
    ("told", "asked", "threads"), [("3", 0, 3), ("3", 2, 2), ("", 0, 0), ("4,2", 0, 0)]
)
def test_threads_are_those_that_the_process_may_have(monkeypatch, told, asked, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    options = working_session(MODEL, threads=asked).get_session_options()
    assert options.intra_op_num_threads == threads
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
