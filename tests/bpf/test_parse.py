"""Step 1: frames that end too early; and step 15, how large a frame is that the kernel will still cut into pieces."""

from __future__ import annotations

import pytest

from support.frames import (
    DESTINATION,
    EXPERIMENTAL,
    FRAGMENT,
    HOP_BY_HOP,
    IPV4,
    L3,
    ROUTING,
    S_TAG,
    SCTP,
    ethernet,
    ipv4,
    ipv6,
    mac,
    payload,
    raw,
    tcp,
    udp,
    vlan,
)
from support.outcome import FORWARDED, Outcome
from support.rows import Row, Way, check, rows
from support.world import BLUE, World
from vxagent.core.tables import PortFlag
from vxagent.lab.pump import VNET_HDR

DOT1Q = b"\x81\x00"
MACS = mac(2) + mac(1)

# The kernel throws away a frame without a whole first tag before it calls the program.
ONLY_BYTES = (Way.BYTES,)
NOT_WIRE = (Way.BYTES, Way.METADATA)


@rows(
    Row(name="no byte after the tag's TPID", frame=MACS + DOT1Q, fate="malformed", segment=0, ways=ONLY_BYTES),
    Row(name="a TCI of one byte", frame=MACS + DOT1Q + b"\0", fate="malformed", segment=0, ways=ONLY_BYTES),
    Row(name="a TCI and no EtherType", frame=MACS + DOT1Q + b"\0\0", fate="malformed", segment=0, ways=ONLY_BYTES),
    Row(
        name="a TCI and half an EtherType",
        frame=MACS + DOT1Q + b"\0\0\x08",
        fate="malformed",
        segment=0,
        ways=ONLY_BYTES,
    ),
    Row(name="the same with a TPID that nobody moves", frame=MACS + b"\x91\0", fate="malformed", segment=0),
    Row(name="a second TPID", frame=MACS + vlan(0) + DOT1Q, fate="malformed", segment=0, ways=NOT_WIRE),
    Row(name="half of a second TCI", frame=MACS + vlan(0) + vlan(20)[:3], fate="malformed", segment=0, ways=NOT_WIRE),
    Row(name="a second tag and no EtherType", frame=MACS + vlan(0) + vlan(20), fate="malformed", segment=0),
    Row(
        name="a second tag of another TPID and half an EtherType",
        frame=MACS + vlan(0) + vlan(20, tpid=S_TAG) + b"\x08",
        fate="malformed",
        segment=0,
    ),
    Row(name="an uplink's", port=9, frame=MACS + vlan(10) + vlan(20), fate="malformed", segment=0),
)
def test_frame_that_ends_within_a_tag_is_malformed(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


@rows(
    Row(
        name="nothing but an Ethernet header",
        frame=ethernet(mac(2), mac(1), L3(EXPERIMENTAL, b"")),
        knows=((BLUE, 2),),
        fate=FORWARDED,
        out={2: ethernet(mac(2), mac(1), L3(EXPERIMENTAL, b""))},
    ),
    Row(
        name="an IEEE 802.3 length in the place of the EtherType",
        frame=ethernet(mac(2), mac(1), L3(38, b"\x42\x42\x03".ljust(46, b"\0"))),
        knows=((BLUE, 2),),
        fate=FORWARDED,
        out={2: ethernet(mac(2), mac(1), L3(38, b"\x42\x42\x03".ljust(46, b"\0")))},
    ),
    Row(
        name="an IPv4 header that lies",
        frame=ethernet(mac(2), mac(1), ipv4(udp(), ihl=15)),
        knows=((BLUE, 2),),
        prepare=lambda world: world.set_port(1, flags=PortFlag.TRUSTED),
        fate=FORWARDED,
        out={2: ethernet(mac(2), mac(1), ipv4(udp(), ihl=15))},
    ),
)
def test_what_the_switch_need_not_read_may_be_anything(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


MTU = 1500
BODY = bytes(64)

# description, L3, bytes of headers that the kernel repeats in front of each segment
HEADERS = [
    ("TCP over IPv4", ipv4(tcp(BODY)), 20 + 20),
    ("TCP with options", ipv4(tcp(BODY, options=bytes(12))), 20 + 32),
    ("IPv4 with options", ipv4(tcp(BODY), options=bytes(8)), 28 + 20),
    ("TCP over IPv6", ipv6(tcp(BODY)), 40 + 20),
    ("TCP behind one extension header", ipv6(tcp(BODY), extensions=((HOP_BY_HOP, 8),)), 48 + 20),
    (
        "TCP behind several",
        ipv6(tcp(BODY), extensions=((HOP_BY_HOP, 16), (DESTINATION, 8), (ROUTING, 24), (FRAGMENT, 8))),
        96 + 20,
    ),
    ("UDP over IPv6", ipv6(udp(BODY)), 40 + 8),
    ("UDP over IPv4", ipv4(udp(BODY)), 20 + 8),
    ("what is neither TCP nor UDP", ipv4(raw(SCTP, BODY)), 20),
    ("what is neither IPv4 nor IPv6", payload(BODY), 0),
]


@pytest.mark.parametrize(
    ("inside", "headers"), [(l3, size) for _, l3, size in HEADERS], ids=[name for name, *_ in HEADERS]
)
@pytest.mark.parametrize("tags", [(), (vlan(110),)], ids=["untagged", "tagged"])
def test_gso_frame_is_as_large_as_its_segments(world: World, inside: L3, headers: int, tags: tuple[bytes, ...]) -> None:
    port = 6 if tags else 1
    frame = ethernet(mac(2), mac(port), inside, *tags)
    largest = MTU - headers
    assert world.run(port, frame, gso_size=largest + 1).fate == "mtu_exceeded"
    world.learn(BLUE, mac(2), 2)
    for _ in range(2):  # the second has a flow
        assert world.run(port, frame, gso_size=largest).fate == FORWARDED
        assert world.run(port, frame, gso_size=largest + 1).fate == "mtu_exceeded"


def test_gso_frame_may_be_larger_than_the_mtu(world: World) -> None:
    world.learn(BLUE, mac(2), 2)
    frame = ethernet(mac(2), mac(1), ipv4(tcp(bytes(2600))))
    assert world.run(1, frame, gso_size=1448).fate == FORWARDED
    assert world.run(1, frame).fate == "mtu_exceeded"


def test_gso_of_a_tag_that_follows_is_read_behind_it(world: World) -> None:
    world.learn(BLUE, mac(9), 9)
    frame = ethernet(mac(9), mac(6), ipv4(tcp(BODY)), vlan(110), vlan(7, tpid=S_TAG))
    assert world.run(6, frame, gso_size=MTU - 39).fate == "mtu_exceeded"
    assert world.run(6, frame, gso_size=MTU - 40).fate == FORWARDED


# <linux/virtio_net.h>
GSO_TCPV4, GSO_UDP, GSO_TCPV6, GSO_UDP_L4 = 1, 3, 4, 5
NEEDS_CSUM = 1


@pytest.mark.parametrize(
    ("gso_type", "inside", "headers", "checksum_at"),
    [
        pytest.param(GSO_TCPV4, ipv4(tcp(bytes(9000))), 20 + 20, 16, id="TCP over IPv4"),
        pytest.param(GSO_TCPV6, ipv6(tcp(bytes(9000), options=bytes(12))), 40 + 32, 16, id="TCP over IPv6"),
        pytest.param(GSO_UDP_L4, ipv6(udp(bytes(9000))), 40 + 8, 6, id="UDP segments over IPv6"),
        # RFC 791, 3.2: fragments carry multiples of 8 bytes, and the UDP header is in the first.
        pytest.param(GSO_UDP, ipv4(udp(bytes(9000))), 20, 6, id="UDP fragments over IPv4"),
    ],
)
def test_kernel_cuts_frames_as_large_as_the_mtu(
    world: World, gso_type: int, inside: L3, headers: int, checksum_at: int
) -> None:
    """The largest that the switch lets pass is the largest that arrives."""
    world.learn(BLUE, mac(2), 2)
    l4 = 14 + (20 if inside.ethertype == IPV4 else 40)

    def send(size: int) -> Outcome:
        header = VNET_HDR.pack(NEEDS_CSUM, gso_type, l4 + headers, size, l4, checksum_at)
        return world.send(1, ethernet(mac(2), mac(1), inside), header)

    step = 8 if gso_type == GSO_UDP else 1
    assert send(MTU - headers + step).fate == "mtu_exceeded"
    arrived = send(MTU - headers).frames[2]
    assert len(arrived) > 1
    assert max(map(len, arrived)) == 14 + MTU


def test_udp_over_ipv6_has_no_such_doubt(world: World) -> None:
    """Fragments would carry a fragment header each, and fit: a gso_size that is a multiple of 8 says nothing."""
    frame = ethernet(mac(2), mac(1), ipv6(udp(BODY)))
    assert world.run(1, frame, gso_size=1456).fate == "mtu_exceeded"


def test_gso_by_frags_is_not_limited(world: World) -> None:
    """SCTP: the segments are as large as they are, and gso_size says nothing (GSO_BY_FRAGS)."""
    world.learn(BLUE, mac(2), 2)
    assert world.run(1, ethernet(mac(2), mac(1), ipv4(raw(SCTP, BODY))), gso_size=0xFFFF).fate == FORWARDED


CUT_OFF = {
    "IPv4 header": ipv4(tcp(BODY)).data[:19],
    "IPv4 options": ipv4(tcp(BODY), options=bytes(20)).data[:30],
    "TCP header": ipv4(tcp(BODY)).data[:39],
    "IPv4 header shorter than it can be": ipv4(tcp(BODY), ihl=4).data,
}
CUT_OFF_6 = {
    "IPv6 header": ipv6(tcp(BODY)).data[:39],
    "extension header": ipv6(tcp(BODY), extensions=((HOP_BY_HOP, 8),)).data[:41],
    "TCP header behind IPv6": ipv6(tcp(BODY)).data[:59],
}


@pytest.mark.parametrize(
    "inside",
    [L3(0x0800, data) for data in CUT_OFF.values()] + [L3(0x86DD, data) for data in CUT_OFF_6.values()],
    ids=[*CUT_OFF, *CUT_OFF_6],
)
def test_gso_frame_whose_headers_end_too_early_is_malformed(world: World, inside: L3) -> None:
    # Tagged, because a test run refuses what is too short for the IP header that skb->protocol promises.
    outcome = world.run(6, ethernet(mac(2), mac(6), inside, vlan(110)), gso_size=500)
    assert (outcome.fate, outcome.where) == ("malformed", (6, 0))
