from __future__ import annotations

import pytest

from workbench.errors import RecipeError
from workbench.quantization.core.presets import PRESETS, TECHNIQUES, choose_preset


def test_every_preset_uses_techniques_of_the_list() -> None:
    for name in PRESETS:
        assert choose_preset(name).techniques <= set(TECHNIQUES)
    assert choose_preset("fast").techniques < choose_preset("balanced").techniques
    assert choose_preset("fast").samples < choose_preset("balanced").samples <= 300


@pytest.mark.parametrize("left_out", TECHNIQUES)
def test_one_technique_is_left_out(left_out: str) -> None:
    found = choose_preset("balanced", (left_out,))
    assert choose_preset("balanced").techniques - found.techniques == {left_out}


def test_a_wrong_name_is_refused_with_the_right_one() -> None:
    with pytest.raises(RecipeError, match="equalisation"):
        choose_preset("fast", ("equalisation",))
