"""onnxruntime's tools without its package's torch."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.process
def test_they_are_onnxruntimes_and_import_no_torch() -> None:
    text = (
        "import sys; from workbench.onnxgraph.ort_tools import tool;"
        "names = ('onnx_model_utils', 'convert_onnx_models_to_ort', 'symbolic_shape_infer',"
        " 'mobile_helpers.usability_checker');"
        "print(*(tool(name).__file__ for name in names), sep='\\n');"
        "assert not {'torch', 'onnxruntime.tools'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", text], check=True, capture_output=True, text=True)
    files = done.stdout.splitlines()
    assert len(files) == 4
    assert all("onnxruntime/tools" in file for file in files)
