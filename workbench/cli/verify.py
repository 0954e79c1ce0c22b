"""`wb verify RUN`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def verify(run: Annotated[Path, typer.Argument(help="A run's folder.")]) -> None:
    """Check every file of a run against its manifest's digests."""
    from workbench.run.verification import verify_folder

    verified = verify_folder(run)
    for line in (*verified.problems, *verified.strangers):
        print(line)
    verified.require_whole()
    print(f"{run}: {verified.count}, all as the manifest says")
