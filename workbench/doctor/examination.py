"""`wb doctor`: what this machine can do, what is missing, and the command that gets it.

Packages are read from their metadata; only what starts in a second is imported, each in a process
of its own, so that a broken installation is a line and not the end of the command.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from workbench import __version__
from workbench.device import probe
from workbench.doctor import machine
from workbench.doctor.machine import Check, Verdict
from workbench.doctor.requirements import RequiredPackage, declared_requirements
from workbench.errors import DependencyError

MODULES = {"pillow": "PIL", "scikit-learn": "sklearn"}  # where not the package's own name
TRIED = ("onnxruntime", "onnx", "ai_edge_litert.interpreter")
SECONDS = 60  # for an import: on a cold disk they are slow

PROGRAM = """
import importlib, json, sys
module = importlib.import_module(sys.argv[1])
print(json.dumps(getattr(module, "get_available_providers", list)()))
"""


@dataclass(frozen=True)
class Examination:
    """Every check of this machine, in the order of the groups."""

    checks: tuple[Check, ...]

    @property
    def missing(self) -> list[str]:
        """The names of what `wb recipe mobile-int8` needs and is not here."""
        return [check.name for check in self.checks if check.verdict == "missing"]

    @property
    def commands(self) -> list[str]:
        """What to run to get what is missing or wrong, each command once."""
        fixes = (c.fix for c in self.checks if c.verdict in ("missing", "warning") and c.fix)
        return list(dict.fromkeys(fixes))

    def require_ready(self) -> None:
        """Raise DependencyError where something is missing that `wb recipe mobile-int8` needs."""
        if not self.missing:
            return
        commands = self.commands
        raise DependencyError(
            f"'wb recipe mobile-int8' cannot run here: {', '.join(self.missing)}",
            "each has a line above that says what is wrong",
            commands[0] if len(commands) == 1 else "run the commands above" if commands else "",
        )


def examine_machine() -> Examination:
    """What this machine can do; seconds, for some packages are tried in processes of their own."""
    return Examination(tuple(examine()))


def examine() -> Iterator[Check]:
    """Every check, in the order of the groups, as it is made."""
    tried = _try(TRIED)
    yield from _python()
    yield from _packages(tried)
    yield from machine.machine()
    available = tried["onnxruntime"]
    yield from machine.providers(available if isinstance(available, list) else None)
    yield from machine.tools()
    yield from machine.folders()


def _try(modules: tuple[str, ...]) -> dict[str, list[str] | str]:
    """Import each module in a process of its own, side by side.

    Gives the execution providers that it lists (none but onnxruntime does), or what went wrong.
    """
    started = {
        name: subprocess.Popen(
            [sys.executable, "-c", PROGRAM, name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        for name in modules
    }
    results: dict[str, list[str] | str] = {}
    for name, process in started.items():
        try:
            out, err = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            results[name] = f"its import did not end within {SECONDS} s"
            continue
        lines = [line.strip() for line in err.splitlines() if line.strip()]
        if process.returncode < 0:
            results[name] = f"its import ended with signal {-process.returncode}"
        elif process.returncode > 0:
            results[name] = lines[-1] if lines else f"exit code {process.returncode}"
        else:
            results[name] = list(map(str, json.loads(out.strip().splitlines()[-1])))
    return results


def _python() -> Iterator[Check]:
    group = "Workbench"
    yield Check(
        group=group, name="wb", verdict="ok", finding=f"{__version__}, {Path(__file__).parents[1]}"
    )
    requirements = declared_requirements()
    version = platform.python_version()
    good = requirements.python.contains(version, prereleases=True)
    yield Check(
        group=group,
        name="Python",
        verdict="ok" if good else "missing",
        finding=f"{version}{'' if good else f', wb needs {requirements.python}'}, {sys.executable}",
        fix="" if good else "python3.11 -m venv .venv && .venv/bin/pip install .",
    )
    off = os.environ.get("ORT_DISABLE_TELEMETRY") == "1"
    yield Check(
        group=group,
        name="telemetry",
        verdict="ok" if off else "warning",
        finding="ONNX Runtime's is switched off in every process of wb"
        if off
        else "ONNX Runtime's is on: ORT_DISABLE_TELEMETRY is not 1",
        fix="" if off else "export ORT_DISABLE_TELEMETRY=1",
    )


def _packages(tried: dict[str, list[str] | str]) -> Iterator[Check]:
    requirements = declared_requirements()
    modules = {name.partition(".")[0]: result for name, result in tried.items()}
    for package in requirements.packages:
        yield _package(package, modules)
    both = [name for name in probe.DISTRIBUTIONS if _version(name)]
    if len(both) > 1:
        keep = both[-1]
        yield Check(
            group="Packages",
            name="two onnxruntimes",
            verdict="warning",
            finding=f"{' and '.join(both)} write the same folder: which one runs is chance",
            fix=f"pip uninstall -y {' '.join(both)} && pip install {keep}",
        )
    for extra, packages in requirements.extras.items():
        lacking = [
            package for package in packages if not package.satisfied_by(_version(package.name))
        ]
        here = ", ".join(f"{package.name} {_version(package.name)}" for package in packages)
        yield Check(
            group="Extras",
            name=extra,
            verdict="note" if lacking else "ok",
            finding=f"lacks {', '.join(package.text for package in lacking)}" if lacking else here,
            fix=f"pip install {' '.join(_quoted(package) for package in lacking)}"
            if lacking
            else "",
        )


def _package(package: RequiredPackage, modules: dict[str, list[str] | str]) -> Check:
    variants = probe.DISTRIBUTIONS if package.name == "onnxruntime" else (package.name,)
    name = next((name for name in variants if _version(name)), package.name)
    version = _version(name)
    module = MODULES.get(package.name, package.name.replace("-", "_"))
    verdict: Verdict = "ok"
    fix = ""
    if version is None:
        verdict, finding, fix = (
            "missing",
            f"not here, needs {package.text}",
            f"pip install {_quoted(package)}",
        )
    elif util.find_spec(module) is None:
        verdict, finding = "missing", f"{version} is listed, but its files are gone"
        fix = f"pip install --force-reinstall --no-deps {name}=={version}"
    elif isinstance(trouble := modules.get(module), str):
        verdict, finding = "missing", f"{version} does not load: {trouble}"
        fix = f"pip install --force-reinstall {name}=={version}"
    elif not package.satisfied_by(version):
        verdict, finding = "warning", f"{version}, wb was made for {package.text}"
        fix = f"pip install {_quoted(package, name)}"
    else:
        finding = version
    return Check(group="Packages", name=name, verdict=verdict, finding=finding, fix=fix)


def _quoted(package: RequiredPackage, name: str = "") -> str:
    return f"'{name or package.name}{package.specifier}'"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
