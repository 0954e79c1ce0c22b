"""What every runtime gives: a loaded model behind one protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

Array = NDArray[Any]
Inputs = Mapping[str, Array]


class Session(Protocol):
    """A loaded model. `prepare` maps canonical inputs to what `run` takes; only `run` is timed."""

    def prepare(self, inputs: Inputs) -> Any:
        """What `run` takes, of canonical inputs [N, ...] by name."""

    def run(self, prepared: Any) -> Any:
        """One inference of all samples: the runtime's own outputs."""

    def outputs(self, raw: Any) -> list[Array]:
        """Canonical outputs [N, ...] of what `run` gave, in the model's order."""
