"""Ranges in ONNX Runtime's calibration file, which its quantize_static takes as it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from workbench.errors import DependencyError
from workbench.quantization.core.plan import ActivationRange


def save_calibration(ranges: Mapping[str, ActivationRange], path: Path) -> None:
    """Write `ranges` for `quantize_static(calibration_cache_path=path)`, with MinMax as its method.

    Ends are float32 there, as the quantizer computes scales from them. Raises DependencyError where
    onnxruntime is older than 1.31.
    """
    try:
        from onnxruntime.quantization.calibrate import (
            CalibrationMethod,
            TensorData,
            TensorsData,
            save_tensors_data,
        )
    except ImportError as error:
        raise DependencyError(
            "calibration files need onnxruntime 1.31 or newer", str(error), "install a newer one"
        ) from error

    tensors = {
        name: TensorData(lowest=np.float32(tensor.low), highest=np.float32(tensor.high))
        for name, tensor in ranges.items()
    }
    save_tensors_data(TensorsData(CalibrationMethod.MinMax, tensors), path)
