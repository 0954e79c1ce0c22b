"""Some structures through some recipes: what came of it, as Markdown on the terminal.

    python benchmarks/matrix.py --structure vit --recipe mobile-int8 --recipe tiny-int8

Each cell is a measured artifact (median latency on this machine, SQNR against PyTorch eager), or
the number of the reason why there is none. The networks are those of `tests/structures`, small and
untrained: the figures show that a file was made, agrees and runs, not how a trained one would do.
All of them through all recipes, checked and written to docs/matrix.md: `make matrix`.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests import structures  # noqa: E402
from tests.structures import matrix  # noqa: E402
from workbench.cache import Cache  # noqa: E402
from workbench.library import recipe_summaries  # noqa: E402
from workbench.measure.latency import PRESETS  # noqa: E402
from workbench.worker_pool import Pool  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--structure", action="append", choices=structures.STRUCTURES)
    parser.add_argument("--recipe", action="append", choices=sorted(recipe_summaries()))
    parser.add_argument("--processes", type=int, default=3, help="fresh ones for each artifact")
    arguments = parser.parse_args()
    recipes = arguments.recipe or sorted(recipe_summaries())
    preset = dataclasses.replace(PRESETS["quick"], processes=arguments.processes)
    began = time.monotonic()
    outcomes: dict[str, dict[str, matrix.Outcome]] = {recipe: {} for recipe in recipes}
    with (
        tempfile.TemporaryDirectory(prefix="wb-matrix-") as scratch,
        closing(Cache(Path(scratch) / "cache")) as cache,
        closing(Pool()) as pool,
    ):
        for name in arguments.structure or structures.STRUCTURES:
            project = structures.write(name, Path(scratch))
            for recipe in recipes:
                outcomes[recipe][name] = matrix.run(project, recipe, preset, cache, pool)
                print(f"{time.monotonic() - began:6.0f} s  {name}  {recipe}", file=sys.stderr)
    print(matrix.page(outcomes))


if __name__ == "__main__":
    main()
