"""The command line in this process: for what it prints and how it ends, not for what interrupts it.

A process of its own, `project.wb` or subprocess, is for signals, pipes and start-up.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

from workbench.cli.app import main


def wb(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`wb` run to its end in a folder; environment: variables that are other than here."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    terminated = signal.getsignal(signal.SIGTERM)  # `main` sets its own
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "argv", ["wb", *words]),
        mock.patch.dict(os.environ, environment),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        finally:
            signal.signal(signal.SIGTERM, terminated)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())
