"""Where nodes ran: against the optimized graph that ONNX Runtime saves, and LiteRT's own list."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from tests import nets, project
from workbench.artifact import Artifact, Format, TensorSpec
from workbench.codec import from_plain, to_plain
from workbench.device.placement import Placement, count, count_delegated, find_placement
from workbench.device.profile import Device
from workbench.device.providers import CPU, PROVIDERS, Provider
from workbench.errors import DeviceError
from workbench.model import ModelSource
from workbench.steps import ToOrt

IMAGE = {"image": nets.normal(1, 3, 32, 32)}
PLAIN = Device(name="cpu")


def where(target: Any, device: Device = PLAIN, inputs: Mapping[str, Any] = IMAGE) -> Placement:
    return find_placement(target, inputs, device, lambda *_: None)


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return nets.exported(tmp_path_factory.mktemp("onnx"), nets.build(), nets.images())


def optimized(path: Path, folder: Path) -> Counter[str]:
    """The operators of the graph that ONNX Runtime runs in place of the file's."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=[CPU])
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


def test_on_the_cpu_every_node_of_the_optimized_graph_ran_there(
    onnx_file: Artifact, tmp_path: Path
) -> None:
    nodes = optimized(onnx_file.path, tmp_path)
    assert nodes["Conv"] == 3
    assert where(onnx_file) == Placement(nodes={CPU: nodes.total()})


def test_an_ort_file_has_a_placement_too(onnx_file: Artifact, tmp_path: Path) -> None:
    made = ToOrt().run(onnx_file, nets.context(tmp_path, nets.images()))
    found = where(made)
    assert set(found.nodes) == {CPU}
    assert found.nodes[CPU] > 10
    assert not found.left


def test_a_provider_that_takes_nothing_is_told(
    monkeypatch: pytest.MonkeyPatch, onnx_file: Artifact, tmp_path: Path
) -> None:
    here = onnxruntime.get_available_providers()
    if "AzureExecutionProvider" not in here:
        pytest.skip("this onnxruntime has no provider that takes nothing")
    monkeypatch.setitem(PROVIDERS, "azure", Provider(ort="AzureExecutionProvider"))
    found = where(onnx_file, Device(name="x", provider="azure"))
    nodes = optimized(onnx_file.path, tmp_path)
    assert found.nodes == {CPU: nodes.total()}
    assert found.left == nodes
    assert found.notes == ("no node ran on AzureExecutionProvider: the figures are the CPU's",)


@pytest.mark.skipif(
    "OpenVINOExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="needs onnxruntime-openvino",
)
def test_openvino_leaves_what_it_does_not_know_to_the_cpu(
    onnx_file: Artifact, tmp_path: Path
) -> None:
    device = Device(name="x", provider="openvino", options={"device_type": "CPU"})
    whole = where(onnx_file, device)
    assert set(whole.nodes) == {"OpenVINOExecutionProvider"}
    assert whole.nodes["OpenVINOExecutionProvider"] > 20  # operators, of one compiled subgraph
    nodes = [
        helper.make_node("Abs", ["x"], ["a"]),
        helper.make_node("Det", ["a"], ["b"]),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    found = where(single(tmp_path, nodes, (2, 8, 8)), device, {"x": nets.normal(2, 8, 8)})
    assert sum(found.nodes.values()) == 3
    assert list(found.nodes) == ["OpenVINOExecutionProvider", CPU]
    assert found.left["Det"] == 1
    assert sum(found.left.values()) == found.nodes[CPU]


def single(folder: Path, nodes: list[Any], shape: tuple[int, ...]) -> Artifact:
    """A file from x to y, both float32."""
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17)]
    path = folder / "single.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    x = TensorSpec(name="x", dtype="float32", shape=(None, *shape[1:]))
    return Artifact(
        path=path, format=Format.ONNX, precision="float32", inputs=(x,),
        outputs=(TensorSpec(name="y", dtype="float32", shape=()),),
    )  # fmt: skip


def test_the_body_of_a_loop_counts_once_however_often_it_runs(tmp_path: Path) -> None:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["goes_on"]),
            helper.make_node("Sin", ["state"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    times = helper.make_tensor("times", TensorProto.INT64, [], [7])
    nodes = [
        helper.make_node("Constant", [], ["n"], value=times),
        helper.make_node("Loop", ["n", "", "x"], ["h"], body=body),
        helper.make_node("Abs", ["h"], ["y"]),
    ]
    found = where(single(tmp_path, nodes, (2, 3)), inputs={"x": nets.normal(2, 3)})
    assert found.nodes == {CPU: 4}  # Loop, Identity and Sin in it, Abs


def test_copies_to_and_from_a_gpu_are_not_the_models_nodes() -> None:
    gpu = "CUDAExecutionProvider"

    def ran(name: str, operator: str, provider: str, index: int) -> dict[str, Any]:
        about = {"op_name": operator, "provider": provider, "node_index": str(index)}
        return {"cat": "Node", "name": f"{name}_kernel_time", "args": about}

    events = [
        ran("Memcpy", "MemcpyFromHost", gpu, 7),
        ran("conv1", "Conv", gpu, 0),
        ran("conv2", "Conv", gpu, 1),
        ran("top", "TopK", CPU, 2),
        {"cat": "Session", "name": "model_run", "args": {}},
    ]
    found = count(events, {gpu: 9}, Device(name="x", provider="cuda"))
    assert list(found.nodes.items()) == [(gpu, 2), (CPU, 1)]
    assert found.left == {"TopK": 1}
    assert not found.notes


def test_of_a_compiled_subgraph_the_operators_count_where_they_are_told() -> None:
    provider = PROVIDERS["openvino"].ort
    about = {"op_name": "OpenVINO-EP-subgraph_1", "provider": provider, "node_index": "3"}
    name = f"{provider}_OpenVINO-EP-subgraph_1_0_kernel_time"
    events = [{"cat": "Node", "name": name, "args": about}]
    device = Device(name="x", provider="openvino")
    assert count(events, {provider: 26}, device) == Placement(nodes={provider: 26})
    found = count(events, {}, device)
    assert found.nodes == {provider: 1}
    assert "each counts as one node" in found.notes[0]


def chain(path: Path, operators: Sequence[str]) -> Artifact:
    """A TFLite file of float32 operators in a row, each from the one before."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    kinds = list(dict.fromkeys(operators))
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.operatorCodes, model.subgraphs = 3, [], [graph]
    for kind in kinds:
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        model.operatorCodes.append(code)
    graph.tensors, graph.operators = [], []
    for place in range(len(operators) + 1):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = f"t{place}".encode(), [1, 4], place + 1
        graph.tensors.append(tensor)
    for place, kind in enumerate(operators):
        operator = schema.OperatorT()
        operator.inputs, operator.outputs = [place], [place + 1]
        operator.opcodeIndex = kinds.index(kind)
        graph.operators.append(operator)
    graph.inputs, graph.outputs = [0], [len(operators)]
    model.buffers = [schema.BufferT() for _ in range(len(operators) + 2)]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())
    x = TensorSpec(name="x", dtype="float32", shape=(1, 4), stored="t0")
    y = replace(x, name="y", stored=f"t{len(operators)}")
    return Artifact(
        path=path, format=Format.TFLITE, precision="float32", inputs=(x,), outputs=(y,)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("operators", "nodes", "left"),
    [
        (("RELU", "ABS", "NEG"), {"XNNPACK": 3}, {}),
        (  # two delegates around one of LiteRT's own kernels
            ("RELU", "ABS", "LOG_SOFTMAX", "RELU", "ABS", "NEG"),
            {"XNNPACK": 5, "LiteRT": 1},
            {"LOG_SOFTMAX": 1},
        ),
        (("LOG_SOFTMAX", "SIGN", "SIGN"), {"LiteRT": 3}, {"SIGN": 2, "LOG_SOFTMAX": 1}),
    ],
)
def test_of_a_tflite_file_xnnpacks_nodes_are_told_apart(
    tmp_path: Path, operators: Sequence[str], nodes: dict[str, int], left: dict[str, int]
) -> None:
    made = chain(tmp_path / "chain.tflite", operators)
    assert where(made) == Placement(nodes=nodes, left=left)


def test_a_delegate_took_what_lies_between_its_inputs_and_its_outputs() -> None:
    def one(name: str, inputs: list[int], outputs: list[int]) -> dict[str, Any]:
        return {"op_name": name, "inputs": inputs, "outputs": outputs}

    # 0 is the input, 9 a weight. The delegate took B and C; A makes its input, D stands beside.
    model = [
        one("A", [0], [1]), one("B", [1, 9], [2]), one("C", [2, 1], [3]), one("D", [1], [4]),
        one("E", [3, 4], [5]),
    ]  # fmt: skip
    found = count_delegated([*model, one("DELEGATE", [9, 1], [3])])
    assert found.nodes == {"XNNPACK": 2, "LiteRT": 3}
    assert found.left == {"A": 1, "D": 1, "E": 1}


def test_torch_says_that_it_ran_on_the_cpu_where_the_device_is_not_one() -> None:
    source = ModelSource(spec="net.py:build")
    assert where(source) == Placement()
    (note,) = where(source, Device(name="mine", provider="openvino")).notes
    assert note.startswith("ran on the CPU, not on mine: torch ")


def test_a_file_that_does_not_load_is_the_devices_error(
    onnx_file: Artifact, tmp_path: Path
) -> None:
    broken = replace(onnx_file, path=tmp_path / "broken.onnx")
    broken.path.write_bytes(b"nothing")
    with pytest.raises(DeviceError, match=r"cannot load broken\.onnx"):
        where(broken)


def test_it_survives_json() -> None:
    full = Placement(nodes={"a": 1}, left={"Conv": 2}, notes=("said",))
    assert from_plain(json.loads(json.dumps(to_plain(full))), Placement) == full


@pytest.mark.process
def test_a_run_says_where_every_artifact_ran_and_remembers_it(tmp_path: Path) -> None:
    folder = project.make(tmp_path / "project")
    words = ("recipe", "small", *project.UNTIMED, "--json", "--out", "out")
    found = project.report(project.wb(folder, *words))
    rows = {row["label"]: row["placement"]["nodes"] for row in found["rows"]}
    assert rows["PyTorch eager"] == {}
    for label in ("FP32 ONNX", "INT8 ONNX", "INT8 ORT-mobile"):
        assert set(rows[label]) == {CPU}, label
    text = (folder / "out" / "report.md").read_text()
    assert f"ran on {CPU}: {rows['INT8 ONNX'][CPU]} nodes" in text
    records = len(list((folder / "cache" / "records").iterdir()))
    again = project.report(project.wb(folder, *words))
    assert {row["label"]: row["placement"]["nodes"] for row in again["rows"]} == rows
    assert len(list((folder / "cache" / "records").iterdir())) == records


@pytest.mark.process
def test_a_run_on_an_absent_provider_ends_before_it_begins(tmp_path: Path) -> None:
    absent = [n for n, p in PROVIDERS.items() if p.ort not in onnxruntime.get_available_providers()]
    folder = project.make(tmp_path / "project")
    done = project.wb(folder, "recipe", "small", *project.UNTIMED, "--device", absent[0])
    assert done.returncode == 4
    assert f"needs {PROVIDERS[absent[0]].ort}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "runs").exists()
    assert not list((folder / "cache" / "records").iterdir())
    plan = project.wb(folder, "recipe", "small", *project.UNTIMED, "--device", absent[0],
                      "--dry-run")  # fmt: skip
    assert plan.returncode == 0, plan.stderr
    assert PROVIDERS[absent[0]].ort in plan.stdout
