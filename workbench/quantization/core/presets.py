"""What each preset does, in order: the one visible list.

>>> "reconstruction" in choose_preset("balanced").techniques
True
>>> "reconstruction" in choose_preset("balanced", without=("reconstruction",)).techniques
False
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from workbench.errors import RecipeError, did_you_mean

# In the order in which they act. An ablation leaves one out by its name.
TECHNIQUES = (
    "preparation",  # batch norms, Pads and constants folded: `prepare`
    "equalization",  # factors between channels that minimise the outputs' noise: `equalization`
    "importance",  # also with channels weighed by the outputs' gradients; the nearer is taken
    "compensation",  # weights that take their inputs' error into account: `gptq`
    "reconstruction",  # GPTQ rounding: `gptq`
    "bias_correction",  # each output's mean as in float, on the quantized path: `sequential`
    "projection",  # ranges by their effect on the outputs, where gradients tell: `range_search`
    "prefix",  # the first layers in float, where these make most of the noise: `float_prefix`
)


@dataclass(frozen=True)
class QuantizationPreset:
    """How much is done.

    Attributes:
        samples: how many calibration samples are read at most.
        techniques: those of `TECHNIQUES` that are on.
        variants: what is left out in each way that is tried; where there are several, the way that
            is nearest to float on samples held back is taken.
    """

    samples: int
    techniques: frozenset[str]
    variants: tuple[tuple[str, ...], ...] = ((),)


PRESETS: dict[str, QuantizationPreset] = {
    "fast": QuantizationPreset(
        64, frozenset(TECHNIQUES) - {"importance", "compensation", "reconstruction"}
    ),
    "balanced": QuantizationPreset(300, frozenset(TECHNIQUES)),
    # Label-free training of scales, biases and rounding was tried here, and gained nothing after
    # the rest (20.6 dB before and after on MobileNetV1): choosing between ways does.
    "best": QuantizationPreset(
        300,
        frozenset(TECHNIQUES),
        ((), ("projection",), ("compensation",), ("projection", "reconstruction")),
    ),
}


def choose_preset(name: str, without: tuple[str, ...] = ()) -> QuantizationPreset:
    """A preset, some techniques left out. Raises RecipeError for a technique that is not there."""
    for technique in without:
        if technique not in TECHNIQUES:
            raise RecipeError(
                f"there is no technique '{technique}'", "", did_you_mean(technique, set(TECHNIQUES))
            )
    preset = PRESETS[name]
    return replace(preset, techniques=preset.techniques - set(without))
