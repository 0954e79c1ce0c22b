"""Modules made narrower: they compute what the original does without the channels that went."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tests.pruning import nets
from workbench.errors import StepError
from workbench.model import flatten
from workbench.pruning import cost
from workbench.pruning.selection import PruningTarget
from workbench.pruning.structure import PruningCriterion, narrow, unpruned

MAKES = {
    "plain": (nets.Plain, [nets.image()]), "padded": (nets.Padded, [nets.image()]),
    "shuffled": (nets.Shuffled, [nets.image()]), "grouped": (nets.Grouped, [nets.image()]),
    "joined": (nets.Joined, [nets.image(), nets.image(channels=1)]),
}  # fmt: skip


def criterion(**changes) -> PruningCriterion:
    known = {"importance": "l1", "scope": "local", "round_to": 8, "keep": (), "seed": 0}
    return PruningCriterion(**{**known, **changes})


def silenced(module: nn.Module, outputs) -> nn.Module:
    """The original with zeros for the outputs of convolutions that went, after their norm too."""
    found = copy.deepcopy(module)

    def hook(kept):
        def act(_module, _inputs, made):
            mask = torch.zeros(made.shape[1])
            mask[list(kept)] = 1
            return made * mask.view(1, -1, *[1] * (made.ndim - 2))

        return act

    for name, layer in found.named_modules():
        if name in outputs:
            layer.register_forward_hook(hook(outputs[name]))
    return found


@pytest.mark.parametrize("kind", MAKES)
@pytest.mark.parametrize("scope", ["local", "global"])
def test_what_is_left_computes_what_it_did(kind, scope):
    make, inputs = MAKES[kind]
    module = nets.seeded(make)
    target = 0.9 if kind == "grouped" else 0.75  # a grouped convolution keeps most of it
    made = narrow(unpruned(module), inputs, criterion(scope=scope), PruningTarget("macs", target))
    assert made.macs <= target
    assert made.macs == pytest.approx(
        cost.count_macs(made.module, inputs) / cost.count_macs(module, inputs), rel=1e-6
    )
    count = [sum(one.numel() for one in each.parameters()) for each in (made.module, module)]
    assert made.parameters == pytest.approx(count[0] / count[1], rel=1e-6)
    with torch.no_grad():
        before = [one for _, one in flatten(silenced(module, made.outputs)(*inputs))]
        after = [one for _, one in flatten(made.module(*inputs))]
    for a, b in zip(before, after, strict=True):
        if a.shape == b.shape and kind != "joined":  # whose second output is a mean over channels
            torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after[0], before[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "importance", ["l1", "l2", "bn", "fpgm", "taylor", "lamp", "hessian", "random"]
)
def test_every_criterion_prunes_and_is_seeded(importance):
    module = nets.seeded(lambda: nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 10),
    ))  # fmt: skip
    one, other = [
        narrow(
            unpruned(module), [nets.image()], criterion(importance=importance),
            PruningTarget("macs", 0.5), [[nets.image(16)]],
        )
        for _ in range(2)
    ]  # fmt: skip
    assert one.outputs == other.outputs
    assert len(one.outputs["0"]) == 8


@pytest.mark.parametrize("importance", ["l1", "l2", "bn", "fpgm", "taylor", "hessian"])
def test_channels_that_do_nothing_go_first(importance):
    module = nets.seeded(lambda: nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 10),
    ))  # fmt: skip
    dead = [1, 3, 4, 8, 9, 11, 14, 15]
    with torch.no_grad():
        module[0].weight[dead] *= 1e-4
        module[1].weight[dead] = 1e-4
        module[1].bias[dead] = 0
        module[5].weight[:, dead] *= 1e-4
    made = narrow(
        unpruned(module), [nets.image()], criterion(importance=importance),
        PruningTarget("macs", 0.5), [[nets.image(16)]],
    )  # fmt: skip
    assert made.outputs["0"] == tuple(one for one in range(16) if one not in dead)


def test_pruning_goes_on_from_what_was_pruned():
    module = nets.seeded(nets.Plain)
    inputs = [nets.image()]
    first = narrow(unpruned(module), inputs, criterion(round_to=4), PruningTarget("macs", 0.7))
    second = narrow(first, inputs, criterion(round_to=4), PruningTarget("macs", 0.4))
    assert second.macs <= 0.4
    assert second.macs == pytest.approx(
        cost.count_macs(second.module, inputs) / cost.count_macs(module, inputs), rel=1e-6
    )
    assert set(second.outputs["first"]) < set(range(16))
    with torch.no_grad():
        torch.testing.assert_close(
            second.module(*inputs), silenced(module, second.outputs)(*inputs), rtol=1e-4, atol=1e-5
        )


def test_parameters_are_a_target_too():
    made = narrow(
        unpruned(nets.seeded(nets.Plain)),
        [nets.image()],
        criterion(),
        PruningTarget("parameters", 0.6),
    )
    assert made.parameters <= 0.6


def test_nothing_to_prune_is_an_error_that_says_why():
    module = nets.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 10)))
    with pytest.raises(StepError, match="no layer of the model can be pruned") as caught:
        narrow(unpruned(module), [nets.image()], criterion(), PruningTarget("macs", 0.5))
    assert "it makes the outputs" in caught.value.why


def test_bn_without_batch_normalization_is_an_error():
    with pytest.raises(StepError, match="importance bn says nothing of second"):
        narrow(
            unpruned(nets.seeded(nets.Plain)),
            [nets.image()],
            criterion(importance="bn"),
            PruningTarget("macs", 0.5),
        )


def test_the_original_is_as_it_was():
    module = nets.seeded(nets.Plain)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    narrow(unpruned(module), [nets.image()], criterion(), PruningTarget("macs", 0.5))
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
