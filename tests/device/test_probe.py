"""What the probe says of this machine, against the system's own answers."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import pytest

from workbench.device import probe


@pytest.mark.parametrize(
    ("machine", "architecture"),
    [
        ("x86_64", "x86"),
        ("AMD64", "x86"),
        ("i686", "x86"),
        ("aarch64", "arm"),
        ("arm64", "arm"),
        ("armv7l", "arm"),
        ("riscv64", "riscv64"),
    ],
)
def test_machines_are_named_by_architecture(monkeypatch, machine, architecture):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert probe.architecture() == architecture


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="no /proc/cpuinfo")
def test_the_isa_is_what_the_kernel_lists():
    words = set(Path("/proc/cpuinfo").read_text().split())
    assert set(probe.isa()) == words & set(probe.RELEVANT)


@pytest.mark.parametrize(
    ("info", "isa", "model"),
    [
        ({"flags": "fpu avx2 avx512_vnni", "model name": "Big"}, ("avx2", "avx512_vnni"), "Big"),
        ({"Features": "fp asimddp i8mm", "Hardware": "Small"}, ("asimddp", "i8mm"), "Small"),
        ({}, (), None),
    ],
)
def test_x86_and_arm_kernels_are_understood(monkeypatch, info, isa, model):
    monkeypatch.setattr(probe, "_cpuinfo", lambda: info)
    assert probe.isa.__wrapped__() == isa
    assert probe.cpu_model() == (model or platform.processor() or "unknown")


def test_the_fingerprint_is_plain_and_names_neither_host_nor_user():
    found = probe.fingerprint()
    assert set(found) == {
        "cpu", "cores", "architecture", "isa", "memory_gib", "system", "python",
    }  # fmt: skip
    assert found["cores"] == os.cpu_count()
    assert found["memory_gib"] * 2**30 == pytest.approx(probe.memory_bytes(), rel=0.1)
    text = json.dumps(found)
    assert platform.node() not in text
    assert str(Path.home()) not in text


def test_versions_leave_out_what_is_not_installed():
    found = probe.versions(("pytest", "no-such-package-at-all"))
    assert found == {"pytest": pytest.__version__}


def test_onnxruntimes_variants_are_listed_with_it(tmp_path, monkeypatch):
    place = tmp_path / "onnxruntime_gpu-9.9.dist-info"
    place.mkdir()
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 9.9\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert probe.versions(("onnxruntime",))["onnxruntime-gpu"] == "9.9"
    assert "onnxruntime-gpu" not in probe.versions(("pytest",))


@pytest.mark.process
@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("echo 'NVIDIA H100, 550.54'\necho 'NVIDIA T4, 550.54'",
         ("NVIDIA H100, 550.54", "NVIDIA T4, 550.54")),
        ("echo 'NVIDIA-SMI has failed'\nexit 9", ()),
        ("", ()),
    ],
)  # fmt: skip
def test_gpus_are_what_nvidias_tool_lists(tmp_path, monkeypatch, script, found):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(probe, "gpus", probe.gpus.__wrapped__)
    assert probe.gpus() == found
    assert probe.host("cuda").get("gpu", []) == list(found)
    assert probe.host("cpu") == probe.fingerprint()
