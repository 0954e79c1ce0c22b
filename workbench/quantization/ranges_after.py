"""Nonlinearities that may follow a quantized tensor, over float64 arrays of any shape.

A range is searched for the error behind them: what they squash need not be represented.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.quantization.ranges_search import Nonlinearity

Array = NDArray[Any]


def relu(values: Array) -> Array:
    found: Array = np.maximum(values, 0.0)
    return found


def clip(low: float, high: float) -> Nonlinearity:
    """ReLU6 is clip(0, 6)."""
    return lambda values: np.clip(values, low, high)


def leaky_relu(slope: float = 0.01) -> Nonlinearity:
    return lambda values: np.where(values < 0, slope * values, values)


def hard_sigmoid(alpha: float = 1 / 6, beta: float = 0.5) -> Nonlinearity:
    """PyTorch's by default; ONNX's own defaults are 0.2 and 0.5."""
    return lambda values: np.clip(alpha * values + beta, 0.0, 1.0)


def hard_swish(values: Array) -> Array:
    found: Array = values * np.clip(values / 6 + 0.5, 0.0, 1.0)
    return found


def sigmoid(values: Array) -> Array:
    found: Array = 0.5 * (1 + np.tanh(0.5 * values))  # never overflows
    return found


def silu(values: Array) -> Array:
    found: Array = values * sigmoid(values)
    return found


def tanh(values: Array) -> Array:
    found: Array = np.tanh(values)
    return found


def gelu(values: Array) -> Array:
    """By tanh (Hendrycks and Gimpel 2016): within 0.0005 of the exact one."""
    found: Array = 0.5 * values * (1 + np.tanh(0.7978845608 * (values + 0.044715 * values**3)))
    return found
