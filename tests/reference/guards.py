"""Steps 5 to 9: what a VM may say it is, and what it may not offer. Each yields the reasons for which it would drop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from reference import headers
from reference.choices import MOST_ND_OPTIONS, MOST_TAGS, TAGS_OF_ETHERNET
from reference.headers import (
    ARP,
    ICMPV6,
    IPV4,
    IPV6,
    NA,
    ND_BYTES,
    NS,
    RA,
    RARP,
    TPIDS,
    UDP,
    Malformed,
    Packet,
    number,
    read,
)
from reference.tables import Port

Leased = Callable[[bytes], bool]
"""Whether an address is leased to the sender, by its port and its MAC."""

DHCP_SERVER, DHCPV6_SERVER = 67, 547  # RFC 2131, 4.1; RFC 9915, 7.2


@dataclass(slots=True)
class Inspected:
    """What guards look at. udp_source, nd (ICMPv6 type): 0 where there is none within reach."""

    kind: int
    l3: int
    packet: Packet | None = None
    hidden: bool = False
    udp_source: int = 0
    nd: int = 0


def inspect(octets: bytes, ethernet: headers.Ethernet, port: Port) -> Inspected:
    """Step 1 for a frame of whose tags all are read; raises Malformed."""
    seen = Inspected(ethernet.kind, ethernet.payload)
    if ethernet.kind in TPIDS:
        seen.hidden = True
        return seen
    if ethernet.kind == ARP and port.locked:
        read(octets, ethernet.payload, 28)  # RFC 826, of IPv4 over Ethernet
    seen.packet = packet = headers.packet(octets, ethernet.kind, ethernet.payload)
    if packet is None:
        return seen
    seen.hidden = packet.hidden
    speaks_nd = ethernet.kind == IPV6 and packet.protocol == ICMPV6
    if packet.hidden or packet.later or not (speaks_nd or packet.protocol == UDP):
        return seen
    if packet.fragment and packet.payload + 8 > packet.end:
        seen.hidden = True
        return seen
    head = read(octets, packet.payload, 8)
    if not speaks_nd:
        seen.udp_source = number(head, 0)
    elif head[0] in ND_BYTES:
        seen.nd = head[0]
        if port.locked:
            read(octets, packet.payload, ND_BYTES[seen.nd])
    return seen


def is_announcement(port: Port, octets: bytes, seen: Inspected | None) -> bool:
    """RARP, a gratuitous ARP (RFC 5227, section 3) or an NA, of which a port reads nothing unless it inspects."""
    try:
        ethernet = headers.ethernet(octets, MOST_TAGS if port.inspected else TAGS_OF_ETHERNET)
        if ethernet.kind != ARP:
            return ethernet.kind == RARP or bool(seen and seen.nd == NA)
        message = read(octets, ethernet.payload, 28)
    except Malformed:
        return False
    return message[14:18] == message[24:28]


def ip_source(port: Port, seen: Inspected | None, leased: Leased) -> Iterator[str]:
    """Step 7. seen None, as for all guards: nothing of the frame is."""
    if seen and port.addresses and seen.packet and not may_use(port, seen.packet.source, leased):
        yield "src_ip_denied"
    if seen and (seen.hidden or (port.locked and seen.nd and seen.packet and seen.packet.fragment)):
        yield "fragment_denied"


def may_use(port: Port, address: bytes, leased: Leased) -> bool:
    """Its own, and what belongs to nobody: 0.0.0.0 and ::; fe80::/10 a VM makes up for itself (RFC 4862, 5.3)."""
    made_up = len(address) == 16 and address[0] == 0xFE and address[1] >> 6 == 2
    return not any(address) or made_up or port.lists(address) or (port.snooped and leased(address))


def neighbour(
    port: Port, octets: bytes, seen: Inspected | None, may_name: Callable[[int], bool], leased: Leased
) -> Iterator[str]:
    """Step 8. may_name: whether a MAC is the sender's."""
    if seen is None or not port.locked:
        return
    if seen.kind == ARP and not _honest_arp(port, octets, seen, leased):
        yield "arp_spoof"
    if seen.nd and not (_honest_options(octets, seen, may_name) and _honest_target(port, octets, seen, leased)):
        yield "nd_spoof"


def _honest_arp(port: Port, octets: bytes, seen: Inspected, leased: Leased) -> bool:
    """RFC 826: of IPv4 over Ethernet, by the sender of the frame."""
    message = octets[seen.l3 :]
    if message[2:6] != bytes([0x08, 0x00, 6, 4]) or message[8:14] != octets[6:12]:
        return False
    return not port.addresses or may_use(port, message[14:18], leased)


def _honest_options(octets: bytes, seen: Inspected, may_name: Callable[[int], bool]) -> bool:
    """RFC 4861, 4.6: link-layer addresses (types 1 and 2) are its own, and nothing is out of reach."""
    assert seen.packet is not None
    at = seen.packet.payload + ND_BYTES[seen.nd]
    for _ in range(MOST_ND_OPTIONS):
        if at >= seen.packet.end:
            return True
        try:
            option = read(octets, at, 8)
        except Malformed:
            return False
        if option[1] == 0 or (option[0] in (1, 2) and not may_name(number(option, 2, 6))):
            return False
        at += 8 * option[1]
    return at >= seen.packet.end


def _honest_target(port: Port, octets: bytes, seen: Inspected, leased: Leased) -> bool:
    """In NA what the sender says that it is, in DAD (from ::) what it wants to be; other NS go by step 7."""
    assert seen.packet is not None
    claims = seen.nd == NA or (seen.nd == NS and not any(seen.packet.source))
    if not claims or not port.addresses:
        return True
    return may_use(port, read(octets, seen.packet.payload + 8, 16), leased)


def server(port: Port, seen: Inspected | None) -> Iterator[str]:
    """Step 9."""
    if seen is None or port.trusted:
        return
    if seen.udp_source and seen.udp_source == {IPV4: DHCP_SERVER, IPV6: DHCPV6_SERVER}[seen.kind]:
        yield "dhcp_server_denied"
    if seen.nd == RA:
        yield "ra_denied"
