"""The runtimes' shared libraries that the native runner opens, by target."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from workbench.cache import root
from workbench.device.native.build import TARGETS, host_target, machine
from workbench.errors import DependencyError

# By runtime: the package on the registry, and the library inside it.
PACKAGES = {
    "onnxruntime": ("onnxruntime", r"onnxruntime/capi/libonnxruntime\.so[0-9.]*"),
    "litert": ("ai-edge-litert", r"ai_edge_litert/libLiteRt\.so"),
}
# The newest first: pip takes what fits.
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")


def libraries(target: str, runtimes: Sequence[str] = tuple(PACKAGES)) -> dict[str, Path]:
    """The library of each runtime for a target.

    This machine's are those of the packages that are installed; an ARM board's come out of the
    registry's wheels of the same versions, and are kept. Raises DependencyError where one is not to
    be had, as for Android, whose archives no registry of Python packages has.
    """
    if target == "android-arm64":
        raise DependencyError(
            f"no library of {' and '.join(runtimes)} for Android is here",
            "it is the one that your app links",
            "unzip jni/arm64-v8a/ of the archive (.aar) of onnxruntime-android or litert, and name "
            'the file in the profile: [libraries] onnxruntime = { push = "…/libonnxruntime.so" }',
        )
    if target == host_target():
        return {name: _find_installed(name) for name in runtimes}
    return {name: _fetch(name, target) for name in runtimes}


def _find_installed(runtime: str) -> Path:
    package, pattern = PACKAGES[runtime]
    module = pattern.partition("/")[0]
    spec = find_spec(module)  # does not import it
    for location in (spec.submodule_search_locations or ()) if spec is not None else ():
        base = Path(location).parent
        for path in sorted(Path(location).rglob("lib*.so*")):
            if re.fullmatch(pattern, str(path.relative_to(base))):
                return path
    raise DependencyError(
        f"{package} here has no shared library of its own",
        f"looked for {pattern.replace(chr(92), '')}",
        f"pip install --force-reinstall {package}, or name a library in the profile",
    )


def _fetch(runtime: str, target: str) -> Path:
    """A library out of the registry's wheel for ARM, of the version that is installed here."""
    package, pattern = PACKAGES[runtime]
    try:
        release = version(package)
    except PackageNotFoundError as error:
        raise DependencyError(
            f"{package} is not installed", "", f"pip install {package}"
        ) from error
    folder = root() / "runtimes" / target
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / f"{runtime}-{release}.so"
    if kept.is_file():
        return kept
    with tempfile.TemporaryDirectory(dir=folder, prefix=".get-") as name:
        wheel = _wheel(package, release, Path(name))
        part = Path(name) / "library.so"
        try:
            with zipfile.ZipFile(wheel) as archive:
                members = [member for member in archive.namelist() if re.fullmatch(pattern, member)]
                if not members:
                    raise DependencyError(f"{wheel.name} has no library of {runtime}")
                # The bytes of one member, under our name: nothing is unpacked by its own path.
                part.write_bytes(archive.read(members[0]))
        except zipfile.BadZipFile as error:
            raise DependencyError(f"{wheel.name} is damaged", str(error), "run again") from error
        if machine(part) != TARGETS[target][0]:
            raise DependencyError(f"the library in {wheel.name} is for another machine")
        part.replace(kept)
    return kept


def _wheel(package: str, release: str, folder: Path) -> Path:
    """The package's wheel for ARM, by pip and the index that it is set to."""
    python = f"{sys.version_info.major}{sys.version_info.minor}"
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
        "--disable-pip-version-check", "--implementation", "cp", "--python-version", python,
        *platforms, "--dest", str(folder), f"{package}=={release}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        errors = [line for line in done.stderr.splitlines() if "ERROR" in line]
        raise DependencyError(
            f"pip has no {package} {release} for ARM",
            (errors[-1] if errors else done.stderr.strip())[:300],
            f'name its library in the profile, under [libraries]; or set runner = "python", where '
            f"the device has {package}",
        )
    return wheels[0]
