"""INT8 after training: our presets against FP32, every peer, and each technique left out.

    python benchmarks/ptq.py                # all of it: hours; the peers' files are kept
    python benchmarks/ptq.py --nets mobilenetv1 --rows fp32 presets --json figures.json
    python benchmarks/ptq.py --nncf-python nncf/bin/python --aimet-python aimet/bin/python

The networks are those of `ptq_nets.py`, trained or fetched once; 300 unlabelled samples calibrate,
others are scored. Every figure is of a real file in ONNX Runtime or LiteRT. Speed is that of FP32
ONNX in ONNX Runtime on one thread over the file's, from fresh processes taken in turns; the seconds
are the procedure's own in a fresh process, imports not counted. A drop's interval is that of
matched pairs (see `paired_difference`).
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import multiprocessing
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import ptq_nets  # noqa: E402
import ptq_peers  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from ptq_score import Line, markdown, onnx_artifact, outputs, score  # noqa: E402

from tests import nets  # noqa: E402
from workbench.artifact import Artifact  # noqa: E402
from workbench.device import profile  # noqa: E402
from workbench.errors import StepError, WorkbenchError  # noqa: E402
from workbench.measure.host import latencies  # noqa: E402
from workbench.measure.latency import PRESETS, Latency, speedup  # noqa: E402
from workbench.quantization.core.presets import TECHNIQUES  # noqa: E402
from workbench.steps import ToTflite  # noqa: E402

DEVICE = profile.load("cpu")
QUICK = 300  # samples scored by --quick


def ours(
    model_path: Path, calibration: Mapping[str, NDArray[Any]], out: Path, preset: str,
    **options: Any,
) -> float:  # fmt: skip
    """Quantize a file with our engine; seconds that it took. options: the engine's."""
    import onnx

    from workbench.quantization.core import engine

    def batches(size: int) -> Any:
        count = len(next(iter(calibration.values())))
        for start in range(0, count, size):
            yield {name: one[start : start + size] for name, one in calibration.items()}

    began = time.perf_counter()
    settings = engine.QuantizationOptions(preset=preset, **options)
    made = engine.quantize(onnx.load(model_path), batches, settings)
    seconds = time.perf_counter() - began
    onnx.save(made.model, out)
    return seconds


@dataclass
class Bench:
    """One network under test: what rows need to make their files."""

    net: ptq_nets.Net
    folder: Path
    pythons: Mapping[str, str]
    timeout: float
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def base(self) -> Artifact:
        return onnx_artifact(self.net.path, "float32")

    def place_operators(self, key: str) -> Path:
        found = self.folder / key.replace(":", "-")
        found.mkdir(parents=True, exist_ok=True)
        return found


@dataclass(frozen=True)
class Row:
    """A row: how its file is made, and the seconds of that; timed says whether its speed is too."""

    key: str
    label: str
    group: str
    make: Callable[[Bench], tuple[Artifact, float | None]]
    timed: bool = True
    slow: bool = False


def _fp32(bench: Bench) -> tuple[Artifact, float | None]:
    return bench.base, None


def _peer(name: str, bench: Bench) -> tuple[Artifact, float | None]:
    made = ptq_peers.make(name, bench.net, bench.pythons, bench.timeout)
    bench.notes[f"peer:{name}"] = made.note
    precision = "dynamic" if name == "ort-dynamic" else "int8"
    return onnx_artifact(made.path, precision), made.seconds


def _ours(key: str, options: Mapping[str, Any], bench: Bench) -> tuple[Artifact, float | None]:
    out = bench.place(key) / "model.onnx"
    spawn = multiprocessing.get_context("spawn")
    # A process of its own: no row profits from what another one imported or cached.
    with ProcessPoolExecutor(1, spawn) as pool:
        pool.submit(_warm).result()
        job = pool.submit(ours, bench.net.path, bench.net.calibration, out, **options)
        seconds = job.result()
    return onnx_artifact(out, "int8"), seconds


def _warm() -> None:
    import onnx  # noqa: F401
    import torch  # noqa: F401

    from workbench.quantization.core import engine  # noqa: F401


def _tflite(precision: str, bench: Bench, source: Artifact | None = None) -> Artifact:
    data = nets.dataset_of(**bench.net.calibration)
    name = f"tflite-{precision}" if source is None else f"{source.path.parent.name}-{precision}"
    context = nets.context(bench.place(name), data, device=DEVICE)
    step = ToTflite(precision=precision)  # type: ignore[arg-type]
    return step.run(source or bench.base, context)


def _converter(precision: str, bench: Bench) -> tuple[Artifact, float | None]:
    began = time.perf_counter()
    made = _tflite(precision, bench)
    return made, time.perf_counter() - began if precision == "int8" else None


def _our_tflite(key: str, options: Mapping[str, Any], bench: Bench) -> tuple[Artifact, float]:
    quantized, seconds = _ours(f"{key}-source", {**options, "runtime": "tflite"}, bench)
    began = time.perf_counter()
    made = _tflite("int8", bench, quantized)
    return made, (seconds or 0) + time.perf_counter() - began


def rows() -> list[Row]:
    """All rows, in the table's order."""
    whole: dict[str, Any] = {"preset": "balanced", "whole": True}
    found = [Row("fp32", "FP32 ONNX", "fp32", _fp32)]
    found += [
        Row(f"peer:{key}", label, "peers", partial(_peer, key), slow=key in ptq_peers.SLOW)
        for key, label in ptq_peers.PEERS.items()
    ]
    for preset in ("fast", "balanced", "best"):
        for key, name, options in (
            (f"preset:{preset}", f"**{preset}**", {"preset": preset}),
            (f"whole:{preset}", f"**{preset}**, every layer INT8", {**whole, "preset": preset}),
        ):
            found.append(Row(key, name, "presets", partial(_ours, key, options)))
    found += [
        Row("tflite:float32", "TFLite FP32", "tflite", partial(_converter, "float32")),
        Row("tflite:converter", "TensorFlow's converter, INT8", "tflite",
            partial(_converter, "int8")),
        Row("tflite:balanced", "**balanced** as TFLite INT8", "tflite",
            partial(_our_tflite, "tflite:balanced", whole)),
    ]  # fmt: skip
    for technique in TECHNIQUES:
        # The prefix is left out of all: with it there is less to see of the others.
        options = {**whole, "without": (technique,)}
        make = partial(_ours, f"without:{technique}", options)
        label = f"every layer INT8, without {technique.replace('_', ' ')}"
        if technique != "prefix":
            found.append(Row(f"without:{technique}", label, "ablation", make, timed=False))
    return found


def chosen(patterns: Sequence[str], net: str, quick: bool) -> list[Row]:
    """The rows that a pattern names by group or key; FP32, the reference, always."""
    return [
        row
        for row in rows()
        if row.key == "fp32"
        or (
            any(p == row.group or fnmatch.fnmatch(row.key, p) for p in patterns)
            and not (quick and row.slow)
            and (row.group != "peers" or ptq_peers.wanted(row.key.partition(":")[2], net))
        )
    ]


def measure(bench: Bench, selected: Sequence[Row], preset: str) -> list[Line]:
    """Make, score and time every row; one that fails says why in its line."""
    lines: dict[str, Line] = {}
    made: dict[str, Artifact] = {}
    net, reference = bench.net, None
    for row in selected:
        began = time.monotonic()
        line = Line(row.key, row.label)
        try:
            artifact, seconds = row.make(bench)
            found = outputs(artifact, net.evaluation, DEVICE)
            reference = found if reference is None else reference
            figures = score(reference, found, net.labels)
            size = artifact.path.stat().st_size / net.path.stat().st_size
            note = bench.notes.get(row.key, "")
            line = replace(line, figures=figures, size=size, seconds=seconds, note=note)
            made[row.key] = artifact
        except WorkbenchError as error:
            line = replace(line, note=" ".join(str(error).split())[:300])
        except Exception as error:  # noqa: BLE001 - one row's failure must not end the table
            line = replace(line, note=f"{type(error).__name__}: {error}"[:300])
        lines[row.key] = line
        print(f"{time.monotonic() - began:6.0f} s  {net.name}  {row.key}", file=sys.stderr)
    timed = {row.key: made[row.key] for row in selected if row.timed and row.key in made}
    if PRESETS[preset].processes and len(timed) > 1:
        one = {name: value[:1] for name, value in net.evaluation.items()}
        found_times = latencies(timed, one, DEVICE, PRESETS[preset], lambda *_: None)
        baseline = found_times["fp32"]
        if not isinstance(baseline, Latency):
            raise StepError("FP32 ONNX could not be timed") from baseline
        for key, latency in found_times.items():
            if isinstance(latency, Latency):
                lines[key] = replace(lines[key], speed=speedup(baseline, latency))
    return list(lines.values())


def main() -> None:
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    groups = ["fp32", "peers", "presets", "tflite", "ablation"]
    parser.add_argument("--nets", nargs="+", choices=ptq_nets.NETS, default=list(ptq_nets.NETS))
    parser.add_argument(
        "--rows", nargs="+", default=groups, help=f"of {', '.join(groups)}, or keys"
    )
    parser.add_argument("--quick", action="store_true", help="fewer samples, runs and peers")
    parser.add_argument("--latency", choices=PRESETS, help="how much to time; none for no speed")
    parser.add_argument("--data", type=Path, help="a folder of NAME.onnx and NAME.npz instead")
    parser.add_argument("--keep", type=Path, help="keep the files there")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--nncf-python", default="", help="a Python that has NNCF")
    parser.add_argument("--aimet-python", default="", help="a Python that has AIMET")
    parser.add_argument("--peer-timeout", type=float, default=1200, metavar="SECONDS")
    given = parser.parse_args()
    pythons = {"nncf": given.nncf_python, "aimet": given.aimet_python}
    latency = given.latency or ("quick" if given.quick else "standard")
    record = {}
    with tempfile.TemporaryDirectory(prefix="wb-ptq-") as scratch:
        for name in given.nets:
            net = ptq_nets.load(name, given.data)
            if given.quick:
                few = {key: value[:QUICK] for key, value in net.evaluation.items()}
                net = replace(net, evaluation=few, labels=net.labels[:QUICK])
            folder = (given.keep or Path(scratch)) / name
            bench = Bench(net, folder, pythons, given.peer_timeout)
            lines = measure(bench, chosen(given.rows, name, given.quick), latency)
            record[name] = [line.to_json() for line in lines]
            print("\n".join(markdown(f"{name} ({net.samples} samples)", lines)), flush=True)
            if given.json:
                given.json.write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
