"""Recovery: a student meets its teacher without labels, from where it was, and never gets worse."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from tests.pruning import nets
from workbench.pruning import recovery
from workbench.pruning.losses import DistillationLoss, WatchedFeatures, choose_feature_layers
from workbench.pruning.recovery import (
    CHECKPOINT,
    Distillation,
    TrainingSchedule,
    recover,
    reestimate_batch_norms,
)
from workbench.pruning.samples import TrainingSamples, vary_images
from workbench.pruning.selection import PruningTarget
from workbench.pruning.structure import PruningCriterion, narrow, unpruned

CRITERION = PruningCriterion(importance="l1", scope="local", round_to=4, keep=(), seed=0)
BRIEF = TrainingSchedule(epochs=4, batch=16, learning_rate=0.02, patience=10, seed=0)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.second, self.other = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.drop, self.linear = nn.Dropout(0.5), nn.Linear(16, 5)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        return self.linear(self.drop(torch.relu(self.other(self.second(x))).mean((2, 3))))


@pytest.fixture(scope="module")
def teacher():
    return nets.seeded(Small).requires_grad_(False)


@pytest.fixture(scope="module")
def samples():
    return TrainingSamples({"x": nets.image(160).numpy()}, None, 32)


def student(teacher):
    return narrow(unpruned(teacher), [nets.image()], CRITERION, PruningTarget("macs", 0.5))


def nothing(_fraction: float, _note: str) -> None:
    pass


def weights(module):
    return torch.cat([one.flatten().float() for one in module.state_dict().values()])


def test_a_student_comes_nearer_without_labels(teacher, samples, tmp_path):
    made = student(teacher)
    with torch.no_grad():
        for one in made.module.parameters():  # far from the teacher
            one.add_(0.2 * torch.randn(one.shape, generator=torch.Generator().manual_seed(0)))
    notes = []
    loss = DistillationLoss(layers=choose_feature_layers(made.module, made.outputs))
    with loss.watch(teacher, made.module) as features, torch.no_grad():
        x = [torch.from_numpy(samples.inputs["x"][samples.trained :])]
        before = float(loss(teacher, made.module, x, None, features))
    found = recover(
        Distillation(teacher, made.module, samples, loss, BRIEF, tmp_path),
        lambda fraction, note: notes.append((fraction, note)),
    )
    assert len(found.losses) == 4
    assert min(found.losses) < 0.5 * before
    assert not (tmp_path / CHECKPOINT).exists()
    fractions = [one for one, _ in notes]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1)
    assert notes[-1][1].startswith("epoch 4 of 4, loss ")
    assert "left" in notes[0][1]


def test_the_best_weights_are_kept_and_not_the_last(teacher, samples, tmp_path, monkeypatch):
    made = student(teacher)
    judged = iter([9.0, 3.0, 1.0, 5.0, 7.0])
    seen = []

    def fake(self, features):
        seen.append(weights(self.student).clone())
        return next(judged)

    monkeypatch.setattr(recovery._Training, "_held_out_loss", fake)
    recover(
        Distillation(teacher, made.module, samples, DistillationLoss(), BRIEF, tmp_path), nothing
    )
    assert torch.equal(weights(made.module), seen[2])


def test_what_was_pruned_stands_where_training_makes_it_worse(
    teacher, samples, tmp_path, monkeypatch
):
    made = student(teacher)
    before = weights(made.module).clone()
    judged = iter([1.0, 3.0, 2.0, 5.0, 7.0])
    monkeypatch.setattr(recovery._Training, "_held_out_loss", lambda self, features: next(judged))
    found = recover(
        Distillation(teacher, made.module, samples, DistillationLoss(), BRIEF, tmp_path), nothing
    )
    assert torch.equal(weights(made.module), before)
    assert "no epoch was better" in found.note


def test_it_is_seeded(teacher, samples, tmp_path):
    made = [student(teacher) for _ in range(2)]
    for one in made:
        recover(
            Distillation(teacher, one.module, samples, DistillationLoss(), BRIEF, tmp_path), nothing
        )
    assert torch.equal(weights(made[0].module), weights(made[1].module))


def test_a_run_that_was_killed_goes_on_to_the_same_end(teacher, samples, tmp_path):
    whole, cut = student(teacher), student(teacher)
    recover(
        Distillation(teacher, whole.module, samples, DistillationLoss(), BRIEF, tmp_path), nothing
    )

    def kill(fraction, _note):
        if fraction > 0.6:
            raise KeyboardInterrupt

    fresh = copy.deepcopy(cut.module)
    with pytest.raises(KeyboardInterrupt):
        recover(
            Distillation(teacher, cut.module, samples, DistillationLoss(), BRIEF, tmp_path), kill
        )
    assert (tmp_path / CHECKPOINT).is_file()
    fractions = []
    recover(
        Distillation(teacher, fresh, samples, DistillationLoss(), BRIEF, tmp_path),
        lambda one, _: fractions.append(one),
    )
    assert fractions[0] > 0.5
    torch.testing.assert_close(weights(fresh), weights(whole.module))


def test_a_loss_that_is_no_number_ends_it_with_the_best(teacher, samples, tmp_path):
    made = student(teacher)
    schedule = TrainingSchedule(epochs=6, batch=16, learning_rate=1e4, patience=10, seed=0)
    found = recover(
        Distillation(teacher, made.module, samples, DistillationLoss(), schedule, tmp_path), nothing
    )
    assert "the loss was no number" in found.note
    assert torch.isfinite(weights(made.module)).all()


def test_it_ends_early_where_nothing_is_gained(teacher, samples, tmp_path):
    made = student(teacher)
    schedule = TrainingSchedule(epochs=50, batch=16, learning_rate=0.0, patience=2, seed=0)
    found = recover(
        Distillation(teacher, made.module, samples, DistillationLoss(), schedule, tmp_path), nothing
    )
    assert len(found.losses) < 20


def test_statistics_are_of_the_samples(teacher, samples):
    made = student(teacher).module
    with torch.no_grad():
        made.norm.running_mean += 3
    reestimate_batch_norms(made, samples, 16)
    x = torch.from_numpy(samples.inputs["x"][: samples.trained])
    with torch.no_grad():
        maps = made.first(x)
    torch.testing.assert_close(made.norm.running_mean, maps.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
    assert not made.norm.training
    assert made.norm.momentum == 0.1


def test_features_are_compared_at_the_channels_that_are_left(teacher):
    made = student(teacher)
    layers = choose_feature_layers(made.module, made.outputs)
    assert layers["norm"] == made.outputs["norm"]
    loss = DistillationLoss(layers=layers)
    with loss.watch(teacher, made.module) as features:
        value = loss(teacher, made.module, [nets.image()], None, features)
        assert features.teacher["norm"].shape[1] == 16
        assert features.student["norm"].shape[1] == len(made.outputs["norm"])
    assert float(value.detach()) > 0
    assert not teacher.norm._forward_hooks


def test_a_student_that_is_the_teacher_has_no_loss(teacher):
    loss = DistillationLoss(layers=choose_feature_layers(teacher, {}))
    with loss.watch(teacher, teacher) as features, torch.no_grad():
        assert float(loss(teacher, teacher, [nets.image()], None, features)) < 1e-6


def test_labels_count_where_they_are_asked_for(teacher):
    x, y = nets.image(), torch.tensor([0, 1, 2, 3])
    with torch.no_grad():
        alone = DistillationLoss()(teacher, teacher, [x], y, WatchedFeatures())
        both = DistillationLoss(labels=True)(teacher, teacher, [x], y, WatchedFeatures())
        wanted = nn.functional.cross_entropy(teacher(x), y)
    torch.testing.assert_close(both - alone, wanted)


def test_each_epoch_has_every_sample_once_but_those_held_back():
    rows = np.arange(50, dtype=np.float32).reshape(50, 1)
    held = TrainingSamples({"x": rows}, np.arange(50), 10)
    seen = [held.batches(8, np.random.default_rng([0, epoch])) for epoch in (0, 1)]
    orders = [torch.cat([batch[0][:, 0] for batch, _ in one]).tolist() for one in seen]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(40))
    assert orders[0] != orders[1]
    judged = [row for batch, _ in held.judged(8) for row in batch[0][:, 0].tolist()]
    assert judged == list(range(40, 50))
    for batch, labels in held.batches(8, np.random.default_rng(0)):
        assert torch.equal(batch[0][:, 0].long(), labels)


def test_images_are_varied_and_nothing_else():
    generator = np.random.default_rng(0)
    images = nets.image(8, size=16)
    made = vary_images(images, generator, mixed=False)
    assert made.shape == images.shape
    assert not torch.equal(made, images)
    assert set(made.flatten().tolist()) <= set(images.flatten().tolist())
    tokens = torch.ones(4, 7, dtype=torch.long)
    assert vary_images(tokens, generator, mixed=True) is tokens


def test_half_the_batches_are_blended():
    generator = np.random.default_rng(0)
    images = torch.stack([torch.full((3, 16, 16), float(value)) for value in range(4)])
    blended = 0
    for _ in range(200):
        made = vary_images(images, generator, mixed=True)
        values = made[:, 0, 0, 0]
        share = float(values[0]) / 3  # of the last image in the first
        torch.testing.assert_close(values, (1 - share) * images[:, 0, 0, 0]
                                   + share * images.flip(0)[:, 0, 0, 0])  # fmt: skip
        blended += share > 0
    assert 80 < blended < 120


def test_a_layer_that_the_samples_do_not_reach_is_not_compared():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x):
            return (self.left(x) if bool(x.mean() > 0) else self.right(x)).mean((2, 3))

    module = nets.seeded(Branching)
    loss = DistillationLoss(layers=dict.fromkeys(("left", "right")))
    batch = [torch.ones(4, 3, 2, 2)]
    with loss.watch(module, module) as features:
        assert torch.isfinite(loss(module, module, batch, None, features))
