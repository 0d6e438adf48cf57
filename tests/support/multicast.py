"""Frames of multicast: data for groups, and the messages of IGMP, MLD and PIM, right unless the test says otherwise.

report("239.1.1.1")            IGMPv2: I am in this group
report("ff05::1:3", source=…)  MLDv1 says the same
records(("239.1.1.1", TO_EX))  IGMPv3, or MLDv2 by the group's family
"""

from __future__ import annotations

import ipaddress
import struct

from support.frames import HOP_BY_HOP, L3, checksum, ethernet, icmpv6, ipv4, ipv6, mac, raw, udp

IGMP, PIM = 2, 103  # IANA, protocol numbers
V1_REPORT, V2_REPORT, LEAVE, V3_REPORT = 0x12, 0x16, 0x17, 0x22  # RFC 3376, section 4
MLD_QUERY, MLD_REPORT, DONE, MLD2_REPORT = 130, 131, 132, 143  # RFC 3810, 5.1 and 5.2
IS_IN, IS_EX, TO_IN, TO_EX, ALLOW, BLOCK = range(1, 7)  # RFC 3376, 4.2.12

ALL_HOSTS, ALL_ROUTERS, ALL_V3_ROUTERS = "224.0.0.1", "224.0.0.2", "224.0.0.22"
ALL_NODES, ALL_ROUTERS_6, ALL_V2_ROUTERS = "ff02::1", "ff02::2", "ff02::16"
LINK_LOCAL_6 = "fe80::9"

Record = tuple[str, int] | tuple[str, int, int] | tuple[str, int, int, int]
"""Group, type, number of sources, words of auxiliary data."""


def octets(address: str) -> bytes:
    """An address as on the wire."""
    return ipaddress.ip_address(address).packed


def family(address: str) -> int:
    """4 or 6."""
    return ipaddress.ip_address(address).version


def group_mac(group: str) -> bytes:
    """RFC 1112, 6.4, and RFC 2464, section 7."""
    address = octets(group)
    if len(address) == 4:
        return b"\x01\x00\x5e" + bytes([address[1] & 0x7F]) + address[2:]
    return b"\x33\x33" + address[12:]


def to_group(group: str, inside: L3, *tags: bytes, sender: int = 1) -> bytes:
    """A frame for a group, of the VM with this number."""
    return ethernet(group_mac(group), mac(sender), inside, *tags)


def data(group: str, *tags: bytes, sender: int = 1) -> bytes:
    """A datagram for it."""
    inside = udp(b"for the group")
    if family(group) == 4:
        return to_group(group, ipv4(inside, destination=group), *tags, sender=sender)
    return to_group(group, ipv6(inside, destination=group), *tags, sender=sender)


def igmp(
    message: bytes, destination: str, *tags: bytes, sender: int = 1, source: str = "10.0.0.1", ttl: int = 1
) -> bytes:
    """Any IGMP message; its checksum is filled in."""
    message = message[:2] + checksum(message[:2] + bytes(2) + message[4:]) + message[4:]
    inside = ipv4(raw(IGMP, message), source=source, destination=destination, options=b"\x94\x04\0\0", ttl=ttl)
    return to_group(destination, inside, *tags, sender=sender)


def mld(
    kind: int,
    body: bytes,
    destination: str,
    *tags: bytes,
    sender: int = 1,
    source: str = LINK_LOCAL_6,
    hops: int = 1,
    extensions: tuple[tuple[int, int], ...] = ((HOP_BY_HOP, 8),),
) -> bytes:
    """Any MLD message; `body` is what follows the checksum."""
    inside = ipv6(icmpv6(kind, body), source=source, destination=destination, extensions=extensions, hops=hops)
    return to_group(destination, inside, *tags, sender=sender)


def report(group: str, *tags: bytes, sender: int = 1, version: int = V2_REPORT) -> bytes:
    """IGMPv2 (or 1) or MLDv1: I am in the group."""
    if family(group) == 4:
        return igmp(struct.pack("!BBH", version, 0, 0) + octets(group), group, *tags, sender=sender)
    return mld(MLD_REPORT, bytes(4) + octets(group), group, *tags, sender=sender)


def leave(group: str, *tags: bytes, sender: int = 1) -> bytes:
    """IGMPv2 Leave or MLDv1 Done."""
    if family(group) == 4:
        return igmp(struct.pack("!BBH", LEAVE, 0, 0) + octets(group), ALL_ROUTERS, *tags, sender=sender)
    return mld(DONE, bytes(4) + octets(group), ALL_ROUTERS_6, *tags, sender=sender)


def records(
    *several: Record, count: int | None = None, cut: int = 0, sender: int = 1, tags: tuple[bytes, ...] = ()
) -> bytes:
    """IGMPv3 or MLDv2: a report of these.

    Args:
        count: how many the message says that it has; by default the truth.
        cut: bytes that are missing at its end.
    """
    body = b""
    for group, kind, *more in several:
        sources, auxiliary = (*more, 0, 0)[:2]
        width = len(octets(group))
        body += struct.pack("!BBH", kind, auxiliary, sources) + octets(group) + bytes(width * sources + 4 * auxiliary)
    number = struct.pack("!HH", 0, len(several) if count is None else count)
    body = body[: len(body) - cut]
    if family(several[0][0]) == 4:
        return igmp(struct.pack("!BBH", V3_REPORT, 0, 0) + number + body, ALL_V3_ROUTERS, *tags, sender=sender)
    return mld(MLD2_REPORT, number + body, ALL_V2_ROUTERS, *tags, sender=sender)


def query(
    version: int,
    *tags: bytes,
    group: str = "",
    sender: int = 1,
    source: str = "",
    response_ms: int = 10_000,
    ttl: int = 1,
    sources: int = 0,
    destination: str = "",
) -> bytes:
    """A query of IGMP, or (version 61 and 62) of MLDv1 and MLDv2; general unless there is a group."""
    if version < 6:
        code = 0 if version == 1 else response_ms // 100
        message = struct.pack("!BBH", 0x11, code, 0) + octets(group or "0.0.0.0")
        if version == 3:
            message += struct.pack("!BBH", 2, 125, sources) + bytes(4 * sources)
        to = destination or group or ALL_HOSTS
        return igmp(message, to, *tags, sender=sender, source=source or "10.0.0.9", ttl=ttl)
    body = struct.pack("!HH", response_ms, 0) + octets(group or "::")
    if version == 62:
        body += struct.pack("!BBH", 2, 125, sources) + bytes(16 * sources)
    to = destination or group or ALL_NODES
    return mld(MLD_QUERY, body, to, *tags, sender=sender, source=source or LINK_LOCAL_6, hops=ttl)


def hello(version: int, *tags: bytes, sender: int = 1, ttl: int = 1) -> bytes:
    """A PIM Hello, over IPv4 or IPv6."""
    inside = raw(PIM, b"\x20" + bytes(11))
    if version == 4:
        return to_group("224.0.0.13", ipv4(inside, destination="224.0.0.13", ttl=ttl), *tags, sender=sender)
    return to_group("ff02::d", ipv6(inside, source=LINK_LOCAL_6, destination="ff02::d", hops=ttl), *tags, sender=sender)


def broken(frame: bytes) -> bytes:
    """The same untagged IGMP or MLD message with a checksum that is wrong."""
    at = 14 + 24 + 2 if frame[12:14] == b"\x08\0" else 14 + 40 + 8 + 2
    return frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1 :]
