"""Which channels may go, and which layers keep theirs: each by a permutation that is tried."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.pruning import nets
from workbench.errors import ModelError, RecipeError
from workbench.pruning.groups import find_prunable


def widths(module, inputs=None, keep=()):
    found = find_prunable(module, inputs or [nets.image()], keep)
    return {one.name: one.size for one in found.groups}, dict(found.kept)


def test_the_widths_of_a_plain_network_are_found_and_its_outputs_kept():
    found, kept = widths(nets.seeded(nets.Plain))
    assert found == {"first": 16, "second": 24}
    assert kept == {"linear": "it makes the outputs"}


def test_what_a_shortcut_pads_is_kept_and_what_is_inside_it_is_not():
    found, kept = widths(nets.seeded(nets.Padded))
    assert found == {"inner": 24}
    assert kept.keys() == {"stem", "outer", "linear"}
    assert "its channels are" in kept["stem"]


def test_channels_that_are_shuffled_are_kept():
    found, kept = widths(nets.seeded(nets.Shuffled))
    assert found == {"second": 16}
    assert "reordered" in kept["first"]


def test_joined_maps_and_several_inputs_are_followed():
    found, kept = widths(nets.seeded(nets.Joined), [nets.image(), nets.image(channels=1)])
    assert found == {"left": 16, "right": 8, "point": 16}
    assert kept == {"linear": "it makes the outputs"}


def test_a_grouped_convolution_keeps_what_it_takes_and_makes():
    found, kept = widths(nets.seeded(nets.Grouped))
    assert found == {"last": 16}
    assert kept["first"] == kept["middle"] == "middle is a grouped convolution"


def test_layers_that_do_not_run_and_parameters_of_their_own_are_named():
    found, kept = widths(nets.seeded(nets.Unused))
    assert found == {"second": 16}
    assert kept["never"] == "it did not run"
    assert "shift" in kept["first"]


@pytest.mark.parametrize(("pattern", "kept"), [("second", {"second"}), ("*st", {"first"}),
                                               ("*", {"first", "second", "linear"})])  # fmt: skip
def test_layers_are_kept_by_pattern(pattern, kept):
    _, found = widths(nets.seeded(nets.Plain), keep=(pattern,))
    named = {name for name, reason in found.items() if reason == f"'{pattern}' keeps it"}
    assert named == kept


def test_a_blocks_name_keeps_what_is_in_it():
    module = nn.Sequential(nets.seeded(nets.Plain))
    found, kept = widths(module, keep=("0",))
    assert found == {}
    assert kept["0.first"] == "'0' keeps it"


def test_a_pattern_that_matches_nothing_is_an_error_with_the_nearest_name():
    with pytest.raises(RecipeError, match="no layer is named 'secnd'") as caught:
        widths(nets.seeded(nets.Plain), keep=("secnd",))
    assert "second" in caught.value.fix


def test_the_module_is_as_it_was():
    module = nets.seeded(nets.Padded)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    find_prunable(module, [nets.image()])
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert not any(module._forward_hooks for module in module.modules())


def test_what_cannot_be_traced_is_named():
    class Broken(nn.Module):
        def forward(self, x):
            raise ValueError("not today")

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.good, self.bad = nn.Conv2d(3, 8, 1), Broken()

        def forward(self, x):
            return self.bad(self.good(x))

    with pytest.raises(ModelError, match=r"cannot trace the model in bad \(Broken\)") as caught:
        find_prunable(Outer(), [nets.image()])
    assert "not today" in caught.value.why
