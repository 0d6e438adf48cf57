"""Frames as another host sends them by VXLAN (RFC 7348) over IPv4. Pure."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

from vxagent.bench.frames import PROTOCOL_UDP
from vxagent.lab.frames import IPV4, ethernet
from vxagent.lab.ping import checksum

_PORT = 4789  # IANA
_SOURCE_PORT = 50_000
_VNI_FLAG = 0x08000000  # RFC 7348, section 5: the VNI is valid


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """From one VTEP to another.

    Attributes:
        sender, receiver: (MAC, IPv4 address); the MACs are those of the last hop.
        vni: whose frames it carries.
    """

    sender: tuple[str, str]
    receiver: tuple[str, str]
    vni: int

    def packet(self, frame: bytes) -> bytes:
        """One that carries the frame."""
        vxlan = struct.pack("!II", _VNI_FLAG, self.vni << 8) + frame
        datagram = struct.pack("!HHHH", _SOURCE_PORT, _PORT, 8 + len(vxlan), 0) + vxlan
        ends = b"".join(ipaddress.IPv4Address(address).packed for _, address in (self.sender, self.receiver))
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 0, 0x4000, 64, PROTOCOL_UDP, 0) + ends
        head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
        return ethernet(self.receiver[0], self.sender[0], IPV4, head + datagram)
