"""FP16 for phones: half the size and nearly the same outputs, to ORT-mobile and to TFLite.

Inputs and outputs stay float32. Fast where the processor computes in half precision (ARM from
v8.2 on, GPUs, neural engines); elsewhere the file is half as large, and no faster than FP32. An
.ort file made on x86 holds that machine's conversions to float32; where they cost, ship the .onnx.
"""

from workbench.recipe import Recipe
from workbench.steps import Export, Float16, Simplify, ToOrt, ToTflite

recipe = Recipe(
    Export(opset=17),
    Simplify(),
    branches={
        # With style=fixed the converter would write weights as this machine computes: in float32.
        "ort": (Float16(), ToOrt(style="runtime")),
        "tflite": (ToTflite(precision="float16"),),
    },
)
