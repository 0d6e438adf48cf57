"""From desired objects to the rows of the kernel's tables.

Each object owns its rows: nobody else writes them. All numbers have been given before.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

from vxagent.core.neighbours import Neighbours
from vxagent.core.state import Owner, State, unusable
from vxagent.core.tables import (
    ADDRESS_BITS,
    DeviceRow,
    FdbFlag,
    FdbRow,
    LimitsRow,
    MembershipRow,
    NeighbourOrigin,
    NeighbourRow,
    Origin,
    PortFlag,
    PortMode,
    PortRow,
    Rows,
    SegmentFlag,
    SegmentRow,
    SettingsRow,
    Table,
    address_rows,
    fdb_key,
    member_key,
    neighbour_key,
    slot_key,
    vid_key,
)
from vxagent.model.device import Device
from vxagent.model.ids import LEARN_RATE_UPLINK, MAX_MACS_UPLINK, mac_to_int
from vxagent.model.port import Enforce, Mode, Port
from vxagent.model.rate import NO_RATE
from vxagent.model.segment import UnknownUnicast

NANOSECONDS = 1_000_000_000


def rows_of(state: State, neighbours: Neighbours, owner: Owner) -> Rows:  # noqa: PLR0911  # one for each kind
    """The rows that this object should have; none when it is not desired (any more).

    Args:
        neighbours: of all ports of the state.
    """
    kind, name = owner
    match kind:
        case "settings":
            return {(Table.SETTINGS, 0): SettingsRow(ageing_ns=state.ageing_s * NANOSECONDS)}
        case "segment" if name in state.segments:
            return _segment_rows(state, neighbours, name)
        case "port" if name in state.ports:
            return _port_rows(state, state.ports[name])
        case "port" if name in state.uplinks:
            return _uplink_rows(state, name)
        case "fdb":
            segment, _, mac = name.partition("/")
            return _fdb_rows(state, segment, mac)
        case "neighbour":
            segment, _, address = name.partition("/")
            return _neighbour_rows(state, neighbours, segment, address)
    return {}


def device_of(state: State, name: str) -> Device | None:
    """The device on which the program of this port or uplink should run now, or None.

    One that it runs on already stays, whatever has been done to it since, as long as it keeps its name:
    to let go of it would open the VM's way to the host.
    """
    port = state.ports.get(name)
    ifname = name if port is None else state.device_name(port)
    device = state.devices.get(ifname)
    if device is None:
        return None
    if state.attached.get(state.numbers.number("port", name)) == (device.ifindex, device.ifname):
        return device
    return None if unusable(device, uplink=port is None) else device


def _segment_rows(state: State, neighbours: Neighbours, name: str) -> Rows:
    segment = state.segments[name]
    handle = state.handle_of_segment(name)
    flags = SegmentFlag(0)
    if segment.unknown_unicast is UnknownUnicast.DROP:
        flags |= SegmentFlag.DROP_UNKNOWN
    if neighbours.has_any(name):
        flags |= SegmentFlag.NEIGHBOURS
    if neighbours.has_leases(name):
        flags |= SegmentFlag.LEASES
    if segment.multicast_snooping:
        flags |= SegmentFlag.GROUPS
    row = SegmentRow(
        handle=handle,
        slots=state.numbers.top(f"slot/{name}"),
        mtu=segment.mtu,
        flags=flags,
        vni=segment.vni or 0,
        vlan=segment.vlan or 0,
    )
    return {(Table.SEGMENTS, handle): row}


def _port_rows(state: State, port: Port) -> Rows:
    device = device_of(state, port.id)
    limits = _limits_row(port)
    flags = PortFlag(0)
    for wanted, flag in (
        (port.mode is Mode.TRUNK, PortFlag.TRUNK),
        (port.mode is Mode.INTERNAL, PortFlag.INTERNAL),
        (port.isolated, PortFlag.ISOLATED),
        (port.trusted, PortFlag.TRUSTED),
        (bool(port.macs), PortFlag.MAC_LOCKED),
        (bool(port.ips), PortFlag.IP_LOCKED),
        (any("/" in ip for ip in port.ips), PortFlag.PREFIXES),
        (device is not None and device.peer_elsewhere, PortFlag.PEER),
        (replace(limits, out_bits=0, out_packets=0, learn=0) != LimitsRow(), PortFlag.LIMITED_IN),
        (bool(limits.out_bits or limits.out_packets), PortFlag.LIMITED_OUT),
        (port.enforce is Enforce.SHADOW, PortFlag.SHADOW),
        (port.dhcp_snoop, PortFlag.SNOOPED),
    ):
        if wanted:
            flags |= flag
    rows = _place_rows(state, port.id, device, flags, port.max_macs)
    handle = state.handle_of_port(port.id)
    if limits != LimitsRow():
        rows[Table.LIMITS, handle] = limits
    rows |= address_rows(handle, [ip_network(ip) for ip in port.ips])
    for segment, _ in port.memberships:
        at = state.handle_of_segment(segment)
        for mac in port.macs:
            rows[Table.FDB, fdb_key(at, mac_to_int(mac))] = FdbRow(
                port=handle, vtep=0, segment=at, origin=Origin.STATIC, flags=FdbFlag.LISTED
            )
    return rows


def _limits_row(port: Port) -> LimitsRow:
    rate_in, rate_out = port.rate_in or NO_RATE, port.rate_out or NO_RATE
    return LimitsRow(
        in_bits=rate_in.bits,
        in_packets=rate_in.packets,
        out_bits=rate_out.bits,
        out_packets=rate_out.packets,
        broadcast=port.storm_broadcast or 0,
        multicast=port.storm_multicast or 0,
        unknown=port.storm_unknown or 0,
        learn=port.learn_rate or 0,
    )


def _uplink_rows(state: State, ifname: str) -> Rows:
    flags = PortFlag.UPLINK | PortFlag.TRUNK
    rows = _place_rows(state, ifname, device_of(state, ifname), flags, MAX_MACS_UPLINK)
    rows[Table.LIMITS, state.numbers.number("port", ifname)] = LimitsRow(learn=LEARN_RATE_UPLINK)
    return rows


def _place_rows(state: State, name: str, device: Device | None, flags: PortFlag, max_macs: int) -> Rows:
    """The rows that a port and an uplink have alike: itself, its device, its places in segments."""
    numbers = state.numbers
    handle = numbers.number("port", name)
    untagged = counter = 0
    rows: Rows = {}
    for segment, vid in state.memberships(name):
        row = MembershipRow(
            port=handle,
            segment=state.handle_of_segment(segment),
            vid=vid,
            slot=numbers.number(f"slot/{segment}", name),
            counter=numbers.number("counter", f"{name}/{segment}"),
        )
        rows[Table.SLOTS, slot_key(row.segment, row.slot)] = row
        if vid:
            rows[Table.VIDS, vid_key(handle, vid)] = row
            rows[Table.MEMBERS, member_key(handle, row.segment)] = row
        else:
            untagged, counter = row.segment, row.counter
    rows[Table.PORTS, handle] = PortRow(
        ifindex=device.ifindex if device else 0,
        flags=flags,
        state=PortMode.UP,
        handle=handle,
        segment=untagged,
        counter=counter,
        counter_none=numbers.number("counter", name),
        max_macs=max_macs,
    )
    if device is not None:
        rows[Table.DEVICES, device.ifindex] = DeviceRow(ifindex=device.ifindex, port=handle)
    return rows


def _fdb_rows(state: State, segment: str, mac: str) -> Rows:
    entry = state.fdb.get((segment, mac))
    if entry is None or entry.port is None:
        return {}
    at = state.handle_of_segment(segment)
    port = state.numbers.number("port", entry.port)
    row = FdbRow(port=port, vtep=0, segment=at, origin=Origin.STATIC, flags=FdbFlag(0))
    return {(Table.FDB, fdb_key(at, mac_to_int(mac))): row}


def _neighbour_rows(state: State, neighbours: Neighbours, segment: str, address: str) -> Rows:
    port = neighbours.named(segment, address)
    if port is None:
        return {}
    at = state.handle_of_segment(segment)
    key = neighbour_key(at, ip_address(address))
    row = NeighbourRow(
        port=state.handle_of_port(port.id),
        segment=at,
        family=ip_address(address).version,
        origin=NeighbourOrigin.LISTED,
        octets=ip_address(address).packed.ljust(ADDRESS_BITS // 8, b"\0"),
        mac=mac_to_int(port.macs[0]),
    )
    return {(Table.NEIGHBOURS, key): row}
