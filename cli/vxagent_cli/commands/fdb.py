"""`vxagent fdb …` and `vxagent drops`"""

from __future__ import annotations

from typing import Annotated

import typer

from vxagent_cli.command import AsJson, WrongUsage, agent, given, group, say, show_list
from vxagent_cli.render import Column, cell, column, duration

app = group("FDB entries: which MAC is behind which port.")

PLACE = Column("port", lambda row: cell(row["port"] or row["vtep"]))
"""A port's id, an uplink's device or a VTEP's address."""

COLUMNS = (
    column("segment"),
    column("tenant"),
    column("mac"),
    PLACE,
    column("origin"),
    Column("age", lambda row: "-" if row["age_s"] is None else duration(int(row["age_s"])), number=True),
    Column("held", lambda row: "-" if row["held_s"] is None else duration(int(row["held_s"])), number=True),
)

DROP_COLUMNS = (
    PLACE,
    column("segment"),
    column("reason"),
    column("packets", number=True),
    column("bytes", number=True),
    Column("of", lambda row: "copies" if row["copies"] else "shadow" if row["shadow"] else "frames"),
)

Mac = Annotated[str, typer.Argument(metavar="MAC", help="The MAC address.")]
Segment = Annotated[str, typer.Option("--segment", metavar="S", help="The segment.")]
OfSegment = Annotated[str | None, typer.Option("--segment", metavar="S", help="Only of this segment.")]
OfPort = Annotated[str | None, typer.Option("--port", metavar="ID", help="Only of this port.")]


@app.command("list")
def list_(ctx: typer.Context, segment: OfSegment = None, as_json: AsJson = False) -> None:
    """List the FDB."""
    show_list(ctx, COLUMNS, "v1", "fdb", segment=segment, as_json=as_json)


@app.command("add")
def add(
    ctx: typer.Context,
    mac: Mac,
    segment: Segment,
    port: Annotated[str | None, typer.Option("--port", metavar="ID", help="The port that it is behind.")] = None,
    vtep: Annotated[str | None, typer.Option("--vtep", metavar="ADDRESS", help="The VTEP that it is behind.")] = None,
) -> None:
    """Add a static entry, at a port, an uplink or a VTEP."""
    if (port is None) == (vtep is None):
        raise WrongUsage("give one of --port and --vtep")
    body = given(segment=segment, mac=mac, port=port, vtep=vtep)
    say(agent(ctx).change("POST", "v1", "fdb", body=body), f"{mac} added", f"{mac} is there already")


@app.command("del")
def delete(ctx: typer.Context, mac: Mac, segment: Segment) -> None:
    """Remove a static entry."""
    say(agent(ctx).change("DELETE", "v1", "fdb", segment, mac), f"{mac} deleted")


@app.command("flush")
def flush(ctx: typer.Context, segment: OfSegment = None, port: OfPort = None) -> None:
    """Forget learned entries; static ones stay."""
    answer = agent(ctx).change("POST", "v1", "fdb", "flush", body=given(segment=segment, port=port))
    print(f"{answer['removed']} learned {'entry' if answer['removed'] == 1 else 'entries'} forgotten")


def drops(ctx: typer.Context, port: OfPort = None, as_json: AsJson = False) -> None:
    """List dropped frames by reason, the most first."""
    show_list(ctx, DROP_COLUMNS, "v1", "drops", port=port, as_json=as_json)
