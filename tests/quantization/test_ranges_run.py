"""Calibration of ONNX networks, and ONNX Runtime's own quantizer with our ranges."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

from workbench.errors import DatasetError, StepError
from workbench.quantization.plan import Range
from workbench.quantization.ranges import MSE, Entropy, Estimator, MinMax, Norm, Percentile
from workbench.quantization.ranges_after import relu
from workbench.quantization.ranges_file import load_calibration, save_calibration
from workbench.quantization.ranges_run import calibrate, float_tensors, observe


def network(batch: int | str = "batch") -> onnx.ModelProto:
    """[N, 3, 9, 9]: Conv `c`, Relu `r`, Conv `d`, GlobalAveragePool, Flatten; and Shape `s`."""
    generator = np.random.default_rng(0)
    weights = {
        "w": generator.standard_normal((70, 3, 3, 3)),
        "v": generator.standard_normal((5, 70, 3, 3)) / 20,
        "b": generator.standard_normal(70),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w", "b"], ["c"], name="first"),
            helper.make_node("Relu", ["c"], ["r"], name="relu"),
            helper.make_node("Conv", ["r", "v"], ["d"], name="second"),
            helper.make_node("Shape", ["d"], ["s"], name="shape"),
            helper.make_node("GlobalAveragePool", ["d"], ["p"], name="pool"),
            helper.make_node("Flatten", ["p"], ["y"], name="flatten"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 9, 9])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 5])],
        [
            numpy_helper.from_array(value.astype(np.float32), name)
            for name, value in weights.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def images(count: int = 21) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, 3, 9, 9)).astype(np.float32)


def fed(values: np.ndarray, size: int):
    return lambda: ({"x": values[i : i + size]} for i in range(0, len(values), size))


def test_float_tensors_are_those_between_nodes():
    assert float_tensors(network()) == ["x", "c", "r", "d", "p", "y"]


@pytest.mark.parametrize("method", [MinMax(), Percentile(99.0), Entropy(), Norm(2.4)])
def test_calibration_is_exact_whatever_batches_and_order(method):
    values = images()
    arguments = {"after": {"c": relu}, "importance": {"c": np.linspace(0, 1, 70)}}
    expected = calibrate(network(), None, fed(values, 21), method, **arguments)
    assert list(expected) == ["x", "c", "r", "d", "p", "y"]
    shuffled = values[np.random.default_rng(2).permutation(21)]
    for order, size in ((values, 1), (values, 3), (shuffled, 7), (shuffled, 21)):
        assert calibrate(network(), None, fed(order, size), method, **arguments) == expected
    fixed = calibrate(network(1), None, fed(values, 4), method, **arguments)
    assert fixed == expected


def test_ranges_are_those_of_the_tensors():
    values = images()
    found = calibrate(network(), ["x", "c", "y"], fed(values, 4))
    model = network()
    model.graph.output.append(helper.make_empty_tensor_value_info("c"))
    options = ort.SessionOptions()
    y, c = ort.InferenceSession(model.SerializeToString(), options).run(None, {"x": values})
    for name, array in (("x", values), ("c", c), ("y", y)):
        assert found[name].low == pytest.approx(float(array.min()), rel=1e-5)
        assert found[name].high == pytest.approx(float(array.max()), rel=1e-5)


def test_many_channels_are_counted_in_several_runs(monkeypatch):
    values, runs = images(), []

    def batches():
        runs.append(1)
        return [{"x": values}]

    importance = {"c": np.ones(70), "r": np.ones(70), "d": np.ones(5)}
    whole = calibrate(network(), ["c", "r", "d", "y"], batches, MSE, importance=importance)
    assert len(runs) == 1
    monkeypatch.setattr("workbench.quantization.ranges_run.ROWS", 80)
    assert calibrate(network(), ["c", "r", "d", "y"], batches, MSE, importance=importance) == whole
    assert len(runs) == 3


def test_integers_are_passed_over_and_a_batch_that_is_fixed_is_one_sample():
    estimator = Estimator()
    observe(network(7), ["s", "y"], fed(images(), 7)(), estimator)
    assert estimator.samples == 3
    assert list(estimator.ranges()) == ["y"]


def test_nan_is_named_with_tensor_and_sample():
    values = images()
    values[17, 2, 4, 4] = np.nan
    with pytest.raises(DatasetError, match="tensor 'c' has NaN for calibration sample 17"):
        calibrate(network(), ["c"], fed(values, 4), MSE)


def test_what_cannot_run_is_said():
    with pytest.raises(StepError, match="no tensor 'cc'"):
        calibrate(network(), ["cc"], fed(images(), 4))
    with pytest.raises(DatasetError, match="no calibration samples"):
        calibrate(network(), ["c"], lambda: [])
    with pytest.raises(DatasetError, match="cannot run on calibration sample 0"):
        calibrate(network(), ["c"], lambda: [{"x": np.zeros((2, 4, 9, 9), np.float32)}])


def test_progress_counts_samples():
    told: list[int] = []
    calibrate(network(), ["x", "c"], fed(images(5), 2), progress=told.append)
    assert told == [1, 2, 3, 4, 5]


def test_quantize_static_takes_the_file_and_uses_these_very_ranges(tmp_path):
    model, written = tmp_path / "model.onnx", tmp_path / "int8.onnx"
    onnx.save(network(), model)
    ranges = calibrate(network(), None, fed(images(), 4), Norm(2.4))
    ranges["d"] = Range(-0.123, 4.567)  # a range that no calibrator would give
    save_calibration(ranges, tmp_path / "ranges.json")
    quantize_static(
        model, written, None, quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8, calibration_cache_path=tmp_path / "ranges.json",
    )  # fmt: skip
    found = onnx.load(written)
    constants = {t.name: numpy_helper.to_array(t) for t in found.graph.initializer}
    for name in ("x", "r", "d"):
        scale, zero = ranges[name].grid()
        assert constants[f"{name}_scale"] == pytest.approx(scale, rel=1e-6)
        assert int(constants[f"{name}_zero_point"]) == zero
    assert ort.InferenceSession(written).run(None, {"x": images(2)})[0].shape == (2, 5)


def test_a_calibration_file_comes_back(tmp_path):
    path = tmp_path / "ranges.json"
    ranges = {"a": Range(-0.1, 1e6), "dead": Range(0, 0), "b/c:0": Range(-3, 0)}
    save_calibration(ranges, path)
    assert load_calibration(path) == {
        name: Range(float(np.float32(one.low)), float(np.float32(one.high)))
        for name, one in ranges.items()
    }
    again = tmp_path / "again.json"
    save_calibration(load_calibration(path), again)
    assert json.loads(again.read_text()) == json.loads(path.read_text())
    for text in ("", "{}", "[1]", '{"data": {"a": {}}, "calibration_method": 0}'):
        path.write_text(text)
        with pytest.raises(StepError, match="no calibration file"):
            load_calibration(path)
    with pytest.raises(StepError, match="no calibration file"):
        load_calibration(tmp_path / "absent.json")
