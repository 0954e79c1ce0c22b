"""`wb doctor`: every check as a line, and at the end the commands to run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from workbench.cli.output import print_json
from workbench.cli.shared_options import AsJson

if TYPE_CHECKING:
    from workbench.doctor.machine import Check


def doctor(
    as_json: AsJson = False,
) -> None:
    """Say what this machine can do, what is missing, and the command that gets it."""
    from workbench.doctor.examination import examine_machine

    examination = examine_machine()
    if as_json:
        print_json(
            {
                "ready": not examination.missing,
                "checks": [_plain(check) for check in examination.checks],
                "commands": examination.commands,
            }
        )
    else:
        _print_checks(examination.checks, examination.commands)
    examination.require_ready()


def _plain(check: Check) -> dict[str, Any]:
    return {
        "group": check.group,
        "name": check.name,
        "verdict": check.verdict,
        "said": check.finding,
        "fix": check.fix,
    }


def _print_checks(checks: Sequence[Check], commands: Sequence[str]) -> None:
    from workbench.doctor.machine import MARKS

    group = ""
    width = max(len(check.name) for check in checks)
    for check in checks:
        if check.group != group:
            print(f"{chr(10) if group else ''}{check.group}")
            group = check.group
        hint = f" [{check.fix}]" if check.fix and check.verdict == "note" else ""
        print(f"  {MARKS[check.verdict]} {check.name:{width}}  {check.finding}{hint}")
    print()
    if commands:
        print("To run:")
        for line in commands:
            print(f"  {line}")
    else:
        print("Everything that 'wb recipe mobile-int8' needs is here.")
