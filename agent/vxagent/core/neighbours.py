"""Who has which address, as the ports that list addresses say: what the switch answers ARP and ND from.

Whom an answer names depends on all ports of the segment. An address in a segment therefore owns its row, if there
is one, like an object: it is the owner ("neighbour", "SEGMENT/ADDRESS").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from ipaddress import IPv6Network, ip_address

from vxagent.model.port import Enforce, Mode, Port

_ROUTERS = IPv6Network("fe80::/10")

Claim = tuple[str, str]
"""(segment, address)."""


def claims_of(port: Port) -> Iterator[Claim]:
    """Every single address that the port lists, where it is. A prefix does not say which of its addresses are used."""
    for address in port.ips:
        if "/" not in address:
            for segment, _ in port.memberships:
                yield segment, address


class Neighbours:
    """Which port an answer names. Nothing is computed before it is asked for.

    Args:
        ports: all of the switch.
    """

    def __init__(self, ports: Iterable[Port]) -> None:
        self._ports = ports

    def named(self, segment: str, address: str) -> Port | None:
        """The port that is named for an address: the only one that lists it.

        Of an address that several ports list, such as that of a service, only they know who has it now.
        """
        return self._named.get((segment, address))

    def has_leases(self, segment: str) -> bool:
        """Whether the data plane may add rows of this segment: a port in it is held to its leases."""
        return segment in self._leasing

    def has_any(self, segment: str) -> bool:
        """Whether there are, or the data plane may add, rows of this segment."""
        return segment in self._segments or segment in self._leasing

    @cached_property
    def _named(self) -> dict[Claim, Port]:
        found: dict[Claim, Port | None] = {}
        for port in self._ports:
            for claim in claims_of(port):
                found[claim] = port if claim not in found and _can_be_named(port, claim[1]) else None
        return {claim: port for claim, port in found.items() if port is not None}

    @cached_property
    def _segments(self) -> frozenset[str]:
        return frozenset(segment for segment, _ in self._named)

    @cached_property
    def _leasing(self) -> frozenset[str]:
        return frozenset(segment for port in self._ports if port.dhcp_snoop for segment, _ in port.memberships)


def _can_be_named(port: Port, address: str) -> bool:
    """Whether the port says by which MAC, and in which one segment, its VM has the address.

    That of an IPv6 router is its own to say: it has to add that it is one, or hosts use it no longer (RFC 4861,
    7.3.3). Routers go by link-local addresses, and are on trusted ports. What a port in shadow lists is on trial.
    """
    if port.mode is Mode.TRUNK or len(port.macs) != 1 or port.enforce is Enforce.SHADOW:
        return False
    return not (port.trusted and ip_address(address) in _ROUTERS)
