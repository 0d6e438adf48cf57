"""Rows of `core.tables` as the bytes that the kernel's maps hold, and back.

A row's fields have the names of the C struct's members. Members that no row has (`reserved`, `seen_ns`,
`expires_ns`) are 0 in what is written and left out of what is read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from vxagent.core.tables import (
    ADDRESS_BITS,
    PORT_BITS,
    AddressRow,
    DeviceRow,
    FdbFlag,
    FdbRow,
    FirstRow,
    LimitsRow,
    MembershipRow,
    NeighbourOrigin,
    NeighbourRow,
    Origin,
    OverlayRow,
    PortFlag,
    PortMode,
    PortRow,
    Row,
    SegmentFlag,
    SegmentRow,
    SettingsRow,
    Table,
    VniRow,
    VtepRow,
)
from vxagent.datapath import abi

U32 = struct.Struct("=I")
U64 = struct.Struct("=Q")


class _Key(Protocol):
    """How an integer becomes a key's bytes. `struct.Struct` is one, where the key is one number."""

    def pack(self, key: int, /) -> bytes: ...

    def unpack(self, data: bytes | memoryview, /) -> tuple[int]: ...


class _AddressKey:
    """Keys of `addresses` and `prefixes`: numbers in the machine's byte order, then the address as on the wire."""

    def pack(self, key: int, /) -> bytes:
        words = [key >> shift & 0xFFFFFFFF for shift in (PORT_BITS + ADDRESS_BITS, ADDRESS_BITS)]
        octets = (key & (1 << ADDRESS_BITS) - 1).to_bytes(ADDRESS_BITS // 8, "big")
        return abi.ADDRESS_KEY.struct.pack(words[0], words[1] >> 16, words[1] & 0xFFFF, octets)

    def unpack(self, data: bytes | memoryview, /) -> tuple[int]:
        bits, port, family, octets = abi.ADDRESS_KEY.struct.unpack(data)
        return ((bits << PORT_BITS | port << 16 | family) << ADDRESS_BITS | int.from_bytes(octets, "big"),)


class _NeighbourKey:
    """Keys of `neighbours`, likewise."""

    def pack(self, key: int, /) -> bytes:
        octets = (key & (1 << ADDRESS_BITS) - 1).to_bytes(ADDRESS_BITS // 8, "big")
        return abi.NEIGHBOUR_KEY.struct.pack(key >> ADDRESS_BITS + 16, key >> ADDRESS_BITS & 0xFFFF, 0, octets)

    def unpack(self, data: bytes | memoryview, /) -> tuple[int]:
        segment, family, _, octets = abi.NEIGHBOUR_KEY.struct.unpack(data)
        return ((segment << 16 | family) << ADDRESS_BITS | int.from_bytes(octets, "big"),)


class _TunnelKey:
    """Keys of `tunnels`."""

    def pack(self, key: int, /) -> bytes:
        return key.to_bytes(ADDRESS_BITS // 8, "big")

    def unpack(self, data: bytes | memoryview, /) -> tuple[int]:
        return (int.from_bytes(data, "big"),)


@dataclass(frozen=True, slots=True)
class _Codec:
    """How one table's rows are packed.

    Attributes:
        layout: the value's struct.
        row: the row's class.
        convert: field → what makes it of the struct's member, where that is not a number.
        key: the key's integer.
    """

    layout: abi.Layout
    row: type[Row]
    convert: dict[str, Callable[[Any], int | bytes]] = field(default_factory=dict)
    key: _Key = U32

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f.name for f in fields(self.row))


_MEMBERSHIP = _Codec(abi.MEMBERSHIP, MembershipRow)
_OCTETS: dict[str, Callable[[Any], int | bytes]] = {"octets": bytes}
_CODECS = {
    Table.SETTINGS: _Codec(abi.SETTINGS, SettingsRow),
    Table.FIRST: _Codec(abi.FIRST, FirstRow, {"ipv4": bytes, "ipv6": bytes}),
    Table.ADDRESSES: _Codec(abi.ADDRESS, AddressRow, key=_AddressKey()),
    Table.PREFIXES: _Codec(abi.ADDRESS, AddressRow, key=_AddressKey()),
    Table.SEGMENTS: _Codec(abi.SEGMENT, SegmentRow, {"flags": SegmentFlag}),
    Table.LIMITS: _Codec(abi.LIMITS, LimitsRow),
    Table.PORTS: _Codec(abi.PORT, PortRow, {"flags": PortFlag, "state": PortMode}),
    Table.DEVICES: _Codec(abi.DEVICE, DeviceRow),
    Table.VIDS: _MEMBERSHIP,
    Table.MEMBERS: _MEMBERSHIP,
    Table.SLOTS: _MEMBERSHIP,
    Table.OVERLAY: _Codec(abi.OVERLAY, OverlayRow, _OCTETS),
    Table.VTEPS: _Codec(abi.VTEP, VtepRow, _OCTETS),
    Table.TUNNELS: _Codec(abi.VTEP, VtepRow, _OCTETS, _TunnelKey()),
    Table.VNIS: _Codec(abi.VNI, VniRow),
    Table.FDB: _Codec(abi.FDB_ENTRY, FdbRow, {"origin": Origin, "flags": FdbFlag}, U64),
    Table.NEIGHBOURS: _Codec(
        abi.NEIGHBOUR, NeighbourRow, {"origin": NeighbourOrigin, "octets": bytes}, key=_NeighbourKey()
    ),
}


def encode_key(table: Table, key: int) -> bytes:
    """The key's bytes."""
    return _CODECS[table].key.pack(key)


def decode_key(table: Table, data: bytes | memoryview) -> int:
    """The key's integer."""
    (key,) = _CODECS[table].key.unpack(data)
    return int(key)


def encode(table: Table, row: Row) -> bytes:
    """The row's bytes.

    Raises:
        TypeError: it is no row of that table.
    """
    codec = _CODECS[table]
    if not isinstance(row, codec.row):
        raise TypeError(f"{type(row).__name__} is no row of {table}")
    return codec.layout.pack(**{name: getattr(row, name) for name in codec.names})


def decode(table: Table, data: bytes | memoryview) -> Row:
    """The row that the bytes hold.

    Raises:
        ValueError: a member has a value that its enum has not.
    """
    codec = _CODECS[table]
    members = codec.layout.unpack(data)
    make: Callable[..., Row] = codec.row
    return make(**{name: codec.convert.get(name, int)(members[name]) for name in codec.names})


def is_leased(data: bytes | memoryview) -> bool:
    """Whether these are the bytes of a row of `neighbours` that the data plane wrote, not the agent."""
    return bool(abi.NEIGHBOUR.unpack(data)["origin"] == NeighbourOrigin.LEASED)


def empty(table: Table) -> bytes:
    """What an array holds where it has no row."""
    return bytes(_CODECS[table].layout.size)
