"""Questions for a MAC and their answers, byte for byte: ND as RFC 4861 has it. ARP is in `frames`."""

from __future__ import annotations

import struct
from dataclasses import replace
from ipaddress import IPv6Address

from support.frames import L3, L4, NA, NS, ipv6, link_layer, nd

HOPS = 255
SOLICITED_OVERRIDE = 0x60000000  # 4.4


def group_of(target: str) -> str:
    """The solicited-node multicast address, RFC 4291, 2.7.1."""
    return str(IPv6Address((0xFF0200000000000000000001FF << 24) | int(IPv6Address(target)) & 0xFFFFFF))


def mac_of(group: str) -> bytes:
    """RFC 2464, section 7."""
    return b"\x33\x33" + IPv6Address(group).packed[12:]


def hop_limit(inside: L3, hops: int = HOPS) -> L3:
    """The packet with that hop limit."""
    return L3(inside.ethertype, inside.data[:7] + bytes([hops]) + inside.data[8:])


def solicitation(target: str, *options: bytes, source: str, destination: str = "", message: L4 | None = None) -> L3:
    """A neighbour solicitation to the target's group, or to `destination`; `message` is in its place."""
    inside = nd(NS, target, *options) if message is None else message
    return hop_limit(ipv6(inside, source=source, destination=destination or group_of(target)))


def advertisement(target: str, asker: str, mac: bytes) -> L3:
    """The answer that says that `target` has `mac`."""
    message = nd(NA, target, link_layer(2, mac))
    flags = struct.pack("!I", SOLICITED_OVERRIDE)
    inside = replace(message, data=message.data[:4] + flags + message.data[8:])
    return hop_limit(ipv6(inside, source=target, destination=asker))
