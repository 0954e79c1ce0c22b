"""Zeros by magnitude: as many as asked, the smallest, held through training, and then plain."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.pruning import nets
from workbench.errors import StepError
from workbench.pruning import sparsity


def test_the_smallest_of_all_layers_together_become_zero():
    module = nets.seeded(nets.Plain)
    before = copy.deepcopy(module.state_dict())
    sparsity.mask_smallest(module, 0.6, ())
    sparsity.make_permanent(module)
    assert sparsity.zero_share(module) == pytest.approx(0.6, abs=1e-3)
    assert module.state_dict().keys() == before.keys()
    names = ("first.weight", "second.weight", "linear.weight")
    gone = torch.cat([before[n][module.state_dict()[n] == 0].abs() for n in names])
    left = torch.cat([before[n][module.state_dict()[n] != 0].abs() for n in names])
    assert gone.max() <= left.min()


def test_they_stay_zero_while_the_rest_is_trained():
    module = nets.seeded(nets.Plain)
    sparsity.mask_smallest(module, 0.5, ())
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        module(nets.image()).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        before = module(nets.image())
        sparsity.make_permanent(module)
        torch.testing.assert_close(module(nets.image()), before)
    assert sparsity.zero_share(module) == pytest.approx(0.5, abs=1e-3)


def test_kept_layers_keep_their_weights():
    module = nets.seeded(nets.Plain)
    before = module.linear.weight.clone()
    sparsity.mask_smallest(module, 0.5, ("lin*",))
    sparsity.make_permanent(module)
    assert torch.equal(module.linear.weight, before)
    with pytest.raises(StepError, match="no layer can be made sparse"):
        sparsity.mask_smallest(module, 0.5, ("*",))
