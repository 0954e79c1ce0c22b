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
from workbench.doctor.requirements import Needed, declared
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
    """Every check, in the order of the groups."""
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
    found: dict[str, list[str] | str] = {}
    for name, process in started.items():
        try:
            out, err = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            found[name] = f"its import did not end within {SECONDS} s"
            continue
        lines = [line.strip() for line in err.splitlines() if line.strip()]
        if process.returncode < 0:
            found[name] = f"its import ended with signal {-process.returncode}"
        elif process.returncode > 0:
            found[name] = lines[-1] if lines else f"exit code {process.returncode}"
        else:
            found[name] = list(map(str, json.loads(out.strip().splitlines()[-1])))
    return found


def _python() -> Iterator[Check]:
    group = "Workbench"
    yield Check(
        group=group, name="wb", verdict="ok", said=f"{__version__}, {Path(__file__).parents[1]}"
    )
    needed = declared()
    version = platform.python_version()
    good = needed.python.contains(version, prereleases=True)
    yield Check(
        group=group,
        name="Python",
        verdict="ok" if good else "missing",
        said=f"{version}{'' if good else f', wb needs {needed.python}'}, {sys.executable}",
        fix="" if good else "python3.11 -m venv .venv && .venv/bin/pip install .",
    )
    off = os.environ.get("ORT_DISABLE_TELEMETRY") == "1"
    yield Check(
        group=group,
        name="telemetry",
        verdict="ok" if off else "warning",
        said="ONNX Runtime's is switched off in every process of wb"
        if off
        else "ONNX Runtime's is on: ORT_DISABLE_TELEMETRY is not 1",
        fix="" if off else "export ORT_DISABLE_TELEMETRY=1",
    )


def _packages(tried: dict[str, list[str] | str]) -> Iterator[Check]:
    needed = declared()
    modules = {name.partition(".")[0]: result for name, result in tried.items()}
    for one in needed.packages:
        yield _package(one, modules)
    both = [name for name in probe.DISTRIBUTIONS if _version(name)]
    if len(both) > 1:
        keep = both[-1]
        yield Check(
            group="Packages",
            name="two onnxruntimes",
            verdict="warning",
            said=f"{' and '.join(both)} write the same folder: which one runs is chance",
            fix=f"pip uninstall -y {' '.join(both)} && pip install {keep}",
        )
    for extra, packages in needed.extras.items():
        lacking = [one for one in packages if not one.satisfied_by(_version(one.name))]
        here = ", ".join(f"{one.name} {_version(one.name)}" for one in packages)
        yield Check(
            group="Extras",
            name=extra,
            verdict="note" if lacking else "ok",
            said=f"lacks {', '.join(one.text for one in lacking)}" if lacking else here,
            fix=f"pip install {' '.join(_quoted(one) for one in lacking)}" if lacking else "",
        )


def _package(one: Needed, modules: dict[str, list[str] | str]) -> Check:
    variants = probe.DISTRIBUTIONS if one.name == "onnxruntime" else (one.name,)
    name = next((name for name in variants if _version(name)), one.name)
    version = _version(name)
    module = MODULES.get(one.name, one.name.replace("-", "_"))
    verdict: Verdict = "ok"
    fix = ""
    if version is None:
        verdict, said, fix = "missing", f"not here, needs {one.text}", f"pip install {_quoted(one)}"
    elif util.find_spec(module) is None:
        verdict, said = "missing", f"{version} is listed, but its files are gone"
        fix = f"pip install --force-reinstall --no-deps {name}=={version}"
    elif isinstance(trouble := modules.get(module), str):
        verdict, said = "missing", f"{version} does not load: {trouble}"
        fix = f"pip install --force-reinstall {name}=={version}"
    elif not one.satisfied_by(version):
        verdict, said = "warning", f"{version}, wb was made for {one.text}"
        fix = f"pip install {_quoted(one, name)}"
    else:
        said = version
    return Check(group="Packages", name=name, verdict=verdict, said=said, fix=fix)


def _quoted(one: Needed, name: str = "") -> str:
    return f"'{name or one.name}{one.specifier}'"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
