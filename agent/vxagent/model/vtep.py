"""VTEPs: the addresses at which hosts end VXLAN tunnels, this host's own and those of others."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache

from vxagent.errors import Invalid
from vxagent.model.ids import VNI_MAX, VNI_MIN, check_ifname, check_range, check_unique

DEFAULT_TTL = 64
TTL_MIN, TTL_MAX = 1, 255

_OVERHEAD = {4: 50, 6: 70}
"""Family → bytes of the underlay's MTU that VXLAN takes: the outer IP header (20 or 40), UDP (8), VXLAN (8) and the
inner Ethernet header (14), RFC 7348, section 5."""

_LIMITED_BROADCAST = ipaddress.ip_address("255.255.255.255")  # RFC 919, section 7


def check_vtep(field: str, value: str) -> str:
    """Return the address of a VTEP in its canonical form.

    Raises:
        Invalid: it is none, or one that no host can have on a network.
    """
    try:
        address = ipaddress.ip_address(value)
    except ValueError as exc:
        raise Invalid(field, value, "must be an IPv4 or IPv6 address such as 192.0.2.11") from exc
    if "%" in value:  # RFC 4007, section 11
        raise Invalid(field, value, "an address on the wire has no zone; leave out the % and what follows")
    if address.is_multicast or address.is_unspecified or address == _LIMITED_BROADCAST:
        raise Invalid(field, value, "must be a unicast address")
    if address.is_loopback:
        raise Invalid(field, value, "a loopback address is no other host's")
    if isinstance(address, ipaddress.IPv6Address) and (address.is_link_local or address.ipv4_mapped is not None):
        raise Invalid(field, value, "must be an address that can be routed: no link-local or IPv4-mapped one")
    return str(address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """This host's part in the overlay.

    Attributes:
        vtep: its own tunnel address.
        device: the underlay device, on which VXLAN comes in and goes out.
        ttl: TTL or hop limit of what is sent.

    Raises:
        Invalid: a value that can never be right.
    """

    vtep: str
    device: str
    ttl: int = DEFAULT_TTL

    def __post_init__(self) -> None:
        object.__setattr__(self, "vtep", check_vtep("vtep", self.vtep))
        check_ifname("device", self.device)
        if self.device == "lo":
            raise Invalid("device", "lo", "lo is the host's own; name the NIC that other hosts are reached by")
        check_range("ttl", self.ttl, TTL_MIN, TTL_MAX)

    @property
    def family(self) -> int:
        """4 or 6."""
        return family(self.vtep)

    @property
    def overhead(self) -> int:
        """Bytes of the underlay's MTU that a tunnel takes."""
        return _OVERHEAD[self.family]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vtep:
    """The VTEP of another host, as it was stated.

    Attributes:
        address: where its tunnels end.
        vnis: the VNIs that its host has, ascending; none: it is known, and no segment of this host reaches it.
        applied: made by `apply`.

    Raises:
        Invalid: a value that can never be right.
    """

    address: str
    vnis: tuple[int, ...] = ()
    applied: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "address", check_vtep("address", self.address))
        for vni in self.vnis:
            check_range("vni", vni, VNI_MIN, VNI_MAX)
        check_unique("vni", tuple(map(str, self.vnis)))
        object.__setattr__(self, "vnis", tuple(sorted(self.vnis)))

    @property
    def family(self) -> int:
        """4 or 6."""
        return family(self.address)


def family(address: str) -> int:
    """4 or 6, of an address in its canonical form."""
    return 6 if ":" in address else 4


@lru_cache(maxsize=8192)
def number(address: str) -> int:
    """An address as a number, by which those of one family are ordered."""
    return int(ipaddress.ip_address(address))
