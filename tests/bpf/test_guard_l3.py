"""Steps 7 to 9: the addresses that a VM goes by, and the services that it may not offer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from support.frames import (
    ARP,
    AUTHENTICATION,
    BROADCAST,
    DESTINATION,
    FRAGMENT,
    HIP,
    HOP_BY_HOP,
    ICMPV6,
    IPV4,
    IPV6,
    L3,
    L4,
    MOBILITY,
    NA,
    NS,
    RA,
    REDIRECT,
    ROUTING,
    RS,
    S_TAG,
    SHIM6,
    UDP,
    arp,
    ethernet,
    icmpv6,
    ipv4,
    ipv6,
    link_layer,
    mac,
    nd,
    raw,
    tags_of,
    tcp,
    udp,
    untag,
    vlan,
)
from support.outcome import FORWARDED
from support.rows import Row, Way, check, rows
from support.world import BLUE, RED, World
from vxagent.core.tables import FdbFlag, PortFlag

Prepare = Callable[[World], None]

IPS = ("10.0.0.1", "10.1.0.0/16", "2001:db8::1", "2001:db8:1::/48", "10.0.0.9", "2001:db8::9", "10.0.0.10")
LISTED, LISTED_6 = "10.0.0.1", "2001:db8::1"
FOREIGN, FOREIGN_6 = "10.0.0.2", "2001:db8::2"
UNSPECIFIED, LINK_LOCAL = "::", "fe80::1:2:3"


def _ips(world: World) -> None:
    world.list_ips(1, *IPS)
    world.list_ips(2, FOREIGN, FOREIGN_6)


def _macs(world: World) -> None:
    """Port 1 lists two MACs."""
    world.set_port(1, flags=PortFlag.MAC_LOCKED)
    for number in (1, 11):
        world.state_static(BLUE, mac(number), 1, FdbFlag.LISTED)


def _both(world: World) -> None:
    _macs(world)
    world.list_ips(1, *IPS)


def _trust(world: World) -> None:
    world.set_port(1, flags=world.ports[1].flags | PortFlag.TRUSTED)


def _trusted_with_locks(world: World) -> None:
    _both(world)
    _trust(world)


def _no_locks(_: World) -> None:
    """Port 1 as it is by default."""


def _passes(name: str, inside: L3, prepare: Prepare) -> Row:
    frame = ethernet(mac(2), mac(1), inside)
    return Row(name=name, frame=frame, knows=((BLUE, 2),), prepare=prepare, fate=FORWARDED, out={2: frame})


def _denied(name: str, inside: L3, prepare: Prepare, fate: str) -> Row:
    frame = ethernet(mac(2), mac(1), inside)
    where = (1, 0) if fate == "malformed" else None  # step 1 comes before the segment is known
    return Row(name=name, frame=frame, knows=((BLUE, 2),), prepare=prepare, fate=fate, where=where)


# Step 7


@rows(
    *(
        _passes(f"from {source}", ipv4(tcp(), source=source), _ips)
        for source in (
            LISTED,
            "10.0.0.9",
            "10.0.0.10",
            "10.1.0.0",
            "10.1.255.255",
            "0.0.0.0",
        )  # a source, nothing is bound
    ),
    *(
        _denied(f"from {source}", ipv4(tcp(), source=source), _ips, "src_ip_denied")
        for source in (FOREIGN, "10.2.0.0", "10.0.255.255", "169.254.0.1", "255.255.255.255", "127.0.0.1", "0.0.0.1")
    ),
    *(
        _passes(f"from {source}", ipv6(tcp(), source=source), _ips)
        for source in (LISTED_6, "2001:db8::9", "2001:db8:1:ffff::9", UNSPECIFIED, LINK_LOCAL, "febf::1")
    ),
    *(
        _denied(f"from {source}", ipv6(tcp(), source=source), _ips, "src_ip_denied")
        for source in (FOREIGN_6, "2001:db8:2::", "2001:db8::", "fec0::1", "::1", "::ffff:10.0.0.1", "a00:1::")
    ),
    _passes("neither IPv4 nor IPv6", L3(0x88B5, bytes(46)), _ips),
    _passes("a port that lists MACs alone", ipv4(tcp(), source=FOREIGN), _macs),
    _denied("a port that is trusted", ipv4(tcp(), source=FOREIGN), _trusted_with_locks, "src_ip_denied"),
    _denied("a fragment behind the first", ipv4(udp(), source=FOREIGN, fragment=100), _ips, "src_ip_denied"),
    _denied(
        "a fragment behind extension headers",
        ipv6(udp(), source=FOREIGN_6, extensions=((HOP_BY_HOP, 8), (FRAGMENT, 8)), fragment=800),
        _ips,
        "src_ip_denied",
    ),
    _denied("IPv4 with options", ipv4(tcp(), source=FOREIGN, options=bytes(40)), _ips, "src_ip_denied"),
)
def test_source_address(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


def _trunk_lists(world: World) -> None:
    world.list_ips(6, LISTED, LISTED_6)


@pytest.mark.parametrize("inside", [ipv4, ipv6])
@pytest.mark.parametrize("further", [(), (vlan(0),), (vlan(7, tpid=S_TAG), vlan(0), vlan(0))], ids=["1", "2", "4"])
@pytest.mark.parametrize("way", [Way.WIRE, Way.BYTES, Way.METADATA])
def test_source_address_behind_tags(
    world: World, inside: Callable[..., L3], further: tuple[bytes, ...], way: Way
) -> None:
    """A trunk's list holds in all of its segments, and behind whatever tags follow."""
    for segment, vid, to, leaves in ((BLUE, 110, 9, 10), (RED, 120, 9, 20)):
        good = ethernet(mac(9), mac(6), inside(tcp()), vlan(vid), *further)
        bad = ethernet(mac(9), mac(6), inside(tcp(), source=FOREIGN if inside is ipv4 else FOREIGN_6), *tags_of(good))
        out = ethernet(mac(9), mac(6), inside(tcp()), vlan(leaves), *further)
        row = Row(
            name="",
            port=6,
            frame=good,
            knows=((segment, 9),),
            prepare=_trunk_lists,
            fate=FORWARDED,
            segment=segment,
            out={to: out},
        )
        check(world, row, way)
        check(world, replace(row, frame=bad, fate="src_ip_denied", out={}), way)


def test_more_tags_than_a_host_looks_behind_hide_everything(world: World) -> None:
    frame = ethernet(mac(9), mac(6), ipv4(tcp()), vlan(110), *[vlan(0)] * 9)
    assert world.run(6, frame).fate == "fragment_denied"
    fewer = ethernet(mac(9), mac(6), ipv4(udp(source=67)), vlan(110), *[vlan(0)] * 8)
    assert world.run(6, fewer).fate == "dhcp_server_denied"


def test_an_uplink_has_no_guards(world: World) -> None:
    world.learn(BLUE, mac(1), 1)
    for inside in (ipv4(udp(source=67)), ipv6(nd(RA)), ipv6(nd(NA, FOREIGN_6, link_layer(2, mac(3))))):
        assert world.send(9, ethernet(mac(1), mac(9), inside, vlan(10))).fate == FORWARDED


def test_a_port_is_not_helped_by_what_another_lists(world: World) -> None:
    world.list_ips(1, "10.9.0.1")
    world.list_ips(2, "10.0.0.0/8", "2001:db8::/32")
    for inside in (ipv4(tcp()), ipv6(tcp())):
        assert world.send(1, ethernet(mac(2), mac(1), inside)).fate == "src_ip_denied"


# What is hidden, and what ends too early

FIRST, LATER = 0x2000, 0x2001  # IPv4: more fragments; at 8 bytes
SOME = bytes(64)


@rows(
    _passes("the first fragment of UDP", ipv4(udp(SOME), fragment=FIRST), _no_locks),
    _passes("a later one", ipv4(udp(SOME, source=67), fragment=LATER), _no_locks),
    _passes("the last one", ipv4(udp(SOME, source=67), fragment=8), _no_locks),
    _passes("a first fragment of TCP with less than its header", ipv4(raw(6, bytes(8)), fragment=FIRST), _no_locks),
    _denied("a first fragment without UDP", ipv4(raw(UDP, b""), fragment=FIRST), _no_locks, "fragment_denied"),
    _denied("and with half of it", ipv4(raw(UDP, bytes(7)), fragment=FIRST), _no_locks, "fragment_denied"),
    _denied(
        "UDP that is no part of the packet",
        L3(IPV4, ipv4(raw(UDP, b""), fragment=FIRST).data + udp().data),
        _no_locks,
        "fragment_denied",
    ),
    _passes("where nobody has to know", ipv4(raw(UDP, b""), fragment=FIRST), _trust),
    _denied("UDP cut off", ipv4(raw(UDP, bytes(7))), _no_locks, "malformed"),
    _denied("behind options", ipv4(raw(UDP, bytes(7)), options=bytes(12)), _no_locks, "malformed"),
    _denied("a header length of 4 words", ipv4(tcp(), ihl=4), _no_locks, "malformed"),
    _passes("which a trusted port may send", ipv4(tcp(), ihl=4), _trust),
)
def test_ipv4_that_hides_udp(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


IN_FRAGMENT = ((HOP_BY_HOP, 8), (FRAGMENT, 8))
LONG_CHAIN = ((HOP_BY_HOP, 8), *[(DESTINATION, 8)] * 8)


def _without_length(inside: L3) -> L3:
    """An IPv6 packet with a payload length of 0: Linux reads it to the frame's end, behind a Hop-by-Hop header."""
    return L3(inside.ethertype, inside.data[:4] + bytes(2) + inside.data[6:])


def _cut(l3: L3, octets: int, *, padding: bytes = b"") -> L3:
    """An IPv6 packet that ends so many octets earlier, its header says so, and what is padded to it."""
    data = l3.data[: len(l3.data) - octets]
    return L3(IPV6, data[:4] + (len(data) - 40).to_bytes(2, "big") + data[6:] + padding)


@rows(
    _passes("a first fragment of UDP", ipv6(udp(SOME), extensions=IN_FRAGMENT, fragment=1), _no_locks),
    _passes("a later one", ipv6(udp(SOME, source=547), extensions=IN_FRAGMENT, fragment=9), _no_locks),
    _passes("a later one of ICMPv6", ipv6(nd(RA), extensions=IN_FRAGMENT, fragment=8), _both),
    _denied(
        "a first fragment that ends before UDP",
        _cut(ipv6(udp(), extensions=IN_FRAGMENT, fragment=1), 8),
        _no_locks,
        "fragment_denied",
    ),
    _denied(
        "though padding looks like it",
        _cut(ipv6(udp(), extensions=IN_FRAGMENT, fragment=1), 8, padding=udp(SOME).data),
        _no_locks,
        "fragment_denied",
    ),
    _denied(
        "one that ends within its headers",
        _cut(ipv6(udp(), extensions=(*IN_FRAGMENT, (DESTINATION, 8)), fragment=1), 15),
        _no_locks,
        "fragment_denied",
    ),
    _denied("more headers than anybody needs", ipv6(udp(), extensions=LONG_CHAIN), _no_locks, "fragment_denied"),
    _passes("one fewer", ipv6(udp(), extensions=LONG_CHAIN[1:]), _no_locks),
    _passes("more of them, where nobody has to know", ipv6(udp(), extensions=LONG_CHAIN), _trust),
    _denied("a header cut off", _cut(ipv6(udp(), extensions=((HOP_BY_HOP, 8),)), 14), _no_locks, "malformed"),
    _denied("UDP cut off", _cut(ipv6(udp()), 1), _no_locks, "malformed"),
    _denied("ICMPv6 cut off", _cut(ipv6(icmpv6(128)), 1), _no_locks, "malformed"),
    _passes("no next header", ipv6(raw(59, b"")), _both),
    _passes("what is no extension header", ipv6(raw(253, b"")), _both),
    *(
        _denied(
            f"ND of type {kind} in {name}",
            ipv6(nd(kind, LISTED_6), source=LISTED_6, extensions=IN_FRAGMENT, fragment=fragment),
            _both,
            "fragment_denied",
        )
        for kind in (RS, RA, NS, NA, REDIRECT)
        for name, fragment in (("a first fragment", 1), ("the only fragment", 0))
    ),
    _passes("which a port without locks may send", ipv6(nd(NS), extensions=IN_FRAGMENT), _no_locks),
    _passes("other ICMPv6", ipv6(icmpv6(128, SOME), extensions=IN_FRAGMENT, fragment=1), _both),
)
def test_ipv6_that_hides_what_it_is(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


@pytest.mark.parametrize(
    "inside",
    [L3(IPV4, ipv4(tcp()).data[:19]), L3(IPV6, ipv6(tcp()).data[:39]), L3(ARP, bytes(27)), _cut(ipv6(nd(NA)), 1)],
    ids=["IPv4", "IPv6", "ARP", "NA"],
)
def test_header_that_a_guard_must_read_runs_past_the_end(world: World, inside: L3) -> None:
    _trunk_lists(world)
    frame = ethernet(mac(9), mac(6), inside, vlan(110))
    outcome = world.run(6, frame)
    assert (outcome.fate, outcome.where) == ("malformed", (6, 0))
    world.set_port(6, flags=PortFlag.TRUNK | PortFlag.TRUSTED)
    world.learn(BLUE, mac(9), 9)
    assert world.run(6, frame).fate == FORWARDED


# Step 8: ARP


def _arp(sender: str, *, sender_mac: bytes | None = None, operation: int = 1) -> L3:
    return arp(sender, "10.0.0.9", sender_mac=mac(1) if sender_mac is None else sender_mac, operation=operation)


def _patched(l3: L3, at: int, octets: str) -> L3:
    data = bytes.fromhex(octets)
    return L3(l3.ethertype, l3.data[:at] + data + l3.data[at + len(data) :])


@rows(
    *(_passes(f"{op} from its own address", _arp(LISTED, operation=op), _both) for op in (1, 2)),
    _passes("from its prefix", _arp("10.1.2.3"), _both),
    _passes("a probe", _arp("0.0.0.0"), _both),  # a sender, nothing is bound
    _passes("as IEEE 802 has it", _patched(_arp(LISTED), 0, "0006"), _both),
    *(_denied(f"{op} from another one's address", _arp(FOREIGN, operation=op), _both, "arp_spoof") for op in (1, 2)),
    _denied("with another MAC", _arp(LISTED, sender_mac=mac(2)), _both, "arp_spoof"),
    _denied("with another MAC that the port lists", _arp(LISTED, sender_mac=mac(11)), _both, "arp_spoof"),
    _denied("a probe with another MAC", _arp("0.0.0.0", sender_mac=mac(2)), _both, "arp_spoof"),
    _denied("of another protocol", _patched(_arp(LISTED), 2, "0801"), _both, "arp_spoof"),
    _denied("of longer MACs", _patched(_arp(LISTED), 4, "08"), _both, "arp_spoof"),
    _denied("of longer addresses", _patched(_arp(LISTED), 5, "06"), _both, "arp_spoof"),
    _passes("any address where MACs alone are listed", _arp(FOREIGN), _macs),
    _denied("but no other MAC", _arp(FOREIGN, sender_mac=mac(2)), _macs, "arp_spoof"),
    _denied("no other MAC where IPs alone are listed", _arp(LISTED, sender_mac=mac(2)), _ips, "arp_spoof"),
    _denied("a trusted port's", _arp(FOREIGN), _trusted_with_locks, "arp_spoof"),
    _passes("anything without a list", _arp(FOREIGN, sender_mac=mac(2)), _no_locks),
    _passes("however short", L3(ARP, bytes(27)), _no_locks),
)
def test_arp(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


# Step 8: ND

OWN, OTHERS = link_layer(1, mac(1)), link_layer(1, mac(2))
NONCE = bytes([14, 1]) + bytes(6)  # RFC 3971, 5.3.2


def _ns(*options: bytes, source: str = LISTED_6, target: str = FOREIGN_6, extensions: bool = False) -> L3:
    between = ((HOP_BY_HOP, 8), (DESTINATION, 16), (ROUTING, 8), (AUTHENTICATION, 24)) if extensions else ()
    return ipv6(nd(NS, target, *options), source=source, extensions=between)


def _na(target: str, *options: bytes, source: str = LISTED_6, extensions: bool = False) -> L3:
    between = ((HOP_BY_HOP, 8), (MOBILITY, 8), (HIP, 16), (SHIM6, 8)) if extensions else ()
    return ipv6(nd(NA, target, *options), source=source, extensions=between)


@rows(
    _passes("asks from its own address", _ns(OWN), _both),
    _passes("asks from a link-local one", _ns(OWN, source=LINK_LOCAL), _both),
    _passes("asks without an option", _ns(), _both),
    _denied("asks from another one's address", _ns(OWN, source=FOREIGN_6), _both, "src_ip_denied"),
    _passes("DAD of its own address", _ns(NONCE, source=UNSPECIFIED, target=LISTED_6), _both),
    _passes("DAD within its prefix", _ns(source=UNSPECIFIED, target="2001:db8:1::9"), _both),
    _passes("DAD of a link-local address", _ns(source=UNSPECIFIED, target=LINK_LOCAL), _both),
    _denied("DAD of another one's address", _ns(source=UNSPECIFIED), _both, "nd_spoof"),
    _denied("and behind headers", _ns(source=UNSPECIFIED, extensions=True), _both, "nd_spoof"),
    _passes("DAD of any, where MACs alone are listed", _ns(source=UNSPECIFIED), _macs),
    _passes("answers for its own address", _na(LISTED_6, link_layer(2, mac(1))), _both),
    _passes("answers for a link-local one", _na(LINK_LOCAL, link_layer(2, mac(1)), source=LINK_LOCAL), _both),
    _denied("answers for another one's", _na(FOREIGN_6, link_layer(2, mac(1))), _both, "nd_spoof"),
    _denied("and behind headers", _na(FOREIGN_6, extensions=True), _both, "nd_spoof"),
    _denied("and from a link-local address", _na(FOREIGN_6, source=LINK_LOCAL), _both, "nd_spoof"),
    _passes("answers for any, where MACs alone are listed", _na(FOREIGN_6, link_layer(2, mac(1))), _macs),
    _passes("anything without a list", _na(FOREIGN_6, link_layer(2, mac(3))), _no_locks),
    _denied("a trusted port's", _na(FOREIGN_6), _trusted_with_locks, "nd_spoof"),
)
def test_nd_address(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


def _long_option(kind: int, units: int) -> bytes:
    return bytes([kind, units]) + bytes(8 * units - 2)


@rows(
    *(
        _denied(f"another's MAC in type {kind}", ipv6(nd(kind, LISTED_6, OTHERS), source=LISTED_6), prepare, "nd_spoof")
        for kind in (RS, RA, NS, NA, REDIRECT)
        for prepare in (_both, _trusted_with_locks)
    ),
    *(_passes(f"its own in type {kind}", ipv6(nd(kind, LISTED_6, OWN)), _both) for kind in (RS, NS, NA, REDIRECT)),
    _passes("its own RA, of a trusted port", ipv6(nd(RA, "::", OWN)), _trusted_with_locks),
    _passes("another MAC that it lists", _na(LISTED_6, link_layer(2, mac(11))), _both),
    _denied("one of another port", _na(LISTED_6, link_layer(2, mac(8))), _both, "nd_spoof"),
    _denied("the target's", _na(LISTED_6, link_layer(2, mac(2))), _both, "nd_spoof"),
    _denied("where MACs alone are listed", _na(FOREIGN_6, link_layer(2, mac(2))), _macs, "nd_spoof"),
    _denied("where IPs alone are listed", _na(LISTED_6, link_layer(2, mac(11))), _ips, "nd_spoof"),
    _denied("the second option", _ns(OWN, OTHERS), _both, "nd_spoof"),
    _denied("behind other options", _ns(NONCE, _long_option(14, 3), OTHERS), _both, "nd_spoof"),
    _denied("behind extension headers", _ns(OTHERS, extensions=True), _both, "nd_spoof"),
    _passes("its own behind extension headers", _ns(OWN, extensions=True), _both),
    _passes("many options", _ns(*[NONCE] * 7, OWN), _both),
    _denied("too many options", _ns(*[NONCE] * 9), _both, "nd_spoof"),
    _denied("a packet that gives no length", _without_length(_ns(OTHERS, extensions=True)), _both, "nd_spoof"),
    _denied("an option of no length", _ns(bytes(8)), _both, "nd_spoof"),
    _denied("an option cut off", _cut(_ns(OWN), 4), _both, "nd_spoof"),
    _passes("padding is no option", L3(IPV6, _ns(OWN).data + OTHERS), _both),
)
def test_nd_options(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


# Step 9

EXTENSIONS = {
    "no header": (),
    "one header": ((HOP_BY_HOP, 8),),
    "one of each": ((HOP_BY_HOP, 16), (DESTINATION, 8), (ROUTING, 24), (AUTHENTICATION, 16), (DESTINATION, 264)),
    "a fragment header": ((FRAGMENT, 8),),
    "headers within a fragment": ((ROUTING, 8), (FRAGMENT, 8), (DESTINATION, 16)),
    "rare ones": ((MOBILITY, 8), (HIP, 8), (SHIM6, 8)),
}


def _chained(inside: L4, name: str) -> L3:
    return ipv6(inside, extensions=EXTENSIONS[name], fragment=1)


@rows(
    _denied("DHCP", ipv4(udp(SOME, source=67)), _no_locks, "dhcp_server_denied"),
    _denied("with options", ipv4(udp(SOME, source=67), options=bytes(24)), _no_locks, "dhcp_server_denied"),
    _denied("a first fragment", ipv4(udp(SOME, source=67), fragment=FIRST), _no_locks, "dhcp_server_denied"),
    _denied("with locks", ipv4(udp(SOME, source=67)), _both, "dhcp_server_denied"),
    _denied("IP is checked before", ipv4(udp(SOME, source=67), source=FOREIGN), _both, "src_ip_denied"),
    _passes("trusted", ipv4(udp(SOME, source=67)), _trust),
    _passes("trusted with locks", ipv4(udp(SOME, source=67)), _trusted_with_locks),
    _passes("a client", ipv4(udp(SOME, source=68, destination=67), source="0.0.0.0"), _both),
    _passes("TCP from port 67", ipv4(tcp(SOME, source=67)), _no_locks),
    _passes("UDP from port 547", ipv4(udp(SOME, source=547)), _no_locks),
    *(
        _denied(f"DHCPv6 behind {name}", _chained(udp(SOME, source=547), name), _no_locks, "dhcp_server_denied")
        for name in EXTENSIONS
    ),
    *(_passes(f"DHCPv6, trusted, behind {name}", _chained(udp(SOME, source=547), name), _trust) for name in EXTENSIONS),
    _passes(
        "a client of DHCPv6",
        ipv6(udp(SOME, source=546, destination=547), source=LINK_LOCAL),
        _both,
    ),
    _passes("UDP over IPv6 from port 67", ipv6(udp(SOME, source=67)), _no_locks),
    *(_denied(f"RA behind {name}", _chained(nd(RA), name), _no_locks, "ra_denied") for name in EXTENSIONS),
    _denied("RA with locks", ipv6(nd(RA)), _both, "ra_denied"),
    _denied("RA cut off", _cut(ipv6(nd(RA)), 4), _no_locks, "ra_denied"),
    _passes("RA, trusted", ipv6(nd(RA)), _trust),
    _passes("RS", ipv6(nd(RS)), _no_locks),
    _passes("ICMP over IPv4 of the same type", ipv4(raw(ICMPV6, bytes([RA]).ljust(16, b"\0"))), _no_locks),
)
def test_servers(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


@pytest.mark.parametrize(
    ("inside", "reason"),
    [
        (ipv4(udp(source=67)), "dhcp_server_denied"),
        (ipv6(udp(source=547)), "dhcp_server_denied"),
        (ipv6(nd(RA)), "ra_denied"),
    ],
    ids=["DHCP", "DHCPv6", "RA"],
)
@pytest.mark.parametrize("tags", [(vlan(110),), (vlan(120), vlan(0)), (vlan(120), vlan(9))], ids=["1", "2", "QinQ"])
def test_servers_behind_tags(world: World, inside: L3, reason: str, tags: tuple[bytes, ...]) -> None:
    frame = ethernet(BROADCAST, mac(6), inside, *tags)
    assert [untag(frame) != frame] == [True]
    for enter in (world.send, world.run, world.run_tagged):
        assert enter(6, frame).fate == reason
