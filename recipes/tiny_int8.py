"""INT8 for microcontrollers: one TFLite file of integers alone, inputs and outputs too.

Exports the model to ONNX, simplifies the graph, and quantizes weights, activations, inputs and
outputs to int8 with the engine that mobile-int8 has; a file that would compute anything in float is
refused, naming the operators. Beside it lies the same file as a C++ array (model_data.h,
model_data.cc), as TensorFlow Lite Micro takes it. Latencies are those of this machine, not of a
microcontroller.
"""

from workbench.recipe import Recipe
from workbench.steps import Export, QuantizeStatic, Simplify, ToTflite

recipe = Recipe(
    Export(opset=17),
    Simplify(),
    QuantizeStatic(runtime="tflite", whole=True),
    ToTflite(precision="int8-io", c_array=True),
)
