"""The switch of `support.world` with an overlay: port 9's device is the underlay, and two other hosts are there.

        VM 1 … 8 ── switch ── port 9 (192.0.2.1) ──┬── VTEP 21 (192.0.2.21): blue, red
                                                   └── VTEP 22 (192.0.2.22): blue

Blue has VNI 5010, red has 5020. Behind VTEP n is a VM with the MAC 02:00:00:00:00:n. Port 9 is no member of blue or
red any more: they travel by VXLAN here. Port 10 is still an uplink with both VLANs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address

from support.frames import ethernet, mac
from support.outcome import Outcome
from support.vxlan import VNI_FLAG, VXLAN_PORT, Packet, read_packet, vxlan
from support.world import BLUE, RED, World, counter
from vxagent.core.tables import (
    VTEP_SLOT,
    MembershipRow,
    OverlayRow,
    PortFlag,
    PortMode,
    PortRow,
    Table,
    VniRow,
    VtepRow,
    address_octets,
    member_key,
    slot_key,
    tunnel_key,
)
from vxagent.datapath.bpf_link import Link
from vxagent.datapath.bpf_prog import AttachType

UNDERLAY = 9
VTEPS = {21: (BLUE, RED), 22: (BLUE,)}
VNIS = {BLUE: 5010, RED: 5020}
TTL = 17
MARK = 0x00800000  # of the VXLAN header's flags

Address = IPv4Address | IPv6Address


def address(number: int, family: int) -> Address:
    """The tunnel address of VTEP `number`; 1 is this host."""
    return ip_address(f"192.0.2.{number}" if family == 4 else f"2001:db8:1::{number}")


class Overlay:
    """Adds what an overlay takes to a world."""

    def __init__(self, world: World, family: int = 4) -> None:
        self.world = world
        self.family = family
        self.rig = world.rig
        for segment in (BLUE, RED):
            world.leave(UNDERLAY, segment)
            world.set_segment(segment, vni=VNIS[segment], vteps=len(VTEPS))
            self.rig.put(Table.VNIS, VNIS[segment], VniRow(vni=VNIS[segment], segment=segment))
        for vid in (10, 20):
            self.rig.maps[Table.VIDS].delete(struct.pack("=I", UNDERLAY << 16 | vid))
        for slot, (number, segments) in enumerate(VTEPS.items()):
            self._join(number, segments, slot)
        ours = address(1, family)
        self.rig.put(
            Table.OVERLAY,
            0,
            OverlayRow(
                ifindex=world.wires.ifindex[UNDERLAY],
                port=UNDERLAY,
                family=family,
                octets=address_octets(ours),
                ttl=TTL,
            ),
        )

    def _join(self, number: int, segments: tuple[int, ...], slot: int) -> None:
        far = address(number, self.family)
        row = VtepRow(port=number, family=self.family, octets=address_octets(far))
        self.world.ports[number] = PortRow(
            ifindex=self.world.wires.ifindex[UNDERLAY],
            flags=PortFlag.UPLINK | PortFlag.VTEP,
            state=PortMode.UP,
            handle=number,
            segment=0,
            counter=0,
            counter_none=counter(number, 0),
            max_macs=1024,
        )
        self.world.set_port(number)
        self.rig.put(Table.VTEPS, number, row)
        self.rig.put(Table.TUNNELS, tunnel_key(far), row)
        for segment in segments:
            place = MembershipRow(
                port=number, segment=segment, vid=0, slot=VTEP_SLOT + slot, counter=counter(number, segment)
            )
            self.rig.put(Table.MEMBERS, member_key(number, segment), place)
            self.rig.put(Table.SLOTS, slot_key(segment, place.slot), place)

    def leave(self, number: int, segment: int) -> None:
        """A VTEP has a segment no more."""
        self.rig.maps[Table.MEMBERS].delete(struct.pack("=I", member_key(number, segment)))
        self.rig.changed()

    @contextmanager
    def neighbour(self, number: int) -> Iterator[None]:
        """The kernel knows the next hop of this VTEP: MAC 06:…:n."""
        wires, far = self.world.wires.namespace, str(address(number, self.family))
        words = (far, "lladdr", next_hop(number), "nud", "permanent", "dev", f"p{UNDERLAY}")
        wires.ip("neigh", "replace", *words)
        yield
        wires.ip("neigh", "delete", *words)

    @contextmanager
    def resolved(self, *numbers: int) -> Iterator[None]:
        """The underlay has addresses, and the kernel knows the next hops of these VTEPs: MAC 06:…:n."""
        wires, name = self.world.wires.namespace, f"p{UNDERLAY}"
        ours = ("24",) if self.family == 4 else ("64", "nodad")
        wires.sysctl(f"net/ipv6/conf/{name}/disable_ipv6", int(self.family == 4))
        with wires.entered():
            link = Link.create(self.rig.program("vx_out"), AttachType.TCX_EGRESS, self.world.wires.ifindex[UNDERLAY])
        try:
            wires.ip("address", "add", f"{address(1, self.family)}/{ours[0]}", "dev", name, *ours[1:])
            for number in numbers:
                far = str(address(number, self.family))
                wires.ip("neigh", "replace", far, "lladdr", next_hop(number), "nud", "permanent", "dev", name)
            yield
        finally:
            link.close()
            wires.ip("neigh", "flush", "dev", name, "nud", "permanent")
            wires.ip("address", "flush", "dev", name)
            wires.sysctl(f"net/ipv6/conf/{name}/disable_ipv6", 1)
            self.world.wires.read(UNDERLAY, 0)

    def packet(
        self,
        frame: bytes,
        *,
        sender: int = 21,
        receiver: int = 1,
        vni: int = VNIS[BLUE],
        flags: int = VNI_FLAG,
        port: int = VXLAN_PORT,
        fragment: int = 0,
    ) -> bytes:
        """What another host sends: the frame in a packet, from VTEP to VTEP."""
        ours, theirs = str(address(receiver, self.family)), str(address(sender, self.family))
        l3 = vxlan(frame, theirs, ours, vni=vni, flags=flags, port=port, fragment=fragment)
        return ethernet(mac(9), bytes.fromhex("060000000000"), l3)


def packets(outcome: Outcome) -> list[Packet]:
    """What has left by the underlay; what the kernel itself sends there is left out."""
    found = map(read_packet, outcome.frames.get(UNDERLAY, []))
    return [packet for packet in found if packet is not None]


def next_hop(number: int) -> str:
    """The MAC of the way to a VTEP."""
    return f"06:00:00:00:00:{number:02x}"
