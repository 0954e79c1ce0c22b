"""The jobs apart from TensorFlow and onnx2tf, whose places fakes take; test_to_tflite has both."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests import nets
from workbench.artifact import Artifact, Format, Pixels, TensorSpec
from workbench.errors import StepError
from workbench.steps.to_tflite import _placed
from workbench.tflite import firmware
from workbench.tflite import tensorflow_jobs as jobs
from workbench.tflite.conversion_inputs import write_samples
from workbench.tflite.quantized import CONVERSION, stored_samples

IMAGES = nets.normal(3, 2, 4, 5)
AS_NHWC = {"permutation": [0, 2, 3, 1], "shape": [1, 2, 4, 5]}


def image_file(path: Path, *operators: str) -> Path:
    """An ONNX file of operators on an image [N, 2, 4, 5] called `image:0`, to `out/0`."""
    names = ["image:0", *(f"t{number}" for number in range(len(operators) - 1)), "out/0"]
    slope = numpy_helper.from_array(np.float32([[[0.5]], [[0.2]]]), "slope")
    nodes = [
        helper.make_node(op, [given, *(["slope"] if op == "PRelu" else [])], [made], f"/{op}")
        for op, given, made in zip(operators, names, names[1:], strict=False)
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("batch", 2, 4, 5))
            for name in (names[0], names[-1])]  # fmt: skip
    graph = helper.make_graph(
        nodes, "graph", ends[:1], ends[1:], [slope] if "PRelu" in operators else []
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


class Network:
    """What onnx2tf gives: a function of images as NHWC, with its inputs."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, given: Any) -> Any:
        return self.function(given)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for an ONNX file; TensorFlow is neither imported nor asked to save."""
    monkeypatch.chdir(tmp_path)
    keras = types.ModuleType("tf_keras")
    keras.backend = types.SimpleNamespace(clear_session=lambda: None)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tf_keras", keras)

    def make_serving(network: Network, inputs: Any, outputs: Any) -> Any:
        return lambda *given: {"out_0": network(given[0])}

    monkeypatch.setattr(jobs, "make_serving", make_serving)
    monkeypatch.setattr(jobs, "write", lambda serve, folder: folder.mkdir())
    return tmp_path


def convert_with(monkeypatch: pytest.MonkeyPatch, convert: Callable[..., Any]) -> None:
    fake = types.ModuleType("onnx2tf")
    fake.convert = convert  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "onnx2tf", fake)


def convert(work: Path, *operators: str, last: bool = False) -> dict[str, Any]:
    """What `make_saved_model` says of its conversion."""
    source = image_file(work / "model.onnx", *operators)
    np.savez(work / "samples.npz", IMAGES)
    jobs.make_saved_model(source, work / "made", ["image:0"], work / "samples.npz", last)
    found: dict[str, Any] = json.loads((work / "made" / CONVERSION).read_text())
    return found


def test_onnx2tf_is_given_a_real_sample_and_needs_neither_network_nor_commands(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def asked(**options: Any) -> Any:
        seen.update(options)
        sample = np.load(Path.cwd() / "calibration_image_sample_data_20x128x128x3_float32.npy")
        assert (sample.shape, sample.dtype) == ((20, 128, 128, 3), np.float32)
        assert len(np.unique(sample)) > 1000
        ((name, path, *_),) = options["custom_input_op_name_np_data_path"]
        np.testing.assert_array_equal(np.load(path), IMAGES[:1].transpose(0, 2, 3, 1))
        model = onnx.load(options["input_onnx_file_path"])
        assert [value.name for value in model.graph.input] == [name] == ["wb_input_0"]
        Path(options["input_onnx_file_path"]).write_bytes(b"overwritten")
        return Network(np.exp)

    convert_with(monkeypatch, asked)
    before = image_file(work / "same.onnx", "Exp").read_bytes()
    assert convert(work, "Exp") == {
        "notes": [],
        "inputs": {"image:0": {"key": "image_0", **AS_NHWC}},
        "outputs": {"out/0": {"key": "out_0", **AS_NHWC}},
    }
    assert (work / "model.onnx").read_bytes() == before
    assert seen["not_use_onnxsim"] is True
    assert seen["disable_model_save"] is True
    assert seen["keep_shape_absolutely_input_names"] is None


def attempts(right: Mapping[str, Any]) -> tuple[Callable[..., Any], list[dict[str, Any]]]:
    """onnx2tf as it would be that converts rightly only where it is asked in one way."""
    asked: list[dict[str, Any]] = []

    def once(**options: Any) -> Any:
        model = onnx.load(options["input_onnx_file_path"])
        found = {
            "loose": options["disable_strict_mode"],
            "kept": options["keep_shape_absolutely_input_names"],
            "kinds": [node.op_type for node in model.graph.node],
        }
        asked.append(found)
        if all(found[key] == value for key, value in right.items()):
            return Network(lambda x: np.maximum(x, 0))
        return Network(lambda x: np.maximum(x, 0) + 1)

    return once, asked


@pytest.mark.parametrize(
    ("right", "note", "permutation", "count"),
    [
        ({}, [], [0, 2, 3, 1], 1),
        ({"loose": True}, ["converted without onnx2tf's strict mode"], [0, 2, 3, 1], 2),
        (
            {"kept": ["wb_input_0"]}, ["converted with its inputs' axes as they are"], [], 3,
        ),
    ],
)  # fmt: skip
def test_where_outputs_disagree_the_next_attempt_is_made_and_said(
    right: dict[str, Any], note: list[str], permutation: list[int], count: int, work: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    once, asked = attempts(right)
    convert_with(monkeypatch, once)
    found = convert(work, "Relu")
    assert found["notes"] == note
    assert found["inputs"]["image:0"]["permutation"] == permutation
    assert found["outputs"]["out/0"]["permutation"] == permutation
    assert len(asked) == count


def test_pixels_stay_channels_last_whatever_fails(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once, asked = attempts({"kept": ["wb_input_0"]})
    convert_with(monkeypatch, once)
    with pytest.raises(StepError, match="onnx2tf cannot convert the model"):
        convert(work, "Relu", last=True)
    assert all(one["kept"] is None for one in asked)


def test_prelu_is_written_out_where_onnx2tf_fails_at_it(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slope = np.float32([0.5, 0.2])

    def once(**options: Any) -> Any:
        model = onnx.load(options["input_onnx_file_path"])
        if any(node.op_type == "PRelu" for node in model.graph.node):
            raise ValueError("slopes")
        return Network(lambda x: np.where(x > 0, x, slope * x))

    convert_with(monkeypatch, once)
    assert convert(work, "PRelu")["notes"] == ["PRelu written out"]


def test_the_operator_that_gives_something_else_is_named(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def once(**options: Any) -> Any:
        count = len(onnx.load(options["input_onnx_file_path"]).graph.output)
        found = (lambda x: [np.exp(x), np.exp(x)]) if count > 1 else np.exp  # Sigmoid left out
        return Network(found)

    convert_with(monkeypatch, once)
    with pytest.raises(StepError) as caught:
        convert(work, "Exp", "Sigmoid")
    assert caught.value.why.startswith(
        "operator Sigmoid (Sigmoid) gives something else; output out/0 differs"
    )


@pytest.mark.parametrize("error", [SystemExit(1), ValueError("no\nsuch thing"), RecursionError()])
def test_whatever_onnx2tf_raises_is_an_error_of_the_step(
    error: BaseException, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def once(**options: Any) -> None:
        raise error

    convert_with(monkeypatch, once)
    with pytest.raises(StepError, match="onnx2tf cannot convert the model") as caught:
        convert(work, "Relu")
    assert type(error).__name__ in caught.value.why
    assert "\n" not in caught.value.why


def test_the_operator_and_its_node_are_read_from_the_trace() -> None:
    code = "def make_node(graph_node):\n    raise TypeError('bad gate\\nmore')\n"
    space: dict[str, Any] = {}
    exec(compile(code, "/site-packages/onnx2tf/ops/LSTM.py", "exec"), space)
    try:
        space["make_node"](types.SimpleNamespace(name="/lstm/LSTM"))
    except TypeError as error:
        said = jobs._reason(error)
    assert said == "operator LSTM (/lstm/LSTM): TypeError: bad gate"


def test_an_operator_that_onnx2tf_does_not_have_is_named() -> None:
    error = ModuleNotFoundError("No module named 'onnx2tf.ops.GridSampler'")
    assert jobs._reason(error) == "operator GridSampler: onnx2tf does not have it"


FACTS: dict[str, Any] = {
    "operators": {"CONV_2D": 1}, "floats": {}, "unscaled": [], "arena": 8, "inputs": {},
    "outputs": {},
}  # fmt: skip


def written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, precision: str, pure: bool = True, **facts: Any
) -> tuple[dict[str, Any], list[bool]]:
    """What `make_flatbuffer` says, and whether float kernels were allowed in each conversion."""
    asked = []

    def converted(model: Path, precision: str, samples: Path, mixed: bool) -> bytes:
        asked.append(mixed)
        if not mixed and not pure:
            raise RuntimeError("Quantization to 16x8-bit not yet supported for op: 'HARD_SWISH'.")
        return b"content"

    monkeypatch.setattr(jobs, "_convert", converted)
    monkeypatch.setattr(firmware, "facts", lambda content: {**FACTS, **facts})
    path = folder / "model.tflite"
    found = jobs.make_flatbuffer(folder, path, precision, folder)
    assert path.read_bytes() == b"content"
    return found, asked


def test_float_kernels_are_asked_for_only_where_it_does_not_go_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert written(tmp_path, monkeypatch, "int16")[1] == [False]
    assert written(tmp_path, monkeypatch, "int16", pure=False)[1] == [False, True]
    for precision in ("int8-io", "float32"):
        with pytest.raises(StepError, match=f"as {precision} TFLite") as caught:
            written(tmp_path, monkeypatch, precision, pure=False)
        assert caught.value.why == "no TFLite operator for HARD_SWISH"


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        ({"operators": {"CUSTOM:FlexErf": 2, "ADD": 1}}, "CUSTOM:FlexErf"),
        ({"unscaled": ["SUB"]}, "SUB"),
    ],
)
def test_a_file_that_litert_cannot_run_is_never_written(
    facts: dict[str, Any], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StepError) as caught:
        written(tmp_path, monkeypatch, "float32", **facts)
    assert named in caught.value.why
    assert not (tmp_path / "model.tflite").exists()


def subject(*specs: TensorSpec) -> Artifact:
    return Artifact(
        path=Path("model.onnx"), format=Format.ONNX, precision="float32", inputs=specs, outputs=()
    )


def test_samples_come_one_by_one_under_the_signatures_names_and_in_its_axes(
    tmp_path: Path,
) -> None:
    image, vector = nets.normal(11, 3, 5, 7), nets.normal(11, 4, seed=1)
    data = nets.dataset_of(**{"b:0": vector, "a:0": image})
    conversion = {"inputs": {"a:0": {"key": "a_0", "permutation": [0, 2, 3, 1]},
                             "b:0": {"key": "b_0", "permutation": []}}}  # fmt: skip
    context = nets.context(tmp_path, data)
    folder = tmp_path / "samples"
    assert write_samples(subject(*data.inputs), context, folder, conversion, 9) == 9
    found = list(stored_samples(folder))
    assert len(found) == 9
    assert found[0]["a_0"].shape == (1, 5, 7, 3)
    np.testing.assert_array_equal(
        np.concatenate([one["a_0"] for one in found]), image[:9].transpose(0, 2, 3, 1)
    )
    np.testing.assert_array_equal(np.concatenate([one["b_0"] for one in found]), vector[:9])


def test_tensors_are_placed_by_the_signature_whatever_the_file_calls_them() -> None:
    spec = TensorSpec(name="a:0", dtype="float32", shape=(None, 2, None, 5))
    pixels = Pixels(factor=(1.0,), offset=(0.0,))
    baked = replace(spec, permutation=(0, 2, 3, 1), pixels=pixels)
    classes = TensorSpec(name="a:0", dtype="float32", shape=(None, 7), head="argmax")
    names = {"a_0": "StatefulPartitionedCall:7"}
    for given, shape in ((spec, [1, 2, 4, 5]), (baked, [1, 2, 4, 5]), (classes, [1])):
        order = [0, 2, 3, 1] if len(shape) > 1 else []
        conversion = {"a:0": {"key": "a_0", "permutation": order, "shape": shape}}
        (made,) = _placed((given,), conversion, names)
        wanted = (1, 7) if given is classes else (1, 2, 4, 5)
        assert made == replace(given, stored=names["a_0"], permutation=tuple(order), shape=wanted)
