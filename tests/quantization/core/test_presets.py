from __future__ import annotations

import pytest

from workbench.errors import RecipeError
from workbench.quantization.core.presets import PRESETS, TECHNIQUES, chosen


def test_every_preset_uses_techniques_of_the_list() -> None:
    for name in PRESETS:
        assert chosen(name).techniques <= set(TECHNIQUES)
    assert chosen("fast").techniques < chosen("balanced").techniques
    assert chosen("fast").samples < chosen("balanced").samples <= 300


@pytest.mark.parametrize("left_out", TECHNIQUES)
def test_one_technique_is_left_out(left_out: str) -> None:
    found = chosen("balanced", (left_out,))
    assert chosen("balanced").techniques - found.techniques == {left_out}
    assert getattr(found.lockstep, left_out, False) is False


def test_a_wrong_name_is_refused_with_the_right_one() -> None:
    with pytest.raises(RecipeError, match="equalisation"):
        chosen("fast", ("equalisation",))
