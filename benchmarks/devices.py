"""The device layer on this machine: overhead, native against Python, noise, and many at once.

    python benchmarks/devices.py                      # overhead and native against Python
    python benchmarks/devices.py --trials 100         # two equal files, and one made 5 % slower
    python benchmarks/devices.py --devices 4          # emulated boards, at once and one alone

Ratios are taken in one run; nothing fails by them. The networks are chains of equal convolutions,
so that one with a layer more in twenty is 5 % slower.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from workbench.artifact import Artifact  # noqa: E402
from workbench.device import profile  # noqa: E402
from workbench.inspect import artifacts as files  # noqa: E402
from workbench.inspect import read  # noqa: E402
from workbench.measure.latency import PRESETS, Latency, Preset, ProcessSamples, speedup  # noqa: E402
from workbench.measure.remote import Assignment, DeviceRun, Watch, measure  # noqa: E402
from workbench.process import Worker  # noqa: E402

# Run in a process of its own: counts the seconds that the command spends inside the runner.
TIMED = """
import sys, time
from workbench.device import runners
inside, run = [0.0], runners.Runner.run
def timed(*given):
    began = time.perf_counter()
    try:
        return run(*given)
    finally:
        inside[0] += time.perf_counter() - began
runners.Runner.run = timed
from workbench import cli
sys.argv = ["wb", *sys.argv[1:]]
try:
    cli.main()
finally:
    print(inside[0], file=sys.stderr)
"""


def chain(path: Path, layers: int, size: int = 48, channels: int = 32) -> Path:
    """A chain of 3x3 convolutions."""
    from onnx import TensorProto, helper, numpy_helper, save

    generator = np.random.default_rng(0)
    nodes, weights = [], []
    name = "x"
    for at in range(layers):
        shape = (channels, channels, 3, 3)
        values = (generator.standard_normal(shape) * 0.05).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"w{at}"))
        nodes.append(helper.make_node("Conv", [name, f"w{at}"], [f"c{at}"], pads=[1] * 4))
        name = f"c{at}"
    nodes.append(helper.make_node("GlobalAveragePool", [name], ["y"]))
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels, size, size]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, channels, 1, 1]),
    ]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def overhead(path: Path, runs: int = 5) -> None:
    """The share of `wb profile` that is spent inside the runner."""
    shares, walls = [], []
    for _ in range(runs):
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", TIMED, "profile", str(path), "--device", "cpu-native",
             "--quick", "--json"],
            capture_output=True, text=True, cwd=ROOT, check=True,
        )  # fmt: skip
        walls.append(time.perf_counter() - began)
        shares.append(float(done.stderr.strip().splitlines()[-1]) / walls[-1])
    print(f"overhead: {np.median(walls):.2f} s, {np.median(shares):.0%} of it inside the runner")


def wanted(paths: list[Path], preset: Preset) -> Assignment:
    artifacts = {one.name: files.open_artifact(one) for one in paths}
    inputs = {label: _inputs(one) for label, one in artifacts.items()}
    facts = {label: read(one.path) for label, one in artifacts.items()}
    return Assignment(targets=artifacts, facts=facts, timed=inputs, samples={}, preset=preset)


def _inputs(artifact: Artifact) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        one.name: generator.standard_normal([size or 1 for size in one.shape]).astype(np.float32)
        for one in artifact.inputs
    }


def native(asked: Assignment) -> DeviceRun:
    """One measurement through the native runner."""
    from workbench.device.connection import transport_of

    device = profile.load("cpu-native")
    found = DeviceRun(device=device)
    watch = Watch(
        progress=lambda _fraction, _note: None, message=print, finished=lambda _rounds: None,
        stop=threading.Event(),
    )  # fmt: skip
    transport = transport_of(device)
    try:
        measure(transport, found, asked, watch)
    finally:
        transport.close()
    for error in found.failed.values():
        raise error
    return found


def against_python(path: Path, rounds: int = 12) -> None:
    """Medians of the native runner's processes over those of this package's, in turns."""
    preset = PRESETS["standard"]
    once = Preset("once", processes=1, warmup=5, runs=50, seconds=0.4)
    asked = wanted([path], once)
    cpu = profile.load("cpu")
    mine, theirs = [], []
    for _ in range(rounds):
        with Worker() as worker:
            raw = worker.call(
                "latency", asked.targets[path.name], asked.timed[path.name], cpu,
                preset.warmup, preset.runs, preset.seconds,
            )  # fmt: skip
        theirs.append(ProcessSamples.from_json(raw))
        mine.append(native(asked).rounds[0][path.name])
    ratio = speedup(Latency(tuple(theirs)), Latency(tuple(mine)))
    print(
        f"native against Python, {path.suffix}: {Latency(tuple(mine)).median.value:.3f} ms against "
        f"{Latency(tuple(theirs)).median.value:.3f} ms, Python / native "
        f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
    )


def noise(one: Path, other: Path, count: int, preset: Preset) -> tuple[int, int]:
    """In how many trials a difference was found: of two equal files, and of one that is slower."""
    found = [0, 0]
    twin = one.with_name(f"twin-{one.name}")
    twin.write_bytes(one.read_bytes())
    asked = wanted([one, twin, other], preset)
    for _ in range(count):
        timed = native(asked).latencies()
        base = timed[one.name]
        found[0] += speedup(base, timed[twin.name]).excludes(1)
        slower = speedup(base, timed[other.name])
        found[1] += slower.excludes(1) and slower.value < 1
    return found[0], found[1]


def side_by_side(path: Path, count: int) -> None:
    """Seconds of `wb profile` on as many emulated boards at once, over those of one alone."""
    from tests.arm64 import target

    if why := target.lacking():
        print(f"emulated boards: not measured: {why}")
        return
    folder = path.parent / "boards"
    (folder / "devices").mkdir(parents=True)
    (folder / "bin").mkdir()
    with target.network() as network, target.ssh_target(network) as board:
        ssh = shlex.join([str(board.programs / "ssh"), "-F", str(board.config)])
        (folder / "bin" / "ssh").write_text(f'#!/bin/sh\nexec {ssh} "$@"\n')
        (folder / "bin" / "ssh").chmod(0o755)
        names = [f"board{at}" for at in range(count)]
        for name in names:
            words = ["-oBatchMode=yes", "-oStrictHostKeyChecking=accept-new", name, "true"]
            subprocess.run([folder / "bin/ssh", *words], check=True, capture_output=True)
            # A folder each: what one has is not there for another.
            text = f'transport = "ssh"\nhost = "{name}"\nfolder = "/root/{name}"\n'
            (folder / "devices" / f"{name}.toml").write_text(text)
        seconds = {}
        for some in (1, 2, count):
            devices = [word for name in names[:some] for word in ("--device", name)]
            walls = []
            for turn in range(4):  # the first brings the files
                began = time.perf_counter()
                subprocess.run(
                    [sys.executable, "-m", "workbench", "profile", str(path), *devices, "--quick",
                     "--json"],
                    check=True, cwd=folder, capture_output=True,
                    env={**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"},
                )  # fmt: skip
                walls += [time.perf_counter() - began] if turn else []
            seconds[some] = float(np.median(walls))
            print(
                f"emulated boards at once: {some}, {seconds[some]:.1f} s, "
                f"{seconds[some] / seconds[1]:.2f} x one ({os.cpu_count()} cores)",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=0)
    parser.add_argument("--devices", type=int, default=0)
    parser.add_argument("--preset", default="quick", choices=list(PRESETS))
    parser.add_argument("files", nargs="*", type=Path, help="measured against Python too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wb-devices-") as folder:
        one = chain(Path(folder) / "chain.onnx", 20, size=36)
        slower = chain(Path(folder) / "slower.onnx", 21, size=36)
        if arguments.devices:
            side_by_side(chain(Path(folder) / "small.onnx", 2, size=16), arguments.devices)
            return
        overhead(one)
        for path in (one, *arguments.files):
            against_python(path)
        if arguments.trials:
            preset = PRESETS[arguments.preset]
            alarms, hits = noise(one, slower, arguments.trials, preset)
            print(
                f"{preset.name}, {arguments.trials} trials: no difference between equal files in "
                f"{arguments.trials - alarms}, 5 % slower found in {hits}"
            )


if __name__ == "__main__":
    main()
