"""The steps, one a file. A step is a frozen dataclass: its fields are its options."""

from workbench.steps.bake_preprocess import BakePreprocess
from workbench.steps.export import Export
from workbench.steps.fix_shapes import FixShapes
from workbench.steps.float16 import Float16
from workbench.steps.fuse_transformer import FuseTransformer
from workbench.steps.prune import Prune
from workbench.steps.quantize_dynamic import QuantizeDynamic
from workbench.steps.quantize_static import QuantizeStatic
from workbench.steps.simplify import Simplify
from workbench.steps.to_ort import ToOrt
from workbench.steps.to_tflite import ToTflite
from workbench.steps.to_torchscript import ToTorchScript

__all__ = [
    "BakePreprocess",
    "Export",
    "FixShapes",
    "Float16",
    "FuseTransformer",
    "Prune",
    "QuantizeDynamic",
    "QuantizeStatic",
    "Simplify",
    "ToOrt",
    "ToTflite",
    "ToTorchScript",
]
