"""Compilers found and not found, what they make, and what is kept of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from workbench.cache import root
from workbench.device.native import build
from workbench.errors import DependencyError, InputError, StepError

HEAD = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00"


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without compilers; a folder for some that `fake` makes."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    for name in ("CC", "ANDROID_NDK_HOME", "ANDROID_NDK_ROOT", "ANDROID_HOME", "ANDROID_SDK_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(build, "find_spec", lambda name: None)
    return programs


def fake(path: Path, script: str = "exit 0") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def writing(machine: int) -> str:
    """A compiler's script that writes an ELF file's head where -o says."""
    head = "".join(f"\\{byte:03o}" for byte in HEAD + machine.to_bytes(2, "little"))
    return f'while [ "$1" != -o ]; do shift; done\nprintf "{head}" > "$2"'


@pytest.mark.parametrize("target", ["x86_64-linux", "aarch64-linux"])
def test_without_a_compiler_the_error_says_what_to_install(target: str, bare: Path) -> None:
    with pytest.raises(DependencyError, match=target) as caught:
        build.runner_for(target)
    assert "pip install ziglang" in caught.value.fix
    # As Debian calls it: no package's name has an underscore.
    assert f"gcc-{target.replace('_', '-')}-gnu" in caught.value.fix


def test_without_an_ndk_the_error_says_which_variable_names_it(bare: Path) -> None:
    with pytest.raises(DependencyError, match="NDK") as caught:
        build.runner_for("android-arm64")
    assert "ANDROID_NDK_HOME" in caught.value.fix


def test_a_target_that_is_not_known_is_the_users_error(tmp_path: Path) -> None:
    for call in (lambda: build.runner_for("aarch64-linx"), lambda: build.build("riscv", tmp_path)):
        with pytest.raises(InputError, match="there is no target"):
            call()


def test_zig_is_taken_where_there_is_no_cross_compiler(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "find_spec", lambda name: object() if name == "ziglang" else None)
    command = build.compiler_for("aarch64-linux")
    assert command[:4] == (sys.executable, "-m", "ziglang", "cc")
    assert command[4:] == ("-target", "aarch64-linux-gnu.2.28")
    cross = fake(bare / "aarch64-linux-gnu-gcc")
    assert build.compiler_for("aarch64-linux") == (cross.name,)


def test_the_newest_ndk_compiles_for_the_oldest_android_that_will_do(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("26.1.1", "27.0.2"):
        for api in (21, 23, 24, 26, 35):
            fake(
                tmp_path / "sdk" / "ndk" / version / "toolchains/llvm/prebuilt/linux-x86_64/bin"
                / f"aarch64-linux-android{api}-clang"
            )  # fmt: skip
    monkeypatch.setenv("ANDROID_HOME", str(tmp_path / "sdk"))
    (found,) = build.compiler_for("android-arm64")
    assert "/27.0.2/" in found
    assert found.endswith("aarch64-linux-android24-clang")
    own = tmp_path / "own"
    shutil.copytree(tmp_path / "sdk" / "ndk" / "26.1.1", own)
    monkeypatch.setenv("ANDROID_NDK_HOME", str(own))
    assert build.compiler_for("android-arm64")[0].startswith(str(own))
    monkeypatch.setenv("ANDROID_NDK_HOME", str(tmp_path / "sdk"))  # none is in it
    assert "/27.0.2/" in build.compiler_for("android-arm64")[0]


@pytest.mark.process
def test_a_compiler_that_refuses_is_quoted(bare: Path, tmp_path: Path) -> None:
    broken = fake(bare / "aarch64-linux-gnu-gcc", "echo main.c:1: error: no such thing >&2; exit 1")
    with pytest.raises(StepError, match="does not compile") as caught:
        build.build("aarch64-linux", tmp_path)
    assert "error: no such thing" in caught.value.why
    with pytest.raises(DependencyError, match="does not start"):
        build.build("aarch64-linux", tmp_path, compiler="/nowhere/cc -m64")
    fake(broken)
    with pytest.raises(StepError):  # it says that all is well, and made nothing
        build.build("aarch64-linux", tmp_path)


@pytest.mark.process
def test_a_program_for_another_machine_is_refused(bare: Path, tmp_path: Path) -> None:
    fake(bare / "aarch64-linux-gnu-gcc", writing(62))
    with pytest.raises(StepError, match="made no program for aarch64-linux"):
        build.build("aarch64-linux", tmp_path)
    fake(bare / "aarch64-linux-gnu-gcc", writing(183))
    assert build.machine(build.build("aarch64-linux", tmp_path)) == 183


@pytest.mark.process
def test_a_runner_is_built_once(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WB_CACHE", str(tmp_path / "cache"))
    count = f"echo >> {tmp_path}/count\n"
    fake(bare / "aarch64-linux-gnu-gcc", count + writing(183))
    first = build.runner_for("aarch64-linux")
    assert build.runner_for("aarch64-linux") == first
    assert (tmp_path / "count").read_text().count("\n") == 1
    assert first.parent == root() / "runners"
    assert [path.name for path in first.parent.iterdir()] == [first.name]  # nothing half made
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-O3"))
    assert build.runner_for("aarch64-linux") != first


@pytest.mark.process
def test_what_fails_leaves_nothing_in_the_cache(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WB_CACHE", str(tmp_path / "cache"))
    fake(bare / "aarch64-linux-gnu-gcc", "exit 1")
    with pytest.raises(StepError):
        build.runner_for("aarch64-linux")
    assert list((tmp_path / "cache" / "runners").iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"\x7fELF", HEAD, b"MZ" + bytes(40), bytes(64)])
def test_what_is_no_elf_file_has_no_machine(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    assert build.machine(tmp_path / "file") == 0


@pytest.mark.process
def test_the_sources_compile_without_a_warning(tmp_path: Path) -> None:
    if shutil.which("cc") is None or not build.host_target():
        pytest.skip("no C compiler is here")
    strict = "cc -Wconversion -Wsign-conversion -Wshadow -Wpedantic -Werror"
    made = build.build(build.host_target(), tmp_path, compiler=strict)
    done = subprocess.run([str(made)], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "usage" in done.stdout


@pytest.mark.process
def test_zig_builds_the_runner_for_arm(tmp_path: Path) -> None:
    if find_spec("ziglang") is None:
        pytest.skip("ziglang is not here: pip install ziglang")
    zig = f"{sys.executable} -m ziglang cc -target aarch64-linux-gnu.2.28"
    made = build.build("aarch64-linux", tmp_path, compiler=zig)
    assert build.machine(made) == 183
    assert made.stat().st_size < 100_000


def test_the_sources_are_packed_with_the_package() -> None:
    """hatchling packs what lies in the package; this holds that they do, and are small."""
    names = {path.name for path in build.SOURCES.glob("*.[ch]")}
    assert names >= {
        "main.c",
        "plan.c",
        "ort.c",
        "litert.c",
        "litert_profile.c",
        "runner.h",
        "ort_api.h",
    }
    for name in names:
        text = (build.SOURCES / name).read_text(encoding="utf-8")
        assert text.count("\n") < 300, name
