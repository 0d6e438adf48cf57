"""Step 12: who has an address, by ARP and ND, said in the place of the one who has it."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

from reference.headers import C_TAG, ICMPV6, NA, NS, Malformed, read
from reference.tables import Port

BROADCAST = b"\xff" * 6
REQUEST, REPLY = 1, 2  # RFC 826
HOPS = 255  # RFC 4861, 7.1.1
SOURCE_MAC, TARGET_MAC = 1, 2  # ND options, 4.6.1
SOLICITED_OVERRIDE = 0x60000000  # 4.4
GROUP = bytes.fromhex("ff0200000000000000000001ff")  # RFC 4291, 2.7.1: the last three bytes are the target's


def arp_question(octets: bytes, l3: int) -> bytes | None:
    """Whose address a broadcast asks for; None: it does not ask, or not exactly as hosts do."""
    try:
        message = read(octets, l3, 28)
    except Malformed:
        return None
    sender, target = message[14:18], message[24:28]
    asks = message[:8] == bytes([0, 1, 8, 0, 6, 4, 0, REQUEST]) and octets[:6] == BROADCAST
    honest = message[8:14] == octets[6:12]
    return target if asks and honest and any(sender) and sender != target else None  # not a probe, not gratuitous


def arp_answer(octets: bytes, l3: int, mac: bytes) -> bytes:
    """L3 of the reply; what follows the question stays."""
    asker, sender, target = octets[6:12], octets[l3 + 14 : l3 + 18], octets[l3 + 24 : l3 + 28]
    return octets[l3 : l3 + 7] + bytes([REPLY]) + mac + target + asker + sender + octets[l3 + 28 :]


def nd_question(octets: bytes, l3: int) -> bytes | None:
    """The same of a solicitation to the target's group, RFC 4861, 7.1.1 and 7.2.3."""
    try:
        head = read(octets, l3, 64)
        length = int.from_bytes(head[4:6], "big")
        message = read(octets, l3 + 40, length)
    except Malformed:
        return None
    source, group, target, options = head[8:24], head[24:40], head[48:64], message[24:]
    asks = head[0] >> 4 == 6 and head[6:8] == bytes([ICMPV6, HOPS]) and message[:2] == bytes([NS, 0])
    unicast = 0xFF not in (source[0], target[0]) and any(source)  # from :: it is DAD
    if not (asks and unicast and group == GROUP + target[13:] and length in (24, 32, 40)):
        return None
    right = checksum(source + group + length.to_bytes(4, "big") + bytes([0, 0, 0, ICMPV6]) + message) == 0
    return target if right and _honest(options, octets[6:12]) else None


def _honest(options: bytes, asker: bytes) -> bool:
    """At most 16 bytes, and a source's MAC among them is the frame's."""
    at = 0
    while at < len(options):
        kind, length = options[at], options[at + 1]
        if not length or at + 8 * length > len(options):
            return False
        if kind == SOURCE_MAC and options[at + 2 : at + 8] != asker:
            return False
        at += 8 * length
    return True


def nd_answer(octets: bytes, l3: int, mac: bytes) -> bytes:
    """L3 of the advertisement, RFC 4861, 7.2.4."""
    source, target = octets[l3 + 8 : l3 + 24], octets[l3 + 48 : l3 + 64]
    body = SOLICITED_OVERRIDE.to_bytes(4, "big") + target + bytes([TARGET_MAC, 1]) + mac
    length = 4 + len(body)
    pseudo = target + source + length.to_bytes(4, "big") + bytes([0, 0, 0, ICMPV6])
    right = checksum(pseudo + bytes([NA, 0, 0, 0]) + body).to_bytes(2, "big")
    head = bytes([0x60, 0, 0, 0]) + length.to_bytes(2, "big") + bytes([ICMPV6, HOPS]) + target + source
    return head + bytes([NA, 0]) + right + body


def owner(ports: Iterable[Port], segment: int, address: bytes) -> Port | None:
    """Who is named for an address: the only port that lists it, in earnest and with one MAC, unless it is a router."""
    listing = [port for port in ports if segment in port.segments and _lists(port, address)]
    if len(listing) != 1 or len(listing[0].macs) != 1 or listing[0].tagged or listing[0].shadow:
        return None
    router = listing[0].trusted and len(address) == 16 and ip_address(address).is_link_local
    return None if router else listing[0]


def _lists(port: Port, address: bytes) -> bool:
    return any(n.prefixlen == n.max_prefixlen and n.network_address.packed == address for n in port.ips)


def addressed(octets: bytes, mac: bytes, tci: int, l3: bytes, kind: bytes) -> bytes:
    """The answer goes to who asked, in the tag that the question came in."""
    tag = C_TAG.to_bytes(2, "big") + tci.to_bytes(2, "big") if tci & 0xFFF else b""
    return octets[6:12] + mac + tag + kind + l3


def checksum(data: bytes) -> int:
    """RFC 1071; of data with a right checksum 0."""
    total = sum(int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
