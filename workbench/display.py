"""The progress display: one live view of every task on a terminal, nothing elsewhere."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


class Display(Protocol):
    """What the engine tells of its work. Called from several threads."""

    def plan(self, tasks: dict[str, float]) -> None:
        """The tasks to come, with the seconds each is expected to take."""

    def update(self, task: str, fraction: float, note: str = "") -> None:
        """A task is so far, from 0 to 1; `note` says at what."""

    def done(self, task: str, state: str = "done") -> None:
        """A task ended: `done`, `cached`, `skipped` or `failed`."""

    def message(self, text: str) -> None:
        """Something that the user should know while it runs."""

    def close(self) -> None:
        """Nothing more comes."""


class Quiet:
    """No display: for files, pipes and --json. Messages are kept for the report."""

    def plan(self, tasks: dict[str, float]) -> None:
        """Show nothing."""

    def update(self, task: str, fraction: float, note: str = "") -> None:
        """Show nothing."""

    def done(self, task: str, state: str = "done") -> None:
        """Show nothing."""

    def message(self, text: str) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class _Task:
    expected: float
    fraction: float = 0.0
    note: str = ""
    state: str = "waiting"
    started: float = 0.0
    ended: float = 0.0


_MARK = {"waiting": ("·", "dim"), "running": ("▸", "cyan"), "done": ("✓", "green"),
         "cached": ("=", "green"), "skipped": ("-", "dim"), "failed": ("✗", "red")}  # fmt: skip


class Live:
    """A line for each task with a bar, and the time left, drawn by rich on stderr."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live as RichLive

        self._tasks: dict[str, _Task] = {}
        self._lock = threading.Lock()
        self._console = console
        self._live = RichLive(console=console, refresh_per_second=6, get_renderable=self._render)
        self._live.start()

    def plan(self, tasks: dict[str, float]) -> None:
        """Lines for tasks to come, with the seconds each is expected to take."""
        with self._lock:
            for name, seconds in tasks.items():
                self._tasks.setdefault(name, _Task(max(seconds, 0.1)))

    def update(self, task: str, fraction: float, note: str = "") -> None:
        """Draw a task as running, so far from 0 to 1."""
        with self._lock:
            shown = self._tasks.setdefault(task, _Task(1.0))
            if shown.state == "waiting":
                shown.started = time.monotonic()
            shown.fraction, shown.note, shown.state = (
                fraction,
                note,
                "running",
            )

    def done(self, task: str, state: str = "done") -> None:
        """Draw a task as ended, in its state."""
        with self._lock:
            shown = self._tasks.setdefault(task, _Task(1.0))
            shown.ended = time.monotonic()
            shown.started = shown.started or shown.ended
            shown.fraction, shown.note, shown.state = 1.0, "", state

    def message(self, text: str) -> None:
        """Print a text above the view."""
        self._console.print(text, style="dim", highlight=False, markup=False)

    def close(self) -> None:
        """End the view; what it last showed stays."""
        self._live.stop()

    def seconds_left(self) -> float:
        """Expected seconds of what is not done, running tasks by the clock."""
        left = 0.0
        for task in self._tasks.values():
            if task.state == "waiting":
                left += task.expected
            elif task.state == "running":
                spent = time.monotonic() - task.started
                left += max(task.expected - spent, task.expected * (1 - task.fraction) * 0.2)
        return left

    def _render(self) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 1))
        with self._lock:
            for name, task in self._tasks.items():
                mark, style = _MARK[task.state]
                now = task.ended or time.monotonic()
                spent = f"{now - task.started:.1f} s" if task.started else ""
                bar = ProgressBar(100, task.fraction * 100, width=24)
                grid.add_row(
                    Text(mark, style=style),
                    Text(name),
                    bar if task.state == "running" else Text(task.state, style=style),
                    Text(spent, style="dim"),
                    Text(task.note, style="dim", no_wrap=True),
                )
            left = self.seconds_left()
            if left >= 1:
                grid.add_row("", Text(f"about {left:.0f} s left", style="bold"))
        return grid
