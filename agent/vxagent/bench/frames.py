"""What is sent: IPv4 with UDP or TCP to the discard port, which is how receivers know what counts."""

from __future__ import annotations

import ipaddress
import struct

from vxagent.bench.cases import Case
from vxagent.lab.frames import BROADCAST, IPV4, ethernet
from vxagent.lab.ping import checksum
from vxagent.lab.pump import NEEDS_CSUM, VNET_HDR

DISCARD = 9  # RFC 863
SOURCE_PORT = 40009
NO_HEADER = bytes(VNET_HDR.size)

_ETHERNET, _IPV4, _UDP, _TCP = 14, 20, 8, 20
PROTOCOL_TCP, PROTOCOL_UDP = 6, 17  # IANA, protocol numbers
_CHECKSUM_AT = {PROTOCOL_TCP: 16, PROTOCOL_UDP: 6}
_ACK_PSH = 0x18


def frame(case: Case, source: tuple[str, str], destination: tuple[str, str], *, vid: int | None = None) -> bytes:
    """A frame of the case's size, behind a struct virtio_net_hdr.

    Args:
        source, destination: MAC and IPv4 address.
        vid: of a tag in the frame, which counts to its size.

    Returns:
        TCP with a checksum that the NIC has to complete where the case says so, otherwise UDP with a complete one.
    """
    tags = () if vid is None else ((0x8100, vid),)
    room = case.size - _ETHERNET - 4 * len(tags)
    protocol = PROTOCOL_TCP if case.partial else PROTOCOL_UDP
    packet = _packet(protocol, source[1], destination[1], room, partial=case.partial)
    header = NO_HEADER
    if case.partial:
        start = _ETHERNET + 4 * len(tags) + _IPV4
        header = VNET_HDR.pack(NEEDS_CSUM, 0, 0, 0, start, _CHECKSUM_AT[protocol])
    return header + ethernet(destination[0], source[0], IPV4, packet, tags=tags)


def hello(mac: str, address: str, *, to: str = BROADCAST, vid: int | None = None) -> bytes:
    """A frame that teaches a switch where a MAC is, behind a struct virtio_net_hdr. It does not count."""
    tags = () if vid is None else ((0x8100, vid),)
    return NO_HEADER + ethernet(to, mac, IPV4, _packet(PROTOCOL_UDP, address, "255.255.255.255", 46, to=7), tags=tags)


def _packet(
    protocol: int, source: str, destination: str, length: int, *, partial: bool = False, to: int = DISCARD
) -> bytes:
    ends = ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(destination).packed
    ip = struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0x4000, 64, protocol, 0) + ends
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    size = length - _IPV4
    if protocol == PROTOCOL_TCP:
        payload = bytes(size - _TCP)
        transport = struct.pack("!HHIIBBHHH", SOURCE_PORT, to, 1, 1, _TCP // 4 << 4, _ACK_PSH, 512, 0, 0) + payload
    else:
        transport = struct.pack("!HHHH", SOURCE_PORT, to, size, 0) + bytes(size - _UDP)
    pseudo = ends + struct.pack("!HH", protocol, size)
    found = checksum(pseudo) ^ 0xFFFF if partial else checksum(pseudo + transport)
    at = _CHECKSUM_AT[protocol]
    return ip + transport[:at] + struct.pack("!H", found) + transport[at + 2 :]
