"""INT8 for phones, of a network with half its multiply-accumulates.

Takes out the channels that matter least, lets what is left learn from the original on the
calibration samples, which need no labels, and goes on as mobile-int8 does. How small is
`--set prune.macs=0.5`; `wb sweep` tries several.
"""

from workbench.recipe import Recipe
from workbench.steps import Export, Prune, QuantizeStatic, Simplify, ToOrt, ToTflite

recipe = Recipe(
    Prune(macs=0.5),
    Export(opset=17),
    Simplify(),
    original=(Export(opset=17), Simplify()),
    branches={
        "ort": (QuantizeStatic(), ToOrt()),
        "tflite-float32": (ToTflite(precision="float32"),),
        "tflite": (QuantizeStatic(runtime="tflite", whole=True), ToTflite(precision="int8")),
    },
)
