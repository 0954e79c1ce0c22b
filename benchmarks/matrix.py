"""Every real structure through every recipe: what came of it, as Markdown.

    python benchmarks/matrix.py                     # all of it, to docs/matrix.md
    python benchmarks/matrix.py --structure vit --recipe mobile-int8 --out -

Each cell is a measured artifact (median latency on this machine, SQNR against PyTorch eager), or
the number of the reason why there is none. The networks are those of `tests/structures`, small and
untrained: the figures show that a file was made, agrees and runs, not how a trained one would do.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests import structures  # noqa: E402
from workbench.cache import Cache  # noqa: E402
from workbench.device import probe  # noqa: E402
from workbench.display import Quiet  # noqa: E402
from workbench.errors import WorkbenchError  # noqa: E402
from workbench.library import recipe_summaries  # noqa: E402
from workbench.measure.latency import PRESETS  # noqa: E402
from workbench.run import words  # noqa: E402
from workbench.run.recipe_run import execute  # noqa: E402

Cell = dict[str, Any]

HEAD = """\
# Every structure through every recipe

`make matrix` (`python benchmarks/matrix.py --processes {processes}`) printed this on {machine}. A
cell is the median latency and the SQNR against PyTorch eager, or the number of the reason why there
is no artifact. The networks are small and untrained (`tests/structures`): the figures show that a
file was made, agrees and runs, not how a trained network would do. –: there was nothing to fuse, so
the branch has no FP32 file of its own.
"""


NOTES = {
    "mobile-pruned-int8": "Half the multiply-accumulates: the SQNR is that of the smaller network, "
    "and untrained ones have little\nto recover.\n",
}


def run(project: Path, recipe: str, cache: Cache, processes: int) -> dict[str, Any]:
    """The report of one run as plain values, or `{"error": …}` where its trunk failed."""
    try:
        request, _ = words.request(
            recipe, f"{project}/net.py:build", None, f"{project}/data.toml", [], [], ["cpu"], None,
            0, {"quick": True},
        )  # fmt: skip
        preset = dataclasses.replace(PRESETS["quick"], processes=processes)
        return execute(request, preset, cache, Quiet(), project / f"run-{recipe}").report.to_json()
    except WorkbenchError as error:
        return {"error": str(error)}


def labelled(report: dict[str, Any]) -> dict[str, Cell]:
    """A report's rows by label, the baselines of every recipe left out."""
    found = {}
    for row in report["rows"]:
        if row["key"] != "eager":
            found[row["label"]] = row
    return found


class Reasons:
    """Reasons by number, the same one under one number."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def number(self, text: str) -> int:
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1


def cell(row: Cell | None, reasons: Reasons) -> str:
    if row is None:
        return "–"
    error = row["error"]
    if error is not None:
        why = f": {error['why']}" if error["why"] else ""
        return f"({reasons.number(error['what'] + why)})"
    figures = row["figures"]
    timed, sqnr = figures["median"], figures["sqnr"]
    said = [f"{timed['value']:.3g} ms"] if timed else []
    if isinstance(sqnr, float | int):
        said.append(f"{sqnr:.0f} dB")
    elif sqnr == "inf":
        said.append("equal")
    if figures["agreement"] is not None and sqnr is None:
        said.append(f"{figures['agreement']:.0f} % agree")
    return ", ".join(said) or "made"


def _found(rows: dict[str, Cell], column: str) -> Cell | None:
    """A column's row, or the failed one of the same precision that it would have been made from."""
    kind = column.rpartition(" ")[0]
    failed = [
        one for label, one in rows.items() if one["error"] and label.startswith(f"{kind} ONNX")
    ]
    return rows.get(column) or next(iter(failed), None)


def table(recipe: str, reports: dict[str, dict[str, Any]]) -> Iterator[str]:
    """A recipe's table: a line for each structure, a column for each artifact."""
    reasons = Reasons()
    rows = {name: labelled(one) if "rows" in one else {} for name, one in reports.items()}
    columns = list(dict.fromkeys(label for found in rows.values() for label in found))
    yield f"## {recipe}"
    yield ""
    if recipe in NOTES:
        yield NOTES[recipe]
    yield f"| structure | {' | '.join(columns)} |"
    yield f"| --- |{' ---: |' * len(columns)}"
    for name, report in reports.items():
        if "rows" not in report:
            said = " ".join(line.strip() for line in report["error"].splitlines())
            texts = [f"({reasons.number(said.partition(' fix:')[0])})"] * len(columns)
        else:
            texts = [cell(_found(rows[name], column), reasons) for column in columns]
        yield f"| {name} | {' | '.join(texts)} |"
    yield ""
    for number, text in enumerate(reasons.texts, 1):
        yield f"({number}) {text}  "
    yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--structure", action="append", choices=structures.STRUCTURES)
    parser.add_argument("--recipe", action="append", choices=sorted(recipe_summaries()))
    parser.add_argument("--processes", type=int, default=3, help="fresh ones for each artifact")
    parser.add_argument("--out", default=str(ROOT / "docs" / "matrix.md"))
    arguments = parser.parse_args()
    recipes = arguments.recipe or sorted(recipe_summaries())
    names = arguments.structure or structures.STRUCTURES
    began = time.monotonic()
    found: dict[str, dict[str, dict[str, Any]]] = {recipe: {} for recipe in recipes}
    with tempfile.TemporaryDirectory(prefix="wb-matrix-") as scratch:
        cache = Cache(Path(scratch) / "cache")
        for name in names:
            project = structures.write(name, Path(scratch))
            for recipe in recipes:
                found[recipe][name] = run(project, recipe, cache, arguments.processes)
                print(f"{time.monotonic() - began:6.0f} s  {name}  {recipe}", file=sys.stderr)
    machine = f"{probe.cores()} cores of {probe.cpu_model()}"
    lines = [HEAD.format(processes=arguments.processes, machine=machine)]
    for recipe, reports in found.items():
        lines += table(recipe, reports)
    text = "\n".join(lines).rstrip() + "\n"
    if arguments.out == "-":
        print(text)
    else:
        Path(arguments.out).parent.mkdir(exist_ok=True)
        Path(arguments.out).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
