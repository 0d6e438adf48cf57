"""Names, numbers and addresses as people write them, checked once where they come in."""

from __future__ import annotations

import ipaddress
import re

from vxagent.errors import Invalid

VID_MIN, VID_MAX = 1, 4094  # IEEE 802.1Q-2018, table 9-2: 0 and 4095 are reserved
VNI_MIN, VNI_MAX = 1, (1 << 24) - 1  # RFC 7348, section 5: 24 bits
VLAN_VNIS = 0xFFF000  # in a cluster: the VNI of frames that follow a VM in the segment with VID n is this plus n
MTU_MIN, MTU_MAX = 576, 65535
IFNAMSIZ = 16  # <linux/if.h>, the closing NUL included
MAX_MEMBERS = 2112  # flood slots of a segment, VX_MAX_MEMBERS
MAX_VTEPS = 512  # VTEPs of a segment, VX_MAX_VTEPS
MAX_LEAVING = 64  # ports of a segment whose VMs leave at the same moment, VX_MAX_LEAVING
MAX_PORTS = 8192  # entries of the map ports, handle 0 included; uplinks and VTEPs count
MAX_SEGMENTS = 8192  # entries of the map segments, handle 0 included
MAX_COUNTERS = 16384  # entries of the map traffic
FDB_ENTRIES = 131072  # that the FDB has room for, unless the config says otherwise
LEARN_RATE_UPLINK = 10_000  # MACs a second: a full FDB of 131,072 is back 13 s after a flush, at 1 % of a CPU

_LIMITED_BROADCAST = ipaddress.ip_network("255.255.255.255")  # RFC 919, section 7

_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = re.compile(rf"(?!0\.0\.0\.0$|255\.255\.255\.255$|2(?:2[4-9]|3\d)\.){_OCTET}(?:\.{_OCTET}){{3}}", re.ASCII)
"""A unicast IPv4 address in its canonical form: most of those that there are, in a thirtieth of the time."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,62}")
_MAC = re.compile(r"[0-9A-Fa-f]{2}(?:([:-]))[0-9A-Fa-f]{2}(?:\1[0-9A-Fa-f]{2}){4}")


def check_name(field: str, value: str) -> str:
    """Return `value` if it is a name: 1 to 63 letters, digits and ``. _ : @ -``.

    Raises:
        Invalid: it is not.
    """
    if not _NAME.fullmatch(value):
        raise Invalid(field, value, "a name has 1 to 63 letters, digits or . _ : @ - and starts with a letter or digit")
    return value


def check_ifname(field: str, value: str) -> str:
    """Return `value` if the kernel takes it as a device name (dev_valid_name in net/core/dev.c).

    Raises:
        Invalid: it does not.
    """
    if not value or len(value.encode()) >= IFNAMSIZ:
        raise Invalid(field, value, f"a device name has 1 to {IFNAMSIZ - 1} bytes")
    if value in (".", "..") or any(c in "/:" or c.isspace() or not c.isprintable() for c in value):
        raise Invalid(field, value, "a device name has no blanks, slashes or colons")
    return value


def check_range(field: str, value: int, low: int, high: int) -> int:
    """Return `value` if low ≤ value ≤ high.

    Raises:
        Invalid: it is outside, or a bool.
    """
    if isinstance(value, bool) or not low <= value <= high:
        raise Invalid(field, value, f"must be {low} to {high}")
    return value


def check_mac(field: str, value: str) -> str:
    """Return a unicast MAC in lower case with colons.

    Raises:
        Invalid: not six octets, multicast (IEEE 802, I/G bit) or all zero.
    """
    if not _MAC.fullmatch(value):
        raise Invalid(field, value, "a MAC has six octets such as 02:00:00:00:00:01")
    mac = value.lower().replace("-", ":")
    if int(mac[:2], 16) & 1:
        raise Invalid(field, value, "a multicast MAC cannot belong to one port")
    if mac == "00:00:00:00:00:00":
        raise Invalid(field, value, "the zero MAC belongs to nobody")
    return mac


def mac_to_int(mac: str) -> int:
    """The MAC as a number, first octet highest, as fdb keys hold it."""
    return int(mac.replace(":", ""), 16)


def int_to_mac(number: int) -> str:
    """The lower 48 bits of `number` as a MAC in lower case with colons."""
    return (number & 0xFFFFFFFFFFFF).to_bytes(6, "big").hex(":")


def check_ip(field: str, value: str) -> str:
    """Return an IPv4 or IPv6 unicast address, or a prefix of such, in its canonical form.

    Raises:
        Invalid: it does not parse, or is multicast, unspecified or the limited broadcast address.
    """
    if _IPV4.fullmatch(value):
        return value
    try:
        network = ipaddress.ip_network(value, strict="/" in value)
    except ValueError as exc:
        raise Invalid(field, value, "must be an IPv4 or IPv6 address or prefix without host bits") from exc
    if "%" in value:  # RFC 4007, section 11: a zone is a word of one host's, no part of the address on the wire
        raise Invalid(field, value, "an address on the wire has no zone; leave out the % and what follows")
    if network.is_multicast or network.is_unspecified or network == _LIMITED_BROADCAST:
        raise Invalid(field, value, "must be a unicast address")
    alone = network.prefixlen == network.max_prefixlen
    return str(network.network_address) if alone else str(network)


def check_unique(field: str, values: tuple[str, ...]) -> tuple[str, ...]:
    """Return `values` if none stands there twice.

    Raises:
        Invalid: one does.
    """
    for value in values:
        if values.count(value) > 1:
            raise Invalid(field, value, "is given twice")
    return values
