"""Frames built by hand, byte for byte: what a test wants on the wire, right or wrong.

    ethernet(VM[2], VM[1], ipv4(udp(b"hello")), vlan(10))

L3 and L4 are right unless the test says otherwise (lengths, checksums), so that a kernel that looks takes them.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

ARP, IPV4, IPV6 = 0x0806, 0x0800, 0x86DD
EXPERIMENTAL = 0x88B5  # IEEE 802, local experimental EtherType 1
C_TAG, S_TAG = 0x8100, 0x88A8  # IEEE 802.1Q-2018, table 9-1
TPIDS = (C_TAG, S_TAG, 0x9100, 0x9200, 0x9300)

BROADCAST = bytes.fromhex("ffffffffffff")
MULTICAST = bytes.fromhex("01005e000001")  # RFC 1112, 6.4: of 224.0.0.1
LINK_LOCAL = bytes.fromhex("0180c200000e")  # LLDP: nearest bridge

HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION = 0, 43, 44, 60  # RFC 8200, 4.1
TCP, UDP, ICMPV6, SCTP = 6, 17, 58, 132
AUTHENTICATION, MOBILITY, HIP, SHIM6 = 51, 135, 139, 140  # further extension headers of IPv6, RFC 7045, section 4

RS, RA, NS, NA, REDIRECT = 133, 134, 135, 136, 137  # ICMPv6, RFC 4861, section 4


def mac(number: int) -> bytes:
    """02:00:00:00:00:NN."""
    return (0x020000000000 + number).to_bytes(6, "big")


@dataclass(frozen=True, slots=True)
class L3:
    """What follows the Ethernet header: an EtherType and its payload."""

    ethertype: int
    data: bytes


@dataclass(frozen=True, slots=True)
class L4:
    """What follows an IP header. checksum_at: offset of a checksum over pseudo-header and data, or None."""

    protocol: int
    data: bytes
    checksum_at: int | None = None


def vlan(vid: int, *, pcp: int = 0, dei: int = 0, tpid: int = C_TAG) -> bytes:
    """A tag, TPID and TCI (IEEE 802.1Q-2018, 9.6)."""
    return struct.pack("!HH", tpid, pcp << 13 | dei << 12 | vid)


def payload(data: bytes = b"", *, length: int = 46) -> L3:
    """An experimental EtherType with `data`, padded to `length` bytes of L3."""
    return L3(EXPERIMENTAL, data.ljust(length, b"\0"))


def ethernet(destination: bytes, source: bytes, inside: L3 | None = None, *tags: bytes) -> bytes:
    """A frame.

    Args:
        destination, source: six octets each.
        inside: 46 bytes of experimental payload, unless given.
        tags: outermost first.
    """
    inside = payload() if inside is None else inside
    return destination + source + b"".join(tags) + struct.pack("!H", inside.ethertype) + inside.data


def tags_of(frame: bytes) -> tuple[bytes, ...]:
    """The tags of a frame, outermost first, whatever their TPIDs."""
    tags = []
    at = 12
    while int.from_bytes(frame[at : at + 2], "big") in TPIDS:
        tags.append(frame[at : at + 4])
        at += 4
    return tuple(tags)


def untag(frame: bytes) -> bytes:
    """The frame without its outermost tag, or as it is where it has none."""
    return frame[:12] + frame[16:] if tags_of(frame) else frame


def arp(sender: str, target: str, *, operation: int = 1, sender_mac: bytes, target_mac: bytes = bytes(6)) -> L3:
    """RFC 826; operation 1 asks, 2 answers."""
    addresses = [ipaddress.IPv4Address(a).packed for a in (sender, target)]
    head = struct.pack("!HHBBH", 1, IPV4, 6, 4, operation)
    return L3(ARP, head + sender_mac + addresses[0] + target_mac + addresses[1])


def udp(data: bytes = b"", *, source: int = 1024, destination: int = 9) -> L4:
    """RFC 768."""
    return L4(UDP, struct.pack("!HHHH", source, destination, 8 + len(data), 0) + data, 6)


def tcp(data: bytes = b"", *, source: int = 1024, destination: int = 9, options: bytes = b"") -> L4:
    """RFC 9293, 3.1: a segment with ACK. `options` are padded to whole words."""
    options += bytes(-len(options) % 4)
    words = 5 + len(options) // 4
    return L4(
        TCP, struct.pack("!HHIIBBHHH", source, destination, 1, 1, words << 4, 0x10, 0xFFFF, 0, 0) + options + data, 16
    )


def icmpv6(kind: int, data: bytes = bytes(4)) -> L4:
    """RFC 4443, 2.1; `data` is what follows the checksum."""
    return L4(ICMPV6, struct.pack("!BBH", kind, 0, 0) + data, 2)


def nd(kind: int, target: str = "::", *options: bytes) -> L4:
    """An ND message; `target` is left out of RS and RA."""
    address = ipaddress.IPv6Address(target).packed
    bodies = {RS: bytes(4), RA: bytes(12), REDIRECT: bytes(4) + address + bytes(16)}
    return icmpv6(kind, bodies.get(kind, bytes(4) + address) + b"".join(options))


def link_layer(kind: int, address: bytes) -> bytes:
    """An ND option, RFC 4861, 4.6.1: 1 the source's MAC, 2 the target's."""
    return bytes([kind, 1]) + address


def raw(protocol: int, data: bytes) -> L4:
    """Any other protocol."""
    return L4(protocol, data)


def ipv4(
    inside: L4,
    *,
    source: str = "10.0.0.1",
    destination: str = "10.0.0.2",
    options: bytes = b"",
    ihl: int = 0,
    fragment: int = 0,
    ttl: int = 64,
) -> L3:
    """RFC 791, 3.1.

    Args:
        options: padded to whole words.
        ihl: what the header claims of its own length (words); by default the truth.
        fragment: flags and offset: 0x2000 is MF, the rest counts 8 bytes each.
    """
    options += bytes(-len(options) % 4)
    addresses = ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(destination).packed
    length = 20 + len(options) + len(inside.data)
    first = 0x40 | (ihl or 5 + len(options) // 4)
    head = struct.pack("!BBHHHBBH", first, 0, length, 1, fragment, ttl, inside.protocol, 0) + addresses + options
    head = head[:10] + checksum(head) + head[12:]
    pseudo = addresses + struct.pack("!BBH", 0, inside.protocol, len(inside.data))
    return L3(IPV4, head + _checked(inside, pseudo))


def ipv6(
    inside: L4,
    *,
    source: str = "2001:db8::1",
    destination: str = "2001:db8::2",
    extensions: tuple[tuple[int, int], ...] = (),
    fragment: int = 0,
    hops: int = 64,
) -> L3:
    """RFC 8200, 3.

    Args:
        fragment: of the fragment header: 1 is M, the rest counts bytes.
        extensions: (type, bytes) of the headers in between; bytes is a multiple of 8, a fragment header has 8.
    """
    addresses = ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address(destination).packed
    types = [kind for kind, _ in extensions] + [inside.protocol]
    between = b""
    for (kind, size), following in zip(extensions, types[1:], strict=True):
        units = {FRAGMENT: 0, AUTHENTICATION: size // 4 - 2}.get(kind, size // 8 - 1)
        second = fragment if kind == FRAGMENT else 0
        between += struct.pack("!BBH", following, units, second).ljust(size, b"\0")
    pseudo = addresses + struct.pack("!IHBB", len(inside.data), 0, 0, inside.protocol)
    body = between + _checked(inside, pseudo)
    return L3(IPV6, struct.pack("!IHBB", 6 << 28, len(body), types[0], hops) + addresses + body)


def checksum(data: bytes) -> bytes:
    """The Internet checksum, RFC 1071."""
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)


def complement(checksum_of: bytes) -> bytes:
    """The sum of which that is the checksum: what a VM leaves in the field of a checksum that its NIC is to finish, of
    the pseudo-header."""
    return bytes(octet ^ 0xFF for octet in checksum_of)


def _checked(inside: L4, pseudo: bytes) -> bytes:
    """The data with its checksum over the pseudo-header filled in."""
    at = inside.checksum_at
    if at is None:
        return inside.data
    return inside.data[:at] + checksum(pseudo + inside.data) + inside.data[at + 2 :]
