"""What the bytes of a frame say. Nothing here decides anything.

Every function reads at an offset of the frame and raises `Malformed` where what it has to read runs past the end.
"""

from __future__ import annotations

from dataclasses import dataclass

from reference.choices import MOST_EXTENSIONS

TPIDS = frozenset({0x8100, 0x88A8, 0x9100, 0x9200, 0x9300})
C_TAG = 0x8100  # IEEE 802.1Q-2018, table 9-1
IPV4, IPV6, ARP, RARP = 0x0800, 0x86DD, 0x0806, 0x8035

TCP, UDP, ICMPV6 = 6, 17, 58
FRAGMENT, AUTHENTICATION = 44, 51
# IANA, "IPv6 Extension Header Types", but ESP, behind which nothing can be read, and the two for experiments.
EXTENSIONS = frozenset({0, 43, FRAGMENT, AUTHENTICATION, 60, 135, 139, 140})

RS, RA, NS, NA, REDIRECT = 133, 134, 135, 136, 137
ND_BYTES = {RS: 8, RA: 16, NS: 24, NA: 24, REDIRECT: 40}  # in front of the options, RFC 4861, section 4


class Malformed(Exception):
    """A header that must be read runs past the end."""


def read(octets: bytes, at: int, size: int) -> bytes:
    """`size` bytes at an offset, or `Malformed`."""
    if at + size > len(octets):
        raise Malformed
    return octets[at : at + size]


def number(octets: bytes, at: int, size: int = 2) -> int:
    """The same as a number, network byte order."""
    return int.from_bytes(read(octets, at, size), "big")


@dataclass(frozen=True, slots=True)
class Ethernet:
    """IEEE 802.3 and 802.1Q: the MACs, the tags that were read, (TPID, TCI), and the EtherType behind them."""

    destination: int
    source: int
    tags: tuple[tuple[int, int], ...]
    kind: int
    payload: int


def ethernet(octets: bytes, most_tags: int) -> Ethernet:
    """Reads so many tags; `kind` is a TPID where there are more."""
    head = read(octets, 0, 14)
    kind, at = number(octets, 12), 14
    tags: list[tuple[int, int]] = []
    while kind in TPIDS and len(tags) < most_tags:
        tags.append((kind, number(octets, at)))
        kind, at = number(octets, at + 2), at + 4
    return Ethernet(int.from_bytes(head[:6], "big"), int.from_bytes(head[6:12], "big"), tuple(tags), kind, at)


@dataclass(slots=True)
class Packet:
    """An IP packet as far as it leads to its payload.

    Attributes:
        source: the address, 4 or 16 bytes.
        protocol, payload: what begins where, in the frame's bytes.
        end: where the packet ends by its own account.
        fragment: it is one; `later`: not the first, so that its payload has no header.
        hidden: the payload is out of reach.
    """

    source: bytes
    protocol: int
    payload: int
    end: int
    fragment: bool = False
    later: bool = False
    hidden: bool = False


def ipv4(octets: bytes, at: int) -> Packet:
    """RFC 791, 3.1."""
    head = read(octets, at, 20)
    words = head[0] & 0xF
    if words < 5:
        raise Malformed
    flags = number(head, 6)
    return Packet(
        source=head[12:16],
        protocol=head[9],
        payload=at + 4 * words,
        end=at + number(head, 2),
        fragment=bool(flags & 0x3FFF),  # MF and the offset
        later=bool(flags & 0x1FFF),
    )


def ipv6(octets: bytes, at: int) -> Packet:
    """RFC 8200, 3 and 4: follows the chain of extension headers."""
    head = read(octets, at, 40)
    length = number(head, 4)
    packet = Packet(
        source=head[8:24], protocol=head[6], payload=at + 40, end=at + 40 + length if length else len(octets)
    )
    for _ in range(MOST_EXTENSIONS):
        if packet.protocol not in EXTENSIONS or packet.later:
            return packet
        try:
            extension = read(octets, packet.payload, 4)
        except Malformed:
            if not packet.fragment:
                raise
            packet.hidden = True  # RFC 7112: in the rest of the packet
            return packet
        if packet.protocol == FRAGMENT:
            packet.fragment = True
            packet.later = bool(number(extension, 2) & 0xFFF8)
        packet.payload += _extension_bytes(packet.protocol, extension[1])
        packet.protocol = extension[0]
    packet.hidden = packet.protocol in EXTENSIONS and not packet.later
    return packet


def _extension_bytes(kind: int, length: int) -> int:
    if kind == FRAGMENT:
        return 8
    if kind == AUTHENTICATION:
        return 4 * (length + 2)  # RFC 4302, 2.2
    return 8 * (length + 1)


def packet(octets: bytes, kind: int, at: int) -> Packet | None:
    """The packet that an EtherType announces; None: it is not IP."""
    if kind == IPV4:
        return ipv4(octets, at)
    return ipv6(octets, at) if kind == IPV6 else None


def segment_bytes(octets: bytes, kind: int, at: int, gso_size: int) -> int:
    """Bytes of L3 of the largest frame that will be cut from a GSO frame with that much payload in each."""
    if gso_size == 0xFFFF:  # GSO_BY_FRAGS, of SCTP: as large as they happen to be
        return 0
    found = packet(octets, kind, at)
    if found is None:
        return gso_size
    headers = found.payload - at
    if found.protocol == TCP:
        headers += 4 * (read(octets, found.payload, 20)[12] >> 4)  # RFC 9293, 3.1
    elif found.protocol == UDP and (kind == IPV6 or gso_size % 8):
        headers += 8
    return gso_size + headers
