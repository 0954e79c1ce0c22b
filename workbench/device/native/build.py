"""Builds the runner in C: for this machine, for ARM boards, and for Android."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from workbench.cache import root
from workbench.errors import DependencyError, InputError, StepError, did_you_mean

SOURCES = Path(__file__).parent
# By target: the machine in its ELF header, Debian's cross compiler, and zig's name for it. The
# oldest glibc that the registry's wheels of the runtimes run on is 2.28.
TARGETS: dict[str, tuple[int, str, str]] = {
    "x86_64-linux": (62, "x86_64-linux-gnu-gcc", "x86_64-linux-gnu.2.28"),
    "aarch64-linux": (183, "aarch64-linux-gnu-gcc", "aarch64-linux-gnu.2.28"),
    "android-arm64": (183, "", ""),
}
FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Wconversion")
SANITIZED = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
ANDROID = 24  # the API level from which on ONNX Runtime's and LiteRT's archives run


def host_target() -> str:
    """The target that this machine is; '' where it is none."""
    machine = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
    architecture = machine.get(platform.machine().lower(), "")
    return f"{architecture}-linux" if architecture and sys.platform == "linux" else ""


def runner_for(target: str) -> Path:
    """The runner's program for a target, built where it is not yet.

    Raises DependencyError where no compiler is found, StepError where one refuses.
    """
    _check(target)
    command = compiler_for(target)
    hashed = hashlib.sha256(repr((command, FLAGS, target)).encode())
    for path in _sources("*.[ch]"):
        hashed.update(path.read_bytes())
    program = root() / "runners" / f"wb-runner-{target}-{hashed.hexdigest()[:16]}"
    if not program.is_file():
        program.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=program.parent, prefix=".build-") as folder:
            build(target, Path(folder)).replace(program)
    return program


def build(
    target: str, folder: Path, *, compiler: str | None = None, sanitize: bool = False
) -> Path:
    """Compile the runner into a folder. sanitize: with AddressSanitizer, for this machine.

    compiler: its command line, found without. Raises DependencyError where no compiler is found,
    StepError where it refuses.
    """
    _check(target)
    words = shlex.split(compiler) if compiler else compiler_for(target)
    path = folder / "wb-runner"
    flags = SANITIZED if sanitize else ("-s",)
    command = [
        *words, *FLAGS, *flags, "-o", str(path), *map(str, _sources("*.c")), "-ldl",
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False
        )
    except OSError as error:
        raise DependencyError(f"the compiler {words[0]} does not start", str(error)) from error
    if done.returncode or not path.is_file():
        lines = done.stderr.strip().splitlines()
        raise StepError(
            f"the runner for {target} does not compile",
            lines[-1][:300] if lines else f"exit code {done.returncode}",
            f"the compiler was {command[0]}: try another, or name a runner in the profile",
        )
    if machine(path) != TARGETS[target][0]:
        raise StepError(f"{command[0]} made no program for {target}")
    return path


def compiler_for(target: str) -> tuple[str, ...]:
    """The words that begin a call of a compiler for a target. Raises DependencyError."""
    _, debian, zig = TARGETS[target]
    if target == "android-arm64":
        return (_ndk(),)
    own = [os.environ.get("CC", ""), "cc", "gcc", "clang"] if target == host_target() else []
    for name in [*own, debian]:
        if name and shutil.which(name):
            return (name,)
    if find_spec("ziglang") is not None:
        return (sys.executable, "-m", "ziglang", "cc", "-target", zig)
    package = debian.removesuffix("-gcc").replace("_", "-")
    raise DependencyError(
        f"there is no C compiler for {target} here",
        "the native runner is built from its source",
        f"pip install ziglang, or on Debian 'apt install gcc-{package}'; "
        'or set runner = "python" in the profile',
    )


def _ndk() -> str:
    """The clang of an Android NDK that is installed."""
    homes = [os.environ.get(name, "") for name in ("ANDROID_NDK_HOME", "ANDROID_NDK_ROOT")]
    folders = [Path(home) for home in homes if home]
    for name in ("ANDROID_HOME", "ANDROID_SDK_ROOT"):
        if home := os.environ.get(name):
            folders += sorted(Path(home).glob("ndk/*"), reverse=True)
    for ndk in folders:
        pattern = "toolchains/llvm/prebuilt/*/bin/aarch64-linux-android*-clang"
        fitting = [
            compiler
            for compiler in sorted(ndk.glob(pattern))
            if compiler.name.removeprefix("aarch64-linux-android").removesuffix("-clang")
            >= str(ANDROID)
        ]
        if fitting:
            return str(fitting[0])
    raise DependencyError(
        "there is no Android NDK here",
        "ANDROID_NDK_HOME, ANDROID_NDK_ROOT and ANDROID_HOME name none",
        "install the NDK (Android Studio's SDK manager, or its archive) and set ANDROID_NDK_HOME; "
        'or set runner = "benchmark_model" in the profile, for .tflite alone',
    )


def machine(path: Path) -> int:
    """The machine that an ELF file is for, as its header numbers it; 0 of what is none."""
    head = path.read_bytes()[:20]
    if len(head) < 20 or head[:4] != b"\x7fELF" or head[4] != 2:
        return 0
    return int(struct.unpack_from("<H", head, 18)[0])


def _sources(pattern: str) -> Sequence[Path]:
    return sorted(SOURCES.glob(pattern))


def _check(target: str) -> None:
    if target not in TARGETS:
        raise InputError(f"there is no target '{target}'", "", did_you_mean(target, TARGETS))
