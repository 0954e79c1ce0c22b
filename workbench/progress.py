"""How far a piece of work is: a callback that takes the fraction that is done, and a note.

>>> whole = lambda fraction, note: print(f"{fraction:.2f} {note}")
>>> part = span_progress(whole, 0.2, 0.6)
>>> part(0.5, "half of the part")
0.40 half of the part
"""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[float, str], None]


def ignore_progress(_fraction: float, _note: str) -> None:
    """Progress that nobody looks at."""


def span_progress(progress: Progress, start: float, end: float) -> Progress:
    """Progress of a part of the work, which is the whole's from `start` to `end`."""
    return lambda fraction, note: progress(start + (end - start) * fraction, note)
