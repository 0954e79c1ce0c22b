"""INT8 for phones, preprocessing inside: files that take a camera's pixels as they are.

Like mobile-int8, but the dataset's scale, mean, std, layout and channel order become part of the
graph, so an app feeds uint8 pixels [1, H, W, C], RGB, and only resizes and crops. The files may end
in softmax or argmax too: `--set bake_preprocess.head=softmax`.
"""

from workbench.recipe import Recipe
from workbench.steps import BakePreprocess, Export, QuantizeStatic, Simplify, ToOrt, ToTflite

recipe = Recipe(
    Export(opset=17),
    Simplify(),
    BakePreprocess(),
    branches={
        "ort": (QuantizeStatic(), ToOrt()),
        "tflite": (QuantizeStatic(runtime="tflite", whole=True), ToTflite(precision="int8")),
    },
)
