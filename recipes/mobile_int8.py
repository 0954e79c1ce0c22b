"""INT8 for phones: one checkpoint to ORT-mobile and to TFLite, in FP32 and INT8.

Exports the model to ONNX at an opset that mobile runtimes take, simplifies the graph, then goes
three ways: static INT8 for ONNX Runtime and its mobile format, INT8 TFLite, and float TFLite. Both
INT8 files come from the same engine: `--set quantize.preset=fast` is quicker.
"""

from workbench.recipe import Recipe
from workbench.steps import Export, QuantizeStatic, Simplify, ToOrt, ToTflite

recipe = Recipe(
    Export(opset=17),
    Simplify(),
    branches={
        "ort": (QuantizeStatic(), ToOrt()),
        "tflite-float32": (ToTflite(precision="float32"),),
        "tflite": (QuantizeStatic(runtime="tflite", whole=True), ToTflite(precision="int8")),
    },
)
