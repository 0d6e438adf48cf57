"""From desired objects to the rows of the kernel's tables.

Each object owns its rows: nobody else writes them. All numbers have been given before.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from ipaddress import ip_address, ip_network

from vxagent.core.migration import token_of, whereabouts
from vxagent.core.neighbours import Neighbours
from vxagent.core.numbers import VTEP, owner_of, slots_for, slots_of
from vxagent.core.state import Owner, State
from vxagent.core.tables import (
    AWAITING_SLOT,
    LEAVING_SLOT,
    VTEP_SLOT,
    DeviceRow,
    FdbFlag,
    FdbRow,
    LimitsRow,
    MembershipRow,
    NeighbourOrigin,
    NeighbourRow,
    Origin,
    OverlayRow,
    PortFlag,
    PortMode,
    PortRow,
    Rows,
    SegmentFlag,
    SegmentRow,
    SettingsRow,
    Table,
    VniRow,
    VtepRow,
    address_octets,
    address_rows,
    fdb_key,
    member_key,
    neighbour_key,
    slot_key,
    tunnel_key,
    vid_key,
)
from vxagent.model.device import Device
from vxagent.model.ids import LEARN_RATE_UPLINK, MAX_LEAVING, mac_to_int
from vxagent.model.port import Enforce, Mode, Port
from vxagent.model.rate import NO_RATE
from vxagent.model.segment import UnknownUnicast

NANOSECONDS = 1_000_000_000

UPLINK_SHARE = Fraction(3, 4)  # of the FDB, that an uplink may teach
VTEP_SHARE = Fraction(1, 4)


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
        case "port" if state.exists(name):
            return _vtep_rows(state, name) if name.startswith(VTEP) else _underlay_rows(state, name)
        case "overlay":
            return _overlay_rows(state)
        case "fdb":
            segment, _, mac = name.partition("/")
            return _fdb_rows(state, segment, mac)
        case "told":
            segment, _, port = name.partition("/")
            return _told_rows(state, segment, port)
        case "neighbour":
            segment, _, address = name.partition("/")
            return _neighbour_rows(state, neighbours, segment, address)
    return {}


def device_of(state: State, name: str) -> Device | None:
    """The device on which the program of this owner in the space "port" should run now, or None.

    One that it runs on already stays, whatever has been done to it since, as long as it keeps its name:
    to let go of it would open the VM's way to the host.
    """
    device = state.devices.get(state.device_of(name))
    if device is None:
        return None
    if state.attached.get(state.numbers.number("port", name)) == (device.ifindex, device.ifname):
        return device
    return None if state.obstacle(name, device) else device


def _segment_rows(state: State, neighbours: Neighbours, name: str) -> Rows:
    segment = state.segments[name]
    handle = state.handle_of_segment(name)
    flags = SegmentFlag(0)
    if segment.unknown_unicast is UnknownUnicast.DROP:
        flags |= SegmentFlag.DROP_UNKNOWN
    if neighbours.has_any(name) or name in state.remote.addressed:
        flags |= SegmentFlag.NEIGHBOURS
    if state.moves_in(name):
        flags |= SegmentFlag.MOVING
    if neighbours.has_leases(name):
        flags |= SegmentFlag.LEASES
    if segment.multicast_snooping:
        flags |= SegmentFlag.GROUPS
    moving = _moving_rows(state, name, handle)
    if any(isinstance(row, MembershipRow) and row.via for row in moving.values()):
        flags |= SegmentFlag.LEAVING
    vni = segment.vni if state.overlay is None else state.tunnel_vni(segment)
    if vni is not None and segment.vni is None:
        flags |= SegmentFlag.BY_VLAN
    row = SegmentRow(
        handle=handle,
        slots=state.numbers.top(slots_of(name)),
        mtu=segment.mtu,
        flags=flags,
        vni=vni or 0,
        vlan=segment.vlan or 0,
        vteps=state.numbers.top(slots_of(name, vteps=True)) - VTEP_SLOT,
    )
    rows: Rows = {(Table.SEGMENTS, handle): row, **moving}
    if state.overlay is not None and vni is not None:
        rows[Table.VNIS, vni] = VniRow(vni=vni, segment=handle)
    return rows


def _moving_rows(state: State, name: str, handle: int) -> Rows:
    """By which copies of floods follow the VMs that leave the segment here, and find those that come."""
    rows: Rows = {}
    slots = iter(range(LEAVING_SLOT, LEAVING_SLOT + MAX_LEAVING))
    for port, where in state.migrating_in(name):
        via = state.numbers.number("port", state.owner_of_host(where.via))
        leaves, waits = where.copied and via, where.mode is PortMode.STANDBY
        token = token_of(port.id)
        slot = AWAITING_SLOT | token if waits else next(slots, None) if leaves else None
        if slot is None:
            continue
        row = MembershipRow(
            port=state.handle_of_port(port.id),
            segment=handle,
            vid=next(vid for at, vid in port.memberships if at == name),
            slot=slot,
            counter=state.numbers.number("counter", f"{port.id}/{name}"),
            via=via if leaves else 0,
            token=token if leaves else 0,
        )
        rows.setdefault((Table.SLOTS, slot_key(handle, slot)), row)
    return rows


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
    where = state.placement(port.id)
    rows = _place_rows(state, port.id, device, flags, port.max_macs, where.mode)
    handle = state.handle_of_port(port.id)
    if limits != LimitsRow():
        rows[Table.LIMITS, handle] = limits
    rows |= address_rows(handle, [ip_network(ip) for ip in port.ips])
    via = state.numbers.number("port", state.owner_of_host(where.via))
    listed = FdbFlag.LISTED | (FdbFlag.REDIRECT if where.redirect and via else FdbFlag(0))
    for segment, _ in port.memberships:
        at = state.handle_of_segment(segment)
        for mac in port.macs:
            rows[Table.FDB, fdb_key(at, mac_to_int(mac))] = FdbRow(
                port=handle, segment=at, origin=Origin.STATIC, flags=listed, via=via
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
    rows = _place_rows(state, ifname, device_of(state, ifname), flags, _share(state, UPLINK_SHARE))
    rows[Table.LIMITS, state.numbers.number("port", ifname)] = LimitsRow(learn=LEARN_RATE_UPLINK)
    return rows


def _share(state: State, of: Fraction) -> int:
    """Nobody else limits how many MACs the fabric or another host shows: of one tenant's VM they may be as many as it
    likes. What one of them can teach leaves room for what the others do, and for ports here."""
    return max(1, int(state.fdb_entries * of))


def _underlay_rows(state: State, name: str) -> Rows:
    """What comes there and is not for our VTEP is the host's."""
    return _place_rows(state, name, device_of(state, name), PortFlag.UPLINK, 0)


def _vtep_rows(state: State, name: str) -> Rows:
    """A VTEP sends by the underlay device, on which its program does not run: there is none."""
    handle = state.numbers.number("port", name)
    address = ip_address(name.removeprefix(VTEP))
    row = VtepRow(port=handle, family=address.version, octets=address_octets(address))
    rows = _place_rows(state, name, None, PortFlag.UPLINK | PortFlag.VTEP, _share(state, VTEP_SHARE))
    rows[Table.LIMITS, handle] = LimitsRow(learn=LEARN_RATE_UPLINK)
    rows[Table.VTEPS, handle] = rows[Table.TUNNELS, tunnel_key(address)] = row
    return rows


def _overlay_rows(state: State) -> Rows:
    overlay = state.overlay
    if overlay is None:
        return {}
    address = ip_address(overlay.vtep)
    row = OverlayRow(
        ifindex=_underlay_ifindex(state),
        port=state.numbers.number("port", state.underlay),
        family=address.version,
        octets=address_octets(address),
        ttl=overlay.ttl,
    )
    return {(Table.OVERLAY, 0): row}


def _underlay_ifindex(state: State) -> int:
    device = device_of(state, state.underlay)
    return device.ifindex if device is not None else 0


def _place_rows(
    state: State,
    name: str,
    device: Device | None,
    flags: PortFlag,
    max_macs: int,
    mode: PortMode = PortMode.UP,
) -> Rows:
    """The rows that all owners in the space "port" have alike: itself, its device, its places in segments."""
    vtep = PortFlag.VTEP in flags
    numbers = state.numbers
    handle = numbers.number("port", name)
    untagged = counter = 0
    rows: Rows = {}
    for segment, vid in state.memberships(name):
        row = MembershipRow(
            port=handle,
            segment=state.handle_of_segment(segment),
            vid=vid,
            slot=numbers.number(slots_for(name, segment), name),
            counter=numbers.number("counter", f"{name}/{segment}"),
        )
        if state.floods_to(name, segment):
            rows[Table.SLOTS, slot_key(row.segment, row.slot)] = row
        if vid:
            rows[Table.VIDS, vid_key(handle, vid)] = row
        if vid or vtep:
            rows[Table.MEMBERS, member_key(handle, row.segment)] = row
        else:
            untagged, counter = row.segment, row.counter
    ifindex = device.ifindex if device is not None else 0
    rows[Table.PORTS, handle] = PortRow(
        ifindex=_underlay_ifindex(state) if vtep else ifindex,
        flags=flags,
        state=mode,
        handle=handle,
        segment=untagged,
        counter=counter,
        counter_none=numbers.number("counter", name),
        max_macs=max_macs,
    )
    if device is not None:
        rows[Table.DEVICES, device.ifindex] = DeviceRow(ifindex=device.ifindex, port=handle)
    return rows


def _told_rows(state: State, segment: str, port: str) -> Rows:
    """Where the VM of another host's port is, as the cluster says."""
    told = state.remote.told.get((segment, port))
    if segment not in state.segments or state.segments[segment].vni is None:
        return {}  # the fabric knows where it is
    vtep = state.owner_of_host(whereabouts(told)) if told is not None else ""
    handle = state.numbers.number("port", vtep)
    if told is None or not handle or port in state.ports or all(at != segment for at, _ in state.memberships(vtep)):
        return {}
    at = state.handle_of_segment(segment)
    rows: Rows = {}
    for mac in told.macs:
        rows[Table.FDB, fdb_key(at, mac_to_int(mac))] = FdbRow(
            port=handle, segment=at, origin=Origin.CLUSTER, flags=FdbFlag(0)
        )
    for ip in told.ips if len(told.macs) == 1 else ():
        if "/" in ip:
            continue
        address = ip_address(ip)
        rows[Table.NEIGHBOURS, neighbour_key(at, address)] = NeighbourRow(
            port=handle,
            segment=at,
            family=address.version,
            origin=NeighbourOrigin.CLUSTER,
            octets=address_octets(address),
            mac=mac_to_int(told.macs[0]),
        )
    return rows


def _fdb_rows(state: State, segment: str, mac: str) -> Rows:
    entry = state.fdb.get((segment, mac))
    if entry is None or all(name != segment for name, _ in state.memberships(owner_of(entry))):
        return {}
    at = state.handle_of_segment(segment)
    port = state.numbers.number("port", owner_of(entry))
    row = FdbRow(port=port, segment=at, origin=Origin.STATIC, flags=FdbFlag(0))
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
        octets=address_octets(ip_address(address)),
        mac=mac_to_int(port.macs[0]),
    )
    return {(Table.NEIGHBOURS, key): row}
