"""Who has an address: what ports list, and what DHCP servers lease (RFC 2131, 2132; RFC 9915)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from reference import headers
from reference.answers import owner
from reference.choices import MOST_DHCP_OPTIONS, MOST_IAADDRS, MOST_LEASES
from reference.events import Events
from reference.guards import DHCP_SERVER, DHCPV6_SERVER
from reference.headers import IPV4, IPV6, UDP, Ethernet, Malformed, number, read
from reference.tables import Port

DHCP_CLIENT, DHCPV6_CLIENT = 68, 546
COOKIE = bytes.fromhex("63825363")
PAD, REQUESTED, LEASE_TIME, OVERLOAD, TYPE, END = 0, 50, 51, 52, 53, 255  # RFC 2132
DECLINE, ACK, RELEASE = 4, 5, 7
REPLY, RELEASE_6, DECLINE_6 = 7, 8, 9
IA_NA, IA_TA, IAADDR = 3, 4, 5
FOR_EVER = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Who has an address. expires: nanoseconds, 0: never."""

    port: int
    mac: int
    leased: bool = False
    expires: int = 0


@dataclass(frozen=True, slots=True)
class Says:
    """What a message says of addresses: (address, seconds, 0: no more), and whose they are (None: the sender's)."""

    about: tuple[tuple[bytes, int], ...]
    holder: int | None = None


class Neighbours(dict[tuple[int, bytes], Neighbour]):
    """By (segment, address).

    Attributes:
        capacity: rows that there can be.
        held, refused: leases by port; those that there was no room for.
        events: what it tells.
    """

    def __init__(self, ports: dict[int, Port], segments: Iterable[int], capacity: int, events: Events) -> None:
        super().__init__()
        self.capacity = capacity
        self.held = dict.fromkeys(ports, 0)
        self.refused = dict.fromkeys(ports, 0)
        self.events = events
        for segment in segments:
            for port in ports.values():
                for address in {network.network_address.packed for network in port.ips}:
                    if owner(ports.values(), segment, address) is port:
                        self[segment, address] = Neighbour(port.number, next(iter(port.macs)))

    def find(self, segment: int, address: bytes, now: int) -> Neighbour | None:
        """Who has it now."""
        found = self.get((segment, address))
        return found if found and (not found.expires or found.expires > now) else None

    def lease(self, key: tuple[int, bytes], port: int, mac: int, expires: int) -> bool:
        """Make a lease or renew it; False: there is no room."""
        old = self.get(key)
        if old and not old.leased:
            return True
        if old and old.port != port:
            self._remove(key)
        if key not in self:
            if self.held[port] >= MOST_LEASES or len(self) >= self.capacity:
                return False
            self.held[port] += 1
        self[key] = Neighbour(port, mac, True, expires)
        return True

    def end(self, key: tuple[int, bytes], port: int, mac: int) -> None:
        """The holder, and nobody else, has it no more."""
        old = self.get(key)
        if old and old.leased and (old.port, old.mac) == (port, mac):
            self._remove(key)

    def refuse(self, segment: int, server: int, port: int, mac: int, now: int) -> None:
        """Count it, and tell at powers of two."""
        count = self.refused[port]
        if count & (count + 1) == 0:
            self.events.tell(("lease_refused", server, port, segment, mac), now)
        self.refused[port] += 1

    def _remove(self, key: tuple[int, bytes]) -> None:
        self.held[self.pop(key).port] -= 1


def is_dhcp(octets: bytes, kind: int, l3: int, port: Port) -> bool:
    """Whether a frame is a DHCP message of somebody who may say something of leases."""
    return _find(octets, kind, l3, port) is not None


def hear(octets: bytes, ethernet: Ethernet, port: Port) -> Says:
    """What it says. Behind a second tag, and if anything is cut off, nothing."""
    nothing = Says(())
    try:
        found = _find(octets, ethernet.kind, ethernet.payload, port)
        if found is None:
            return nothing
        message, reply = found
        if ethernet.kind == IPV4:
            return _dhcpv4(message, reply) or nothing
        return _dhcpv6(message, reply, ethernet.destination) or nothing
    except Malformed:
        return nothing


def _find(octets: bytes, kind: int, l3: int, port: Port) -> tuple[bytes, bool] | None:
    """The message, up to the end of its packet, and whether it is a server's."""
    try:
        if kind == IPV4:
            packet, server, client = headers.ipv4(octets, l3), DHCP_SERVER, DHCP_CLIENT
            begin, end, fragment = packet.payload, packet.end, packet.fragment
            protocol = packet.protocol
        elif kind == IPV6:
            head, server, client = read(octets, l3, 40), DHCPV6_SERVER, DHCPV6_CLIENT
            begin, end, fragment, protocol = l3 + 40, l3 + 40 + number(head, 4), False, head[6]
        else:
            return None
        source, destination = (number(read(octets, begin, 8), at) for at in (0, 2))
    except Malformed:
        return None
    if protocol != UDP or fragment or end > len(octets):
        return None
    if (source, destination) == (server, client):
        return (octets[begin + 8 : end], True) if port.uplink or port.trusted else None
    return (octets[begin + 8 : end], False) if destination == server and port.snooped else None


def _dhcpv4(message: bytes, reply: bool) -> Says | None:
    if read(message, 236, 4) != COOKIE:
        return None
    options = _options(message)
    kind = options.get(TYPE, b"\0")[0]
    if not reply:
        about = {RELEASE: message[12:16], DECLINE: options.get(REQUESTED, bytes(4))}.get(kind, bytes(4))
        return Says(((about, 0),)) if any(about) else None
    ethernet = message[:3] == bytes([2, 1, 6])  # BOOTREPLY; hardware, and length of its addresses
    if kind != ACK or not ethernet or not any(message[16:20]):
        return None
    seconds = int.from_bytes(options.get(LEASE_TIME, FOR_EVER.to_bytes(4, "big")), "big")
    return Says(((message[16:20], seconds),), number(message, 28, 6))


def _options(message: bytes) -> dict[int, bytes]:
    """The last of each code, up to the end option."""
    found: dict[int, bytes] = {}
    at = 240
    for _ in range(MOST_DHCP_OPTIONS):
        code = number(message, at, 1)
        if code == END:
            return found
        at += 1
        if code == PAD:
            continue
        value = read(message, at + 1, number(message, at, 1))
        if code == OVERLOAD or len(value) != {TYPE: 1, LEASE_TIME: 4, REQUESTED: 4}.get(code, len(value)):
            raise Malformed
        found[code] = value
        at += 1 + len(value)
    raise Malformed


def _dhcpv6(message: bytes, reply: bool, destination: int) -> Says | None:
    kind = number(message, 0, 1)
    if kind not in ((REPLY,) if reply else (RELEASE_6, DECLINE_6)):
        return None
    about: list[tuple[bytes, int]] = []
    at = 4
    for _ in range(MOST_DHCP_OPTIONS):
        if at >= len(message):
            break
        code, length = number(message, at), number(message, at + 2)
        at += 4
        if code == IAADDR:
            if length < 24 or len(about) == MOST_IAADDRS:
                raise Malformed
            content = read(message, at, 24)
            about.append((content[:16], number(content, 20, 4) if reply else 0))
        at += {IA_NA: 12, IA_TA: 4}.get(code, length)  # into an IA, over anything else
    if at != len(message):
        raise Malformed
    return Says(tuple(about), destination if reply else None)


FindHolder = Callable[[int], Port | None]


def follow(
    neighbours: Neighbours, says: Says, sender: Port, source: int, segment: int, now: int, find: FindHolder
) -> None:
    """Do as a message says. find: the port of a MAC, if it is held to its leases."""
    mac, port = (says.holder, find(says.holder)) if says.holder is not None else (source, sender)
    if port is None:
        return
    for address, seconds in says.about:
        key = segment, address
        expires = 0 if seconds == FOR_EVER else now + seconds * 10**9
        if not seconds:
            neighbours.end(key, port.number, mac)
        elif not neighbours.lease(key, port.number, mac, expires):
            neighbours.refuse(segment, sender.number, port.number, source, now)
