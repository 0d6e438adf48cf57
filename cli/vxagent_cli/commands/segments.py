"""`vxagent segment …`"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from vxagent_cli.command import AsJson, agent, cleared, given, group, say, show_list, show_object
from vxagent_cli.render import Column, column

app = group("Segments: the L2 broadcast domains of tenants.")

COLUMNS = (
    column("name"),
    column("tenant"),
    column("vlan", number=True),
    column("vni", number=True),
    column("mtu", number=True),
    column("unknown_unicast", "unknown"),
    Column("ports", lambda row: str(len(row["ports"])), number=True),
)


class UnknownUnicast(StrEnum):
    """What becomes of frames to MACs that the switch does not know."""

    FLOOD = "flood"
    DROP = "drop"


Name = Annotated[str, typer.Argument(metavar="NAME", help="The segment.")]
Tenant = typer.Option("--tenant", metavar="T", help="Who owns it.")
Vlan = Annotated[int | None, typer.Option("--vlan", metavar="VID", help="Its VLAN on uplinks, 1 to 4094.")]
Vni = Annotated[int | None, typer.Option("--vni", metavar="VNI", help="Its VNI on the overlay, 1 to 16777215.")]
Mtu = Annotated[
    int | None,
    typer.Option(
        "--mtu", metavar="N", help="Bytes of L3 that its frames may have; default: 1500, on the overlay what fits in."
    ),
]
Unknown = Annotated[
    UnknownUnicast | None,
    typer.Option("--unknown-unicast", help="What becomes of frames to MACs that the switch does not know."),
]

Snooping = Annotated[
    bool | None,
    typer.Option("--multicast-snooping/--no-multicast-snooping", help="Multicast goes where IGMP and MLD say."),
]


@app.command("add")
def add(
    ctx: typer.Context,
    name: Name,
    tenant: Annotated[str, Tenant],
    vlan: Vlan = None,
    vni: Vni = None,
    mtu: Mtu = None,
    unknown_unicast: Unknown = None,
    multicast_snooping: Snooping = None,
) -> None:
    """Add a segment."""
    body = given(name=name, tenant=tenant, **_options(vlan, vni, mtu, unknown_unicast, multicast_snooping))
    answer = agent(ctx).change("POST", "v1", "segments", body=body)
    say(answer, f"segment {name} added", f"segment {name} is there already")


@app.command("set")
def set_(
    ctx: typer.Context,
    name: Name,
    tenant: Annotated[str | None, Tenant] = None,
    vlan: Vlan = None,
    no_vlan: Annotated[bool, typer.Option("--no-vlan", help="It has no VLAN any more.")] = False,
    vni: Vni = None,
    no_vni: Annotated[bool, typer.Option("--no-vni", help="It has no VNI any more.")] = False,
    mtu: Mtu = None,
    no_mtu: Annotated[
        bool, typer.Option("--no-mtu", help="It has the MTU of a segment that is added without.")
    ] = False,
    unknown_unicast: Unknown = None,
    multicast_snooping: Snooping = None,
) -> None:
    """Change a segment live."""
    changes = given(tenant=tenant, **_options(vlan, vni, mtu, unknown_unicast, multicast_snooping))
    body = cleared(changes, vlan=no_vlan, vni=no_vni, mtu=no_mtu)
    answer = agent(ctx).change("PATCH", "v1", "segments", name, body=body)
    say(answer, f"segment {name} changed", f"segment {name} is so already")


@app.command("del")
def delete(ctx: typer.Context, name: Name) -> None:
    """Delete a segment that nothing is in."""
    say(agent(ctx).change("DELETE", "v1", "segments", name), f"segment {name} deleted")


@app.command("list")
def list_(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List all segments."""
    show_list(ctx, COLUMNS, "v1", "segments", as_json=as_json)


@app.command("show")
def show(ctx: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Show one segment with its traffic."""
    show_object(ctx, "v1", "segments", name, as_json=as_json)


def _options(
    vlan: int | None,
    vni: int | None,
    mtu: int | None,
    unknown_unicast: UnknownUnicast | None,
    multicast_snooping: bool | None,
) -> dict[str, object]:
    """The options that `add` and `set` share, those that were given."""
    return given(vlan=vlan, vni=vni, mtu=mtu, unknown_unicast=unknown_unicast, multicast_snooping=multicast_snooping)
