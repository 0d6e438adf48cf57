"""Leases: what DHCP messages make of a port's addresses, and who may say so.

VM 1 is the client on port 1, which is held to its leases; VM 2 the server on port 2, which is trusted. Another server
is behind uplink 9, in VLAN 10.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import pytest

from support import dhcp
from support.dhcp import (
    ACK,
    FOR_EVER,
    INFORM,
    NAK,
    OFFER,
    REPLY,
    decline,
    dhcpv6,
    from_client_6,
    ia_na,
    ia_pd,
    ia_ta,
    iaaddr,
    option,
    option_6,
    release,
)
from support.frames import (
    BROADCAST,
    DESTINATION,
    L3,
    NA,
    NS,
    arp,
    ethernet,
    ipv4,
    ipv6,
    link_layer,
    mac,
    nd,
    tcp,
    udp,
    vlan,
)
from support.outcome import FLOODED, FORWARDED
from support.rows import Row, Way, check, rows
from support.world import AGEING_S, BLUE, NANOSECONDS, RED, World, number
from vxagent.core.tables import FdbFlag, NeighbourOrigin, PortFlag, SegmentFlag
from vxagent.datapath import abi
from vxagent.datapath.abi import MAX_LEASES, EventType
from vxagent.datapath.ring import RingReader
from vxagent.model.ids import MAX_MEMBERS

ADDRESS, OTHER = "10.0.0.50", "10.0.0.51"
ADDRESS_6, OTHER_6 = "2001:db8::50", "2001:db8::51"
SERVER, SERVER_6 = "10.0.0.2", "fe80::2"
CLIENT_6 = "fe80::1"
SECONDS = 600


@pytest.fixture
def world(world: World) -> World:
    """The client and the server are known."""
    world.snoop(1)
    world.set_port(2, flags=PortFlag.TRUSTED)
    for port in (1, 2):
        world.learn(BLUE, mac(port), port)
    return world


@pytest.fixture
def events(world: World) -> Iterator[RingReader]:
    """The event ring; what an earlier test left in it is gone."""
    ring = RingReader(world.rig.maps["events"])
    ring.read()
    yield ring
    ring.close()


def ack(address: str = ADDRESS, seconds: int | None = SECONDS, *, to: int = 1, **members: object) -> L3:
    """The server's last word; members as of `dhcp.dhcp`."""
    message = dhcp.dhcp(ACK, mac(to), yours=address, seconds=seconds, **members)  # type: ignore[arg-type]  # by name
    return ipv4(message, source=SERVER, destination="255.255.255.255")


def reply(*options: bytes) -> L3:
    return ipv6(dhcpv6(REPLY, *options), source=SERVER_6, destination=CLIENT_6)


def from_server(inside: L3, destination: bytes | None = None) -> bytes:
    return ethernet(destination or mac(1), mac(2), inside)


def from_client(inside: L3) -> bytes:
    return ethernet(mac(2), mac(1), inside)


def lease(world: World, *addresses: str, seconds: int = SECONDS) -> None:
    """VM 1 leases these."""
    for address in addresses:
        inside = reply(ia_na(iaaddr(address, seconds))) if ":" in address else ack(address, seconds)
        assert world.run(1, from_client(ipv4(tcp(), source="0.0.0.0"))).fate == FORWARDED
        assert world.run(2, from_server(inside)).fate == FORWARDED
        assert world.neighbour(BLUE, address)


def seconds_left(world: World, address: str) -> float:
    """How long a lease lasts; 0 where there is none."""
    row = world.neighbour(BLUE, address)
    return (row["expires_ns"] - time.monotonic_ns()) / NANOSECONDS if row else 0


# --- what a lease is good for -----------------------------------------------------------------------


def speaks(address: str) -> list[L3]:
    """What VM 1 sends when it uses an address."""
    if ":" in address:
        return [
            ipv6(tcp(), source=address),
            ipv6(nd(NA, address, link_layer(2, mac(1))), source=CLIENT_6),
            ipv6(nd(NS, address), source="::"),
        ]
    return [ipv4(tcp(), source=address), arp(address, SERVER, sender_mac=mac(1))]


REFUSED = {4: ["src_ip_denied", "arp_spoof"], 6: ["src_ip_denied", "nd_spoof", "nd_spoof"]}


def fates(world: World, address: str, *, source: int = 1) -> list[str]:
    return [world.run(1, ethernet(mac(2), mac(source), inside)).fate for inside in speaks(address)]


@pytest.mark.parametrize(("address", "other"), [(ADDRESS, OTHER), (ADDRESS_6, OTHER_6)])
def test_a_leased_address_passes_and_no_other(world: World, address: str, other: str) -> None:
    refused = REFUSED[6 if ":" in address else 4]
    assert fates(world, address) == refused
    lease(world, address)
    assert set(fates(world, address)) == {FORWARDED}
    assert fates(world, other) == refused


@pytest.mark.parametrize(
    "inside",
    [
        ipv4(tcp(), source="0.0.0.0"),
        arp("0.0.0.0", ADDRESS, sender_mac=mac(1)),
        ipv6(tcp(), source=CLIENT_6),
        ipv6(nd(NS, CLIENT_6), source="::"),
    ],
)
def test_what_a_client_sends_before_its_lease_passes(world: World, inside: L3) -> None:
    assert world.run(1, from_client(inside)).fate == FORWARDED


@pytest.mark.parametrize("address", [ADDRESS, ADDRESS_6])
def test_a_lease_is_for_one_mac(world: World, address: str) -> None:
    lease(world, address)
    assert world.run(1, ethernet(mac(2), mac(21), speaks(address)[0])).fate == "src_ip_denied"


@pytest.mark.parametrize("address", [ADDRESS, ADDRESS_6])
def test_a_lease_is_of_one_port_and_one_segment(world: World, address: str) -> None:
    lease(world, address)
    world.snoop(3, 5)
    for port in (3, 5):
        assert world.run(port, ethernet(BROADCAST, mac(port), speaks(address)[0])).fate == "src_ip_denied"


@pytest.mark.parametrize("address", [ADDRESS, ADDRESS_6])
def test_a_lease_runs_out(world: World, address: str) -> None:
    lease(world, address)
    for left, fate in ((60, FORWARDED), (-1, "src_ip_denied")):
        world.name(1, address, leased_for_s=left)
        assert world.run(1, from_client(speaks(address)[0])).fate == fate


def test_what_the_port_lists_passes_too(world: World) -> None:
    world.list_ips(1, "10.0.0.1", "10.1.0.0/16", "2001:db8::1")
    lease(world, ADDRESS, ADDRESS_6)
    for address in ("10.0.0.1", "10.1.2.3", "2001:db8::1", ADDRESS, ADDRESS_6):
        assert set(fates(world, address)) == {FORWARDED}
    assert fates(world, OTHER) == REFUSED[4]


# --- what makes one -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Says:
    """What comes of a message: the addresses that VM 1 has then, in BLUE, and for how many seconds (0: for ever)."""

    name: str
    inside: L3
    leased: Mapping[str, int]


def _torn(inside: L3, octets: int) -> L3:
    """So many octets are missing, and the packet says that they are there."""
    return replace(inside, data=inside.data[:-octets])


def _cut(inside: L3, octets: int) -> L3:
    """The message ends so many octets earlier, and IP and UDP say so."""
    udp_at = 20 if inside.ethertype == 0x0800 else 40
    message = inside.data[udp_at + 8 : -octets]
    ports = struct.unpack_from("!HH", inside.data, udp_at)
    made = udp(message, source=ports[0], destination=ports[1])
    return ipv4(made, source=SERVER) if udp_at == 20 else ipv6(made, source=SERVER_6, destination=CLIENT_6)


MANY_LEASED = [f"2001:db8::{at}" for at in range(1, 9)]
MANY = [iaaddr(f"2001:db8::{at}", SECONDS) for at in range(1, 10)]
MIXED = option_6(23, bytes(16)) + option_6(24, bytes(9))

SAYS = (
    Says(name="an ACK", inside=ack(), leased={ADDRESS: SECONDS}),
    Says(name="for ever", inside=ack(seconds=FOR_EVER), leased={ADDRESS: 0}),
    Says(name="without a time", inside=ack(seconds=None), leased={ADDRESS: 0}),
    Says(name="for the longest time", inside=ack(seconds=FOR_EVER - 1), leased={ADDRESS: FOR_EVER - 1}),
    Says(name="for no time", inside=ack(seconds=0), leased={}),
    Says(name="padded", inside=ack(before=bytes(7), after=bytes(5)), leased={ADDRESS: SECONDS}),
    Says(name="with further options", inside=ack(after=option(12, b"x" * 200)), leased={ADDRESS: SECONDS}),
    Says(name="with as many as it may", inside=ack(before=bytes(60)), leased={ADDRESS: SECONDS}),
    Says(name="with one more", inside=ack(before=bytes(61)), leased={}),
    Says(name="trailing bytes", inside=ack(end=b"\xff" + bytes(60)), leased={ADDRESS: SECONDS}),
    Says(
        name="IPv4 options",
        inside=ipv4(dhcp.dhcp(ACK, mac(1), yours=ADDRESS, seconds=SECONDS), options=bytes(8)),
        leased={ADDRESS: SECONDS},
    ),
    Says(name="the answer to an INFORM", inside=ack("0.0.0.0", None, client=ADDRESS), leased={}),
    Says(name="of another hardware", inside=ack(hardware=(6, 6)), leased={}),
    Says(name="of a long address", inside=ack(hardware=(1, 8)), leased={}),
    Says(name="a request", inside=ack(operation=1), leased={}),
    Says(name="another cookie", inside=ack(cookie=bytes(4)), leased={}),
    Says(name="without an end", inside=ack(end=b""), leased={}),
    Says(name="an option past the end", inside=ack(after=b"\x0c\x20"), leased={}),
    Says(name="half a lease time", inside=ack(seconds=None, after=option(51, bytes(2))), leased={}),
    Says(name="a long type", inside=ack(after=option(53, b"\5\5")), leased={}),
    Says(name="overloaded", inside=ack(after=option(52, b"\1")), leased={}),
    Says(name="without options", inside=_cut(ack(), 20), leased={}),
    Says(name="half a header", inside=_cut(ack(), 200), leased={}),
    Says(name="a fragment", inside=replace(ack(), data=ack().data[:6] + b"\x20\x00" + ack().data[8:]), leased={}),
    Says(name="to the server's port", inside=ack(ports=(67, 67)), leased={}),
    *(
        Says(name=f"type {kind}", inside=ipv4(dhcp.dhcp(kind, mac(1), yours=ADDRESS, seconds=SECONDS)), leased={})
        for kind in (OFFER, NAK, INFORM, 0, 255)
    ),
    Says(name="a REPLY", inside=reply(ia_na(iaaddr(ADDRESS_6, SECONDS))), leased={ADDRESS_6: SECONDS}),
    Says(name="IPv6 for ever", inside=reply(ia_na(iaaddr(ADDRESS_6, FOR_EVER))), leased={ADDRESS_6: 0}),
    Says(name="IPv6 for no time", inside=reply(ia_na(iaaddr(ADDRESS_6, 0))), leased={}),
    Says(
        name="several",
        inside=reply(
            MIXED,
            ia_na(iaaddr(ADDRESS_6, 60, option_6(13, bytes(2))), iaaddr(OTHER_6, 70)),
            ia_ta(iaaddr("2001:db8::52", 80)),
            MIXED,
            ia_na(option_6(13, bytes(30))),
            ia_na(iaaddr("2001:db8::53", 90)),
        ),
        leased={ADDRESS_6: 60, OTHER_6: 70, "2001:db8::52": 80, "2001:db8::53": 90},
    ),
    Says(
        name="a prefix beside",
        inside=reply(ia_pd(iaaddr(OTHER_6, 9)), ia_na(iaaddr(ADDRESS_6, 60))),
        leased={ADDRESS_6: 60},
    ),
    Says(name="eight addresses", inside=reply(ia_na(*MANY[:8])), leased=dict.fromkeys(MANY_LEASED, SECONDS)),
    Says(name="nine addresses", inside=reply(ia_na(*MANY)), leased={}),
    Says(
        name="as many options as it may",
        inside=reply(*[option_6(13, b"")] * 60, ia_na(iaaddr(ADDRESS_6, 60))),
        leased={ADDRESS_6: 60},
    ),
    Says(name="one more option", inside=reply(*[option_6(13, b"")] * 61, ia_na(iaaddr(ADDRESS_6, 60))), leased={}),
    Says(name="IPv6 cut off", inside=_cut(reply(ia_na(iaaddr(ADDRESS_6, 60)), MIXED), 1), leased={}),
    Says(name="the second address torn off", inside=_torn(reply(ia_na(*MANY[:2])), 4), leased={}),
    Says(name="torn off behind the end option", inside=_torn(ack(end=b"\xff" + bytes(9)), 4), leased={}),
    Says(name="half an option", inside=reply(ia_na(iaaddr(ADDRESS_6, 60)), b"\0\1\0"), leased={}),
    Says(name="half an address", inside=reply(ia_na(option_6(5, bytes(20)))), leased={}),
    Says(name="half an address in front", inside=reply(ia_na(option_6(5, bytes(20))), MIXED), leased={}),
    Says(name="no options", inside=_cut(reply(), 32), leased={}),
    *(
        Says(name=f"IPv6 type {kind}", inside=ipv6(dhcpv6(kind, ia_na(iaaddr(ADDRESS_6, 60)))), leased={})
        for kind in (0, 2, 8, 9, 13, 255)
    ),
    Says(
        name="behind extension headers",
        inside=ipv6(dhcpv6(REPLY, ia_na(iaaddr(ADDRESS_6, 60))), extensions=((DESTINATION, 8),)),
        leased={},
    ),
    Says(
        name="to the servers' port",
        inside=ipv6(dhcpv6(REPLY, ia_na(iaaddr(ADDRESS_6, 60)), ports=(547, 547))),
        leased={},
    ),
)


@pytest.mark.parametrize("says", [pytest.param(says, id=says.name) for says in SAYS])
@pytest.mark.parametrize("way", [Way.WIRE, Way.BYTES])
def test_message(world: World, says: Says, way: Way) -> None:
    """Whatever it says, it goes on as it is."""
    frame = from_server(says.inside)
    check(world, Row(name="", port=2, frame=frame, fate=FORWARDED, out={1: frame}), way)
    found = {address: seconds_left(world, address) for address in says.leased if world.neighbour(BLUE, address)}
    assert found.keys() == says.leased.keys()
    for address, seconds in says.leased.items():
        row = world.neighbour(BLUE, address)
        assert row is not None
        assert (row["port"], row["mac"], row["origin"]) == (1, number(mac(1)), NeighbourOrigin.LEASED)
        assert seconds - 30 < found[address] < seconds + 1 if seconds else row["expires_ns"] == 0
    assert world.neighbours() == world.leases(1) == len(says.leased)


def _on_uplink(inside: L3, destination: bytes) -> bytes:
    return ethernet(destination, mac(9), inside, vlan(10))


LEASES_6 = reply(ia_na(iaaddr(ADDRESS_6, SECONDS)))
OUT = {1: ethernet(mac(1), mac(9), ack()), 2: ethernet(mac(1), mac(9), LEASES_6)}


def _everybody(frame: bytes, tagged: Callable[[int], bytes]) -> dict[int, bytes]:
    """Who gets a frame that is flooded from port 2 or an uplink."""
    return {port: tagged(vid) if vid else frame for port, vid in ((1, 0), (3, 0), (4, 0), (6, 110), (7, 0), (8, 0))}


@rows(
    Row(
        name="an ACK by broadcast",
        port=2,
        frame=ethernet(BROADCAST, mac(2), ack()),
        fate=FLOODED,
        out=_everybody(ethernet(BROADCAST, mac(2), ack()), lambda vid: ethernet(BROADCAST, mac(2), ack(), vlan(vid)))
        | {port: ethernet(BROADCAST, mac(2), ack(), vlan(10)) for port in (9, 10)},
    ),
    Row(
        name="an ACK from an uplink",
        port=9,
        frame=_on_uplink(ack(), mac(1)),
        fate=FORWARDED,
        out={1: ethernet(mac(1), mac(9), ack())},
    ),
    Row(
        name="by broadcast",
        port=9,
        frame=_on_uplink(ack(), BROADCAST),
        fate=FLOODED,
        out=_everybody(ethernet(BROADCAST, mac(9), ack()), lambda vid: ethernet(BROADCAST, mac(9), ack(), vlan(vid)))
        | {2: ethernet(BROADCAST, mac(9), ack())},
    ),
)
def test_who_says_so_and_how(world: World, row: Row, way: Way) -> None:
    check(world, row, way)
    assert seconds_left(world, ADDRESS) > SECONDS - 30


@rows(
    Row(
        name="a REPLY from an uplink",
        port=9,
        frame=_on_uplink(LEASES_6, mac(1)),
        fate=FORWARDED,
        out={1: ethernet(mac(1), mac(9), LEASES_6)},
    )
)
def test_who_says_so_in_ipv6(world: World, row: Row, way: Way) -> None:
    check(world, row, way)
    assert seconds_left(world, ADDRESS_6) > SECONDS - 30


def test_a_trunk_leases_in_each_of_its_segments(world: World) -> None:
    world.snoop(6)
    for segment, vid, server, leaves in ((BLUE, 110, 9, 10), (RED, 120, 9, 20)):
        world.learn(segment, mac(6), 6)
        frame = ethernet(mac(6), mac(server), ack(to=6), vlan(leaves))
        assert world.run(server, frame).fate == FORWARDED
        assert world.neighbour(segment, ADDRESS) is not None
        assert world.run(6, ethernet(BROADCAST, mac(6), ipv4(tcp(), source=ADDRESS), vlan(vid))).fate == FLOODED
    assert world.leases(6) == 2


def test_a_lease_of_a_listed_mac(world: World) -> None:
    """A port that lists MACs has them in the FDB from the beginning."""
    world.snoop(8)
    world.run(2, ethernet(mac(8), mac(2), ack(to=8)))
    assert world.run(8, ethernet(mac(2), mac(8), ipv4(tcp(), source=ADDRESS))).fate == FORWARDED


# --- what makes none ------------------------------------------------------------------------------


def _not_trusted(world: World) -> None:
    world.set_port(2, flags=PortFlag(0))


def _not_snooped(world: World) -> None:
    world.set_port(1, flags=PortFlag(0))


def _not_flagged(world: World) -> None:
    world.set_segment(BLUE, flags=SegmentFlag(0))


def _not_known(world: World) -> None:
    world.rig.maps["fdb"].delete(struct.pack("=Q", BLUE << 48 | number(mac(1))))


def _aged_out(world: World) -> None:
    world.learn(BLUE, mac(1), 1, age_s=AGEING_S + 1)


def _on_an_uplink(world: World) -> None:
    world.learn(BLUE, mac(1), 9)


def _shadow(world: World) -> None:
    world.set_port(2, flags=PortFlag.SHADOW)


def _snooped_in_shadow(world: World) -> None:
    world.set_port(2, flags=PortFlag.SHADOW | PortFlag.SNOOPED)


def _trusted_in_shadow(world: World) -> None:
    """The server goes by a MAC that its port does not list."""
    world.set_port(2, flags=PortFlag.SHADOW | PortFlag.TRUSTED | PortFlag.MAC_LOCKED)


def _down(world: World) -> None:
    world.set_port(1, flags=world.ports[1].flags, ifindex=0)


def _small(world: World) -> None:
    world.set_segment(BLUE, mtu=100)


@pytest.mark.parametrize("inside", [ack(), LEASES_6], ids=["DHCPv4", "DHCPv6"])
@pytest.mark.parametrize(
    ("prepare", "fate"),
    [
        (_not_trusted, "dhcp_server_denied"),
        (_shadow, FORWARDED),  # what a guard would drop says nothing either
        (_snooped_in_shadow, FORWARDED),
        (_trusted_in_shadow, FORWARDED),
        (_not_snooped, FORWARDED),
        (_not_flagged, FORWARDED),
        (_not_known, FLOODED),
        (_aged_out, FLOODED),
        (_on_an_uplink, FORWARDED),
        (_down, "no_destination"),
        (_small, "mtu_exceeded"),
    ],
)
def test_no_lease(world: World, prepare: Callable[[World], None], fate: str, inside: L3) -> None:
    prepare(world)
    assert world.run(2, from_server(inside)).fate == fate
    assert world.neighbours() == 0


def test_a_client_cannot_lease_to_itself(world: World) -> None:
    for inside in (ack(), LEASES_6):
        assert world.run(1, from_client(inside)).fate in ("src_ip_denied", "dhcp_server_denied")
    assert world.neighbours() == 0


def test_a_second_tag_hides_a_message(world: World) -> None:
    world.snoop(6)
    world.learn(BLUE, mac(6), 6)
    assert world.run(9, ethernet(mac(6), mac(9), ack(to=6), vlan(10), vlan(7))).fate == FORWARDED
    assert world.neighbours() == 0


@pytest.mark.parametrize(("address", "inside"), [(ADDRESS, ack()), (ADDRESS_6, LEASES_6)])
def test_what_the_agent_wrote_stays(world: World, address: str, inside: L3) -> None:
    world.name(3, address)
    before = world.neighbour(BLUE, address)
    world.run(2, from_server(inside))
    assert world.neighbour(BLUE, address) == before
    assert world.leases(1) == 0


# --- how one goes on and ends ---------------------------------------------------------------------


@pytest.mark.parametrize("address", [ADDRESS, ADDRESS_6])
def test_a_lease_is_renewed(world: World, address: str) -> None:
    lease(world, address, seconds=60)
    lease(world, address, seconds=SECONDS)
    assert seconds_left(world, address) > SECONDS - 30
    lease(world, address, seconds=60)
    assert seconds_left(world, address) < 61
    assert world.leases(1) == 1


def test_a_lease_that_ran_out_is_renewed(world: World) -> None:
    lease(world, ADDRESS)
    world.name(1, ADDRESS, leased_for_s=-1)
    lease(world, ADDRESS)
    assert seconds_left(world, ADDRESS) > SECONDS - 30
    assert world.leases(1) == 1


def test_a_nak_ends_none(world: World) -> None:
    lease(world, ADDRESS)
    world.run(2, from_server(ipv4(dhcp.dhcp(NAK, mac(1)), source=SERVER)))
    assert world.neighbour(BLUE, ADDRESS) is not None


GIVEN_BACK = [
    pytest.param(ADDRESS, ipv4(release(mac(1), ADDRESS), source=ADDRESS), id="RELEASE"),
    pytest.param(ADDRESS, ipv4(decline(mac(1), ADDRESS), source="0.0.0.0"), id="DECLINE"),
    *(
        pytest.param(ADDRESS_6, ipv6(from_client_6(kind, ia_na(iaaddr(ADDRESS_6, 60))), source=CLIENT_6), id=name)
        for kind, name in ((dhcp.RELEASE_6, "RELEASE of DHCPv6"), (dhcp.DECLINE_6, "DECLINE of DHCPv6"))
    ),
]


@pytest.mark.parametrize(("address", "inside"), GIVEN_BACK)
@pytest.mark.parametrize("way", [Way.WIRE, Way.BYTES])
def test_a_client_gives_its_address_back(world: World, address: str, inside: L3, way: Way) -> None:
    other = OTHER_6 if ":" in address else OTHER
    lease(world, address, other)
    frame = from_client(inside)
    check(world, Row(name="", frame=frame, fate=FORWARDED, out={2: frame}, again=False), way)
    assert world.neighbour(BLUE, address) is None
    assert world.neighbour(BLUE, other) is not None
    assert world.leases(1) == 1
    assert fates(world, address) == REFUSED[6 if ":" in address else 4]


@pytest.mark.parametrize(("address", "inside"), GIVEN_BACK[1:])
def test_nobody_gives_back_what_is_anothers(world: World, address: str, inside: L3) -> None:
    """Neither another port, whoever it says that it is, nor another MAC of the port, nor a port without leases."""
    lease(world, address)
    world.snoop(3)
    for port, source in ((3, 3), (3, 1), (1, 21), (7, 7)):
        world.run(port, ethernet(BROADCAST, mac(source), inside))
        world.learn(BLUE, mac(1), 1)
        assert world.neighbour(BLUE, address) is not None, (port, source)


def test_nobody_gives_back_what_a_port_lists(world: World) -> None:
    world.list_ips(1, ADDRESS)
    world.name(1, ADDRESS)
    world.run(1, from_client(ipv4(release(mac(1), ADDRESS), source=ADDRESS)))
    assert world.neighbour(BLUE, ADDRESS) is not None


def test_a_server_takes_an_address_back(world: World) -> None:
    lease(world, ADDRESS_6, OTHER_6)
    world.run(2, from_server(reply(ia_na(iaaddr(ADDRESS_6, 0), iaaddr(OTHER_6, SECONDS)))))
    assert world.neighbour(BLUE, ADDRESS_6) is None
    assert world.neighbour(BLUE, OTHER_6) is not None
    assert world.leases(1) == 1


@pytest.mark.parametrize("address", [ADDRESS, ADDRESS_6])
def test_a_server_gives_an_address_to_somebody_else(world: World, address: str) -> None:
    """It is the authority; the address has one owner at a time."""
    lease(world, address)
    world.snoop(3)
    world.learn(BLUE, mac(3), 3)
    inside = LEASES_6 if ":" in address else ack(to=3)
    assert world.run(2, ethernet(mac(3), mac(2), inside)).fate == FORWARDED
    assert fates(world, address)[0] == "src_ip_denied"
    assert world.run(3, ethernet(mac(2), mac(3), speaks(address)[0])).fate == FORWARDED
    assert (world.leases(1), world.leases(3)) == (0, 1)


# --- how many -------------------------------------------------------------------------------------


def told(events: RingReader) -> list[tuple[int, int, int, int]]:
    """(type, port, other port, segment) of each event that waits."""
    fields = [abi.EVENT.struct.unpack(record) for record in events.read()]
    return [(kind, port, other, segment) for _, kind, port, other, segment, _, _ in fields]


def test_a_port_has_so_many_leases(world: World, events: RingReader) -> None:
    for at in range(MAX_LEASES):
        world.run(2, from_server(ack(f"10.0.1.{at}")))
    assert (world.neighbours(), world.leases(1), world.refused(1), told(events)) == (MAX_LEASES, MAX_LEASES, 0, [])
    for _ in range(3):
        assert world.run(2, from_server(ack())).fate == FORWARDED
    assert world.run(2, from_server(LEASES_6)).fate == FORWARDED
    assert (world.neighbours(), world.leases(1), world.refused(1)) == (MAX_LEASES, MAX_LEASES, 4)
    assert told(events) == [(EventType.LEASE_REFUSED, 2, 1, BLUE)] * 3  # the first, the second and the fourth


def test_beyond_them_leases_are_renewed_and_others_have_room(world: World) -> None:
    world.rig.maps["leases"].update(struct.pack("=I", 1), struct.pack("=q", MAX_LEASES - 1))
    lease(world, ADDRESS, ADDRESS, seconds=60)
    lease(world, ADDRESS, seconds=SECONDS)
    assert seconds_left(world, ADDRESS) > SECONDS - 30
    world.snoop(3)
    world.learn(BLUE, mac(3), 3)
    world.run(2, ethernet(mac(3), mac(2), ack(OTHER, to=3)))
    assert world.neighbour(BLUE, OTHER) is not None
    assert world.refused(1) == world.refused(3) == 0


def test_a_full_map_takes_no_lease(world: World, events: RingReader) -> None:
    room = world.rig.maps["neighbours"].spec.max_entries
    for at in range(room):
        world.name(3, f"10.9.{at >> 8}.{at & 255}")
    frame = from_server(ack())
    check(world, Row(name="", port=2, frame=frame, fate=FORWARDED, out={1: frame}, again=False), Way.WIRE)
    assert (world.neighbours(), world.leases(1), world.refused(1)) == (room, 0, 1)
    assert told(events) == [(EventType.LEASE_REFUSED, 2, 1, BLUE)]


def test_a_flood_of_a_message_reaches_the_last_slot(world: World) -> None:
    """With vx_lease in front there is no tail call too many, in a segment that follows IGMP and MLD neither."""
    world.set_segment(BLUE, flags=world.segments[BLUE].flags | SegmentFlag.GROUPS)
    for slot in (abi.CHUNK, MAX_MEMBERS - 1):
        world.leave(3, BLUE)
        world.join(3, BLUE, 0, slot)
        world.set_port(3, segment=BLUE)
        outcome = world.send(2, ethernet(BROADCAST, mac(2), ack()))
        assert (outcome.fate, 3 in outcome.sent) == (FLOODED, True)


def test_a_static_mac_of_the_client(world: World) -> None:
    world.state_static(BLUE, mac(1), 1, FdbFlag(0))
    lease(world, ADDRESS)
    assert set(fates(world, ADDRESS)) == {FORWARDED}
