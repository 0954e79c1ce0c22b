"""What starts at once stays light: no heavy package is imported before it is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.process

HEAVY = (
    "torch", "tensorflow", "onnx", "onnxruntime", "onnxsim", "onnx2tf", "numpy", "sklearn", "scipy",
    "matplotlib", "PIL", "rich", "optuna", "ray", "torch_pruning",
)  # fmt: skip

PROBE = """
import json, os, sys
import workbench.cli.app
command = json.loads(sys.argv[1])
if command is not None:
    sys.argv = ["wb", *command]
    try:
        workbench.cli.app.main()
    except SystemExit as end:
        assert not end.code, end.code
loaded = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps([loaded, os.environ["ORT_DISABLE_TELEMETRY"]]), file=sys.stderr)
"""


def probe(command, folder):
    """The command's output, the top-level modules it loaded, and the telemetry switch."""
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    ended = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(command)],
        capture_output=True, text=True, cwd=folder, check=False, timeout=60, env=environment,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    loaded, telemetry = json.loads(ended.stderr.splitlines()[-1])
    return ended.stdout, set(loaded), telemetry


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (None, ""),
        (["--help"], "Usage: wb"),
        (["--version"], "wb "),
        (["recipes"], "mobile-int8"),
        (["show", "mobile-int8"], "ort.quantize"),
        (["show", "mobile-int8", "--set", "export.opset=18"], "opset=18"),
    ],
)
def test_quick_commands_import_nothing_heavy(command, words, tmp_path):
    output, loaded, telemetry = probe(command, tmp_path)
    assert words in output
    assert "workbench" in loaded
    assert not loaded & set(HEAVY)
    assert telemetry == "1"


def test_the_python_face_imports_nothing_until_it_is_asked():
    listing = "import json, sys, workbench; dir(workbench); print(json.dumps(list(sys.modules)))"
    ended = subprocess.run(
        [sys.executable, "-c", listing], capture_output=True, text=True, check=True
    )
    loaded = json.loads(ended.stdout)
    assert [name for name in loaded if name.startswith("workbench")] == ["workbench"]
    assert not {name.partition(".")[0] for name in loaded} & set(HEAVY)


def test_telemetry_is_switched_off_even_where_it_was_on():
    ended = subprocess.run(
        [sys.executable, "-c", "import os, workbench; print(os.environ['ORT_DISABLE_TELEMETRY'])"],
        capture_output=True, text=True, check=True,
        env={**os.environ, "ORT_DISABLE_TELEMETRY": "0"},
    )  # fmt: skip
    assert ended.stdout == "1\n"
