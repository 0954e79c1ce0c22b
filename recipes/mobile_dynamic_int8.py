"""Dynamic INT8 for transformers and recurrent networks on phones: no calibration samples needed.

Exports the model to ONNX, simplifies the graph, then goes two ways. For ONNX Runtime attention,
LayerNormalization and Gelu are fused, weights stored in INT8 and activations quantized as they
come; for TFLite weights are stored in INT8 (dynamic range). Convolutional networks gain nothing by
this: for those see mobile-int8.
"""

from workbench.recipe import Recipe
from workbench.steps import Export, FuseTransformer, QuantizeDynamic, Simplify, ToOrt, ToTflite

recipe = Recipe(
    Export(opset=17),
    Simplify(),
    branches={
        "ort": (FuseTransformer(), QuantizeDynamic(), ToOrt()),
        "tflite": (ToTflite(precision="dynamic"),),
    },
)
