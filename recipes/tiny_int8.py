"""INT8 for microcontrollers: one TFLite file of integers alone, inputs and outputs too.

Exports the model to ONNX, simplifies the graph, and quantizes weights, activations, inputs and
outputs to int8; a file that would compute anything in float is refused, naming the operators.
Beside it lies the same file as a C++ array (model_data.h, model_data.cc), as TensorFlow Lite Micro
takes it. Latencies are those of this machine, not of a microcontroller.
"""

from workbench.recipe import Recipe
from workbench.steps import Export, Simplify, ToTflite

recipe = Recipe(
    Export(opset=17),
    Simplify(),
    ToTflite(precision="int8-io", c_array=True),
)
