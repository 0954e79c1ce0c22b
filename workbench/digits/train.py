"""Train the embedded classifier and write its weights.

To reproduce: `python -m workbench.digits.train --out FILE`. It trains to the end of a fixed
schedule and looks at the evaluation images once, after it. It printed

    231,066 parameters
    trained in 301 s; ...: 968,664 bytes
    top-1 98.56% (887 of 900 evaluation images)

with torch 2.13.0 (CPU), numpy 2.4, scikit-learn 1.9.1 and Pillow 13.0, on two cores of an AMD EPYC.

The whole schedule was run twice there, and gave the same file to the byte (its SHA-256 begins with
9a7e19ed). Another processor, thread count or version of torch may round otherwise and end a few
images away.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from workbench.digits import data
from workbench.digits.model import build

SEED = 0
THREADS = 2  # the order of a reduction depends on it, so it is part of the recipe
BATCH = 32
# (image size, epochs, highest learning rate): small images first, because the net has no fixed
# size, an enlarged 8x8 image loses nothing at 32x32, and an epoch there costs a twentieth of one at
# 96x96. Each phase has a cosine of its own: the filters must move again when the strokes grow.
PHASES = ((32, 60, 3e-3), (48, 14, 2e-3), (64, 5, 1.5e-3), (96, 7, 1.5e-3))
WARM_UP = 0.05  # of a phase's steps
WEIGHT_DECAY = 0.02
SMOOTHING = 0.05


def load(split: data.Digits) -> tuple[Tensor, Tensor]:
    """All samples [N, 1, 96, 96] and labels [N] of a split."""
    samples, labels = zip(*(split[index] for index in range(len(split))), strict=True)
    return torch.from_numpy(np.stack(samples)), torch.tensor(labels)


def augment(samples: Tensor, size: int, random: torch.Generator) -> Tensor:
    """Normalized [N, 1, 96, 96] to normalized [N, 1, size, size], each image changed at random."""
    count = len(samples)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=random) * (high - low) + low

    angle, shear = uniform(-0.22, 0.22), uniform(-0.2, 0.2)
    wide, high = uniform(0.88, 1.15), uniform(0.92, 1.12)
    cosine, sine = torch.cos(angle), torch.sin(angle)
    rows = (
        torch.stack([wide * cosine, shear - sine, uniform(-0.2, 0.2)], dim=1),
        torch.stack([sine, high * cosine, uniform(-0.12, 0.12)], dim=1),
    )
    grid = functional.affine_grid(
        torch.stack(rows, dim=1), [count, 1, size, size], align_corners=False
    )
    # A hand's own wobble: a smooth displacement, of at most 0.36 of an 8x8 pixel.
    wobble = functional.interpolate(
        uniform(-0.09, 0.09, 2, 4, 4), size=(size, size), mode="bilinear", align_corners=False
    )
    ink = functional.grid_sample(
        samples * data.STD + data.MEAN, grid + wobble.permute(0, 2, 3, 1), align_corners=False
    )
    # A power thins (above 1) or thickens the strokes, whose edges are half-tones.
    ink = ink.clamp(0, 1) ** uniform(0.7, 1.5, 1, 1, 1) * uniform(0.8, 1.1, 1, 1, 1)
    # Noise of the original resolution: finer noise would be nothing that the data shows.
    noise = uniform(-0.1, 0.1, 1, 8, 8)
    ink = ink + functional.interpolate(
        noise, size=(size, size), mode="bilinear", align_corners=False
    )
    return (ink.clamp(0, 1) - data.MEAN) / data.STD


def rate(progress: float) -> float:
    """The factor on the learning rate, for progress 0..1: a linear warm-up, then a cosine to 0."""
    if progress < WARM_UP:
        return progress / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


def train(phases: tuple[tuple[int, int, float], ...] = PHASES) -> nn.Module:
    """A classifier trained through the whole schedule, in eval mode. The same at every call."""
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)
    random = torch.Generator().manual_seed(SEED)
    samples, labels = load(data.training())
    model = build()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY)
    batches = len(samples) // BATCH
    for size, epochs, highest in phases:
        step = 0
        for epoch in range(epochs):
            begun = time.perf_counter()
            losses = []
            # The last, incomplete batch is left out; another permutation leaves out other images.
            order = torch.randperm(len(samples), generator=random)[: batches * BATCH]
            for first in range(0, len(order), BATCH):
                rows = order[first : first + BATCH]
                images = augment(samples[rows], size, random)
                logits = model(images.contiguous(memory_format=torch.channels_last))
                loss = functional.cross_entropy(logits, labels[rows], label_smoothing=SMOOTHING)
                for group in optimizer.param_groups:
                    group["lr"] = highest * rate((step + 1) / (batches * epochs))
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                losses.append(loss.item())
                step += 1
            seconds = time.perf_counter() - begun
            loss_mean = sum(losses) / len(losses)
            progress = f"{size}x{size}, epoch {epoch + 1} of {epochs}"
            print(f"{progress}: loss {loss_mean:.3f}, {seconds:.1f} s", flush=True)
    return model.eval()


def correct(model: nn.Module, split: data.Digits) -> int:
    """How many images of a split a model in eval mode classifies rightly."""
    samples, labels = load(split)
    with torch.inference_mode():
        # One image at a time, as the workbench evaluates: little memory, and quick enough.
        predicted = torch.cat([model(sample[None]).argmax(1) for sample in samples])
    return int((predicted == labels).sum())


def main() -> None:
    """Train, print the figures, and write the weights: `python -m workbench.digits.train`."""
    from safetensors.torch import save_file

    parser = argparse.ArgumentParser(
        prog="python -m workbench.digits.train", description="Train the digits classifier"
    )
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).with_name("weights.safetensors"), metavar="FILE"
    )
    out: Path = parser.parse_args().out
    begun = time.perf_counter()
    model = train()
    seconds = time.perf_counter() - begun
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, out)
    held_out = data.evaluation()
    right = correct(model, held_out)
    print(f"{sum(value.numel() for value in model.parameters()):,} parameters")
    print(f"trained in {seconds:.0f} s; {out}: {out.stat().st_size:,} bytes")
    print(f"top-1 {right / len(held_out):.2%} ({right} of {len(held_out)} evaluation images)")


if __name__ == "__main__":
    main()
