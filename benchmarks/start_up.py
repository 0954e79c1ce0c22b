"""How long `wb --help` and `wb recipes` take against `python -c "import typer"`.

Prints the medians of interleaved runs and their ratios; the aim is at most 3.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 15
WB = str(Path(sys.executable).parent / "wb")
COMMANDS = {
    "import typer": [sys.executable, "-c", "import typer"],
    "wb --help": [WB, "--help"],
    "wb recipes": [WB, "recipes"],
    "wb show": [WB, "show", "mobile-int8"],
}


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            times[name].append(seconds(command))
    base = statistics.median(times["import typer"])
    for name, taken in times.items():
        middle = statistics.median(taken)
        print(f"{name:14} {1000 * middle:6.1f} ms   {middle / base:.2f}×")


if __name__ == "__main__":
    main()
