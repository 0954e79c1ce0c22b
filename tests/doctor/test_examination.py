"""`wb doctor` on environments that are broken on purpose, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from workbench.device import probe
from workbench.doctor import examination, machine
from workbench.doctor.machine import Check
from workbench.doctor.requirements import declared_requirements

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]


def run(folder: Path, *words: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """`wb doctor` with the packages in `folder` before all others."""
    places = [str(folder), str(ROOT)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(places),
        "WB_CACHE": os.environ["WB_CACHE"] if path is None else path,
    }
    return subprocess.run(
        [sys.executable, "-m", "workbench", "doctor", *words],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def found(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What --json printed, its checks by name."""
    assert "Traceback" not in done.stderr
    read: dict[str, Any] = json.loads(done.stdout)
    return {**read, "checks": {one["name"]: one for one in read["checks"]}}


def pretend(folder: Path, name: str, version: str) -> None:
    """Metadata of a package that is not there."""
    place = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    place.mkdir()
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def broken(folder: Path, module: str, text: str) -> None:
    (folder / module).mkdir()
    (folder / module / "__init__.py").write_text(text)


def test_a_whole_environment_is_ready(tmp_path: Path) -> None:
    done = run(tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    report = found(done)
    assert report["ready"]
    checks = report["checks"]
    for name in ("torch", "onnx", "onnxsim", "tensorflow", "onnx2tf", "numpy", "typer"):
        assert checks[name]["said"] == metadata.version(name)
        assert checks[name]["verdict"] == "ok"
    assert checks["cpu"]["said"] == "here"
    assert checks["telemetry"]["verdict"] == "ok"
    assert checks["CPU"]["said"].startswith(probe.cpu_model())
    for name, provider in machine.PROVIDERS.items():
        here = provider.ort in onnxruntime.get_available_providers()
        assert (checks[name]["verdict"] == "ok") == here


def test_every_line_has_a_mark_and_the_commands_stand_at_the_end(tmp_path: Path) -> None:
    pretend(tmp_path, "numpy", "1.2.3")
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    (line,) = [line for line in lines if line.split()[1:2] == ["numpy"]]
    assert line.startswith("  ! numpy")
    assert "1.2.3, wb was made for numpy>=2.1" in line
    assert lines[lines.index("To run:") + 1 :][0] == "  pip install 'numpy>=2.1'"
    checks = [line for line in lines[: lines.index("To run:")] if line.startswith(" ")]
    assert len(checks) > 40
    assert {line[2] for line in checks} <= set(machine.MARKS.values())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "ended with signal 11"),
        ("raise ImportError('libcudart.so.12: no such file')", "libcudart.so.12: no such file"),
        ("raise SystemExit(3)", "exit code 3"),
    ],
)
def test_an_onnxruntime_that_does_not_load_is_a_line_and_code_4(
    tmp_path: Path, text: str, said: str
) -> None:
    broken(tmp_path, "onnxruntime", text)
    done = run(tmp_path, "--json")
    report = found(done)
    check = report["checks"]["onnxruntime"]
    assert done.returncode == 4
    assert not report["ready"]
    assert check["verdict"] == "missing"
    assert said in check["said"]
    assert check["fix"] in report["commands"]
    assert report["checks"]["cpu"]["said"] == "not known: onnxruntime does not load"
    assert "cannot run here: onnxruntime" in done.stderr


def test_an_import_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "SECONDS", 0.01)
    said = examination._try(("onnxruntime",))["onnxruntime"]
    assert said == "its import did not end within 0.01 s"


def test_two_onnxruntimes_in_one_environment_are_warned_of(tmp_path: Path) -> None:
    pretend(tmp_path, "onnxruntime-gpu", "1.31.0")
    report = found(run(tmp_path, "--json"))
    check = report["checks"]["two onnxruntimes"]
    assert check["verdict"] == "warning"
    assert "onnxruntime-gpu" in check["said"]
    assert check["fix"].startswith("pip uninstall -y ")
    assert check["fix"].endswith("&& pip install onnxruntime-gpu")
    assert report["ready"]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_a_cache_that_cannot_be_written_stops_a_run_and_is_code_4(tmp_path: Path) -> None:
    done = run(tmp_path, "--json", path="/proc/cache")  # not even root writes there
    report = found(done)
    assert done.returncode == 4
    assert "not writable" in report["checks"]["cache"]["said"]
    assert "export WB_CACHE=<a folder of yours>" in report["commands"]


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom workbench.doctor import examination\nlist(examination.examine())\n"
        "heavy = {'torch', 'tensorflow', 'onnxruntime', 'onnx', 'numpy', 'ai_edge_litert'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


def machine_checks(
    monkeypatch: pytest.MonkeyPatch, architecture: str, isa: tuple[str, ...]
) -> dict[str, Check]:
    monkeypatch.setattr(probe, "architecture", lambda: architecture)
    monkeypatch.setattr(probe, "isa", lambda: isa)
    return {one.name: one for one in machine.machine()}


@pytest.mark.parametrize(
    ("architecture", "isa", "here", "absent", "scheme"),
    [
        ("x86", ("avx2",), {"AVX2"}, {"VNNI", "AMX", "AVX-512"}, "u8s8-reduced"),
        ("x86", ("avx2", "avx_vnni"), {"AVX2", "VNNI"}, {"AMX", "AVX-512"}, "u8s8"),
        ("x86", ("avx2", "avx512f", "avx512_vnni", "amx_int8"),
         {"AVX2", "VNNI", "AMX", "AVX-512"}, set(), "u8s8"),
        ("arm", ("asimddp", "asimdhp"), {"dotprod", "fp16"}, {"i8mm"}, "s8s8"),
    ],
)  # fmt: skip
def test_the_isa_is_explained(
    monkeypatch: pytest.MonkeyPatch, architecture: str, isa: tuple[str, ...], here: set[str],
    absent: set[str], scheme: str,
) -> None:  # fmt: skip
    checks = machine_checks(monkeypatch, architecture, isa)
    assert {name for name in here | absent if checks[name].verdict == "ok"} == here
    assert all(checks[name].finding.startswith("absent: ") for name in absent)
    assert checks["INT8"].finding == f"quantize.scheme=auto is {scheme} here"


def test_an_isa_that_cannot_be_read_is_not_called_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = machine_checks(monkeypatch, "arm", ())
    assert "dotprod" not in checks
    assert checks["ISA"].finding == "its features cannot be read here"


def test_providers_that_do_not_exist_here_have_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    checks = {one.name: one for one in machine.providers(["CPUExecutionProvider"])}
    assert checks["cpu"].verdict == "ok"
    assert checks["cuda"].fix.endswith("pip install onnxruntime-gpu")
    assert (
        checks["coreml"].finding == "not for linux: comes with onnxruntime's own wheels for macOS"
    )
    assert not checks["coreml"].fix
    assert not checks["xnnpack"].fix


def test_what_torch_was_built_for_is_read_without_it() -> None:
    import torch

    said = machine._torch()
    assert (torch.version.cuda or "without CUDA") in said


def test_what_is_declared_is_the_projects_own(tmp_path: Path) -> None:
    import tomllib

    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = declared_requirements()
    assert len(needed.packages) == len(table["dependencies"])
    assert set(needed.extras) == set(table["optional-dependencies"]) - {"dev"}
    torch = next(one for one in needed.packages if one.name == "torch")
    assert torch.satisfied_by("2.13.0+cpu")
    assert not torch.satisfied_by("2.14.0")
    assert not torch.satisfied_by(None)
    assert needed.python.contains("3.11.7")
