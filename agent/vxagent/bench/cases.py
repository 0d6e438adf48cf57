"""What is measured: one row for each case."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

FEW, MANY = 1_000, 1_000_000  # FDB entries of `fdb-scale`
LARGE_FRAME = 1514
SMALL_FRAME = 64


class Unit(StrEnum):
    """Of what is measured."""

    PACKETS = "packets/s"
    BITS = "bit/s"
    MICROSECONDS = "µs"


class Kind(StrEnum):
    """How traffic is made and counted; `flows` has a class for each."""

    TAP = "frames written to a tap, read from another"
    PACKET = "frames from a packet socket, counted by a program at the receiver"
    LIVE = "frames at XDP, as from a NIC's driver, read from a tap"
    TCP = "TCP, counted by the process that reads it"
    ROUND_TRIP = "UDP, answered at once"


class Route(StrEnum):
    """Which devices lie between the two VMs; `paths` builds them."""

    TAPS = "taps"
    VETHS = "veths"
    UPLINK = "uplink"
    FLOOD_8 = "flood-8"
    FLOOD_64 = "flood-64"
    WIRE = "wire"


class Bare(StrEnum):
    """The program without a switch that shows the limit; `contenders` attaches it."""

    XDP = "XDP redirect"
    TC = "tc redirect"
    PEER = "redirect_peer"
    CLONE = "clone_redirect"
    NONE = "no program, one veth pair"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One case.

    Attributes:
        name, unit: as in the document.
        kind, route: how, and over which devices.
        bare: what the limit is measured with.
        size: of a frame in bytes, from the destination MAC to the end of the payload.
        partial: the sender leaves the checksum to the NIC, as a guest with offloads does.
        streams: TCP connections.
        locked: the switch's ports have a VLAN, and their MACs and addresses listed.
        spread: entries in the FDB, to which frames go at random; (few, many), or none.
    """

    name: str
    unit: Unit
    kind: Kind
    route: Route
    bare: Bare | None = None
    size: int = SMALL_FRAME
    partial: bool = False
    streams: int = 1
    locked: bool = False
    spread: tuple[int, int] | None = None

    @property
    def noisy(self) -> bool:
        """It needs more rounds than packets do, and its A/A may be further off."""
        return self.kind in (Kind.TCP, Kind.ROUND_TRIP)

    @property
    def smaller_is_better(self) -> bool:
        """Of the unit; the ratio is vxagent ÷ bridge all the same."""
        return self.unit is Unit.MICROSECONDS


def _packets(name: str, kind: Kind, route: Route, bare: Bare | None, **more: object) -> Case:
    return Case(name=name, unit=Unit.PACKETS, kind=kind, route=route, bare=bare, **more)  # type: ignore[arg-type]


def _tcp(name: str, route: Route, bare: Bare, *, streams: int = 1) -> Case:
    return Case(name=name, unit=Unit.BITS, kind=Kind.TCP, route=route, bare=bare, streams=streams)


CASES = (
    _packets("tap-64", Kind.TAP, Route.TAPS, Bare.XDP),
    _packets("tap-1514-complete", Kind.TAP, Route.TAPS, Bare.XDP, size=LARGE_FRAME),
    _packets("tap-1514-partial", Kind.TAP, Route.TAPS, Bare.XDP, size=LARGE_FRAME, partial=True),
    _tcp("tap-tcp", Route.TAPS, Bare.TC),
    _packets("veth-64", Kind.PACKET, Route.VETHS, Bare.PEER),
    _tcp("veth-tcp-1", Route.VETHS, Bare.PEER),
    _tcp("veth-tcp-4", Route.VETHS, Bare.PEER, streams=4),
    _packets("xdp-uplink-64", Kind.LIVE, Route.UPLINK, Bare.XDP),
    _tcp("xdp-uplink-tcp", Route.UPLINK, Bare.TC),
    _packets("flood-8", Kind.PACKET, Route.FLOOD_8, Bare.CLONE),
    _packets("flood-64", Kind.PACKET, Route.FLOOD_64, Bare.CLONE),
    Case(name="rtt-spin", unit=Unit.MICROSECONDS, kind=Kind.ROUND_TRIP, route=Route.VETHS, bare=Bare.NONE),
    _packets("fdb-scale", Kind.TAP, Route.TAPS, None, spread=(FEW, MANY)),
    _packets("isolation-on", Kind.TAP, Route.TAPS, Bare.XDP, locked=True),
)
