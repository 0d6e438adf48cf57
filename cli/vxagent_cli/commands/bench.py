"""`vxagent bench`: the switch against the Linux bridge, on this machine; needs no agent"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vxagent.errors import HostError
from vxagent_cli.command import WrongUsage
from vxagent_cli.commands import faults as of_faults
from vxagent_cli.long_runs import give, progress
from vxagent_cli.render import Column, Object, cell, column, one_line, table

if TYPE_CHECKING:
    from vxagent.bench.run import Outcome

PORTS = 2


def bench(
    quick: Annotated[bool, typer.Option("--quick", help="A look, in under a minute; less to be relied on.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the results as JSON, too; - is stdout.")
    ] = None,
    plot_file: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw a picture: FILE.svg or FILE.png.")
    ] = None,
    on: Annotated[
        str | None,
        typer.Option("--on", metavar="PORT_A,PORT_B", help="Use two idle taps of this host instead of own ones."),
    ] = None,
    faults: Annotated[
        bool, typer.Option("--faults", help="Kill, stop and starve an agent instead, and count what its frames suffer.")
    ] = False,
    other_build: Annotated[
        Path | None,
        typer.Option(
            "--other-build", metavar="DIR", help="With --faults: another build, which takes over and hands back."
        ),
    ] = None,
    broken_build: Annotated[
        list[Path] | None,
        typer.Option(
            "--broken-build", metavar="DIR", help="With --faults: a build that does not work, and has to be refused."
        ),
    ] = None,
) -> int:
    """Measure the switch against the Linux bridge, on this machine, in a lab that it builds and removes."""
    if os.geteuid() != 0:
        raise HostError("the bench makes network namespaces and loads programs", "run it as root")
    for file in (json_file, plot_file):
        if file is not None and not file.absolute().parent.is_dir():
            raise HostError(f"{file.absolute().parent} is not there, where {file.name} should go", "make it first")
    if other_build is not None and not faults:
        raise WrongUsage("--other-build goes with --faults")
    if broken_build and not faults:
        raise WrongUsage("--broken-build goes with --faults")
    if not faults:
        return _compare(quick, json_file, plot_file, on)
    if plot_file is not None or on is not None:
        raise WrongUsage("--faults has no picture and devices of its own: it goes without --plot and --on")
    return of_faults.count(quick=quick, json_file=json_file, other=other_build, broken=broken_build or ())


def _compare(quick: bool, json_file: Path | None, plot_file: Path | None, on: str | None) -> int:
    from vxagent.bench import plot  # noqa: PLC0415  # heavy, as all of the bench
    from vxagent.bench.document import document, rows  # noqa: PLC0415  # only who measures pays

    if plot_file is not None:
        plot.check(plot_file)
    outcome = _measure(quick, on)
    found = document(outcome.machine, outcome.rounds, outcome.results)
    give(found, json_file, lambda: _show(rows(outcome.results)))
    if plot_file is not None:
        plot.draw(found, plot_file)
    for one in outcome.results:
        for left_out in one.left_out:
            print(f"vxagent: {one.case.name} is without {one_line(left_out)}", file=sys.stderr)
        if not one.valid:
            print(f"vxagent: {one.case.name} is not valid: {one_line(one.why_not)}", file=sys.stderr)
    return 0 if outcome.valid else 1


def _measure(quick: bool, on: str | None) -> Outcome:
    from vxagent.bench import idle_taps, run, schedule  # noqa: PLC0415  # heavy

    effort = schedule.QUICK if quick else schedule.FULL
    if on is None:
        with progress() as tell:
            return run.bench(effort, tell)
    names = on.split(",")
    if len(set(names)) != PORTS or not all(names):
        raise WrongUsage("--on takes two devices with a comma between, such as tap0,tap1")
    taps = [idle_taps.IdleTap.find(name) for name in names]
    with progress() as tell:
        return run.bench(effort, tell, idle_taps.cases(), lambda world: idle_taps.TapLab(world, taps))


def _show(rows: list[Object]) -> None:
    further = dict.fromkeys(name for row in rows for name in row["others"])
    columns = [
        column("case"),
        column("vxagent ÷ bridge"),
        *(column(name, number=True) for name in ("bridge", "vxagent", "limit", "A/A")),
        *(Column(f"{name} ÷ bridge", partial(_other, name)) for name in further),
    ]
    table(columns, [rows])


def _other(name: str, row: Object) -> str:
    return cell(row["others"].get(name))
