"""What each preset does, in order: the one visible list."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from workbench.errors import RecipeError, did_you_mean
from workbench.quantization.core.lockstep import Techniques

Preset = Literal["fast", "balanced", "best"]

# In the order in which they act. An ablation leaves one out by its name.
TECHNIQUES = (
    "preparation",  # batch norms, Pads and constants folded: `prepare`
    "equalization",  # factors between channels that minimise the outputs' noise: `equalization`
    "importance",  # also with channels weighed by the outputs' gradients; the nearer is taken
    "compensation",  # weights that take their inputs' error into account: `rounding`
    "reconstruction",  # GPTQ rounding: `rounding`
    "bias_correction",  # each output's mean as in float, on the quantized path: `lockstep`
    "projection",  # ranges by their effect on the outputs, where gradients tell: `projection`
    "prefix",  # the first layers in float, where these make most of the noise: `prefix`
)


@dataclass(frozen=True)
class Recipe:
    """Samples that the second pass may use, and which techniques are on.

    variants: what is left out in each way that is tried; where there are several, the way that is
    nearest to float on samples held back is taken.
    """

    samples: int
    techniques: frozenset[str]
    variants: tuple[tuple[str, ...], ...] = ((),)

    @property
    def lockstep(self) -> Techniques:
        names = ("compensation", "reconstruction", "bias_correction")
        return Techniques(**{name: name in self.techniques for name in names})


PRESETS: dict[str, Recipe] = {
    "fast": Recipe(64, frozenset(TECHNIQUES) - {"importance", "compensation", "reconstruction"}),
    "balanced": Recipe(300, frozenset(TECHNIQUES)),
    # Label-free training of scales, biases and rounding was tried here, and gained nothing after
    # the rest (20.6 dB before and after on MobileNetV1): choosing between ways does.
    "best": Recipe(
        300,
        frozenset(TECHNIQUES),
        ((), ("projection",), ("compensation",), ("projection", "reconstruction")),
    ),
}


def chosen(preset: str, without: tuple[str, ...] = ()) -> Recipe:
    """A preset, some techniques left out. Raises RecipeError for a name that is not there."""
    for name in without:
        if name not in TECHNIQUES:
            raise RecipeError(
                f"there is no technique '{name}'", "", did_you_mean(name, set(TECHNIQUES))
            )
    found = PRESETS[preset]
    return replace(found, techniques=found.techniques - set(without))
