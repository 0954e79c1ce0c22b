"""The steps, one a file. A step is a frozen dataclass: its fields are its options."""

from workbench.steps.export import Export
from workbench.steps.quantize_static import QuantizeStatic
from workbench.steps.simplify import Simplify
from workbench.steps.to_ort import ToOrt
from workbench.steps.to_tflite import ToTflite

__all__ = ["Export", "QuantizeStatic", "Simplify", "ToOrt", "ToTflite"]
