"""Settings that hypothesis draws; it shrinks them towards two plain ports in one segment."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from hypothesis import strategies as st

from fuzz.setting import NOWHERE, Setting, Stated
from reference.rates import BUCKETS
from vxagent.core.tables import PortMode
from vxagent.model.port import Enforce, Mode, Port, Uplink
from vxagent.model.rate import Rate
from vxagent.model.segment import Segment, UnknownUnicast
from vxagent.model.vtep import Vtep

PLACES = 8  # taps of ports and uplinks
MOST_PORTS, MOST_UPLINKS = 6, 2
VTEPS = ("192.0.2.21", "192.0.2.22")
OWN_VTEPS = ("192.0.2.1", "192.0.2.99")
VNI = 5000  # of the first segment
TENANTS = ("acme", "acme", "zoo")

# Slow enough for a bucket to be used up by the frames of one setting, and of every kind of rounding.
_BITS = st.sampled_from([1_000, 64_000, 1_000_000, 3_333_333, 100_000_000, 10**12])
_PACKETS = st.sampled_from([1, 2, 3, 7, 10, 1_000, 10**9])
_RATE = st.builds(Rate, bits=_BITS) | st.builds(Rate, packets=_PACKETS) | st.builds(Rate, bits=_BITS, packets=_PACKETS)
_SOMETIMES = st.sampled_from([False, False, True])
_MISSING_MS = st.sampled_from([0, 100, 240, 250, 900, 990, 1_000, 5_000, 63_000, 10**6, 10**9])
_UNTOLD_MS = [2_000, 3_000, 3_001, 4_000, 8_001]  # a bucket holds four seconds; owing over eight it is only empty


@cache
def ips_of(number: int) -> tuple[str, ...]:
    """What the VM of a place may list."""
    return (
        f"10.0.0.{number}",
        f"10.{number}.0.0/16",
        f"2001:db8::{number}",
        f"2001:db8:{number}::/48",
        "192.0.2.128/25",
        f"fd00::{number}:0/112",
    )


@cache
def macs_of(number: int) -> tuple[str, ...]:
    """Its own, and others that it may list."""
    return tuple(f"02:00:00:00:{extra:02x}:{number:02x}" for extra in range(3))


def rarely() -> st.SearchStrategy[bool]:
    """Mostly not."""
    return st.sampled_from([False, False, False, True])


def _some(values: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.just(()) | st.lists(st.sampled_from(values), unique=True, max_size=4).map(tuple)


@st.composite
def _segments(draw: st.DrawFn) -> tuple[Segment, ...]:
    return tuple(
        Segment(
            name=f"s{number}",
            tenant=TENANTS[number],
            vlan=draw(st.sampled_from([10 * number + 10, None])),
            vni=VNI + number if draw(st.booleans()) else None,
            mtu=draw(st.sampled_from([1500, 1500, 9000, 576])),
            multicast_snooping=draw(st.booleans()),
            unknown_unicast=draw(st.sampled_from([UnknownUnicast.FLOOD, UnknownUnicast.FLOOD, UnknownUnicast.DROP])),
        )
        for number in range(draw(st.sampled_from([1, 1, 2, 3])))
    )


@st.composite
def _port(draw: st.DrawFn, number: int, segments: tuple[Segment, ...]) -> Port:
    mode = draw(st.sampled_from([*[Mode.ACCESS] * 5, Mode.TRUNK, Mode.TRUNK, Mode.INTERNAL]))
    home = draw(st.sampled_from(segments))
    same = [segment.name for segment in segments if segment.tenant == home.tenant]
    tagged = draw(st.lists(st.sampled_from(same), unique=True, min_size=1)) if mode is Mode.TRUNK else []
    free = [name for name in same if name not in tagged]
    return Port(
        id=f"p{number}",
        ifname=f"p{number}",
        mode=mode,
        segment=None if tagged else home.name,
        trunk=tuple((name, 100 * number + at) for at, name in enumerate(tagged)),
        native=draw(st.sampled_from([None, *free])) if tagged else None,
        macs=draw(st.sampled_from([(), macs_of(number)[:1], macs_of(number)[:1]]) | _some(macs_of(number))),
        ips=draw(_some(ips_of(number)) | st.just(ips_of(number)[::2])),
        isolated=draw(st.booleans()),
        trusted=draw(rarely()),
        max_macs=draw(st.sampled_from([1024, 1024, 1024, 0, 1, 3])),
        learn_rate=draw(st.sampled_from([1000, 1000, 1000, None, 1, 3, 20])),
        dhcp_snoop=draw(rarely()),
        enforce=Enforce.SHADOW if draw(rarely()) else Enforce.ON,
        rate_in=draw(_RATE) if draw(_SOMETIMES) else None,
        rate_out=draw(_RATE) if draw(_SOMETIMES) else None,
        storm_broadcast=draw(_PACKETS) if draw(rarely()) else None,
        storm_multicast=draw(_PACKETS) if draw(rarely()) else None,
        storm_unknown=draw(_PACKETS) if draw(rarely()) else None,
    )


@st.composite
def _stated(draw: st.DrawFn, segments: tuple[Segment, ...], places: int) -> Stated:
    number = draw(st.integers(1, places))
    return Stated(
        segment=draw(st.sampled_from(segments)).name,
        mac=draw(st.sampled_from([*macs_of(number), "02:00:00:00:00:50"])),
        place=draw(st.sampled_from([number, number, *range(1, places + 1), NOWHERE])),
        cluster=draw(rarely()),
    )


@st.composite
def _vtep(draw: st.DrawFn, address: str, segments: tuple[Segment, ...]) -> Vtep:
    vnis = [segment.vni for segment in segments if segment.vni is not None]
    return Vtep(address=address, vnis=tuple(draw(st.lists(st.sampled_from(vnis), unique=True)) if vnis else ()))


@st.composite
def settings(draw: st.DrawFn) -> Setting:
    """Any setting that the agent could make, and states and entries that migrations and clusters will."""
    segments = draw(_segments())
    ports = tuple(draw(_port(number, segments)) for number in range(1, draw(st.integers(2, MOST_PORTS)) + 1))
    uplinks = tuple(Uplink(ifname=f"p{len(ports) + at}") for at in range(1, draw(st.integers(0, MOST_UPLINKS)) + 1))
    vteps = tuple(draw(_vtep(address, segments)) for address in VTEPS[: draw(st.sampled_from([0, 0, 1, 2]))])
    places = range(1, len(ports) + len(uplinks) + 1)
    listed = {(segment, mac) for port in ports for segment, _ in port.memberships for mac in port.macs}
    stated = {
        (entry.segment, entry.mac): entry
        for entry in draw(st.lists(_stated(segments, len(places) + len(vteps)), max_size=4))
        if (entry.segment, entry.mac) not in listed
    }
    limits = [(number, name) for number, port in enumerate(ports, 1) for name in BUCKETS if _limited(port, name)]
    return Setting(
        segments=segments,
        ports=ports,
        uplinks=uplinks,
        vteps=vteps,
        own_vtep=draw(st.sampled_from(OWN_VTEPS)) if vteps else OWN_VTEPS[0],
        stated=tuple(stated.values()),
        states={number: draw(st.sampled_from(PortMode)) for number in places if draw(rarely()) and draw(rarely())},
        deviceless=frozenset(number for number in places if draw(rarely()) and draw(rarely())),
        missing_ms={key: draw(_MISSING_MS) for key in limits},
        untold_ms={number: draw(st.sampled_from(_UNTOLD_MS)) for number in places if draw(rarely())},
        ageing_s=draw(st.sampled_from([300, 0, 5])),
    )


def eager(setting: Setting) -> Setting:
    """The same, where every port learns as much as there is room for: few others ever fill the table."""
    ports = tuple(replace(port, macs=(), max_macs=1024, learn_rate=1000) for port in setting.ports)
    return replace(setting, ports=ports, ageing_s=300)


def _limited(port: Port, name: str) -> bool:
    way, _, unit = name.partition("_")
    if name == "learn":
        return port.learn_rate is not None
    return bool(getattr(getattr(port, f"rate_{way}"), unit, 0) if unit else getattr(port, f"storm_{way}"))
