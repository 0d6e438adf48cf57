"""`vxagent fdb …` and `vxagent drops`"""

from __future__ import annotations

from typing import Annotated

import typer

from vxagent_cli.command import AsJson, agent, given, group, say, show_list
from vxagent_cli.render import Column, column, duration

app = group("FDB entries: which MAC is behind which port.")

COLUMNS = (
    column("segment"),
    column("tenant"),
    column("mac"),
    column("port"),
    column("origin"),
    Column("age", lambda row: "-" if row["age_s"] is None else duration(int(row["age_s"])), number=True),
    Column("held", lambda row: "-" if row["held_s"] is None else duration(int(row["held_s"])), number=True),
)

DROP_COLUMNS = (
    column("port"),
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
    port: Annotated[str, typer.Option("--port", metavar="ID", help="The port that it is behind.")],
) -> None:
    """Add a static entry."""
    answer = agent(ctx).change("POST", "v1", "fdb", body={"segment": segment, "mac": mac, "port": port})
    say(answer, f"{mac} added", f"{mac} is there already")


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
