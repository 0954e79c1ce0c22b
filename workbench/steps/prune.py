"""Prune: channels that matter least are taken out, and what is left learns from what was."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from workbench.artifact import Artifact, Format
from workbench.errors import RecipeError
from workbench.options import Between, validate
from workbench.recipe import Context, Step

if TYPE_CHECKING:
    from workbench.model import Model


@dataclass(frozen=True, kw_only=True)
class Prune(Step):
    """Take channels out of a PyTorch model until it is small enough, then let it recover.

    macs, parameters, latency: what may be left, as ratios of the original's; all that are given
    hold. For latency, both are timed on the run's device as FP32 ONNX, and the MACs that meet it
    are searched for; give macs=none with it. sparsity: the share of the weights left that becomes
    zero, those of least magnitude: files are smaller once they are compressed, and no faster.
    importance: of a channel: l1, l2 (norms), bn (batch normalization's scale), fpgm (distance from
    the others), taylor, hessian (by gradients), lamp, random. scope: narrow all widths alike, or
    rank all channels by importance for what they cost. rounds: prune in so many parts, each one
    recovered.
    round_to: widths are multiples of it. keep: names of layers to leave, * for anything.
    recover: distill (the original's outputs and features on samples without labels), labels (these
    too, where samples have them), batchnorm (its statistics alone), none; or a loop of your own,
    file.py:function, which is called with the pruned module, the original, and the samples. epochs,
    batch, learning_rate: of the recovery; features: the weight of layers' outputs beside the
    model's; temperature: of classes' distributions; patience: epochs without gain that end it.
    samples: how many it sees, all by default.
    """

    macs: Annotated[float, Between(0.01, 1)] | None = 0.5
    parameters: Annotated[float, Between(0.01, 1)] | None = None
    latency: Annotated[float, Between(0.01, 1)] | None = None
    sparsity: Annotated[float, Between(0, 0.99)] = 0.0
    importance: Literal["l1", "l2", "bn", "fpgm", "taylor", "lamp", "hessian", "random"] = "l2"
    scope: Literal["local", "global"] = "global"
    rounds: Annotated[int, Between(1, 100)] = 1
    round_to: Annotated[int, Between(1, 256)] = 8
    keep: tuple[str, ...] = ()
    recover: str = "distill"
    epochs: Annotated[int, Between(0, 10000)] = 24
    batch: Annotated[int, Between(2, 65536)] = 64
    learning_rate: Annotated[float, Between(0, 10)] = 0.05
    features: Annotated[float, Between(0, 1000)] = 1.0
    temperature: Annotated[float, Between(0.1, 100)] = 2.0
    patience: Annotated[int, Between(1, 10000)] = 10
    samples: Annotated[int, Between(2)] | None = None

    name: ClassVar[str] = "prune"
    takes: ClassVar[tuple[Format, ...]] = (Format.TORCH,)
    gives: ClassVar[Format] = Format.PT2
    needs_data: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("torch", "torch-pruning", "numpy")
    seconds: ClassVar[float] = 120

    def __post_init__(self) -> None:
        validate(self)
        if self.macs is self.parameters is self.latency is None and not self.sparsity:
            raise RecipeError(
                "prune: give macs, parameters, latency or sparsity",
                "none says how much may be left",
            )
        words = ("distill", "labels", "batchnorm", "none")
        if self.recover not in words and ":" not in self.recover:
            raise RecipeError(
                f"prune: recover cannot be '{self.recover}'",
                f"it is one of {', '.join(words)}, or file.py:function",
            )

    @property
    def sources(self) -> tuple[Path, ...]:
        """The user's own file that decides the result beside the options."""
        file = self.recover.rpartition(":")[0]
        return (Path(file),) if file.endswith(".py") else ()

    @property
    def times_device(self) -> bool:
        """Whether the device decides the result by its speed, not by its arithmetic alone."""
        return self.latency is not None

    def run(self, subject: Model, context: Context) -> Artifact:
        """Write `model.pt2`. Raises StepError where the target is out of reach."""
        from workbench.pruning.pipeline import PruningRun
        from workbench.steps.export import Export

        return PruningRun(self, subject, context, Export().run).artifact()
