"""What a report's decision tables rest on: each file's facts, and how it takes wrong inputs."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.artifact import Artifact, Format
from workbench.cache import key_of
from workbench.codec import from_plain, to_plain
from workbench.device import probe
from workbench.errors import DatasetError, WorkbenchError
from workbench.measure.robustness import BATCH, Robustness, robustness

if TYPE_CHECKING:
    from workbench.inspect.facts import Facts
    from workbench.measure.host import Target
    from workbench.measure.target import Bench
    from workbench.worker_pool import RenewedWorker

RUNTIMES = ("torch", "onnx", "onnxruntime", "ai-edge-litert")


@dataclass(frozen=True, kw_only=True)
class Checks:
    """What was found of one artifact, None where it was not, for the reasons in `missing`.

    ir: the ONNX IR version, 0 in other formats. nodes_before: of the ONNX graph as it was exported
    or given. history: the steps that made the file.
    """

    facts: Facts | None = None
    ir: int = 0
    nodes_before: int | None = None
    robustness: Robustness | None = None
    history: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def checks_of(
    targets: Mapping[str, Target], exported: Artifact | None, bench: Bench
) -> dict[str, Checks]:
    """Checks of every artifact among the targets; what is missing is found, and kept.

    exported: the ONNX graph as it was exported or given, whose nodes are counted. What a file may
    crash runs in one of two workers of the pool, begun anew only after a crash. No error ends a
    row: it is said where the figure would stand.
    """
    display = bench.workspace.display
    artifacts = {
        name: artifact for name, artifact in targets.items() if isinstance(artifact, Artifact)
    }
    findings = _Found(bench)
    inspected = list(artifacts.values()) + ([exported] if exported is not None else [])
    if not any(findings.missing(artifact) for artifact in inspected):
        display.done("checks", "cached")
    else:
        display.update("checks", 0.0)
    checks_by_name: dict[str, Checks] = {}
    before = findings.facts(exported)[0] if exported is not None else None
    nodes = sum(before.operators.values()) if before is not None else None

    def checks_in_a_worker(artifact: Artifact) -> Checks:
        with bench.workspace.pool.lend() as worker:
            return findings.checks(artifact, worker)

    with ThreadPoolExecutor(2) as threads:
        for done, (name, checks) in enumerate(
            zip(artifacts, threads.map(checks_in_a_worker, artifacts.values()), strict=True), 1
        ):
            checks_by_name[name] = replace(checks, nodes_before=nodes)
            display.update("checks", done / len(artifacts))
    display.done("checks", "done" if findings.measured else "cached")
    return checks_by_name


class _Found:
    """Facts and robustness of artifacts, from the cache where they are there."""

    def __init__(self, bench: Bench) -> None:
        self.device = bench.device
        self.data = bench.data
        self.cache = bench.workspace.cache
        self.measured = False

    @cached_property
    def examples(self) -> Mapping[str, Any]:
        return self.data.examples(BATCH)

    def missing(self, artifact: Artifact) -> bool:
        keys = self._facts_key(artifact), self._robustness_key(artifact)
        return any(self.cache.record(key) is None for key in keys)

    def checks(self, artifact: Artifact, worker: RenewedWorker) -> Checks:
        facts, why = self.facts(artifact, worker)
        tried, failed = self._robustness(artifact, worker)
        return Checks(
            facts=facts,
            ir=ir_version(artifact.path) if artifact.format is Format.ONNX else 0,
            robustness=tried,
            history=artifact.history,
            missing=tuple(reason for reason in (why, failed) if reason),
        )

    def facts(
        self, artifact: Artifact, worker: RenewedWorker | None = None
    ) -> tuple[Facts | None, str]:
        from workbench import inspect

        key = self._facts_key(artifact)
        record = self.cache.record(key)
        if record is not None:
            return replace(from_plain(record, inspect.Facts), path=artifact.path), ""
        self.measured = True
        try:
            facts = inspect.read(artifact.path, worker)
        except WorkbenchError as error:
            return None, f"the file could not be inspected: {error.what}"
        except Exception as error:  # noqa: BLE001 - a fault in looking must not cost what was made
            return None, f"the file could not be inspected: unexpected {type(error).__name__}"
        self.cache.store(key, to_plain(facts))
        return facts, ""

    def _robustness(
        self, artifact: Artifact, worker: RenewedWorker
    ) -> tuple[Robustness | None, str]:
        key = self._robustness_key(artifact)
        record = self.cache.record(key)
        if record is not None:
            return Robustness.from_json(record), ""
        self.measured = True
        try:
            robust = robustness(artifact, self.examples, self.device, worker)
        except DatasetError:
            raise
        except WorkbenchError as error:
            return None, f"batching and error handling: {error.what}"
        self.cache.store(key, robust.to_json())
        return robust, ""

    def _facts_key(self, artifact: Artifact) -> str:
        return key_of(
            "facts", artifact.sha256, str(artifact.format), probe.versions(RUNTIMES),
            code=("workbench.inspect",),
        )  # fmt: skip

    def _robustness_key(self, artifact: Artifact) -> str:
        return key_of(
            "robustness", artifact.sha256, artifact.to_json(), self.data.facts.inputs,
            self.device.to_json(), probe.versions(RUNTIMES),
            code=("workbench.measure.robustness",),
        )  # fmt: skip


def ir_version(path: Path) -> int:
    """The IR version of an ONNX file, 0 where its first field is another.

    Every writer of protobuf puts fields in their order, and `ir_version` is ModelProto's first: a
    tag of one byte (field 1, a varint) and a number below 128.
    """
    with path.open("rb") as file:
        head = file.read(2)
    return head[1] if len(head) == 2 and head[0] == 0x08 and head[1] < 0x80 else 0
