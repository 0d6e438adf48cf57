"""`vxagent port …`"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from vxagent_cli.command import AsJson, WrongUsage, agent, cleared, given, group, say, show_list, show_object
from vxagent_cli.render import column

app = group("Ports: where the virtual NICs of VMs plug in.")

COLUMNS = (
    column("id"),
    column("ifname", "device"),
    column("state"),
    column("mode"),
    column("segments"),
    column("hook"),
    column("rx_packets", "rx", number=True),
    column("tx_packets", "tx", number=True),
    column("drops", number=True),
    column("egress_failed", "lost", number=True),
    column("hook_why", "why no XDP"),
)


class Hook(StrEnum):
    """Where a port's program may run."""

    AUTO = "auto"
    TC = "tc"


class Enforce(StrEnum):
    """What becomes of a frame that the port's guards or limits refuse."""

    ON = "on"
    SHADOW = "shadow"


PortId = Annotated[str, typer.Argument(metavar="ID", help="The port.")]
Segment = Annotated[str | None, typer.Option("--segment", metavar="S", help="An access port in this segment.")]
Trunk = Annotated[
    list[str] | None,
    typer.Option("--trunk", metavar="S:VID[,…]", help="A trunk port: segments by the tag in the frame."),
]
Native = Annotated[str | None, typer.Option("--native", metavar="S", help="A trunk's segment for untagged frames.")]
Mac = Annotated[
    list[str] | None, typer.Option("--mac", metavar="M", help="A MAC it may use (repeat); others are dropped.")
]
Ip = Annotated[list[str] | None, typer.Option("--ip", metavar="A", help="An address or prefix of it (repeat).")]
Isolated = Annotated[
    bool | None, typer.Option("--isolated/--no-isolated", help="No frames between two isolated ports.")
]
Trusted = Annotated[bool | None, typer.Option("--trusted/--no-trusted", help="May serve DHCP and send RAs.")]
DhcpSnoop = Annotated[
    bool | None,
    typer.Option("--dhcp-snoop/--no-dhcp-snoop", help="It may use what it lists and what DHCP servers lease to it."),
]
HookOption = Annotated[Hook | None, typer.Option("--hook", help="Where its program may run.")]
MaxMacs = Annotated[int | None, typer.Option("--max-macs", metavar="N", help="MACs that it may have learned.")]
LearnRate = Annotated[
    int | None, typer.Option("--learn-rate", metavar="N", help="New or moved MACs that it may learn in a second.")
]
NoLearnRate = Annotated[bool, typer.Option("--no-learn-rate", help="It may learn MACs as fast as it likes.")]
RateIn = Annotated[
    str | None, typer.Option("--rate-in", metavar="R", help="What it may send: 100Mbit, 20kpps, 1Gbit,100kpps.")
]
RateOut = Annotated[str | None, typer.Option("--rate-out", metavar="R", help="What it may get, in the same form.")]
StormBroadcast = Annotated[
    int | None, typer.Option("--storm-broadcast", metavar="N", help="Broadcasts that it may send in a second.")
]
StormMulticast = Annotated[
    int | None, typer.Option("--storm-multicast", metavar="N", help="Multicasts that it may send in a second.")
]
StormUnknown = Annotated[
    int | None,
    typer.Option("--storm-unknown", metavar="N", help="Frames to unknown MACs that it may send in a second."),
]
EnforceOption = Annotated[
    Enforce | None,
    typer.Option("--enforce", help="shadow: guards and limits count what they would drop, and drop nothing."),
]


@app.command("attach")
def attach(
    ctx: typer.Context,
    ifname: Annotated[str | None, typer.Argument(metavar="IFNAME", help="The device; it may come later.")] = None,
    segment: Segment = None,
    trunk: Trunk = None,
    native: Native = None,
    internal: Annotated[
        str | None, typer.Option("--internal", metavar="NAME", help="Not a VM: the host itself, as device NAME.")
    ] = None,
    id_: Annotated[str | None, typer.Option("--id", metavar="ID", help="Its name; default: the device's.")] = None,
    mac: Mac = None,
    ip: Ip = None,
    isolated: Isolated = None,
    trusted: Trusted = None,
    hook: HookOption = None,
    max_macs: MaxMacs = None,
    learn_rate: LearnRate = None,
    no_learn_rate: NoLearnRate = False,
    rate_in: RateIn = None,
    rate_out: RateOut = None,
    storm_broadcast: StormBroadcast = None,
    storm_multicast: StormMulticast = None,
    storm_unknown: StormUnknown = None,
    dhcp_snoop: DhcpSnoop = None,
    enforce: EnforceOption = None,
) -> None:
    """Plug in a port: access (--segment), trunk (--trunk) or the host itself (--internal)."""
    if (ifname is None) == (internal is None):
        raise WrongUsage("give either the device IFNAME or --internal NAME")
    if internal is not None and trunk:
        raise WrongUsage("--internal and --trunk contradict each other: an internal port is in one segment")
    if not segment and not trunk:
        raise WrongUsage("give --segment, or --trunk for a trunk port")
    if native is not None and not trunk:
        raise WrongUsage("--native needs --trunk")
    body = given(
        ifname=ifname,
        internal=internal,
        id=id_,
        **_options(segment, trunk, native, mac, ip, isolated, trusted, hook, max_macs, learn_rate),
        **_limits(rate_in, rate_out, storm_broadcast, storm_multicast, storm_unknown),
        **given(dhcp_snoop=dhcp_snoop, enforce=enforce),
    )
    body = cleared(body, learn_rate=no_learn_rate)  # the one limit that there is unless it is taken away
    answer = agent(ctx).change("POST", "v1", "ports", body=body)
    name = id_ or ifname or internal
    say(answer, f"port {name} attached", f"port {name} is attached already")


@app.command("set")
def set_(
    ctx: typer.Context,
    port: PortId,
    segment: Segment = None,
    trunk: Trunk = None,
    native: Native = None,
    no_native: Annotated[bool, typer.Option("--no-native", help="Untagged frames belong nowhere.")] = False,
    mac: Mac = None,
    no_mac: Annotated[bool, typer.Option("--no-mac", help="Any MAC; the switch learns.")] = False,
    ip: Ip = None,
    no_ip: Annotated[bool, typer.Option("--no-ip", help="It lists no addresses.")] = False,
    isolated: Isolated = None,
    trusted: Trusted = None,
    hook: HookOption = None,
    max_macs: MaxMacs = None,
    learn_rate: LearnRate = None,
    no_learn_rate: NoLearnRate = False,
    rate_in: RateIn = None,
    no_rate_in: Annotated[bool, typer.Option("--no-rate-in", help="It may send as much as it likes.")] = False,
    rate_out: RateOut = None,
    no_rate_out: Annotated[bool, typer.Option("--no-rate-out", help="It may get as much as there is.")] = False,
    storm_broadcast: StormBroadcast = None,
    no_storm_broadcast: Annotated[bool, typer.Option("--no-storm-broadcast", help="No such limit.")] = False,
    storm_multicast: StormMulticast = None,
    no_storm_multicast: Annotated[bool, typer.Option("--no-storm-multicast", help="No such limit.")] = False,
    storm_unknown: StormUnknown = None,
    no_storm_unknown: Annotated[bool, typer.Option("--no-storm-unknown", help="No such limit.")] = False,
    dhcp_snoop: DhcpSnoop = None,
    enforce: EnforceOption = None,
) -> None:
    """Change a port live. A list replaces the one there was."""
    changes = _options(segment, trunk, native, mac, ip, isolated, trusted, hook, max_macs, learn_rate)
    limits = _limits(rate_in, rate_out, storm_broadcast, storm_multicast, storm_unknown)
    body = cleared(
        {**changes, **limits, **given(dhcp_snoop=dhcp_snoop, enforce=enforce)},
        native=no_native,
        mac=no_mac,
        ip=no_ip,
        learn_rate=no_learn_rate,
        rate_in=no_rate_in,
        rate_out=no_rate_out,
        storm_broadcast=no_storm_broadcast,
        storm_multicast=no_storm_multicast,
        storm_unknown=no_storm_unknown,
    )
    answer = agent(ctx).change("PATCH", "v1", "ports", port, body=body)
    say(answer, f"port {port} changed", f"port {port} is so already")


@app.command("detach")
def detach(ctx: typer.Context, port: PortId) -> None:
    """Unplug a port."""
    say(agent(ctx).change("DELETE", "v1", "ports", port), f"port {port} detached")


@app.command("list")
def list_(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List all ports with their counters; rx is from the VM."""
    show_list(ctx, COLUMNS, "v1", "ports", as_json=as_json)


@app.command("show")
def show(ctx: typer.Context, port: PortId, as_json: AsJson = False) -> None:
    """Show all that is known of one port."""
    show_object(ctx, "v1", "ports", port, as_json=as_json)


def _options(
    segment: str | None,
    trunk: list[str] | None,
    native: str | None,
    mac: list[str] | None,
    ip: list[str] | None,
    isolated: bool | None,
    trusted: bool | None,
    hook: Hook | None,
    max_macs: int | None,
    learn_rate: int | None,
) -> dict[str, object]:
    """The options that `attach` and `set` share, those that were given."""
    if segment is not None and trunk:
        raise WrongUsage("--segment and --trunk contradict each other: a port is either trunk or in one segment")
    return given(
        segment=segment,
        trunk=_trunk(trunk) if trunk else None,
        native=native,
        mac=mac or None,
        ip=ip or None,
        isolated=isolated,
        trusted=trusted,
        hook=hook,
        max_macs=max_macs,
        learn_rate=learn_rate,
    )


def _limits(
    rate_in: str | None,
    rate_out: str | None,
    storm_broadcast: int | None,
    storm_multicast: int | None,
    storm_unknown: int | None,
) -> dict[str, object]:
    """The limits that were given."""
    return given(
        rate_in=rate_in,
        rate_out=rate_out,
        storm_broadcast=storm_broadcast,
        storm_multicast=storm_multicast,
        storm_unknown=storm_unknown,
    )


def _trunk(values: list[str]) -> list[str]:
    """SEGMENT:VID items, given apart or joined by commas. Raises WrongUsage."""
    items = [item for value in values for item in value.split(",")]
    for item in items:
        segment, _, vid = item.rpartition(":")
        if not segment or not (vid.isascii() and vid.isdigit()):
            raise WrongUsage(f"--trunk {item!r}: must be SEGMENT:VID such as blue:10, with a number for VID")
    return items
