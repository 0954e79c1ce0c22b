"""What both runners do alike: outputs as in this package's own sessions, times, refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.device.native import models
from tests.device.native.runners import Runner, normal
from tests.inspect.files import graph, save_onnx
from workbench import inspect
from workbench.artifact import Artifact
from workbench.device.bundle import bundle
from workbench.device.runner_plan import parse_answer
from workbench.device.session import infer_each, open_session
from workbench.inspect import artifacts
from workbench.measure.operator_times import operator_times

pytestmark = pytest.mark.process

ROWS = 5


def model_files(folder: Path) -> dict[str, Path]:
    return {
        "float.onnx": models.onnx_float(folder),
        "int8.onnx": models.onnx_int8(folder),
        "float.ort": models.ort_file(folder),
        "float32.tflite": models.tflite(folder),
        "int8.tflite": models.tflite(folder, "int8"),
    }


@pytest.mark.parametrize(
    "name", ["float.onnx", "int8.onnx", "float.ort", "float32.tflite", "int8.tflite"]
)
def test_outputs_are_those_of_the_packages_own_sessions(
    name: str, runner: Runner, tmp_path: Path
) -> None:
    artifact: Artifact = artifacts.open_artifact(model_files(tmp_path)[name])
    inputs = {artifact.inputs[0].name: normal(ROWS, 8)}
    made = bundle(artifact, inspect.read(artifact.path), inputs, ROWS, tmp_path)
    (tmp_path / "inputs").write_bytes(made.data)
    likely = runner.plan(artifact.path, {"x": normal(1)})
    plan = replace(
        made.plan, library=likely.library, model=str(made.model), inputs=likely.inputs,
        outputs=likely.outputs, limit=60,
    )  # fmt: skip
    (tmp_path / "inputs").write_bytes(made.data)
    (found,) = made.canonical(runner.outputs(plan))
    (wanted,) = infer_each(open_session(artifact, 1), inputs)
    assert found.shape == (ROWS, 6)
    assert found.dtype == wanted.dtype
    assert np.abs(wanted).max() > 1
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_inputs_and_outputs_are_taken_by_name(runner: Runner, tmp_path: Path) -> None:
    model = models.onnx_of_many(tmp_path)
    k = np.arange(4, dtype=np.int64)
    a, b = normal(4, 3), normal(4, 3, seed=1)
    wanted = ("next", "sum", "positive")  # of four, in an order of its own
    plan = runner.plan(model, {"k": k, "b": b, "a": a}, *wanted, threads=2)
    more, total, positive = runner.outputs(plan)
    np.testing.assert_array_equal(more, k + 1)
    np.testing.assert_allclose(total, a + b, rtol=1e-6)
    np.testing.assert_array_equal(positive, a > 0)
    assert more.dtype == np.int64
    assert positive.dtype == np.bool_


def test_an_output_may_have_another_shape_each_time(runner: Runner, tmp_path: Path) -> None:
    a = np.array([[1, -1, -1], [1, 1, -1]], np.float32)
    plan = runner.plan(
        models.onnx_of_many(tmp_path), {"a": a, "b": a, "k": np.zeros(2, np.int64)}, "places"
    )
    answer = runner(plan)
    assert answer.code == 0, answer
    sizes = [24 + 12 + 2 * 8 * count for count in (1, 2)]
    assert Path(plan.outputs).stat().st_size == sum(sizes)


@pytest.mark.parametrize("signed", [False, True])
def test_tflite_tensors_are_taken_by_name(signed: bool, runner: Runner, tmp_path: Path) -> None:
    model = models.tflite_of_three(tmp_path, signed)
    a, b = normal(4, 3), normal(4, 3, seed=1)
    ids = np.arange(8, dtype=np.int32)  # [2] of each sample
    plan = runner.plan(
        model, {"second:0": b, "ids:0": ids, "first:0": a}, "out:2", "out:0", "out:1", samples=4
    )
    twice, difference, double = runner.outputs(plan)
    np.testing.assert_array_equal(twice, 2 * ids)
    np.testing.assert_allclose(difference, a - b, rtol=1e-6)
    np.testing.assert_allclose(double, 2 * b, rtol=1e-6)


def test_tflite_tensors_are_taken_by_their_signatures_names(runner: Runner, tmp_path: Path) -> None:
    model = models.tflite_of_three(tmp_path, signed=True)
    a, b = normal(1, 3), normal(1, 3, seed=1)
    inputs = {"left": a, "right": b, "ids": np.zeros(2, np.int32)}
    (difference,) = runner.outputs(runner.plan(model, inputs, "minus"))
    np.testing.assert_allclose(difference, a - b, rtol=1e-6)


def test_a_batch_that_is_open_may_be_any(runner: Runner, tmp_path: Path) -> None:
    onnx, flat = models.onnx_float(tmp_path), models.tflite_open(tmp_path)
    x = normal(6, 8)
    plan = runner.plan(onnx, {"x": x}, "y", samples=2)
    assert plan.tensors[0][2] == (3, 8)
    (y,) = runner.outputs(plan)
    np.testing.assert_allclose(y, np.maximum(x @ models.WEIGHTS, 0), rtol=1e-4, atol=1e-5)
    x = normal(6, 4)
    (y,) = runner.outputs(runner.plan(flat, {"x": x}, "y", samples=2))
    np.testing.assert_allclose(y, 2 * x, rtol=1e-6)


@pytest.mark.parametrize(
    "name", ["a b", "serving/x:0", "50%", "%41", "größe 名前", 'quote"back\\slash', "tab\tx"]
)
def test_names_and_paths_may_hold_anything(name: str, runner: Runner, tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    folder = tmp_path / name.replace("/", "_")
    folder.mkdir()
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2]) for n in (name, name * 2)]
    body = helper.make_graph(
        [helper.make_node("Neg", [name], [name * 2])], "g", *[[e] for e in ends]
    )
    model = folder / "model.onnx"
    onnx.save(
        helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), model
    )
    x = normal(1, 2)
    plan = runner.plan(model, {name: x}, name * 2, outputs=str(folder / "outputs"))
    (found,) = runner.outputs(plan)
    np.testing.assert_array_equal(found, -x)
    error = runner(replace(plan, output_names=(name * 3,))).error
    if "\t" not in name:
        assert name in error


@pytest.mark.parametrize("make", [models.onnx_slow, models.tflite])
def test_times_are_of_as_many_runs_and_seconds_as_asked(
    make: object, runner: Runner, tmp_path: Path
) -> None:
    model = make(tmp_path)  # type: ignore[operator]
    x, y, width = (
        ("x", "y", 256) if model.suffix == ".onnx"
        else ("serving_default_x:0", "PartitionedCall:0", 8)
    )  # fmt: skip
    plan = runner.plan(model, {x: normal(1, width)}, y, outputs="", runs=7, warmup=2)
    answer = runner(plan)
    assert answer.code == 0, answer
    ran = parse_answer(answer.stdout, "runner")
    assert len(ran.samples_ns) == 7
    assert 0 < min(ran.samples_ns) <= max(ran.samples_ns) < 10**9
    assert 0 < ran.load_ns < 30 * 10**9
    assert 0 < ran.first_ns < 30 * 10**9
    assert 0 < ran.peak_bytes < 1 << 32
    assert ran.version
    assert answer.line["runtime"] == plan.runtime
    longer = parse_answer(runner(replace(plan, seconds=0.2)).stdout, "runner").samples_ns
    assert len(longer) > 7
    assert 0.05e9 < sum(longer) < 2e9


def test_outputs_alone_take_no_times(runner: Runner, tmp_path: Path) -> None:
    plan = runner.plan(models.onnx_float(tmp_path), {"x": normal(2, 8)}, "y")
    ran = parse_answer(runner(plan).stdout, "runner")
    assert ran.samples_ns == ()


def test_onnx_runtimes_profile_is_where_the_plan_says(runner: Runner, tmp_path: Path) -> None:
    there = tmp_path / "the profile.json"
    x = {"x": normal(1, 8)}
    plan = runner.plan(
        models.onnx_float(tmp_path), x, "y", outputs="", profile=str(there), runs=3, warmup=1
    )
    assert runner(plan).code == 0
    events = json.loads(there.read_text())
    assert sum(one["name"] == "model_run" for one in events) == 5
    assert any(one["name"].endswith("_kernel_time") for one in events)
    assert [path.name for path in tmp_path.iterdir() if "profile" in path.name] == [there.name]


def test_litert_tells_the_times_of_operators(native: Runner, tmp_path: Path) -> None:
    """Of those that XNNPACK runs, and of those that it leaves: here, of integers."""
    there = tmp_path / "the profile.json"
    a, ids = normal(1, 3), np.zeros(2, np.int32)
    plan = native.plan(
        models.tflite_of_three(tmp_path), {"first:0": a, "second:0": a, "ids:0": ids}, "out:0",
        outputs="", profile=str(there), runs=5, warmup=1, samples=1,
    )  # fmt: skip
    answer = native(plan)
    assert answer.code == 0, answer
    assert len(answer.line["samples_ns"]) == 5
    operators = json.loads(there.read_text())["operators"]
    names = [one["op"] for one in operators]
    assert "ADD" in names
    assert "Subtract (ND)" in names
    assert set(operator_times(there.read_text())) == set(names)
    assert all(0 <= one["ms"] < 100 for one in operators)
    (tmp_path / "none").mkdir()
    assert native(replace(plan, profile=str(tmp_path / "none"))).error


def test_a_plan_ends_itself_when_its_limit_is_over(runner: Runner, tmp_path: Path) -> None:
    plan = runner.plan(
        models.onnx_slow(tmp_path), {"x": normal(1, 256)}, "y", outputs="", runs=1, seconds=90.0,
        limit=3 if runner.kind == "python" else 1,
    )  # fmt: skip
    answer = runner(plan, timeout=30)
    assert answer.code == -14  # SIGALRM
    assert answer.stdout == ""


def test_what_a_model_cannot_take_is_refused(runner: Runner, tmp_path: Path) -> None:
    model = models.onnx_float(tmp_path)
    flat = models.tflite(tmp_path)
    x, y = "serving_default_x:0", "PartitionedCall:0"
    good = normal(2, 8)
    for inputs, wanted in (
        ({"z": good}, "y"),  # no such input
        ({"x": good}, "z"),  # no such output
        ({"x": good.astype(np.float64)}, "y"),
        ({"x": good.astype(np.int32)}, "y"),
        ({"x": normal(2, 7)}, "y"),
        ({"x": normal(2, 2, 8)}, "y"),
    ):
        assert runner(runner.plan(model, inputs, wanted)).error
    for inputs, wanted in (
        ({"z": good}, y),
        ({x: good}, "z"),
        ({x: good.astype(np.int8)}, y),
        ({x: good.astype(np.float16)}, y),
        ({x: normal(2, 7)}, y),
        ({x: normal(4, 8)}, y),  # two rows a sample, and the file has one
        ({x: normal(2, 2, 8)}, y),
    ):
        assert runner(runner.plan(flat, inputs, wanted, samples=2)).error, inputs


def test_an_input_that_is_left_out_is_refused(runner: Runner, tmp_path: Path) -> None:
    a = normal(1, 3)
    ids = np.zeros(2, np.int32)
    plan = runner.plan(models.tflite_of_three(tmp_path), {"first:0": a, "ids:0": ids}, "out:0")
    assert runner(replace(plan, samples=1)).error
    assert runner(runner.plan(models.onnx_of_many(tmp_path), {"a": a, "b": a}, "sum")).error


def test_an_output_that_is_no_tensor_is_refused(runner: Runner, tmp_path: Path) -> None:
    model = save_onnx(
        tmp_path,
        graph("g (float[1, 2] x) => (seq(float[1, 2]) y) { y = SequenceConstruct(x, x) }"),
    )
    assert runner(runner.plan(model, {"x": normal(1, 2)}, "y")).error


def test_inputs_that_end_early_are_refused(runner: Runner, tmp_path: Path) -> None:
    plan = runner.plan(models.onnx_float(tmp_path), {"x": normal(3, 8)}, "y")
    data = Path(plan.inputs).read_bytes()
    Path(plan.inputs).write_bytes(data[: 3 * 8 * 4 - 1])
    assert "x" in runner(plan).error
    Path(plan.inputs).write_bytes(b"")
    assert runner(plan).error
    Path(plan.inputs).unlink()
    assert runner(plan).error
    Path(plan.inputs).mkdir()
    assert runner(plan).error


@pytest.mark.parametrize("name", ["float.onnx", "float.ort", "float32.tflite", "int8.tflite"])
def test_a_damaged_model_is_refused(name: str, runner: Runner, tmp_path: Path) -> None:
    path = model_files(tmp_path)[name]
    whole = path.read_bytes()
    x = "serving_default_x:0" if path.suffix == ".tflite" else "x"
    plan = runner.plan(path, {x: normal(1, 8)}, "y")
    for content in (b"", whole[: len(whole) // 3], b"garbage " * 100):
        path.write_bytes(content)
        assert runner(plan).error
    path.unlink()
    assert runner(plan).error


def test_outputs_that_cannot_be_written_are_refused(runner: Runner, tmp_path: Path) -> None:
    plan = runner.plan(models.onnx_float(tmp_path), {"x": normal(1, 8)}, "y")
    assert runner(replace(plan, outputs=str(tmp_path / "none" / "outputs"))).error
    assert runner(replace(plan, outputs=str(tmp_path))).error
    if Path("/dev/full").exists():
        assert runner(replace(plan, outputs="/dev/full")).error


def test_a_provider_that_is_not_there_is_refused(runner: Runner, tmp_path: Path) -> None:
    plan = runner.plan(
        models.onnx_float(tmp_path), {"x": normal(1, 8)}, "y", provider="XNNPACK",
        options=(("intra_op_num_threads", "1"),),
    )  # fmt: skip
    assert "xnnpack" in runner(plan).error.lower()


def test_a_runtime_that_is_not_known_is_refused(runner: Runner, tmp_path: Path) -> None:
    plan = runner.plan(models.onnx_float(tmp_path), {"x": normal(1, 8)}, "y", runtime="tensorrt")
    assert "tensorrt" in runner(plan).error


def test_a_library_that_is_none_is_refused(native: Runner, tmp_path: Path) -> None:
    plan = native.plan(models.onnx_float(tmp_path), {"x": normal(1, 8)}, "y")
    (tmp_path / "text.so").write_text("no library")
    for other in ("/nowhere/lib.so", str(tmp_path), str(tmp_path / "text.so"), ""):
        assert "library" in native(replace(plan, library=other)).error
    assert "OrtGetApiBase" in native(replace(plan, library="libc.so.6")).error
    assert "LiteRt" in native(replace(plan, runtime="litert")).error
