"""What is measured: one row for each case."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import partial

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
    NIC = "nic"
    FLOOD_8 = "flood-8"
    FLOOD_64 = "flood-64"
    WIRE = "wire"
    TUNNEL_TAPS = "tunnel, taps"
    TUNNEL_VETHS = "tunnel, veths"


class Bare(StrEnum):
    """The program without a switch that shows the limit; `contenders` attaches it."""

    XDP = "XDP redirect"
    TC = "tc redirect"
    PEER = "redirect_peer"
    CLONE = "clone_redirect"
    ENCAP = "encapsulation"
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
        """Its A/A may be further off than that of packets."""
        return self.kind in (Kind.TCP, Kind.ROUND_TRIP)

    @property
    def smaller_is_better(self) -> bool:
        """Of the unit; the ratio is vxagent ÷ bridge all the same."""
        return self.unit is Unit.MICROSECONDS


_taps = partial(Case, unit=Unit.PACKETS, kind=Kind.TAP, route=Route.TAPS)
_tcp = partial(Case, unit=Unit.BITS, kind=Kind.TCP)
_packets = partial(Case, unit=Unit.PACKETS, kind=Kind.PACKET)
_live = partial(Case, unit=Unit.PACKETS, kind=Kind.LIVE)
_round_trips = partial(Case, unit=Unit.MICROSECONDS, kind=Kind.ROUND_TRIP)

CASES: tuple[Case, ...] = (
    _taps(name="tap-64", bare=Bare.XDP),
    _taps(name="tap-1514-complete", bare=Bare.XDP, size=LARGE_FRAME),
    _taps(name="tap-1514-partial", bare=Bare.XDP, size=LARGE_FRAME, partial=True),
    _tcp(name="tap-tcp", route=Route.TAPS, bare=Bare.TC),
    _packets(name="veth-64", route=Route.VETHS, bare=Bare.PEER),
    _tcp(name="veth-tcp-1", route=Route.VETHS, bare=Bare.PEER),
    _tcp(name="veth-tcp-4", route=Route.VETHS, bare=Bare.PEER, streams=4),
    _live(name="xdp-uplink-64", route=Route.NIC, bare=Bare.XDP),
    _tcp(name="xdp-uplink-tcp", route=Route.UPLINK, bare=Bare.TC),
    _packets(name="flood-8", route=Route.FLOOD_8, bare=Bare.CLONE),
    _packets(name="flood-64", route=Route.FLOOD_64, bare=Bare.CLONE),
    _round_trips(name="rtt-spin", route=Route.VETHS, bare=Bare.NONE),
    _taps(name="fdb-scale", spread=(FEW, MANY)),
    _taps(name="isolation-on", bare=Bare.XDP, locked=True),
    _taps(name="vxlan-64", route=Route.TUNNEL_TAPS, bare=Bare.ENCAP),
    _tcp(name="vxlan-tcp-4", route=Route.TUNNEL_VETHS, bare=Bare.ENCAP, streams=4),
)
