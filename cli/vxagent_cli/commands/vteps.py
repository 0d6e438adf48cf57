"""`vxagent vtep …`"""

from __future__ import annotations

from typing import Annotated

import typer

from vxagent_cli.command import AsJson, agent, cleared, given, group, say, show_list
from vxagent_cli.render import column

app = group("VTEPs: the tunnel addresses of other hosts, and the VNIs that these have.")

COLUMNS = (
    column("address"),
    column("host"),
    column("vnis"),
    column("segments"),
    column("state"),
    column("rx_packets", "rx", number=True),
    column("tx_packets", "tx", number=True),
    column("drops", number=True),
    column("why"),
)

Address = Annotated[str, typer.Argument(metavar="ADDRESS", help="Its address, IPv4 or IPv6.")]
Vnis = Annotated[
    list[int] | None, typer.Option("--vni", metavar="N", help="A VNI that its host has; may be given several times.")
]


@app.command("add")
def add(ctx: typer.Context, address: Address, vni: Vnis = None) -> None:
    """State the VTEP of another host. Segments that have one of its VNIs reach it."""
    answer = agent(ctx).change("POST", "v1", "vteps", body=given(address=address, vnis=vni or None))
    say(answer, f"VTEP {address} added", f"VTEP {address} is there already")


@app.command("set")
def set_(
    ctx: typer.Context,
    address: Address,
    vni: Vnis = None,
    no_vni: Annotated[bool, typer.Option("--no-vni", help="Its host has no VNI any more.")] = False,
) -> None:
    """Say anew which VNIs a VTEP's host has."""
    body = cleared(given(vni=vni or None), vni=no_vni)
    answer = agent(ctx).change("PATCH", "v1", "vteps", address, body={"vnis": body["vni"] or []})
    say(answer, f"VTEP {address} changed", f"VTEP {address} is so already")


@app.command("del")
def delete(ctx: typer.Context, address: Address) -> None:
    """Forget a VTEP; static entries that name it go with it."""
    say(agent(ctx).change("DELETE", "v1", "vteps", address), f"VTEP {address} deleted")


@app.command("list")
def list_(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the VTEPs with their counters; rx is from them."""
    show_list(ctx, COLUMNS, "v1", "vteps", as_json=as_json)
