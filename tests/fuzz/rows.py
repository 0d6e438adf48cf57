"""Games that have differed once, and those of the long run's failures to come: name → the game."""

from __future__ import annotations

from dataclasses import replace

from fuzz.grammar import Shot
from fuzz.play import Game
from fuzz.setting import Setting
from support.dhcp import REPLY, dhcpv6, ia_na, iaaddr
from support.frames import BROADCAST, L3, NS, arp, ethernet, ipv4, ipv6, link_layer, mac, nd, udp, vlan
from vxagent.core.tables import PortMode
from vxagent.model.port import Port, Uplink
from vxagent.model.segment import Segment

BLUE = Segment(name="s0", tenant="acme", vlan=10)


def _two_ports(**first: object) -> Setting:
    """Ports 1 and 2 of one segment. first: options of port 1."""
    ports = (Port(id="p1", ifname="p1", segment="s0", **first), Port(id="p2", ifname="p2", segment="s0"))  # type: ignore[arg-type]  # by name
    return Setting(segments=(BLUE,), ports=ports)


def _without_length(inside: L3) -> L3:
    """An IPv6 packet with a payload length of 0."""
    return L3(inside.ethertype, inside.data[:4] + bytes(2) + inside.data[6:])


def _replies(count: int) -> tuple[Shot, ...]:
    """A DHCPv6 server on port 2 leases so many addresses to the VM of port 1, eight at once."""
    known = Shot(place=1, octets=ethernet(BROADCAST, mac(1), arp("0.0.0.0", "10.0.0.1", sender_mac=mac(1))))
    several = [ia_na(*(iaaddr(f"2001:db8::{at + n:x}", 300) for n in range(8))) for at in range(0, count, 8)]
    frames = (ethernet(mac(1), mac(2), ipv6(dhcpv6(REPLY, one), source="fe80::2")) for one in several)
    return known, *(Shot(place=2, octets=frame) for frame in frames)


ROWS = {
    "a VM that is awaited does not hear itself": Game(
        replace(_two_ports(macs=("02:00:00:00:00:01",)), uplinks=(Uplink(ifname="p3"),), states={1: PortMode.HOLDING}),
        (Shot(place=3, octets=ethernet(BROADCAST, mac(1), ipv4(udp()), vlan(10))),),
    ),
    "a port has 64 leases, and no more": Game(
        Setting(
            segments=(BLUE,),
            ports=(
                Port(id="p1", ifname="p1", segment="s0", dhcp_snoop=True),
                Port(id="p2", ifname="p2", segment="s0", trusted=True),
            ),
        ),
        _replies(80),
    ),
    "a DHCPv6 message that is cut off leases nothing": Game(
        Setting(
            segments=(BLUE,),
            ports=(
                Port(id="p1", ifname="p1", segment="s0", dhcp_snoop=True),
                Port(id="p2", ifname="p2", segment="s0", trusted=True),
            ),
        ),
        tuple(replace(shot, octets=shot.octets[: -3 * at]) if at else shot for at, shot in enumerate(_replies(24))),
    ),
    "ND options of a packet that gives no length are looked at": Game(
        _two_ports(ips=("2001:db8::1",)),
        tuple(
            Shot(
                place=1,
                octets=ethernet(
                    BROADCAST,
                    mac(1),
                    _without_length(ipv6(nd(NS, "2001:db8::2", link_layer(1, mac(n))), source="fe80::1")),
                ),
            )
            for n in (1, 2)
        ),
    ),
}
