"""What a multicast frame is about: data for a group, or a message of IGMP, MLD or PIM.

A message counts if those whom it is for would take it (choices.py); else the frame is data like any other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Network, ip_address

from reference.answers import checksum
from reference.headers import ICMPV6, IPV4, IPV6, Ethernet, Malformed, number, read

IGMP, PIM, HOP_BY_HOP = 2, 103, 0
PIM_HELLO = 0x20  # RFC 7761, 4.9: version 2, type 0
ALL_SYSTEMS_MAC, ALL_NODES_MAC = 0x01005E000001, 0x333300000001
ALL_SYSTEMS, ALL_PIM_ROUTERS = bytes([224, 0, 0, 1]), bytes([224, 0, 0, 13])
NEVER_PRUNED = IPv4Network("224.0.0.0/24")  # RFC 4541, 2.1.2

OTHER, DATA, REPORT, LEAVE, RECORDS, QUERY, HELLO = "other", "data", "report", "leave", "records", "query", "hello"
IGMP_TYPES = {0x11: QUERY, 0x12: REPORT, 0x16: REPORT, 0x17: LEAVE, 0x22: RECORDS}  # RFC 3376, section 4
MLD_TYPES = {130: QUERY, 131: REPORT, 132: LEAVE, 143: RECORDS}  # RFC 3810, section 5
MS = 1_000_000  # ns


@dataclass(frozen=True, slots=True)
class Multicast:
    """family: 4, 6, or 0 if it is neither. group: of the packet, or of the message. body: of records. response: of a
    query, nanoseconds."""

    kind: str = OTHER
    family: int = 0
    group: bytes = b""
    body: bytes = b""
    response: int = 0


def is_prunable(group: bytes) -> bool:
    """Whether there is such a group, and not all members of a link need it (RFC 4291, 2.7: scopes up to link-local)."""
    if len(group) == 4:
        return group[0] >> 4 == 0xE and ip_address(group) not in NEVER_PRUNED
    return group[0] == 0xFF and group[1] & 0xF > 2


def hear(octets: bytes, ethernet: Ethernet) -> Multicast:
    """What a frame is about that has no second tag."""
    at, mac = ethernet.payload, ethernet.destination
    try:
        if ethernet.kind == IPV4 and mac >> 23 == 0x01005E000000 >> 23:
            return _ipv4(octets, at, mac)
        if ethernet.kind == IPV6 and mac >> 32 == 0x3333:
            return _ipv6(octets, at, mac)
    except Malformed:
        pass
    return Multicast()


def _ipv4(octets: bytes, at: int, mac: int) -> Multicast:
    head = read(octets, at, 20)
    group, words = head[16:20], head[0] & 0xF
    if head[0] >> 4 != 4 or words < 5 or group[0] >> 4 != 0xE:
        return Multicast()
    packet = Multicast(DATA if is_prunable(group) else OTHER, 4, group)
    if head[8] != 1 or number(head, 6) & 0x3FFF:  # TTL, fragment
        return packet
    begin, end = at + 4 * words, at + number(head, 2)
    if head[9] == PIM and group == ALL_PIM_ROUTERS and octets[begin : begin + 1] == bytes([PIM_HELLO]):
        return replace(packet, kind=HELLO)
    if head[9] != IGMP or end > len(octets) or end - begin < 8:
        return packet
    message = octets[begin:end]
    kind, about = IGMP_TYPES.get(message[0]), message[4:8]
    if kind == QUERY:
        general = not any(about) and message[10:] in (b"", bytes(2)) and len(message) in (8, 12)
        right = any(head[12:16]) and mac == ALL_SYSTEMS_MAC and group == ALL_SYSTEMS and checksum(message) == 0
        tenths = _number_or_exponent(message[1], 8) if message[1] else 100
        return replace(packet, kind=QUERY if general and right else OTHER, response=tenths * 100 * MS)
    return _speak(packet, kind, about, message)


def _ipv6(octets: bytes, at: int, mac: int) -> Multicast:
    head = read(octets, at, 40)
    source, group = head[8:24], head[24:40]
    if head[0] >> 4 != 6 or group[0] != 0xFF:
        return Multicast()
    packet = Multicast(DATA if is_prunable(group) else OTHER, 6, group)
    if head[7] != 1:  # hop limit
        return packet
    if head[6] == PIM:
        return replace(packet, kind=HELLO) if octets[at + 40 : at + 41] == bytes([PIM_HELLO]) else packet
    message = _mld(octets, at)
    if not message or not (ip_address(source).is_link_local or not any(source)):
        return packet
    kind, about = MLD_TYPES.get(message[0]), message[8:24]
    if kind == QUERY:
        general = not any(about) and message[26:] in (b"", bytes(2)) and len(message) in (24, 28)
        pseudo = source + group + len(message).to_bytes(4, "big") + bytes([0, 0, 0, ICMPV6])
        right = any(source) and mac == ALL_NODES_MAC and checksum(pseudo + message) == 0
        code = number(message, 4)
        ms = code if len(message) == 24 else _number_or_exponent(code, 16)
        return replace(packet, kind=QUERY if general and right else OTHER, response=ms * MS)
    return _speak(packet, kind, about, message)


def _mld(octets: bytes, at: int) -> bytes:
    """The ICMPv6 message of a packet, behind a Hop-by-Hop header and nothing else; b"" where there is none."""
    options = octets[at + 40 : at + 44]
    if octets[at + 6] != HOP_BY_HOP or len(options) < 4 or options[0] != ICMPV6:
        return b""
    begin, end = at + 40 + 8 * (options[1] + 1), at + 40 + number(octets, at + 4)
    return octets[begin:end] if end <= len(octets) and end - begin >= 24 else b""


def _speak(packet: Multicast, kind: str | None, about: bytes, message: bytes) -> Multicast:
    """A host's message; a report is sent to the group that it reports."""
    if kind == REPORT:
        return replace(packet, kind=REPORT) if packet.kind == DATA and about == packet.group else packet
    if kind == LEAVE:
        return replace(packet, kind=LEAVE, group=about)
    return replace(packet, kind=RECORDS, body=message) if kind == RECORDS else packet


def _number_or_exponent(code: int, bits: int) -> int:
    """RFC 3376, 4.1.1, and RFC 3810, 5.1.3."""
    if code < 1 << bits - 1:
        return code
    mantissa, exponent = code & (1 << bits - 4) - 1, code >> bits - 4 & 7
    return (mantissa | 1 << bits - 4) << exponent + 3
