"""Games that have differed once, and those of the long run's failures to come: name → the game."""

from __future__ import annotations

from fuzz.grammar import Shot
from fuzz.play import Game
from fuzz.setting import Setting
from support.frames import BROADCAST, L3, NS, ethernet, ipv6, link_layer, mac, nd
from vxagent.model.port import Port
from vxagent.model.segment import Segment

BLUE = Segment(name="s0", tenant="acme", vlan=10)


def _two_ports(**first: object) -> Setting:
    """Ports 1 and 2 of one segment. first: options of port 1."""
    ports = (Port(id="p1", ifname="p1", segment="s0", **first), Port(id="p2", ifname="p2", segment="s0"))  # type: ignore[arg-type]
    return Setting(segments=(BLUE,), ports=ports)


def _without_length(inside: L3) -> L3:
    """An IPv6 packet with a payload length of 0."""
    return L3(inside.ethertype, inside.data[:4] + bytes(2) + inside.data[6:])


ROWS = {
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
