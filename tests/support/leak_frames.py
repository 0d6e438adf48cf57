"""Random frames that carry their tenant in their payload, whatever becomes of their headers.

MACs and addresses are the same in each tenant; VIDs in frames are mostly those that mean something to somebody.
"""

from __future__ import annotations

import ipaddress
import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from support import frames
from support.frames import L3, NA, NS, RA, arp, icmpv6, ipv4, ipv6, link_layer, nd, tcp, udp
from support.wires import NO_OFFLOAD
from vxagent.lab.pump import NEEDS_CSUM, VNET_HDR

VMS = 4  # of each tenant
HOST = "host"  # stands where a tenant does, in frames that belong to no segment
GSO_TCPV4, MSS = 1, 500  # <linux/virtio_net.h>
MULTICASTS = tuple(map(bytes.fromhex, ("01005e000001", "01005e010203", "333300000001", "3333ff000001", "0180c2000000")))
TAG_KINDS = (frames.C_TAG,) * 6 + (frames.S_TAG, 0x9100)

_MARK = re.compile(rb"<of (\w+)>")


def mark(tenant: str) -> bytes:
    """What a frame of the tenant has in its payload."""
    return f"<of {tenant}>".encode()


def tenants_in(data: bytes) -> set[str]:
    """Whose marks a frame carries."""
    return {found.decode() for found in _MARK.findall(data)}


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A frame on its way: behind what virtio_net_hdr, and with which tag beside it (TPID << 16 | TCI; 0: none)."""

    data: bytes
    header: bytes = NO_OFFLOAD
    beside: int = 0


class Frames:
    """Makes them; which ones, the generator decides.

    Args:
        chance: decides.
        vids: that mean something to somebody.
    """

    def __init__(self, chance: random.Random, vids: tuple[int, ...]) -> None:
        self._chance = chance
        self._vids = (0, 99, 4095, *vids * 4)

    def some(self, tenant: str, number: int, tags: tuple[bytes, ...] = (), *, beside: bool = False) -> Sent:
        """A frame that VM `number` of the tenant might send.

        Args:
            tags: in front of those that it thinks up itself.
            beside: the outermost tag may be beside the frame.
        """
        chance = self._chance
        tags += tuple(self._tag() for _ in range(chance.choice((0, 0, 0, 1, 1, 2))))
        source = frames.mac(number if chance.random() < 0.9 else chance.randint(1, 250))
        if not tags and chance.random() < 0.05:
            return self._gso(tenant, source, number)
        data = frames.ethernet(self._anybody(), source, self._inside(mark(tenant), number), *tags)
        if tags and beside and chance.random() < 0.5:
            return Sent(data=frames.untag(data), beside=int.from_bytes(tags[0], "big"))
        return Sent(data=data)

    def _tag(self) -> bytes:
        chance = self._chance
        return frames.vlan(chance.choice(self._vids), pcp=chance.randrange(8), tpid=chance.choice(TAG_KINDS))

    def _anybody(self) -> bytes:
        chance = self._chance
        vm = frames.mac(chance.randint(1, VMS))
        return chance.choice(
            (vm, vm, vm, frames.BROADCAST, chance.choice(MULTICASTS), frames.mac(chance.randrange(256)))
        )

    def _gso(self, tenant: str, source: bytes, number: int) -> Sent:
        """A TCP frame that stands for several."""
        inside = ipv4(tcp(mark(tenant).ljust(64, b".") * 40), source=f"10.0.0.{number}", destination="10.0.0.2")
        header = VNET_HDR.pack(NEEDS_CSUM, GSO_TCPV4, 54, MSS, 34, 16)
        return Sent(data=frames.ethernet(self._anybody(), source, inside), header=header)

    def _inside(self, text: bytes, number: int) -> L3:
        own, other = (f"{n}" for n in (number, self._chance.randint(1, VMS)))
        own_mac = frames.mac(number)
        kinds: tuple[Callable[[], L3], ...] = (
            lambda: frames.payload(text),
            lambda: ipv4(udp(text), source=f"10.0.0.{own}", destination=f"10.0.0.{other}"),
            lambda: ipv4(udp(text), source=f"10.0.0.{other}"),
            lambda: ipv4(udp(text, source=67, destination=68), source="0.0.0.0"),
            lambda: ipv4(udp(text), fragment=self._chance.choice((0x2000, 0x2003, 3))),
            lambda: ipv6(udp(text), source=f"2001:db8::{own}"),
            lambda: ipv6(udp(text), source=f"2001:db8::{other}", extensions=((0, 8), (60, 8))),
            lambda: ipv6(icmpv6(128, bytes(4) + text), extensions=((44, 8),), fragment=self._chance.choice((0, 1, 9))),
            lambda: _padded(arp(f"10.0.0.{own}", f"10.0.0.{other}", sender_mac=own_mac), text),
            lambda: _padded(arp(f"10.0.0.{other}", f"10.0.0.{own}", operation=2, sender_mac=own_mac), text),
            lambda: _padded(ipv6(nd(NS, f"2001:db8::{other}", link_layer(1, own_mac))), text),
            lambda: _padded(ipv6(nd(NA, f"2001:db8::{own}", link_layer(2, own_mac)), source=f"2001:db8::{own}"), text),
            lambda: _padded(ipv6(nd(RA, "::", link_layer(1, own_mac)), source="fe80::1"), text),
            lambda: _padded(_igmp(0x16, f"10.0.0.{own}", "239.1.2.3"), text),  # a report
            lambda: _padded(_igmp(0x11, f"10.0.0.{own}", "224.0.0.1"), text),  # a query
            lambda: frames.payload(text, length=1490),
        )
        return self._chance.choice(kinds)()


def _igmp(kind: int, source: str, group: str) -> L3:
    """RFC 2236, section 2; a query is about all groups."""
    about = ipaddress.IPv4Address(group).packed if kind == 0x16 else bytes(4)
    message = bytes([kind, 10]) + frames.checksum(bytes([kind, 10, 0, 0]) + about) + about
    return ipv4(frames.raw(2, message), source=source, destination=group)


def _padded(inside: L3, text: bytes) -> L3:
    """With the mark behind what its own lengths cover."""
    return L3(inside.ethertype, inside.data + text)
