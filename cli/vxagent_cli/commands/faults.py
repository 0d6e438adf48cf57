"""`vxagent bench --faults`: what the agent does and suffers, and whether a frame is lost by it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from vxagent.errors import HostError
from vxagent_cli.long_runs import give, progress
from vxagent_cli.render import Object, column, one_line, table


def count(*, quick: bool, json_file: Path | None, other: Path | None, broken: Sequence[Path]) -> int:
    """Do all faults, print what became of the frames. 1 where something happened to any, or a refusal was none."""
    from vxagent.bench.faults import efforts, run  # noqa: PLC0415  # heavy, as all of the bench
    from vxagent.bench.faults.document import document, rows  # noqa: PLC0415  # only who measures pays

    for build in (*broken, *([] if other is None else [other])):
        if not (build / "vxagent" / "main.py").is_file():
            raise HostError(
                f"{build} has no package vxagent", "give the directory that a build is in, such as site-packages"
            )
    effort = efforts.QUICK if quick else efforts.FULL
    with progress() as tell:
        outcome = run.run_faults(effort, tell, other=other, broken=broken)
    give(document(outcome.machine, outcome.rate, outcome.results), json_file, lambda: _show(rows(outcome.results)))
    for one in outcome.results:
        if one.not_here:
            print(f"vxagent: {one.fault} is not done here: {one_line(one.not_here)}", file=sys.stderr)
        elif not one.good:
            print(f"vxagent: {one.fault}: {one_line(one.why)}", file=sys.stderr)
        for why in one.slow:
            print(f"vxagent: {one.fault}: {why}", file=sys.stderr)
    return 0 if outcome.good else 1


def _show(rows: list[Object]) -> None:
    numbers = ("times", "sent", "lost", "duplicated", "reordered", "astray", "overflow", "frames/s", "seconds")
    table([column("fault"), *(column(name, number=True) for name in numbers)], [rows])
