"""VXLAN (RFC 7348) in bytes: packets as they are on the wire, made and read."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import ip_address

from support.frames import L3, ipv4, ipv6, udp

VXLAN_PORT = 4789  # IANA
VNI_FLAG = 0x08000000  # the VNI is valid


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """A frame in its packet, as read from the wire."""

    receiver: str
    sender: str
    ttl: int
    dscp: int
    source_port: int
    checksum: int
    flags: int
    vni: int
    frame: bytes


def vxlan(
    frame: bytes,
    sender: str,
    receiver: str,
    *,
    vni: int,
    flags: int = VNI_FLAG,
    port: int = VXLAN_PORT,
    fragment: int = 0,
) -> L3:
    """A frame in a packet from one address to another, IPv4 or IPv6; `fragment` as `ipv4` takes it."""
    inside = udp(struct.pack("!II", flags, vni << 8) + frame, source=50_000, destination=port)
    if ":" in sender:
        return ipv6(inside, source=sender, destination=receiver)
    return ipv4(inside, fragment=fragment, source=sender, destination=receiver)


def read_packet(data: bytes) -> Packet | None:
    """What is in it; None: it is no VXLAN."""
    ethertype = int.from_bytes(data[12:14], "big")
    if ethertype == 0x0800:
        head, l4, ends, protocol = 34, data[14:34], (26, 30, 34), data[23]
        dscp, ttl = l4[1] >> 2, l4[8]
        assert int.from_bytes(l4[2:4], "big") == len(data) - 14
    elif ethertype == 0x86DD:
        head, ends, protocol = 54, (22, 38, 54), data[20]
        dscp, ttl = int.from_bytes(data[14:16], "big") >> 6 & 0x3F, data[21]
    else:
        return None
    source, destination, length, checksum, flags, vni = struct.unpack_from("!HHHHII", data, head)
    if protocol != 17 or destination != VXLAN_PORT:
        return None
    assert length == len(data) - head
    return Packet(
        receiver=str(ip_address(data[ends[1] : ends[2]])),
        sender=str(ip_address(data[ends[0] : ends[1]])),
        ttl=ttl,
        dscp=dscp,
        source_port=source,
        checksum=checksum,
        flags=flags,
        vni=vni >> 8,
        frame=data[head + 16 :],
    )
