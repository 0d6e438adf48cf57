"""Ethernet frames: built, taken apart, and told in one line."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

TPIDS = (0x8100, 0x88A8)  # IEEE 802.1Q, 802.1ad
IPV4, ARP, RARP, IPV6 = 0x0800, 0x0806, 0x8035, 0x86DD
EXPERIMENTAL = 0x88B5  # IEEE 802, local experimental EtherType 1
BROADCAST = "ff:ff:ff:ff:ff:ff"
LLDP_MAC = "01:80:c2:00:00:0e"  # nearest bridge
LLDP = 0x88CC
VID_MASK = 0xFFF

_PROTOCOLS = {1: "ICMP", 6: "TCP", 17: "UDP"}
_ICMP = {0: "ICMP echo reply", 8: "ICMP echo request"}


def ethernet(
    destination: str, source: str, ethertype: int, payload: bytes, *, tags: tuple[tuple[int, int], ...] = ()
) -> bytes:
    """A frame, padded to the 60 bytes that Ethernet wants.

    Args:
        destination, source: MACs.
        ethertype: of the payload.
        payload: what follows it.
        tags: (TPID, TCI), outermost first.
    """
    macs = bytes.fromhex(f"{destination}{source}".replace(":", ""))
    tagging = b"".join(struct.pack("!HH", *tag) for tag in tags)
    return (macs + tagging + struct.pack("!H", ethertype) + payload).ljust(60, b"\0")


def announcement(mac: str) -> bytes:
    """What a hypervisor sends for a VM that goes on behind it: a RARP request for its own address (RFC 903)."""
    own = bytes.fromhex(mac.replace(":", ""))
    fixed = struct.pack("!HHBBH", 1, IPV4, 6, 4, 3)  # Ethernet, IPv4, their lengths, reverse request
    return ethernet(BROADCAST, mac, RARP, fixed + own + bytes(4) + own + bytes(4))


def _mac(raw: bytes) -> str:
    return raw.hex(":")


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A frame as it was on the wire.

    Attributes:
        data: all of it, tags included.
        gso_size: payload bytes of each segment that it stands for, 0 where it is one frame.
        partial: its checksum is still to be completed.
    """

    data: bytes
    gso_size: int = 0
    partial: bool = False

    @property
    def destination(self) -> str:
        """MAC, lower case with colons."""
        return _mac(self.data[:6])

    @property
    def source(self) -> str:
        """MAC, lower case with colons."""
        return _mac(self.data[6:12])

    @property
    def tags(self) -> tuple[tuple[int, int], ...]:
        """(TPID, TCI) of each tag, outermost first."""
        found = []
        at = 12
        while (tpid := int.from_bytes(self.data[at : at + 2], "big")) in TPIDS and len(self.data) >= at + 4:
            found.append((tpid, int.from_bytes(self.data[at + 2 : at + 4], "big")))
            at += 4
        return tuple(found)

    @property
    def vid(self) -> int | None:
        """VID of the outermost tag; None where there is none."""
        return self.tags[0][1] & VID_MASK if self.tags else None

    @property
    def ethertype(self) -> int:
        """Behind the tags."""
        at = 12 + 4 * len(self.tags)
        return int.from_bytes(self.data[at : at + 2], "big")

    @property
    def payload(self) -> bytes:
        """Behind the EtherType, with what pads the frame."""
        return self.data[14 + 4 * len(self.tags) :]

    def __str__(self) -> str:
        tag = "untagged" if self.vid is None else f"vlan {self.vid}"
        return f"{tag}  {self.source} > {self.destination}  {self._what()}"

    def _what(self) -> str:
        payload = self.payload
        if self.ethertype == IPV4 and len(payload) >= 20:
            source, destination = (ipaddress.IPv4Address(payload[at : at + 4]) for at in (12, 16))
            protocol = payload[9]
            behind = payload[4 * (payload[0] & 0xF) :]
            what = _PROTOCOLS.get(protocol, f"protocol {protocol}")
            if what == "ICMP" and behind:
                what = _ICMP.get(behind[0], "ICMP")
            return f"{source} > {destination} {what}"
        if self.ethertype == ARP and len(payload) >= 28:
            sender, target = (ipaddress.IPv4Address(payload[at : at + 4]) for at in (14, 24))
            if payload[7] == 1:
                return f"ARP who has {target}, tell {sender}"
            return f"ARP {sender} is at {_mac(payload[8:14])}"
        return f"EtherType {self.ethertype:#06x}"
