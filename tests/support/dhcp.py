"""DHCP messages, built from what they say: DHCPv4 by RFC 2131 and RFC 2132, DHCPv6 by RFC 9915."""

from __future__ import annotations

import ipaddress
import struct

from support.frames import L4, udp

DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE, INFORM = range(1, 9)
"""Types of DHCPv4 messages."""

SOLICIT, ADVERTISE, REPLY, RELEASE_6, DECLINE_6 = 1, 2, 7, 8, 9
"""Types of DHCPv6 messages."""

FOR_EVER = 0xFFFFFFFF

_SERVER, _CLIENT = 67, 68
_SERVER_6, _CLIENT_6 = 547, 546
_END = b"\xff"


def option(code: int, value: bytes) -> bytes:
    """An option of DHCPv4."""
    return struct.pack("!BB", code, len(value)) + value


def dhcp(
    kind: int,
    mac: bytes,
    *,
    yours: str = "0.0.0.0",
    client: str = "0.0.0.0",
    seconds: int | None = None,
    operation: int = 2,
    hardware: tuple[int, int] = (1, 6),
    cookie: bytes = b"\x63\x82\x53\x63",
    before: bytes = b"",
    after: bytes = b"",
    end: bytes = _END,
    ports: tuple[int, int] = (_SERVER, _CLIENT),
) -> L4:
    """A message of DHCPv4, a server's unless `ports` say otherwise.

    Args:
        mac: chaddr.
        yours, client: yiaddr and ciaddr.
        seconds: the lease time, left out if None.
        hardware: htype and hlen.
        before, after: options in front of those that are made here, and behind.
    """
    addresses = b"".join(ipaddress.IPv4Address(a).packed for a in (client, yours, "0.0.0.0", "0.0.0.0"))
    head = struct.pack("!BBBBIHH", operation, *hardware, 0, 0x12345678, 0, 0) + addresses + mac.ljust(16, b"\0")
    time = b"" if seconds is None else option(51, struct.pack("!I", seconds))
    options = before + option(53, bytes([kind])) + option(54, bytes(4)) + time + after
    return udp(head + bytes(192) + cookie + options + end, source=ports[0], destination=ports[1])


def release(mac: bytes, address: str) -> L4:
    """A client gives its address back."""
    return dhcp(RELEASE, mac, client=address, operation=1, ports=(_CLIENT, _SERVER))


def decline(mac: bytes, address: str) -> L4:
    """A client has found its address in use."""
    asked = option(50, ipaddress.IPv4Address(address).packed)
    return dhcp(DECLINE, mac, operation=1, after=asked, ports=(_CLIENT, _SERVER))


def option_6(code: int, value: bytes) -> bytes:
    """An option of DHCPv6."""
    return struct.pack("!HH", code, len(value)) + value


def iaaddr(address: str, valid: int, *inside: bytes) -> bytes:
    """An address, for so many seconds."""
    return option_6(5, ipaddress.IPv6Address(address).packed + struct.pack("!II", valid // 2, valid) + b"".join(inside))


def ia_na(*inside: bytes) -> bytes:
    """What a client has for good."""
    return option_6(3, struct.pack("!III", 1, 0, 0) + b"".join(inside))


def ia_ta(*inside: bytes) -> bytes:
    """What it has for a while."""
    return option_6(4, struct.pack("!I", 1) + b"".join(inside))


def ia_pd(*inside: bytes) -> bytes:
    """Prefixes that it may hand on; they have a code of their own."""
    return option_6(25, struct.pack("!III", 1, 0, 0) + b"".join(inside))


def dhcpv6(kind: int, *options: bytes, ports: tuple[int, int] = (_SERVER_6, _CLIENT_6)) -> L4:
    """A message of DHCPv6, a server's unless `ports` say otherwise, with both ids in front."""
    ids = option_6(2, bytes(14)) + option_6(1, bytes(10))
    head = struct.pack("!I", kind << 24 | 0xABCDEF)
    return udp(head + ids + b"".join(options), source=ports[0], destination=ports[1])


def from_client_6(kind: int, *options: bytes) -> L4:
    """A message of a DHCPv6 client."""
    return dhcpv6(kind, *options, ports=(_CLIENT_6, _SERVER_6))
