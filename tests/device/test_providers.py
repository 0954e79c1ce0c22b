"""Execution providers: what is asked of ONNX Runtime, and what it may not pass over in silence."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from tests import nets
from workbench.artifact import Artifact, Format, TensorSpec
from workbench.device import provider_check, providers
from workbench.device.profile import Device
from workbench.device.providers import CPU, PROVIDERS, Provider
from workbench.device.runtimes.ort import capture_stderr, start_error
from workbench.device.session import infer, open_session
from workbench.errors import DependencyError, DeviceError
from workbench.model import ModelSource
from workbench.worker_pool import Pool

IMAGES = {"image": nets.normal(2, 3, 32, 32, seed=3)}
HERE = onnxruntime.get_available_providers()
ABSENT = [name for name, provider in PROVIDERS.items() if provider.ort not in HERE]
needs_openvino = pytest.mark.skipif(
    "OpenVINOExecutionProvider" not in HERE, reason="needs onnxruntime-openvino"
)


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return nets.exported(tmp_path_factory.mktemp("onnx"), nets.build(), nets.images())


def test_the_names_are_onnx_runtimes_own() -> None:
    assert {provider.ort for provider in PROVIDERS.values()} <= set(onnxruntime.get_all_providers())


def test_the_cpu_comes_last_and_threads_reach_a_pool_of_the_providers_own() -> None:
    assert providers.chain(Device(name="x")) == [(CPU, {})]
    openvino = Device(name="x", provider="openvino", threads=2, options={"device_type": "CPU"})
    assert providers.chain(openvino) == [
        ("OpenVINOExecutionProvider", {"device_type": "CPU", "num_of_threads": "2"}),
        (CPU, {}),
    ]
    own = Device(name="x", provider="xnnpack", options={"intra_op_num_threads": "3"})
    assert providers.chain(own)[0] == ("XnnpackExecutionProvider", {"intra_op_num_threads": "3"})


def test_what_tensorrt_leaves_goes_to_cuda_on_the_same_gpu() -> None:
    options = {"device_id": "1", "trt_fp16_enable": "True"}
    assert providers.chain(Device(name="x", provider="tensorrt", options=options)) == [
        ("TensorrtExecutionProvider", options),
        ("CUDAExecutionProvider", {"device_id": "1"}),
        (CPU, {}),
    ]


def test_a_provider_that_is_there_is_not_missing() -> None:
    assert providers.missing(Device(name="x"), "1.31.0", [CPU]) is None
    cuda = Device(name="x", provider="cuda")
    assert providers.missing(cuda, "1.31.0", ["CUDAExecutionProvider", CPU]) is None


@pytest.mark.parametrize(
    ("provider", "system", "said"),
    [
        ("cuda", "linux", "pip uninstall -y onnxruntime && pip install onnxruntime-gpu"),
        ("tensorrt", "linux", "TensorRT"),
        ("openvino", "win32", "pip uninstall -y onnxruntime && pip install onnxruntime-openvino"),
        ("directml", "linux", "there is none for this system (linux)"),
        ("directml", "win32", "pip install onnxruntime-directml. It replaces onnxruntime"),
        ("coreml", "linux", "onnxruntime's own wheels for macOS; there is none"),
        ("xnnpack", "linux", "a build of your own (--use_xnnpack)"),
    ],
)
def test_a_missing_provider_names_what_brings_it(
    monkeypatch: pytest.MonkeyPatch, provider: str, system: str, said: str
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    error = providers.missing(Device(name="mine", provider=provider), "1.31.0", [CPU])
    assert error is not None
    assert error.exit_code == 4
    assert PROVIDERS[provider].ort in error.what
    assert "device 'mine'" in error.what
    assert CPU in error.why
    assert said in error.fix


@pytest.mark.parametrize("provider", ABSENT)
def test_a_session_on_an_absent_provider_is_refused_not_run_on_the_cpu(
    onnx_file: Artifact, provider: str
) -> None:
    with pytest.raises(DependencyError, match=PROVIDERS[provider].ort):
        open_session(onnx_file, 1, device=Device(name="x", provider=provider))


@pytest.mark.process
def test_a_run_asks_for_the_provider_before_anything_else() -> None:
    pool = Pool()
    try:
        provider_check.require(Device(name="cpu"), pool)
        with pytest.raises(DependencyError, match=PROVIDERS[ABSENT[0]].ort):
            provider_check.require(Device(name="x", provider=ABSENT[0]), pool)
    finally:
        pool.close()


def test_a_provider_that_is_there_starts_and_runs_beside_the_cpu(
    monkeypatch: pytest.MonkeyPatch, onnx_file: Artifact
) -> None:
    other = next((name for name in HERE if name != CPU), None)
    if other is None:
        pytest.skip("onnxruntime here has the CPU alone")
    monkeypatch.setitem(PROVIDERS, "other", Provider(ort=other))
    device = Device(name="x", provider="other")
    provider_check.start(device, lambda *_: None)
    session = open_session(onnx_file, 1, device=device)
    assert session.session.get_providers() == [other, CPU]  # type: ignore[attr-defined]
    (found,) = infer(session, IMAGES)
    np.testing.assert_allclose(found, infer(open_session(onnx_file, 1), IMAGES)[0], atol=1e-5)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (  # onnxruntime-openvino 1.24.1 with device_type=GPU, where there is none
            "\x1b[1;31m2026-11-22 20:12:00.990003241 [E:onnxruntime:Default, provider_bridge_ort.cc"
            ":2310 Create] /onnxruntime/onnxruntime/core/providers/openvino/openvino_provider_"
            "factory.cc:141 std::string onnxruntime::openvino_ep::ParseDeviceType(std::shared_ptr<"
            "OVCore>, const onnxruntime::ProviderOptions&) [ERROR] [OpenVINO] Device GPU is not "
            "available\n\n\x1b[m\n\x1b[0;93m2026-11-22 20:12:00.990063411 [W:onnxruntime:Default, "
            "onnxruntime_pybind_state.cc:1066 CreateExecutionProviderFactoryInstance] Failed to "
            "create OpenVINOExecutionProvider. Please refer to the requirements.\x1b[m",
            "Device GPU is not available",
        ),
        (  # as onnxruntime-gpu without CUDA says it (microsoft/onnxruntime issue 17801)
            "2023-10-05 21:29:53.926793500 [E:onnxruntime:Default, provider_bridge_ort.cc:1480 "
            "TryGetProviderInfo_CUDA] /onnxruntime_src/onnxruntime/core/session/provider_bridge_ort"
            ".cc:1193 onnxruntime::Provider& onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError]"
            " : 1 : FAIL : Failed to load library libonnxruntime_providers_cuda.so with error: "
            "libcublasLt.so.11: cannot open shared object file: No such file or directory",
            "Failed to load library libonnxruntime_providers_cuda.so with error: "
            "libcublasLt.so.11: cannot open shared object file: No such file or directory",
        ),
        (
            "/onnxruntime/onnxruntime/python/onnxruntime_pybind_state.cc:1053 std::shared_ptr<"
            "onnxruntime::IExecutionProviderFactory> onnxruntime::python::Create(const std::string&"
            ", const onnxruntime::ProviderOptionsMap&) Invalid OpenVINO EP option: nonsense\n",
            "Invalid OpenVINO EP option: nonsense",
        ),
        ("", "it does not say why"),
    ],
)
def test_the_reason_is_found_in_what_onnx_runtime_logs(said: str, why: str) -> None:
    error = start_error(Device(name="mine", provider="openvino", options={"a": "1"}), said)
    assert error.what == "device 'mine': OpenVINOExecutionProvider does not start with a=1"
    assert error.why == why
    assert error.exit_code == 5


def test_what_native_code_says_is_heard_and_stderr_given_back(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with capture_stderr() as said:
        os.write(2, b"one\ntwo\n")
    assert said == ["one", "two"]
    os.write(2, b"three\n")
    assert capfd.readouterr().err == "three\n"


@needs_openvino
@pytest.mark.parametrize(
    ("options", "why"), [({"device_type": "GPU"}, "GPU"), ({"nonsense": "1"}, "nonsense")]
)
def test_openvino_that_does_not_start_is_an_error(options: dict[str, str], why: str) -> None:
    device = Device(name="x", provider="openvino", options=options)
    with pytest.raises(DeviceError, match="does not start") as caught:
        provider_check.start(device, lambda *_: None)
    assert why in caught.value.why


@needs_openvino
def test_openvino_gives_the_cpus_outputs(onnx_file: Artifact) -> None:
    device = Device(name="x", provider="openvino", options={"device_type": "CPU"})
    (found,) = infer(open_session(onnx_file, 1, device=device), IMAGES)
    np.testing.assert_allclose(found, infer(open_session(onnx_file, 1), IMAGES)[0], atol=1e-5)


@pytest.mark.parametrize("format", [Format.ONNX, Format.ORT])
def test_a_file_that_a_provider_cannot_load_names_the_provider(
    monkeypatch: pytest.MonkeyPatch, onnx_file: Artifact, tmp_path: Path, format: Format
) -> None:
    other = next((name for name in HERE if name != CPU), None)
    if other is None:
        pytest.skip("onnxruntime here has the CPU alone")
    monkeypatch.setitem(PROVIDERS, "other", Provider(ort=other))
    path = tmp_path / f"broken.{format}"
    path.write_bytes(b"nothing")
    with pytest.raises(DeviceError) as caught:
        broken = replace(onnx_file, path=path, format=format)
        open_session(broken, 1, device=Device(name="x", provider="other"))
    assert caught.value.what == f"ONNX Runtime cannot load broken.{format} on {other}"
    assert ("measure the .onnx file" in caught.value.fix) == (format is Format.ORT)


@pytest.mark.parametrize(
    ("provider", "format", "elsewhere"),
    [
        ("cpu", Format.TFLITE, False),
        ("cuda", Format.ONNX, False),
        ("cuda", Format.ORT, False),
        ("cuda", Format.TFLITE, True),
        ("openvino", Format.TORCHSCRIPT, True),
        ("cuda", Format.PT2, True),
    ],
)
def test_only_onnx_runtimes_files_run_on_a_provider(
    provider: str, format: Format, elsewhere: bool
) -> None:
    artifact = Artifact(
        path=Path("x"), format=format, precision="float32",
        inputs=(TensorSpec(name="x", dtype="float32", shape=(1,)),), outputs=(),
    )  # fmt: skip
    device = Device(name="x", provider=provider)
    assert providers.runs_on_cpu(device, artifact) is elsewhere
    assert not providers.runs_on_cpu(device, ModelSource(spec="net.py:build"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch has a GPU here")
def test_torch_stays_on_the_cpu_where_it_finds_no_gpu() -> None:
    assert providers.torch_device(None) == "cpu"
    assert providers.torch_device(Device(name="x", provider="openvino")) == "cpu"
    assert providers.torch_device(Device(name="x", provider="cuda")) == "cpu"


def test_eager_elsewhere_copies_there_and_back_within_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The code's path to a GPU, on a place that every machine has.
    monkeypatch.setattr("workbench.device.runtimes.eager.torch_device", lambda _device: "cpu:0")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    (tmp_path / "net.py").write_text("from tests import nets\nbuild = nets.build\n")
    source = ModelSource(spec="net.py:build", folder=tmp_path)
    device = Device(name="x", provider="cuda", options={"use_tf32": "False"})
    session = open_session(source, 1, IMAGES, device)
    assert not torch.backends.cudnn.allow_tf32
    raw = session.run(session.prepare(IMAGES))
    assert [tensor.device.type for part in raw for tensor in part] == ["cpu"]
    wanted = nets.run_torch(nets.build(), IMAGES["image"]).numpy()
    np.testing.assert_allclose(session.outputs(raw)[0], wanted, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_eager_on_the_gpu_gives_the_cpus_outputs_on_the_cpu(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("from tests import nets\nbuild = nets.build\n")
    source = ModelSource(spec="net.py:build", folder=tmp_path)
    device = Device(name="x", provider="cuda", options={"use_tf32": "False"})
    session = open_session(source, 1, IMAGES, device)
    assert next(session.model.module.parameters()).is_cuda  # type: ignore[attr-defined]
    (found,) = infer(session, IMAGES)
    np.testing.assert_allclose(found, infer(open_session(source, 1, IMAGES), IMAGES)[0], atol=1e-4)
