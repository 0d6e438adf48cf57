"""What frames carry: IP with all that can stand between it and L4, ARP, ND, DHCP, IGMP and MLD of every shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network
from random import Random
from typing import TypeAlias

from fuzz import dhcp, multicast
from fuzz.drawn import PLACES, ips_of
from support import asking, frames
from support.asking import solicitation
from support.frames import ICMPV6, L3, L4, arp, icmpv6, ipv4, ipv6, link_layer, nd, payload, raw, tcp, udp

IGMP, ICMP = 2, 1
LENGTHS = (0, 1, 18, 46, 100, 600, 1480, 1500, 1501)
JUMBO = (3_000, 8_972, 9_000, 20_000, 60_000)


@dataclass(frozen=True, slots=True)
class Speaker:
    """Who sends.

    Attributes:
        place, mac: its number, and the frame's source.
        macs: all that there are.
        listed: IPs that others list where it is.
        clients: ports that a DHCP server there could lease to.
        serves: it is one.
        leased: it is held to its leases.
    """

    rng: Random
    place: int
    mac: bytes
    macs: list[bytes]
    listed: list[str]
    clients: list[int]
    serves: bool
    leased: bool

    def _whose(self) -> int:
        return self.place if self.rng.random() < 0.85 else self.rng.randrange(1, PLACES + 1)

    def address(self, version: int) -> str:
        """An IP of that version: mostly one that the place may list, else somebody's or nobody's."""
        rng = self.rng
        roll = rng.random()
        if roll < (0.5 if self.leased else 0.05):
            return dhcp.address_of(self._whose(), version, rng)
        if roll < 0.85:
            network = rng.choice(_networks(self._whose(), version))
            return str(network[rng.randrange(min(network.num_addresses, 1 << 16))])
        if version == 4:
            return rng.choice(
                ("0.0.0.0", "255.255.255.255", "169.254.1.1", "224.0.0.22", "127.0.0.1", "0.0.0.1", "8.8.8.8")
            )
        return rng.choice(("::", "fe80::1", "febf::1", "fec0::1", "::1", "ff02::1", "::ffff:10.0.0.1", "2001:db9::1"))


@cache
def _networks(place: int, version: int) -> list[IPv4Network | IPv6Network]:
    return [network for network in map(ip_network, ips_of(place)) if network.version == version]


Drawn: TypeAlias = tuple[L3, str] | tuple[L3, str, bytes]
"""What a frame carries, what that is, and where it has to go if it is to make sense."""


def draw(who: Speaker) -> tuple[L3, str, bytes | None]:
    """Something."""
    at = who.rng.randrange(sum(weight for weight, _ in MAKERS))
    for weight, make in MAKERS:
        at -= weight
        if at < 0:
            inside, kind, *destination = make(who)
            return inside, kind, destination[0] if destination else None
    raise AssertionError


def traffic(who: Speaker, ips: Sequence[str]) -> tuple[L3, str, int]:
    """TCP or UDP, nothing special, what is done of its checksum, and where L4 begins if that is left to the NIC.

    Args:
        ips: addresses and prefixes that its port lists, one of which it comes from.
    """
    rng = who.rng
    network = ip_network(rng.choice(ips)) if ips else None
    version = network.version if network else rng.choice((4, 4, 6))
    source = str(network[rng.randrange(min(network.num_addresses, 1 << 16))]) if network else who.address(version)
    body = bytes(rng.randrange(256) for _ in range(rng.choice((0, 1, 18, 27, 28, 29, 46, 200, 511, 1300, 1452, 1480))))
    kind = rng.choice(("tcp", "udp"))
    inside = tcp(body, destination=rng.randrange(65536)) if kind == "tcp" else udp(body, destination=_udp_port(rng))
    wrap = ipv4 if version == 4 else ipv6
    done = rng.choice(("finished", "finished", "finished", "left", "pseudo", "none", "wrong"))
    packet = wrap(inside, source=source, destination=who.address(version))
    at = 20 if version == 4 else 40
    field = at + (inside.checksum_at or 0)
    octets = packet.data
    if done in ("left", "pseudo"):
        addresses = octets[12:20] if version == 4 else octets[8:40]
        pseudo = addresses + bytes([0, inside.protocol]) + len(inside.data).to_bytes(2, "big")
        octets = octets[:field] + frames.complement(frames.checksum(pseudo)) + octets[field + 2 :]
    elif done != "finished":
        value = bytes(2) if done == "none" else rng.randrange(65536).to_bytes(2, "big")
        octets = octets[:field] + value + octets[field + 2 :]
    return L3(packet.ethertype, octets), f"{kind} {done}", at if done == "left" else 0


def tcp_at(inside: L3) -> int | None:
    """Where the TCP header of a plain TCP packet begins, in its L3; None where it is none."""
    if inside.ethertype == frames.IPV4 and inside.data[9:10] == b"\x06" and inside.data[0] == 0x45:
        return 20 if not (inside.data[6] & 0x3F or inside.data[7]) else None
    return 40 if inside.ethertype == frames.IPV6 and inside.data[6:7] == b"\x06" else None


def _body(who: Speaker) -> bytes:
    rng = who.rng
    length = rng.choice(LENGTHS) if rng.random() < 0.94 else rng.choice(JUMBO)
    return bytes(rng.randrange(length + 1) if rng.random() < 0.3 else length)


def _other(who: Speaker) -> Drawn:
    rng = who.rng
    if rng.random() < 0.2:
        return L3(rng.choice((0x0026, 0x8035, 0x88CC, 0x8847, 0x0801, 0x86DC)), bytes(46)), "other"
    return payload(length=len(_body(who))), "other"


def _arp(who: Speaker) -> Drawn:
    rng = who.rng
    sender, target = who.address(4), who.address(4)
    kind = "request"
    shape = rng.random()
    if shape < 0.15:
        target, kind = sender, "gratuitous"
    elif shape < 0.3:
        sender, kind = "0.0.0.0", "probe"
    operation = rng.choice((1, 1, 1, 2, 2, 3))
    message = arp(
        sender,
        target,
        operation=operation,
        sender_mac=who.mac if rng.random() < 0.9 else rng.choice(who.macs),
        target_mac=rng.choice((bytes(6), frames.BROADCAST, rng.choice(who.macs))),
    )
    data = bytearray(message.data)
    if rng.random() < 0.06:
        data[rng.randrange(8)] ^= 1 << rng.randrange(8)
        kind = "odd"
    return L3(message.ethertype, bytes(data) + bytes(rng.choice((0, 18)))), f"arp {kind if operation == 1 else 'reply'}"


def _l4(who: Speaker, version: int) -> tuple[L4, str]:
    rng = who.rng
    makers: dict[str, Callable[[], L4]] = {
        "tcp": lambda: tcp(_body(who), options=bytes(rng.choice((0, 0, 12, 40)))),
        "udp": lambda: udp(_body(who), source=_udp_port(rng), destination=_udp_port(rng)),
        "dhcp": lambda: _dhcp(rng),
        "icmp": lambda: raw(ICMP, bytes([8]) + bytes(63)) if version == 4 else icmpv6(128, bytes(60)),
        "group": lambda: _igmp(rng) if version == 4 else icmpv6(rng.choice((130, 131, 132, 143)), bytes(20)),
        "other": lambda: raw(rng.choice((47, 50, 59, 132, 253, 255, ICMPV6 if version == 4 else ICMP)), _body(who)),
    }
    kind = rng.choice(("tcp", "tcp", *makers))
    return makers[kind](), kind


def _udp_port(rng: Random) -> int:
    return rng.choice((67, 68, 546, 547, 53, rng.randrange(65536)))


def _dhcp(rng: Random) -> L4:
    source, destination = rng.choice(((67, 68), (68, 67), (547, 546), (546, 547)))
    return udp(bytes([rng.choice((1, 2, 7))]) + bytes(240), source=source, destination=destination)


def _igmp(rng: Random) -> L4:
    return raw(IGMP, bytes([rng.choice((0x11, 0x12, 0x16, 0x17, 0x22)), 0, 0, 0, 224, 0, 1, rng.randrange(3)]))


def _ipv4(who: Speaker) -> Drawn:
    rng = who.rng
    inside, kind = _l4(who, 4)
    options = bytes(rng.choice((0, 0, 0, 4, 40)))
    fragment = rng.choice((0, 0, 0, 0, 0x4000, 0x2000, 0x2001, 0x0001, 0x1FFF))
    ihl = rng.choice((0,) * 20 + (4, 6, 15))
    made = ipv4(inside, source=who.address(4), destination=who.address(4), options=options, ihl=ihl, fragment=fragment)
    label = "fragment" if fragment & 0x3FFF else kind
    return _lie(rng, made, 2), f"ipv4 {label}"


def _extensions(rng: Random) -> tuple[tuple[tuple[int, int], ...], int]:
    """Extension headers, and what the fragment header among them says."""
    kinds = (0, 43, 60, 60, 44, 44, 51, 135, 139, 140)
    count = rng.choice((0, 0, 0, 0, 1, 1, 2, 3, 7, 8, 9))
    chain = []
    for _ in range(count):
        kind = rng.choice(kinds)
        chain.append((kind, 8 if kind == 44 else rng.choice((8, 16, 24)) if count < 7 else 8))
    return tuple(chain), rng.choice((0, 1, 8, 9, 1480))


def _ipv6(who: Speaker) -> Drawn:
    rng = who.rng
    inside, kind = _l4(who, 6)
    extensions, fragment = _extensions(rng)
    made = ipv6(inside, source=who.address(6), destination=who.address(6), extensions=extensions, fragment=fragment)
    if any(kind == frames.FRAGMENT for kind, _ in extensions):
        kind = "fragment"
    return _lie(rng, made, 4), f"ipv6 {kind}{' behind extensions' if extensions else ''}"


def _neighbour(who: Speaker) -> Drawn:
    rng = who.rng
    kind = rng.choice((frames.RS, frames.RA, frames.NS, frames.NS, frames.NA, frames.NA, frames.REDIRECT))
    source = "::" if kind == frames.NS and rng.random() < 0.3 else who.address(6)
    options = []
    for _ in range(rng.choice((0, 1, 1, 1, 2, 9))):
        mac = who.mac if rng.random() < 0.85 else rng.choice(who.macs)
        options.append(link_layer(rng.choice((1, 2, 1, 2, 3, 14)), mac))
    if rng.random() < 0.08:
        options.append(bytes([1, rng.choice((0, 2, 9))]) + bytes(rng.choice((2, 6))))
    extensions, fragment = _extensions(rng) if rng.random() < 0.2 else ((), 0)
    made = ipv6(
        nd(kind, who.address(6), *options),
        source=source,
        destination=rng.choice(("ff02::1", "ff02::1:ff00:1", who.address(6))),
        extensions=extensions,
        fragment=fragment,
    )
    return _lie(rng, made, 4), f"nd {kind}"


def questions(who: Speaker) -> tuple[L3, str, bytes]:
    """ARP or ND for an address that a VM may have, as hosts ask."""
    rng, version = who.rng, who.rng.choice((4, 6))
    known = [address for address in who.listed if (":" in address) == (version == 6)]
    target = rng.choice(known) if known and rng.random() < 0.8 else who.address(version)
    nobody = "0.0.0.0" if version == 4 else "::"
    source = rng.choice((*[who.address(version)] * 8, nobody, target))
    if version == 4:
        return arp(source, target, sender_mac=who.mac), "arp question", frames.BROADCAST
    options = [link_layer(1, who.mac), bytes([14, 1]) + bytes(6)][: rng.choice((0, 1, 1, 1, 2))]
    asked = solicitation(target, *options, source=source)
    hops = rng.choice((*[asking.HOPS] * 9, 254))
    return asking.hop_limit(asked, hops), "nd question", asking.mac_of(asking.group_of(target))


def groups(who: Speaker) -> tuple[L3, str, bytes]:
    """IGMP, MLD, PIM, and data for groups."""
    inside, kind, destination = multicast.draw(who.rng)
    if inside.ethertype == frames.IPV4 and who.rng.random() < 0.9:
        source = IPv4Address(who.address(4)).packed
        inside = L3(inside.ethertype, inside.data[:12] + source + inside.data[16:])
    return _lie(who.rng, inside, 2 if inside.ethertype == frames.IPV4 else 4), kind, destination


def leases(who: Speaker) -> tuple[L3, str, bytes]:
    """DHCP, of servers and clients."""
    client = who.rng.choice(who.clients)
    inside, kind, destination = dhcp.draw(
        who.rng, who.place, who.address(4), client, who.macs[client - 1], serves=who.serves
    )
    return _lie(who.rng, inside, 2 if inside.ethertype == frames.IPV4 else 4), kind, destination


def _lie(rng: Random, inside: L3, length_at: int) -> L3:
    """The packet, sometimes with bytes behind it or another length than it has."""
    roll = rng.random()
    if roll < 0.88:
        return inside
    if roll < 0.92:
        return L3(inside.ethertype, inside.data + bytes(rng.randrange(1, 30)))
    claimed = rng.choice((0, 0, 0, 8, 20, 28, len(inside.data) + 100)) & 0xFFFF
    return L3(inside.ethertype, inside.data[:length_at] + claimed.to_bytes(2, "big") + inside.data[length_at + 2 :])


MAKERS = (
    (14, _other),
    (13, _arp),
    (22, _ipv4),
    (22, _ipv6),
    (19, _neighbour),
    (10, questions),
    (10, groups),
    (4, leases),
)
