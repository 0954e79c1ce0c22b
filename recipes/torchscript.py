"""TorchScript: one archive that LibTorch and PyTorch Mobile run without the model's Python code.

Traced where that is safe and scripted where the code decides by its data, checked on samples that
were not traced, and frozen.
"""

from workbench.recipe import Recipe
from workbench.steps import ToTorchScript

recipe = Recipe(ToTorchScript())
