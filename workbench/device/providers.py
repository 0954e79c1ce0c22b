"""Execution providers: what a profile calls them, what ONNX Runtime does, and who ships them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.artifact import Artifact, Format
from workbench.errors import DependencyError, ProfileError, shown

if TYPE_CHECKING:
    from workbench.device.profile import Device
    from workbench.model import ModelSource
    from workbench.toml_keys import Keys

CPU = "CPUExecutionProvider"


@dataclass(frozen=True, kw_only=True)
class Provider:
    """One execution provider.

    Attributes:
        ort: ONNX Runtime's name for it.
        package: the one on the registry that holds it, '' where none does.
        source: where it comes from, in words.
        systems: `sys.platform`s that it exists on.
        before_cpu: providers that take what it leaves, before the CPU does.
        threads: its option for the number of threads, where it has a pool of its own.
    """

    ort: str
    package: str = ""
    source: str = ""
    systems: tuple[str, ...] = ("linux", "win32", "darwin")
    before_cpu: tuple[str, ...] = ()
    threads: str = ""

    @property
    def here(self) -> bool:
        """Whether it exists for this operating system."""
        return sys.platform in self.systems

    @property
    def command(self) -> str:
        """What installs it, '' where no package does."""
        if not self.package or self.package == "onnxruntime":
            return ""
        return f"pip uninstall -y onnxruntime && pip install {self.package}"


PROVIDERS: dict[str, Provider] = {
    "cpu": Provider(ort=CPU, package="onnxruntime", source="every onnxruntime package"),
    "cuda": Provider(
        ort="CUDAExecutionProvider",
        package="onnxruntime-gpu",
        source="onnxruntime-gpu, with an NVIDIA driver, CUDA and cuDNN",
        systems=("linux", "win32"),
    ),
    "tensorrt": Provider(
        ort="TensorrtExecutionProvider",
        package="onnxruntime-gpu",
        source="onnxruntime-gpu, with an NVIDIA driver, CUDA, cuDNN and TensorRT",
        systems=("linux", "win32"),
        before_cpu=("CUDAExecutionProvider",),  # as ONNX Runtime's documentation advises
    ),
    "coreml": Provider(
        ort="CoreMLExecutionProvider",
        package="onnxruntime",
        source="onnxruntime's own wheels for macOS",
        systems=("darwin",),
    ),
    "directml": Provider(
        ort="DmlExecutionProvider",
        package="onnxruntime-directml",
        source="onnxruntime-directml, on Windows with a DirectX 12 GPU",
        systems=("win32",),
    ),
    "xnnpack": Provider(
        ort="XnnpackExecutionProvider",
        source="ONNX Runtime's Android and iOS packages, or a build of your own (--use_xnnpack)",
        threads="intra_op_num_threads",
    ),
    "openvino": Provider(
        ort="OpenVINOExecutionProvider",
        package="onnxruntime-openvino",
        source="onnxruntime-openvino",
        systems=("linux", "win32"),
        threads="num_of_threads",
    ),
}


def chain(device: Device) -> list[tuple[str, dict[str, str]]]:
    """The providers that a session asks for, with their options, in the order they get nodes."""
    if device.provider == "cpu":
        return [(CPU, {})]
    provider = PROVIDERS[device.provider]
    options = dict(device.options)
    if provider.threads and device.threads:
        options.setdefault(provider.threads, str(device.threads))
    shared = {key: options[key] for key in ("device_id",) if key in options}
    between = [(name, shared) for name in provider.before_cpu]
    return [(provider.ort, options), *between, (CPU, {})]


def missing(device: Device, version: str, available: Sequence[str]) -> DependencyError | None:
    """Why the onnxruntime of that version, which has those providers, does not do; None if it does.

    It is the one place that names what to install.
    """
    provider = PROVIDERS[device.provider]
    if provider.ort in available:
        return None
    fix = f"{provider.ort} comes with {provider.source}"
    if not provider.here:
        fix += f"; there is none for this system ({sys.platform})"
    elif provider.command:
        fix += (
            f": in an environment of its own, {provider.command}. It replaces onnxruntime, "
            "two of them overwrite each other; 'pip check' then misses onnxruntime, "
            "and 'wb doctor' says whether the version is new enough"
        )
    return DependencyError(
        f"device '{device.name}' needs {provider.ort}, which onnxruntime {version} here has not",
        f"it has {', '.join(available)}",
        fix,
    )


def runs_on_cpu(device: Device, target: Artifact | ModelSource) -> bool:
    """Whether a file's runtime knows nothing of the device's provider, and so runs on the CPU.

    PyTorch eager is not asked here: whether it finds a GPU only torch knows.
    """
    if device.provider == "cpu" or not isinstance(target, Artifact):
        return False
    return target.format not in (Format.ONNX, Format.ORT)


def torch_device(device: Device | None) -> str:
    """Where PyTorch runs for a device: on the GPU of cuda and tensorrt, where torch finds one."""
    import torch

    if device is None or device.provider not in ("cuda", "tensorrt"):
        return "cpu"
    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{device.options.get('device_id', '0')}"


def option_texts(keys: Keys, provider: str) -> dict[str, str]:
    """A profile's [options] for a provider as the texts that ONNX Runtime takes.

    Raises ProfileError for those that it has not, or that it cannot take.
    """
    options = keys.inner("options").table
    if options and provider == "cpu":
        raise ProfileError(
            f"{keys.path.name}: options are given without a provider",
            "ONNX Runtime's CPU has none that are kept here",
            f"add provider = …, one of {', '.join(PROVIDERS)}",
        )
    texts = {}
    for key, value in options.items():
        if isinstance(value, bool):
            # CoreML's source compares with "1"; the others understand True, TensorRT nothing else.
            text = str(int(value)) if provider == "coreml" else str(value)
        elif isinstance(value, str) or (isinstance(value, int) and abs(value) < 1 << 63):
            text = str(value)
        else:
            raise ProfileError(
                f"{keys.path.name}: option {shown(key)} cannot be {shown(value)}",
                "ONNX Runtime takes texts, whole numbers, true and false",
            )
        if "\0" in key + text:
            raise ProfileError(f"{keys.path.name}: option {shown(key)} holds a null character")
        texts[key] = text
    return texts
