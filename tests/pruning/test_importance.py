"""Criteria: what they rank low is what their definitions say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.pruning import nets
from workbench.errors import StepError
from workbench.pruning import importance
from workbench.pruning.groups import find_prunable


def net(norm: bool = True) -> nn.Module:
    return nets.seeded(lambda: nn.Sequential(
        nn.Conv2d(3, 16, 3), *([nn.BatchNorm2d(16)] if norm else []), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    ))  # fmt: skip


def scored(name, module):
    if name in importance.GRADIENTS:
        module.requires_grad_(True)
        importance.accumulate_gradients(name, module, [[nets.image(6)]], seed=0)
    widths = find_prunable(module, [nets.image()]).groups
    return importance.score_channels(name, widths, seed=0)[0]


@pytest.mark.parametrize("name", ["l1", "l2", "taylor", "hessian"])
def test_a_channel_that_does_nothing_matters_least(name):
    module = net()
    with torch.no_grad():
        module[0].weight[5] = 0
        module[1].weight[5] = module[1].bias[5] = 0
        module[5].weight[:, 5] = 0
    found = scored(name, module)
    assert int(np.argmin(found)) == 5
    assert (found >= 0).all()


def test_norms_are_norms():
    module = net(norm=False)
    with torch.no_grad():
        module[0].weight.fill_(0.1)
        module[-1].weight.fill_(0.1)
        module[0].weight[3] = 0.2
    for name in ("l1", "l2"):
        assert int(np.argmax(scored(name, module))) == 3


def test_batch_norms_scale_ranks_by_it():
    module = net()
    with torch.no_grad():
        module[1].weight.copy_(torch.linspace(1, 2, 16))
    found = scored("bn", module)
    assert (np.diff(found) > 0).all()
    with pytest.raises(StepError, match="importance bn says nothing"):
        scored("bn", net(norm=False))


def test_gradients_need_no_labels_and_are_seeded():
    one, other = scored("taylor", net()), scored("taylor", net())
    assert np.array_equal(one, other)
    assert one.std() > 0


def test_the_fisher_information_is_a_mean_over_samples():
    """Of one linear layer by hand: gradients (p - e_c) x for drawn classes, squared."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    importance.accumulate_gradients("hessian", module, [[x]], seed=3)
    generator = torch.Generator().manual_seed(3)
    total = torch.zeros(3, 4)
    with torch.no_grad():
        for row in x:
            likely = module(row[None]).softmax(1)
            drawn = torch.multinomial(likely, 1, generator=generator)[0, 0]
            gradient = (likely[0] - nn.functional.one_hot(drawn, 3))[:, None] * row[None]
            total += gradient**2
    torch.testing.assert_close(module[1].weight.grad, total / 5)
