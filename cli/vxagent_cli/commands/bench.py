"""`vxagent bench`: the switch against the Linux bridge, on this machine; needs no agent"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vxagent.errors import HostError
from vxagent_cli.command import WrongUsage
from vxagent_cli.render import Column, Object, cell, column, one_line, table

if TYPE_CHECKING:
    from vxagent.bench.run import Outcome, Step

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
) -> int:
    """Measure the switch against the Linux bridge, on this machine, in a lab that it builds and removes."""
    from vxagent.bench import plot  # noqa: PLC0415  # heavy, as all of the bench
    from vxagent.bench.document import document, rows  # noqa: PLC0415  # only who measures pays

    if os.geteuid() != 0:
        raise HostError("the bench makes network namespaces and loads programs", "run it as root")
    if plot_file is not None:
        plot.check(plot_file)
    for file in (json_file, plot_file):
        if file is not None and not file.absolute().parent.is_dir():
            raise HostError(f"{file.absolute().parent} is not there, where {file.name} should go", "make it first")
    outcome = _measure(quick, on)
    found = document(outcome.machine, outcome.rounds, outcome.results)
    if json_file == Path("-"):
        print(json.dumps(found, indent=2))
    else:
        print(f"{found['machine']}, Linux {found['kernel']}")
        _show(rows(outcome.results))
    if json_file not in (None, Path("-")):
        json_file.write_text(json.dumps(found, indent=2) + "\n")
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
        with _progress() as tell:
            return run.bench(effort, tell)
    names = on.split(",")
    if len(set(names)) != PORTS or not all(names):
        raise WrongUsage("--on takes two devices with a comma between, such as tap0,tap1")
    taps = [idle_taps.IdleTap.find(name) for name in names]
    with _progress() as tell:
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


@contextmanager
def _progress() -> Iterator[Callable[[Step], None]]:
    """A bar on stderr where that is a terminal, otherwise a line for each round."""
    if not sys.stderr.isatty():
        yield lambda step: print(f"{step.case}: {step.doing}", file=sys.stderr, flush=True)
        return
    from rich.console import Console  # noqa: PLC0415  # slow to import
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415  # slow to import

    shown = (TextColumn("{task.description:<36}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*shown, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("setting up", total=None)

        def tell(step: Step) -> None:
            bar.update(task, description=f"{step.case}: {step.doing}", completed=step.done, total=step.total)

        yield tell
