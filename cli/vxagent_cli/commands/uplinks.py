"""`vxagent uplink …`"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from vxagent_cli.command import AsJson, agent, given, group, say, show_list
from vxagent_cli.render import column

app = group("Uplinks: NICs towards the physical network, which carry segments as VLANs.")

COLUMNS = (
    column("ifname", "device"),
    column("state"),
    column("hook"),
    column("rx_packets", "rx", number=True),
    column("tx_packets", "tx", number=True),
    column("drops", number=True),
    column("hook_why", "why no XDP"),
)


class Hook(StrEnum):
    """Where an uplink's program may run."""

    AUTO = "auto"
    XDP = "xdp"
    TC = "tc"


Ifname = Annotated[str, typer.Argument(metavar="IFNAME", help="The device; it may come later.")]


@app.command("add")
def add(
    ctx: typer.Context,
    ifname: Ifname,
    hook: Annotated[Hook | None, typer.Option("--hook", help="Where its program may run.")] = None,
) -> None:
    """Add an uplink. Every segment that has a VLAN is on it."""
    answer = agent(ctx).change("POST", "v1", "uplinks", body=given(ifname=ifname, hook=hook))
    say(answer, f"uplink {ifname} added", f"uplink {ifname} is there already")


@app.command("del")
def delete(ctx: typer.Context, ifname: Ifname) -> None:
    """Remove an uplink."""
    say(agent(ctx).change("DELETE", "v1", "uplinks", ifname), f"uplink {ifname} deleted")


@app.command("list")
def list_(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List all uplinks with their counters; rx is from the physical network."""
    show_list(ctx, COLUMNS, "v1", "uplinks", as_json=as_json)
