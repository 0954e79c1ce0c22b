"""The peers of `ptq.py`: which there are, under which Python; their files, made once and cached.

Each runs `ptq_peer.py` in a process of its own. onnxruntime is this environment's; NNCF and AIMET
pin versions of what the workbench uses, so they may live in environments of their own:

    python -m venv nncf && nncf/bin/pip install nncf onnx onnxruntime
    python -m venv aimet && aimet/bin/pip install aimet-onnx
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ptq_nets import CACHE, Net

from workbench.errors import DependencyError, StepError

SCRIPT = Path(__file__).with_name("ptq_peer.py")
# By peer, 1 at first: +1 when SCRIPT makes another file of it, or the cached one is taken.
REVISIONS = {"ort-percentile": 2, "ort-entropy": 2}
PACKAGES = {"ort": "onnxruntime", "nncf": "nncf", "aimet": "aimet-onnx"}
TRANSFORMERS = ("vit", "bert")
# onnxruntime's histograms keep every activation of every sample: 45 MB a sequence of BERT.
FEWER = {("ort-percentile", "bert"): 64, ("ort-entropy", "bert"): 64}

# Label by key, in the table's order.
PEERS = {
    "ort-minmax-tensor": "onnxruntime defaults (min-max, per tensor, S8S8)",
    "ort-minmax-channel": "onnxruntime min-max, per channel, U8S8",
    "ort-percentile": "onnxruntime percentile (99.999), per channel, U8S8",
    "ort-entropy": "onnxruntime entropy (2,048 bins), per channel, U8S8",
    "ort-dynamic": "onnxruntime dynamic, per channel",
    "nncf-performance": "NNCF performance, fast bias correction",
    "nncf-mixed": "NNCF mixed, fast bias correction",
    "nncf-performance-full": "NNCF performance, full bias correction",
    "nncf-mixed-full": "NNCF mixed, full bias correction",
    "aimet-cle": "AIMET CLE, SQNR ranges, per channel",
    "aimet-adaround": "the same with AdaRound (1,000 steps)",
}
SLOW = ("aimet-adaround", "nncf-performance-full", "nncf-mixed-full")  # left out by --quick


@dataclass(frozen=True)
class Made:
    """A peer's file, what its procedure took, and what to know of it."""

    path: Path
    seconds: float
    note: str = ""


def wanted(peer: str, net: str) -> bool:
    """Dynamic quantization is for transformers only."""
    return peer != "ort-dynamic" or net in TRANSFORMERS


def make(peer: str, net: Net, pythons: Mapping[str, str], timeout: float) -> Made:
    """The peer's file of a network. pythons: by the first part of the peer's name; else ours.

    Raises DependencyError where the peer is not installed, StepError where it fails or takes longer
    than `timeout` seconds.
    """
    family = peer.partition("-")[0]
    python = pythons.get(family) or sys.executable
    version = installed(python, PACKAGES[family])
    few = FEWER.get((peer, net.name))
    what = f"{peer} {version} {REVISIONS.get(peer, 1)} {few}"
    key = hashlib.sha256(net.path.read_bytes() + what.encode()).hexdigest()
    out = CACHE / "peers" / f"{net.name}-{peer}-{key[:12]}.onnx"
    record = out.with_suffix(".json")
    if not record.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = out.with_name(f"partial-{os.getpid()}-{out.name}")
        seconds = _run(python, peer, net, few, partial, timeout)
        partial.replace(out)
        record.write_text(json.dumps({"seconds": seconds}), encoding="utf-8")
    seconds = json.loads(record.read_text(encoding="utf-8"))["seconds"]
    return Made(out, seconds, f"{PACKAGES[family]} {version}" + (f", {few} samples" if few else ""))


@functools.cache
def installed(python: str, package: str) -> str:
    """A package's version under a Python. Raises DependencyError where it is not there."""
    ask = f"import importlib.metadata as m; print(m.version({package!r}))"
    said = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False)
    if said.returncode:
        raise DependencyError(
            f"{package} is not installed", "", f"pip install {package}; see {SCRIPT.name}'s options"
        )
    return said.stdout.strip()


def _run(python: str, peer: str, net: Net, few: int | None, out: Path, timeout: float) -> float:
    kind = "transformer" if net.name in TRANSFORMERS else "cnn"
    with tempfile.TemporaryDirectory(prefix="wb-ptq-") as scratch:
        arrays = Path(scratch) / "calibration.npz"
        samples = {key: value[:few] for key, value in net.calibration.items()}
        np.savez(arrays, allow_pickle=False, **samples)
        call = [python, str(SCRIPT), peer, str(net.path), str(arrays), str(out), kind]
        try:
            said = subprocess.run(
                call, capture_output=True, text=True, timeout=timeout, cwd=scratch, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise StepError(f"{peer} took longer than {timeout:.0f} s") from error
    if said.returncode or not out.exists():
        last = [line for line in said.stderr.strip().splitlines() if line.strip()][-1:]
        raise StepError(f"{peer} failed", " ".join(last)[:200])
    return float(json.loads(said.stdout.strip().splitlines()[-1])["seconds"])
