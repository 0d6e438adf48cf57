"""A row that is written to the kernel and read back is the same row."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vxagent.core.tables import (
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
    address_key,
    address_rows,
    fdb_key,
    neighbour_key,
)
from vxagent.datapath import abi, codec, maps

u16, u32, u64 = (st.integers(0, (1 << bits) - 1) for bits in (16, 32, 64))


def _flags(kind: type[PortFlag] | type[SegmentFlag] | type[FdbFlag]) -> st.SearchStrategy[int]:
    return st.lists(st.sampled_from(list(kind))).map(lambda some: kind(sum(set(some))))


octets = st.binary(min_size=16, max_size=16)
vteps = st.builds(VtepRow, port=u16, family=u16, octets=octets)
memberships = st.builds(MembershipRow, port=u16, segment=u16, vid=u16, slot=u16, counter=u32)
ROWS: dict[Table, st.SearchStrategy[Row]] = {
    Table.SETTINGS: st.builds(SettingsRow, ageing_ns=u64),
    Table.SEGMENTS: st.builds(
        SegmentRow, handle=u16, slots=u16, mtu=u16, flags=_flags(SegmentFlag), vni=u32, vlan=u16, vteps=u16
    ),
    Table.LIMITS: st.builds(
        LimitsRow,
        in_bits=u64,
        in_packets=u64,
        out_bits=u64,
        out_packets=u64,
        broadcast=u64,
        multicast=u64,
        unknown=u64,
        learn=u64,
    ),
    Table.PORTS: st.builds(
        PortRow,
        ifindex=u32,
        flags=_flags(PortFlag),
        state=st.sampled_from(PortMode),
        handle=u16,
        segment=u16,
        counter=u32,
        counter_none=u32,
        max_macs=u32,
    ),
    Table.FIRST: st.builds(FirstRow, ipv4=st.binary(min_size=4, max_size=4), ipv6=octets),
    Table.ADDRESSES: st.builds(AddressRow, port=u16),
    Table.PREFIXES: st.builds(AddressRow, port=u16),
    Table.DEVICES: st.builds(DeviceRow, ifindex=u32, port=u16),
    Table.VIDS: memberships,
    Table.MEMBERS: memberships,
    Table.SLOTS: memberships,
    Table.VTEPS: vteps,
    Table.TUNNELS: vteps,
    Table.VNIS: st.builds(VniRow, vni=u32, segment=u16),
    Table.OVERLAY: st.builds(OverlayRow, ifindex=u32, port=u16, family=u16, octets=octets, ttl=u32),
    Table.FDB: st.builds(FdbRow, port=u16, segment=u16, origin=st.sampled_from(Origin), flags=_flags(FdbFlag), via=u16),
    Table.NEIGHBOURS: st.builds(
        NeighbourRow,
        port=u16,
        segment=u16,
        family=u16,
        origin=st.sampled_from(NeighbourOrigin),
        octets=octets,
        mac=u64,
    ),
}
rows = st.sampled_from(Table).flatmap(lambda table: st.tuples(st.just(table), ROWS[table]))


@given(rows)
def test_a_row_survives_the_way_there_and_back(row: tuple[Table, Row]) -> None:
    table, value = row
    assert codec.decode(table, codec.encode(table, value)) == value


@given(st.sampled_from(Table), u32)
def test_a_key_survives_the_way_there_and_back(table: Table, key: int) -> None:
    assert codec.decode_key(table, codec.encode_key(table, key)) == key


@given(u16, st.integers(0, (1 << 48) - 1))
def test_an_fdb_key_takes_a_segment_and_a_mac(segment: int, mac: int) -> None:
    key = fdb_key(segment, mac)
    assert codec.decode_key(Table.FDB, codec.encode_key(Table.FDB, key)) == key


@st.composite
def networks(draw: st.DrawFn) -> IPv4Network | IPv6Network:
    address = draw(st.ip_addresses())
    return ip_network((address, draw(st.integers(0, address.max_prefixlen))), strict=False)


@given(u16, networks())
def test_keys_of_addresses_survive_as_well(port: int, network: IPv4Network | IPv6Network) -> None:
    table, key = address_key(port, network)
    assert codec.decode_key(table, codec.encode_key(table, key)) == key


@pytest.mark.parametrize(
    ("network", "table", "bits"),
    [
        ("10.1.0.0/16", Table.PREFIXES, 32 + 16),
        ("10.1.0.0", Table.ADDRESSES, 32 + 128),
        ("a01::/16", Table.PREFIXES, 32 + 16),
        ("a01::", Table.ADDRESSES, 32 + 128),
    ],
)
def test_an_address_in_a_key_is_as_on_the_wire(network: str, table: Table, bits: int) -> None:
    found, number = address_key(0x0102, ip_network(network))
    key = codec.encode_key(found, number)
    assert found is table
    assert key[:8] == struct.pack("=IHH", bits, 0x0102, 6 if ":" in network else 4)
    assert key[8:] == bytes([10, 1]).ljust(16, b"\0")


@pytest.mark.parametrize(
    ("networks", "first"),
    [
        (
            ["10.0.0.2", "10.0.0.1", "fd00::2", "fd00::1"],
            FirstRow(ipv4=bytes([10, 0, 0, 2]), ipv6=b"\xfd" + bytes(14) + b"\2"),
        ),
        (["10.0.0.0/8", "10.0.0.1"], FirstRow(ipv4=bytes([10, 0, 0, 1]))),
        (["10.0.0.0/8", "fd00::/64"], None),
        ([], None),
    ],
)
def test_a_port_has_a_first_address_of_each_family(networks: list[str], first: FirstRow | None) -> None:
    """It is one that is listed itself, not a prefix's."""
    rows = address_rows(7, [ip_network(n) for n in networks])
    assert rows.get((Table.FIRST, 7)) == first
    assert len(rows) == len(networks) + (first is not None)


@given(u16, st.ip_addresses())
def test_a_key_of_neighbours_has_the_address_as_on_the_wire(segment: int, address: IPv4Address | IPv6Address) -> None:
    number = neighbour_key(segment, address)
    key = codec.encode_key(Table.NEIGHBOURS, number)
    assert codec.decode_key(Table.NEIGHBOURS, key) == number
    assert key == struct.pack("=HHI", segment, address.version, 0) + address.packed.ljust(16, b"\0")


@pytest.mark.parametrize("origin", NeighbourOrigin)
def test_a_lease_is_told_from_what_ports_list(origin: NeighbourOrigin) -> None:
    row = NeighbourRow(port=1, segment=1, family=4, origin=origin, octets=bytes(16), mac=1)
    assert codec.is_leased(codec.encode(Table.NEIGHBOURS, row)) == (origin is NeighbourOrigin.LEASED)


@pytest.mark.parametrize("table", Table)
def test_keys_and_rows_are_as_long_as_the_map_wants(table: Table) -> None:
    spec = maps.declare(maps.DEFAULT_SIZES)[table]
    assert len(codec.encode_key(table, 1)) == spec.key_size
    assert len(codec.empty(table)) == spec.value_size


def test_a_row_of_another_table_is_refused() -> None:
    with pytest.raises(TypeError, match="DeviceRow is no row of ports"):
        codec.encode(Table.PORTS, DeviceRow(ifindex=1, port=1))


def test_a_static_entry_looks_as_abi_h_says() -> None:
    row = FdbRow(port=0x0102, segment=0x0304, origin=Origin.CLUSTER, flags=FdbFlag.LISTED)
    assert abi.FDB_ENTRY.unpack(codec.encode(Table.FDB, row)) == {
        "port": 0x0102,
        "via": 0,
        "segment": 0x0304,
        "origin": 2,
        "flags": 1,
        "seen_ns": 0,
    }
