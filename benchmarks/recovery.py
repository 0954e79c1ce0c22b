"""An epoch of Prune's recovery against a bare PyTorch loop with the same models and data.

    python benchmarks/recovery.py [--samples 3000] [--rounds 3]

Both train the same pruned ResNet-20 on random images of 32 x 32: the teacher's and the student's
passes, the divergence between their outputs, SGD. The bare loop does no more than that; recovery
compares features, varies images, judges on samples that are held back, and writes a checkpoint. The
two take turns; the ratio of the medians is printed, and at most 1.3 is asked.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from workbench.progress import ignore_progress
from workbench.pruning import recovery, structure
from workbench.pruning.losses import DistillationLoss, choose_feature_layers
from workbench.pruning.samples import TrainingSamples
from workbench.pruning.selection import PruningTarget

BATCH = 64


class Block(nn.Module):
    def __init__(self, inside: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.short = nn.Sequential()
        if inside != out:
            self.short = nn.Sequential(nn.Conv2d(inside, out, 1, stride), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self.short(x))


def resnet20() -> nn.Module:
    """He et al. 2016, for CIFAR."""
    sizes = [(16, 16, 1)] * 3 + [(16, 32, 2), *[(32, 32, 1)] * 2, (32, 64, 2), *[(64, 64, 1)] * 2]
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        *(Block(*one) for one in sizes), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def bare(teacher: nn.Module, student: nn.Module, images: Tensor) -> float:
    student.train()
    optimizer = torch.optim.SGD(student.parameters(), 0.05, momentum=0.9, nesterov=True)
    started = time.perf_counter()
    for rows in torch.randperm(len(images)).split(BATCH):
        batch = images[rows]
        with torch.no_grad():
            wanted = teacher(batch)
        made = student(batch)
        loss = 4 * functional.kl_div(
            functional.log_softmax(made / 2, 1), functional.log_softmax(wanted / 2, 1),
            log_target=True, reduction="batchmean",
        )  # fmt: skip
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return time.perf_counter() - started


def own(
    teacher: nn.Module, pruned: structure.PrunedModule, student: nn.Module, data: TrainingSamples
) -> float:
    loss = DistillationLoss(features=1.0, layers=choose_feature_layers(student, pruned.outputs))
    schedule = recovery.TrainingSchedule(
        epochs=1, batch=BATCH, learning_rate=0.05, patience=1, seed=0
    )
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        distillation = recovery.Distillation(teacher, student, data, loss, schedule, Path(folder))
        recovery.recover(distillation, ignore_progress)
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    words = parser.parse_args()
    torch.manual_seed(0)
    teacher = resnet20().eval().requires_grad_(False)
    images = np.random.default_rng(0).standard_normal((words.samples, 3, 32, 32), np.float32)
    criterion = structure.PruningCriterion(
        importance="l1", scope="local", round_to=8, keep=(), seed=0
    )
    first = [torch.from_numpy(images[:4])]
    pruned = structure.narrow(
        structure.unpruned(teacher), first, criterion, PruningTarget("macs", 0.5)
    )
    data = TrainingSamples({"x": images}, None, words.samples // 10)
    times: dict[str, list[float]] = {"bare": [], "own": []}
    for number in range(words.rounds + 1):
        student = copy.deepcopy(pruned.module).requires_grad_(True)
        # The bare loop gets what recovery trains on, without what that holds back.
        taken = bare(teacher, student, torch.from_numpy(images[: data.trained]))
        mine = own(teacher, pruned, copy.deepcopy(pruned.module), data)
        if number:  # the first of each warms up
            times["bare"].append(taken)
            times["own"].append(mine)
    medians = {name: statistics.median(each) for name, each in times.items()}
    print(f"an epoch of {data.trained} images: bare {medians['bare']:.2f} s, "
          f"recovery {medians['own']:.2f} s")  # fmt: skip
    print(f"recovery / bare: {medians['own'] / medians['bare']:.2f} (at most 1.3 is asked)")


if __name__ == "__main__":
    main()
