"""`Workspace`: where a run keeps its results, who does its work, and whom it tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.cache import Cache
    from workbench.display import Display
    from workbench.worker_pool import Pool


@dataclass(frozen=True)
class Workspace:
    """What travels together through everything that a command runs.

    Attributes:
        cache: results under the hash of what decides them.
        pool: worker processes, kept for the next job.
        display: progress and messages.
    """

    cache: Cache
    pool: Pool
    display: Display
