"""Either runner as one thing for tests: a plan in, an answer out."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from workbench.device.native import build, libraries
from workbench.device.runner_plan import Array, Plan, lay_out, outputs_of


@dataclass(frozen=True)
class Answer:
    """What a process of a runner gave. line: its JSON, where it printed just that."""

    code: int
    stdout: str
    stderr: str

    @property
    def line(self) -> dict[str, Any]:
        assert self.stdout.endswith("\n"), self
        assert self.stdout.count("\n") == 1, self
        found = json.loads(self.stdout)
        assert found["wb"] == 1
        return found

    @property
    def error(self) -> str:
        """Why it refused; it must have."""
        assert self.code == 3, self
        assert set(self.line) == {"wb", "error"}
        return self.line["error"]


@dataclass(frozen=True)
class Runner:
    """kind: `native` or `python`; argv: what starts it; folder: for its files."""

    kind: str
    argv: tuple[str, ...]
    folder: Path

    def __call__(self, plan: Plan | bytes, timeout: float = 120) -> Answer:
        path = self.folder / "plan"
        path.write_bytes(plan if isinstance(plan, bytes) else plan.text().encode("ascii"))
        done = subprocess.run(
            [*self.argv, str(path)], capture_output=True, timeout=timeout, check=False,
            cwd=self.folder,  # a damaged plan's outputs may be any name
        )  # fmt: skip
        # Strictly: what it prints is UTF-8.
        return Answer(done.returncode, done.stdout.decode(), done.stderr.decode("utf-8", "replace"))

    def plan(self, model: Path, inputs: Mapping[str, Array], *wanted: str, **more: Any) -> Plan:
        """A plan for all samples' outputs, its inputs written: arrays [samples, ...] each."""
        samples = more.pop("samples", None) or len(next(iter(inputs.values())))
        data, tensors = lay_out(inputs, samples)
        (self.folder / "inputs").write_bytes(data)
        runtime = "litert" if model.suffix == ".tflite" else "onnxruntime"
        made = Plan(
            runtime=runtime, library="", model=str(model), inputs=str(self.folder / "inputs"),
            tensors=tensors, output_names=wanted, samples=samples,
            outputs=str(self.folder / "outputs"),
            limit=60,
        )  # fmt: skip
        if self.kind == "native":
            made = replace(made, library=str(library(runtime)))
        return replace(made, **more)

    def outputs(self, plan: Plan) -> list[Array]:
        """What the runner gives for the plan's samples; it must not refuse."""
        answer = self(plan)
        assert answer.code == 0, answer
        return outputs_of(Path(plan.outputs), plan.samples, plan.output_names, "the runner")


def library(runtime: str) -> Path:
    return libraries.libraries(build.host_target(), [runtime])[runtime]


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
