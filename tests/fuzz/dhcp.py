"""DHCP messages that say something of leases, or nearly do."""

from __future__ import annotations

from random import Random

from support import dhcp
from support.dhcp import (
    ACK,
    DECLINE_6,
    DISCOVER,
    FOR_EVER,
    NAK,
    OFFER,
    RELEASE_6,
    REPLY,
    dhcpv6,
    from_client_6,
    ia_na,
    ia_ta,
    iaaddr,
)
from support.frames import BROADCAST, L3, ipv4, ipv6

SECONDS = (None, 0, 1, 5, 300, FOR_EVER)
SERVERS = "ff02::1:2"
TO_SERVERS = bytes.fromhex("333300010002")


def address_of(place: int, version: int, rng: Random) -> str:
    """One of a few that servers lease to the VM of a place, or one of many."""
    number = rng.randrange(1, 4) if rng.random() < 0.3 else rng.randrange(0x100, 0x200)
    return f"10.9.{place}.{number & 0xFF}" if version == 4 else f"2001:db8:9::{place}:{number:x}"


def draw(rng: Random, place: int, source: str, client: int, mac: bytes, *, serves: bool) -> tuple[L3, str, bytes]:
    """L3, what it is, and the MAC that it goes to.

    Args:
        place, source: of the sender, its number and an IPv4 address.
        client, mac: to whom a server leases.
        serves: it is a server, and mostly acts like one.
    """
    asks = rng.random() < (0.1 if serves else 0.8)
    if rng.random() < 0.5:
        return _client_v4(rng, place, source, mac) if asks else _server_v4(rng, source, client, mac)
    return _client_v6(rng, place) if asks else _server_v6(rng, client, mac)


def _client_v4(rng: Random, place: int, source: str, mac: bytes) -> tuple[L3, str, bytes]:
    if rng.random() < 0.6:
        message = dhcp.dhcp(DISCOVER, mac, operation=1, ports=(68, 67))
        return ipv4(message, source="0.0.0.0", destination="255.255.255.255"), "dhcp discover", BROADCAST
    given_back = rng.choice((dhcp.release, dhcp.decline))(mac, address_of(place, 4, rng))
    return ipv4(given_back, source=source, destination="10.0.0.1"), "dhcp release", BROADCAST


def _client_v6(rng: Random, place: int) -> tuple[L3, str, bytes]:
    held = ia_na(*(iaaddr(address_of(place, 6, rng), 0) for _ in range(rng.choice((1, 1, 2)))))
    message = from_client_6(rng.choice((RELEASE_6, DECLINE_6)), held)
    return ipv6(message, source="fe80::1", destination=SERVERS), "dhcpv6 release", TO_SERVERS


def _server_v4(rng: Random, source: str, client: int, mac: bytes) -> tuple[L3, str, bytes]:
    pads = bytes(rng.choice((0, 0, 0, 58, 61, 62, 70)))
    message = dhcp.dhcp(
        rng.choice((ACK,) * 8 + (OFFER, NAK)),
        mac,
        yours=address_of(client, 4, rng) if rng.random() < 0.95 else "0.0.0.0",
        seconds=rng.choice(SECONDS),
        operation=rng.choice((2,) * 15 + (1,)),
        hardware=rng.choice(((1, 6),) * 15 + ((6, 6), (1, 8))),
        before=rng.choice((b"",) * 8 + (dhcp.option(52, b"\1"), dhcp.option(51, b"\1"), dhcp.option(53, b""))),
        after=pads,
        end=rng.choice((b"\xff",) * 9 + (b"",)),
    )
    return ipv4(message, source=source, destination="255.255.255.255"), "dhcp ack", rng.choice((BROADCAST, mac))


def _server_v6(rng: Random, client: int, mac: bytes) -> tuple[L3, str, bytes]:
    valid = rng.choice((0, 5, 300, 300, 3_600, FOR_EVER))
    inside = [iaaddr(address_of(client, 6, rng), valid) for _ in range(rng.choice((0, 1, 1, 2, 8, 8, 8, 9)))]
    option = rng.choice((ia_na, ia_na, ia_na, ia_na, ia_ta, dhcp.ia_pd))(*inside)
    more = rng.choice(((),) * 12 + ((dhcp.option_6(13, bytes(2)),), (dhcp.option_6(5, bytes(8)),), (bytes(3),)))
    message = dhcpv6(rng.choice((REPLY,) * 8 + (dhcp.ADVERTISE,)), option, *more)
    return ipv6(message, source="fe80::9", destination="fe80::1"), "dhcpv6 reply", mac
