"""Rows of the kernel's tables as plain values; bpf/abi.h says what each means.

A key is one integer, built and taken apart by the functions here; a row is a frozen dataclass. The
data path's codec turns both into bytes. `learned` FDB entries and `leased` neighbours are the data plane's and no
rows here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag, StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

PORT_BITS = 32  # of a port and an address family in keys of `addresses` and `prefixes`
ADDRESS_BITS = 128
ALL_BITS = PORT_BITS + ADDRESS_BITS
VTEP_SLOT = 0x8000  # where the slots of VTEPs begin
LEAVING_SLOT = 0xA000  # of ports whose VMs leave
AWAITING_SLOT = 0xC000  # of ports that await theirs, | token
TOKEN_BITS = 14


class Table(StrEnum):
    """The tables whose rows the agent decides. In this order rows are put, in reverse deleted:
    what is looked up last is there first."""

    SETTINGS = "settings"
    SEGMENTS = "segments"
    LIMITS = "limits"
    FIRST = "first"
    ADDRESSES = "addresses"
    PREFIXES = "prefixes"
    VTEPS = "vteps"
    PORTS = "ports"
    MEMBERS = "members"
    VIDS = "vids"
    FDB = "fdb"
    NEIGHBOURS = "neighbours"
    VNIS = "vnis"
    TUNNELS = "tunnels"
    OVERLAY = "overlay"
    DEVICES = "devices"
    SLOTS = "slots"


RANK = {table: rank for rank, table in enumerate(Table)}


class PortFlag(IntFlag):
    """vx_port.flags."""

    UPLINK = 1
    TRUNK = 2
    ISOLATED = 4
    TRUSTED = 8
    MAC_LOCKED = 16
    PEER = 32
    INTERNAL = 64
    LIMITED_IN = 128
    LIMITED_OUT = 256
    IP_LOCKED = 512
    PREFIXES = 1024
    SHADOW = 2048
    SNOOPED = 4096
    VTEP = 8192


class _Open(IntEnum):
    """Also holds numbers that have no name: a row that somebody wrote by hand can be read, and differs."""

    @classmethod
    def _missing_(cls, value: object) -> _Open | None:
        if not isinstance(value, int):
            return None
        unnamed = int.__new__(cls, value)
        unnamed._name_ = f"UNKNOWN_{value}"
        unnamed._value_ = value
        return unnamed


class PortMode(_Open):
    """vx_port.state."""

    DOWN = 0
    UP = 1
    STANDBY = 2
    HOLDING = 3
    DRAINING = 4


class SegmentFlag(IntFlag):
    """vx_segment.flags."""

    DROP_UNKNOWN = 1
    NEIGHBOURS = 2
    LEASES = 4
    GROUPS = 8
    MOVING = 16
    BY_VLAN = 32
    LEAVING = 64


class Origin(_Open):
    """vx_fdb_entry.origin."""

    STATIC = 0
    LEARNED = 1
    CLUSTER = 2


class NeighbourOrigin(_Open):
    """vx_neighbour.origin."""

    LISTED = 0
    LEASED = 1
    CLUSTER = 2


class FdbFlag(IntFlag):
    """vx_fdb_entry.flags."""

    LISTED = 1
    REDIRECT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsRow:
    """settings[0]. ageing_ns 0: entries never age."""

    ageing_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRow:
    """segments[handle]."""

    handle: int
    slots: int
    mtu: int
    flags: SegmentFlag
    vni: int
    vlan: int
    vteps: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PortRow:
    """ports[handle]."""

    ifindex: int
    flags: PortFlag
    state: PortMode
    handle: int
    segment: int
    counter: int
    counter_none: int
    max_macs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsRow:
    """limits[port handle]; 0: no limit. bits, frames and, of `learn`, MACs a second."""

    in_bits: int = 0
    in_packets: int = 0
    out_bits: int = 0
    out_packets: int = 0
    broadcast: int = 0
    multicast: int = 0
    unknown: int = 0
    learn: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRow:
    """devices[ifindex]."""

    ifindex: int
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipRow:
    """members, vids and slots: one port in one segment. vid 0: untagged.

    slot: of a VTEP from VTEP_SLOT on; besides, of a port that migrates from LEAVING_SLOT or AWAITING_SLOT on.
    via, token: of one that leaves, the VTEP by which copies for it go, and how they are marked.
    """

    port: int
    segment: int
    vid: int
    slot: int
    counter: int
    via: int = 0
    token: int = 0

    @property
    def passing(self) -> bool:
        """It is there for a migration alone, beside the one by which floods find the port."""
        return self.slot >= LEAVING_SLOT


@dataclass(frozen=True, slots=True, kw_only=True)
class FdbRow:
    """fdb: a static or cluster entry. via: of a port whose VM is on another host for now, that host's VTEP."""

    port: int
    segment: int
    origin: Origin
    flags: FdbFlag
    via: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayRow:
    """overlay[0]. octets: 16, as on the wire."""

    ifindex: int
    port: int
    family: int
    octets: bytes
    ttl: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VtepRow:
    """vteps[port handle] and tunnels[address]. octets: 16, as on the wire."""

    port: int
    family: int
    octets: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class VniRow:
    """vnis[VNI]."""

    vni: int
    segment: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressRow:
    """addresses and prefixes: the port lists what the key says."""

    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstRow:
    """first[port handle]: an address of each family that the port lists, as on the wire; zeroes: none."""

    ipv4: bytes = bytes(4)
    ipv6: bytes = bytes(16)


@dataclass(frozen=True, slots=True, kw_only=True)
class NeighbourRow:
    """neighbours: who has the address that the key says, and says here again. octets: 16, as on the wire."""

    port: int
    segment: int
    family: int
    origin: NeighbourOrigin
    octets: bytes
    mac: int


Row = (
    SettingsRow
    | SegmentRow
    | LimitsRow
    | PortRow
    | DeviceRow
    | MembershipRow
    | FdbRow
    | OverlayRow
    | VtepRow
    | VniRow
    | AddressRow
    | FirstRow
    | NeighbourRow
)
RowKey = tuple[Table, int]
Rows = dict[RowKey, Row]


def vid_key(port: int, vid: int) -> int:
    """Key of `vids`."""
    return port << 16 | vid


def member_key(port: int, segment: int) -> int:
    """Key of `members`."""
    return port << 16 | segment


def slot_key(segment: int, slot: int) -> int:
    """Key of `slots`."""
    return segment << 16 | slot


def fdb_key(segment: int, mac: int) -> int:
    """Key of `fdb`; `mac` with its first octet highest."""
    return segment << 48 | mac


def tunnel_key(address: IPv4Address | IPv6Address) -> int:
    """Key of `tunnels`: the octets of the address, from its first bit on."""
    return int(address) << ADDRESS_BITS - address.max_prefixlen


def address_octets(address: IPv4Address | IPv6Address) -> bytes:
    """16 octets, as on the wire; an IPv4 address in the first four."""
    return address.packed.ljust(ADDRESS_BITS // 8, b"\0")


def address_key(port: int, network: IPv4Network | IPv6Network) -> tuple[Table, int]:
    """Table and key of what a port lists: a single address in `addresses`, others in `prefixes`.

    From the highest: how many of the bits that follow count, port, family, the address from its first bit on.
    """
    alone = network.prefixlen == network.max_prefixlen
    count = ALL_BITS if alone else PORT_BITS + network.prefixlen
    address = int(network.network_address) << ADDRESS_BITS - network.max_prefixlen
    key = (count << PORT_BITS | port << 16 | network.version) << ADDRESS_BITS | address
    return Table.ADDRESSES if alone else Table.PREFIXES, key


def address_rows(port: int, networks: Sequence[IPv4Network | IPv6Network]) -> Rows:
    """The rows of all that a port lists."""
    rows: Rows = {address_key(port, network): AddressRow(port=port) for network in networks}
    alone = {n.version: n.network_address.packed for n in reversed(networks) if n.prefixlen == n.max_prefixlen}
    if alone:
        rows[Table.FIRST, port] = FirstRow(ipv4=alone.get(4, bytes(4)), ipv6=alone.get(6, bytes(16)))
    return rows


def neighbour_key(segment: int, address: IPv4Address | IPv6Address) -> int:
    """Key of `neighbours`. From the highest: segment, family, the address from its first bit on."""
    return (segment << 16 | address.version) << ADDRESS_BITS | int(address) << ADDRESS_BITS - address.max_prefixlen


def split_fdb_key(key: int) -> tuple[int, int]:
    """(segment, mac) of a key of `fdb`."""
    return key >> 48, key & 0xFFFFFFFFFFFF
