"""Ranges in ONNX Runtime's calibration file, which its quantize_static takes as it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from workbench.errors import DependencyError, StepError, first_line
from workbench.quantization.core.plan import Range


def save_calibration(ranges: Mapping[str, Range], path: Path) -> None:
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
        raise _too_old(error) from error

    found = {
        name: TensorData(lowest=np.float32(one.low), highest=np.float32(one.high))
        for name, one in ranges.items()
    }
    save_tensors_data(TensorsData(CalibrationMethod.MinMax, found), path)


def load_calibration(path: Path) -> dict[str, Range]:
    """The ranges of a calibration file: of ours, or of any of onnxruntime's calibrators.

    Raises StepError where the file is none.
    """
    try:
        from onnxruntime.quantization.calibrate import load_tensors_data
    except ImportError as error:
        raise _too_old(error) from error

    try:
        found = load_tensors_data(path)
        return {name: Range(*_ends(data.range_value)) for name, data in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StepError(
            f"{path} is no calibration file", first_line(error), "calibrate again"
        ) from error


def _ends(pair: tuple[object, object]) -> tuple[float, float]:
    """Lowest and highest as numbers; onnxruntime's are arrays of any number of channels."""
    low, high = (np.asarray(end, np.float64) for end in pair)
    return float(low.min()), float(high.max())


def _too_old(error: ImportError) -> DependencyError:
    return DependencyError(
        "calibration files need onnxruntime 1.31 or newer", str(error), "install a newer one"
    )
