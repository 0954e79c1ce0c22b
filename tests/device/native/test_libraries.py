"""The runtimes' libraries: the installed ones, those out of wheels, and why there is none."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from workbench.cache import root
from workbench.device.native import build, libraries
from workbench.errors import DependencyError

ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00" + (183).to_bytes(2, "little") + bytes(99)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WB_CACHE", str(tmp_path / "cache"))


class Pip:
    """A `pip download` that makes a wheel of given members, or fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[list[str]] = []
        self.members: dict[str, bytes] = {}
        self.error = ""
        monkeypatch.setattr(libraries.subprocess, "run", self.run)

    def run(self, argv: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.calls.append(argv)
        if self.error:
            return subprocess.CompletedProcess(argv, 1, "", self.error)
        folder = Path(argv[argv.index("--dest") + 1])
        with zipfile.ZipFile(folder / "package-1-cp311-aarch64.whl", "w") as archive:
            for name, content in self.members.items():
                archive.writestr(name, content)
        return subprocess.CompletedProcess(argv, 0, "", "")


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> Pip:
    monkeypatch.setattr(libraries, "host_target", lambda: "x86_64-linux")
    return Pip(monkeypatch)


def test_this_machines_are_the_installed_packages() -> None:
    if not build.host_target():
        pytest.skip("not Linux on x86_64 or aarch64")
    found = libraries.libraries(build.host_target())
    assert set(found) == {"onnxruntime", "litert"}
    assert found["onnxruntime"].name.startswith("libonnxruntime.so")
    assert found["litert"].name == "libLiteRt.so"
    for path in found.values():
        assert build.machine(path) == build.TARGETS[build.host_target()][0]


@pytest.mark.process
def test_they_are_found_without_importing_the_packages() -> None:
    if not build.host_target():
        pytest.skip("not Linux on x86_64 or aarch64")
    code = (
        "import sys; from workbench.device.native import build, libraries;"
        "libraries.libraries(build.host_target());"
        "assert not {'onnxruntime', 'ai_edge_litert'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_boards_library_is_taken_out_of_the_wheel_once(pip: Pip) -> None:
    pip.members = {
        "onnxruntime/capi/libonnxruntime.so.1.32.0": ELF,
        "onnxruntime/capi/libonnxruntime_providers_shared.so": b"other",
        "../../evil/libonnxruntime.so": b"evil",
        "onnxruntime/capi/../../../libonnxruntime.so": b"evil",
    }
    found = libraries.libraries("aarch64-linux", ["onnxruntime"])["onnxruntime"]
    assert found.read_bytes() == ELF
    assert found.is_relative_to(root() / "runtimes" / "aarch64-linux")
    assert libraries.libraries("aarch64-linux", ["onnxruntime"])["onnxruntime"] == found
    assert len(pip.calls) == 1
    left = [path for path in (root() / "runtimes").rglob("*") if path.is_file()]
    assert left == [found]
    assert "evil" not in {path.name for path in root().parent.rglob("*")}


def test_pip_is_asked_for_the_installed_version_and_for_no_registry(pip: Pip) -> None:
    from importlib.metadata import version

    pip.members = {"ai_edge_litert/libLiteRt.so": ELF}
    libraries.libraries("aarch64-linux", ["litert"])
    (argv,) = pip.calls
    assert argv[:4] == [sys.executable, "-m", "pip", "download"]
    assert argv[-1] == f"ai-edge-litert=={version('ai-edge-litert')}"
    assert "manylinux_2_28_aarch64" in argv
    assert "--only-binary=:all:" in argv
    assert "--no-deps" in argv
    assert not any("://" in word or "index" in word for word in argv)


def test_without_the_wheel_the_error_says_what_to_do(pip: Pip) -> None:
    pip.error = "ERROR: No matching distribution found for onnxruntime\n"
    with pytest.raises(DependencyError, match="onnxruntime") as caught:
        libraries.libraries("aarch64-linux", ["onnxruntime"])
    assert "No matching distribution" in caught.value.why
    assert "[libraries]" in caught.value.fix
    assert not [path for path in (root() / "runtimes").rglob("*") if path.is_file()]


def test_a_wheel_without_the_library_is_an_error(pip: Pip) -> None:
    pip.members = {"onnxruntime/capi/libonnxruntime_providers_shared.so": ELF}
    with pytest.raises(DependencyError, match="no library of onnxruntime"):
        libraries.libraries("aarch64-linux", ["onnxruntime"])


def test_a_wheel_of_another_machine_is_an_error(pip: Pip) -> None:
    pip.members = {"ai_edge_litert/libLiteRt.so": ELF.replace(b"\xb7", b"\x3e")}
    with pytest.raises(DependencyError, match="another machine"):
        libraries.libraries("aarch64-linux", ["litert"])


def test_androids_come_from_the_user(pip: Pip) -> None:
    with pytest.raises(DependencyError, match="Android") as caught:
        libraries.libraries("android-arm64", ["onnxruntime"])
    assert "jni/arm64-v8a" in caught.value.fix
    assert "[libraries]" in caught.value.fix
    assert not pip.calls


def test_a_package_that_is_not_installed_is_an_error(
    pip: Pip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match="onnxruntime"):
        libraries.libraries("x86_64-linux", ["onnxruntime"])
