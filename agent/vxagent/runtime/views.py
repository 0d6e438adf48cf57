"""What the agent shows: desired state and the kernel's counters, joined at the call.

Every function takes a snapshot of the switch and reads the data path; it may block, so the agent calls it
off the event loop. Long lists come in batches, so that nobody holds 100,000 entries at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from typing import TypeVar

from msgspec.structs import asdict

from vxagent.core.effects import Xdp
from vxagent.core.hooks import choose
from vxagent.core.numbers import underlay_owner, vtep_owner
from vxagent.core.state import State
from vxagent.core.tables import Origin
from vxagent.datapath.abi import COUNTED_VERDICTS, DropKind, Verdict, reason_label
from vxagent.datapath.base import Datapath, Drop, Traffic
from vxagent.model.ids import int_to_mac
from vxagent.model.port import Port
from vxagent.model.segment import Segment
from vxagent.protocol.answers import (
    DropView,
    FdbView,
    LeaseView,
    MembershipView,
    PortDetail,
    PortView,
    SegmentDetail,
    SegmentView,
    UplinkView,
)
from vxagent.runtime.multicast import group_views, queriers, read_multicast, router_places
from vxagent.runtime.named import NOBODY, by_handle, named

VERSION = version("vxagent")
PORT_BATCH = 256
FDB_BATCH = 4096
ORIGINS = {origin: origin.name.lower() for origin in Origin}
VERDICTS = tuple(Verdict(number).name.lower() for number in range(COUNTED_VERDICTS))

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sums:
    """Frames of one port, uplink or segment. rx is every frame that came in, also those that were dropped."""

    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int
    drops: int
    copies: int
    verdicts: tuple[int, ...]


def add_up(traffic: Sequence[Traffic], drops: Sequence[Drop]) -> Sums:
    """One sum of several counters."""
    dropped = sum(d.packets for d in drops)
    return Sums(
        rx_packets=sum(sum(t.packets) for t in traffic) + dropped,
        rx_bytes=sum(sum(t.bytes) for t in traffic) + sum(d.bytes for d in drops),
        tx_packets=sum(t.tx_packets for t in traffic),
        tx_bytes=sum(t.tx_bytes for t in traffic),
        drops=dropped,
        copies=sum(t.copies for t in traffic),
        verdicts=tuple(sum(t.packets[v] for t in traffic) for v in range(COUNTED_VERDICTS)),
    )


def sums_of(state: State, datapath: Datapath, names: Sequence[str], drops: Mapping[int, Sequence[Drop]]) -> list[Sums]:
    """The sums of these ports and uplinks, in that order; `drops` is by port handle."""
    counters = [list(state.counters_of(name).values()) for name in names]
    traffic = iter(datapath.traffic([index for indices in counters for index in indices]))
    handles = [state.numbers.number("port", name) for name in names]
    return [
        add_up(list(islice(traffic, len(indices))), drops.get(handle, []))
        for handle, indices in zip(handles, counters, strict=True)
    ]


def drops_by_port(drops: Iterable[Drop], kind: DropKind = DropKind.FRAME) -> dict[int, list[Drop]]:
    """Port handle → those of its drop counters that are of this kind."""
    found: dict[int, list[Drop]] = {}
    for drop in drops:
        if drop.kind == kind:
            found.setdefault(drop.port, []).append(drop)
    return found


def by_reason(drops: Sequence[Drop]) -> dict[str, int]:
    """Reason → packets."""
    found: Counter[str] = Counter()
    for drop in drops:
        found[reason_label(drop.reason)] += drop.packets
    return dict(found)


# --- segments ------------------------------------------------------------------------------------


def segment_views(state: State) -> list[SegmentView]:
    """All segments, by name."""
    ports = ports_by_segment(state)
    return [_segment(segment, ports.get(name, [])) for name, segment in sorted(state.segments.items())]


def segment_detail(state: State, datapath: Datapath, name: str) -> SegmentDetail:
    """One segment with its traffic. Raises NotFound."""
    handle = state.handle_of_segment(name)
    segment = state.segments[name]
    members = [*state.ports, *state.between]
    counters = [index for member in members for of, index in state.counters_of(member).items() if of == name]
    drops = [drop for drop in datapath.drops() if drop.segment == handle and drop.kind == DropKind.FRAME]
    sums = add_up(datapath.traffic(counters), drops)
    origins = Counter(entry.origin for entry in datapath.fdb(segment=handle))
    known = read_multicast(state, datapath, [name] if segment.multicast_snooping else [])
    others = [who for who in state.between if any(of == name for of, _ in state.memberships(who))]
    routers = router_places(state, known)
    return SegmentDetail(
        **asdict(_segment(segment, ports_by_segment(state).get(name, []))),
        uplinks=sorted(who for who in others if who in state.uplinks),
        vteps=[vtep for who in others if (vtep := named(who).vtep) is not None],
        bridges=state.bridges(name),
        queriers=queriers(known, handle),
        router_ports=sorted(router.port for router in routers if router.port is not None),
        router_vteps=sorted(router.vtep for router in routers if router.vtep is not None),
        groups=group_views(state, known),
        joins_refused=sum(known.refused.values()),
        fdb_entries={label: origins[origin] for origin, label in ORIGINS.items()},
        rx_packets=sums.rx_packets,
        rx_bytes=sums.rx_bytes,
        tx_packets=sums.tx_packets,
        tx_bytes=sums.tx_bytes,
        drops=by_reason(drops),
    )


def ports_by_segment(state: State) -> dict[str, list[str]]:
    """Segment → ids of its ports, sorted."""
    found: dict[str, list[str]] = {}
    for port_id in sorted(state.ports):
        for segment, _ in state.ports[port_id].memberships:
            found.setdefault(segment, []).append(port_id)
    return found


def _segment(segment: Segment, ports: list[str]) -> SegmentView:
    return SegmentView(
        name=segment.name,
        tenant=segment.tenant,
        vlan=segment.vlan,
        vni=segment.vni,
        mtu=segment.mtu,
        unknown_unicast=segment.unknown_unicast,
        multicast_snooping=segment.multicast_snooping,
        ports=ports,
    )


# --- ports and uplinks ---------------------------------------------------------------------------


def port_views(
    state: State, datapath: Datapath, egress_failed: Callable[[], Mapping[str, int]]
) -> Iterator[list[PortView]]:
    """All ports, by id, in batches; `egress_failed` gives the frames that their devices lost, by id."""
    drops, lost, refused = drops_by_port(datapath.drops()), egress_failed(), datapath.xdp_refused()
    for ids in batches(sorted(state.ports), PORT_BATCH):
        sums = sums_of(state, datapath, ids, drops)
        yield [_port(state, state.ports[i], own, lost.get(i, 0), refused) for i, own in zip(ids, sums, strict=True)]


def port_detail(
    state: State, datapath: Datapath, egress_failed: Callable[[], Mapping[str, int]], port_id: str
) -> PortDetail:
    """One port with all that is known of it. Raises NotFound."""
    handle = state.handle_of_port(port_id)
    port = state.ports[port_id]
    counted = datapath.drops()
    drops = drops_by_port(counted)
    [sums] = sums_of(state, datapath, [port_id], drops)
    [learning] = datapath.learning([handle])
    return PortDetail(
        **asdict(_port(state, port, sums, egress_failed().get(port_id, 0), datapath.xdp_refused())),
        why=state.port_state(port_id)[1],
        hook_asked=port.hook,
        max_macs=port.max_macs,
        learn_rate=port.learn_rate,
        learned=learning.entries,
        limited=learning.limited,
        moved=learning.moved,
        full=learning.full,
        held=learning.held,
        leases=_leases(state, datapath, handle) if port.dhcp_snoop else [],
        leases_refused=datapath.refused_leases([handle])[0],
        events_suppressed=datapath.suppressed_events([handle])[0],
        verdicts=dict(zip(VERDICTS, sums.verdicts, strict=True)),
        copies=sums.copies,
        drops_by_reason=by_reason(drops.get(handle, [])),
        shadow_drops=by_reason(drops_by_port(counted, DropKind.SHADOW).get(handle, [])),
    )


def _leases(state: State, datapath: Datapath, port: int) -> list[LeaseView]:
    """The leases of a port, by segment and address."""
    segments = state.names("segment")
    held = [lease for lease in datapath.leases() if lease.port == port and lease.segment in segments]
    return [
        LeaseView(
            ip=str(lease.address),
            mac=int_to_mac(lease.mac),
            segment=segments[lease.segment],
            expires_s=None if lease.left_s is None else round(lease.left_s, 1),
        )
        for lease in sorted(held, key=lambda lease: (segments[lease.segment], lease.address.version, lease.address))
    ]


def hook_of(state: State, name: str, refused: Mapping[int, str]) -> tuple[str, str]:
    """Where the program of a port or an uplink runs, and why not at XDP; "" where it does, or has no device yet.

    Args:
        refused: port handle → why its device did not take it.
    """
    handle = state.numbers.number("port", name)
    _, ifname = state.attached.get(handle, (0, ""))
    device = state.devices.get(ifname)
    why = refused.get(handle) or (choose(state, name, device).why if device is not None else "")
    runs = Xdp.SENDS in state.xdp.get(handle, Xdp.NONE) and not why
    return ("xdp+tc" if runs else "tc"), why


def _port(state: State, port: Port, sums: Sums, egress_failed: int, refused: Mapping[int, str]) -> PortView:
    hook, why = hook_of(state, port.id, refused)
    return PortView(
        id=port.id,
        ifname=port.ifname,
        state=state.port_state(port.id)[0],
        mode=port.mode,
        segments=[MembershipView(segment=segment, vid=vid or None) for segment, vid in port.memberships],
        macs=list(port.macs),
        ips=list(port.ips),
        hook=hook,
        hook_why=why,
        isolated=port.isolated,
        trusted=port.trusted,
        rate_in=None if port.rate_in is None else str(port.rate_in),
        rate_out=None if port.rate_out is None else str(port.rate_out),
        storm_broadcast=port.storm_broadcast,
        storm_multicast=port.storm_multicast,
        storm_unknown=port.storm_unknown,
        dhcp_snoop=port.dhcp_snoop,
        enforce=port.enforce,
        rx_packets=sums.rx_packets,
        rx_bytes=sums.rx_bytes,
        tx_packets=sums.tx_packets,
        tx_bytes=sums.tx_bytes,
        drops=sums.drops,
        egress_failed=egress_failed,
    )


def uplink_views(state: State, datapath: Datapath) -> list[UplinkView]:
    """All uplinks, by device."""
    names = sorted(state.uplinks)
    refused = datapath.xdp_refused()
    suppressed = datapath.suppressed_events([state.handle_of_uplink(name) for name in names])
    every_sums = sums_of(state, datapath, names, drops_by_port(datapath.drops()))
    found = []
    for ifname, sums, events in zip(names, every_sums, suppressed, strict=True):
        port_state, why = state.uplink_state(ifname)
        hook, hook_why = hook_of(state, ifname, refused)
        found.append(
            UplinkView(
                ifname=ifname,
                state=port_state,
                hook=hook,
                hook_why=hook_why,
                rx_packets=sums.rx_packets,
                tx_packets=sums.tx_packets,
                rx_bytes=sums.rx_bytes,
                tx_bytes=sums.tx_bytes,
                drops=sums.drops,
                events_suppressed=events,
                why=why,
            )
        )
    return found


# --- FDB and drops -------------------------------------------------------------------------------


def fdb_views(state: State, datapath: Datapath, segment: str | None) -> Iterator[list[FdbView]]:
    """The FDB, of one segment or all, in batches. Raises NotFound."""
    only = None if segment is None else state.handle_of_segment(segment)
    segments = {number: state.segments[name] for number, name in state.names("segment").items()}
    places = by_handle(state)
    for entries in batches(datapath.fdb(segment=only), FDB_BATCH):
        yield [
            FdbView(
                segment=at.name,
                tenant=at.tenant,
                mac=int_to_mac(entry.mac),
                port=(place := places.get(entry.port, NOBODY)).port,
                vtep=place.vtep,
                origin=ORIGINS.get(entry.origin, "unknown"),
                age_s=None if entry.age_s is None else round(entry.age_s, 1),
                held_s=None if entry.held_s is None else round(entry.held_s, 1),
            )
            for entry in entries
            if (at := segments.get(entry.segment)) is not None
        ]


def drop_views(state: State, datapath: Datapath, port: str | None) -> list[DropView]:
    """Drop counters, of one of those that `handle_of` knows or of all, the largest first. Raises NotFound."""
    only = None if port is None else handle_of(state, port)
    places, segments = by_handle(state), state.names("segment")
    found = [
        DropView(
            port=(place := places.get(drop.port, NOBODY)).port,
            vtep=place.vtep,
            segment=segments.get(drop.segment),
            reason=reason_label(drop.reason),
            packets=drop.packets,
            bytes=drop.bytes,
            copies=drop.kind == DropKind.COPY,
            shadow=drop.kind == DropKind.SHADOW,
        )
        for drop in datapath.drops()
        if drop.packets and only in (None, drop.port)
    ]
    return sorted(found, key=lambda v: (-v.packets, v.port or "", v.vtep or "", v.segment or "", v.reason))


def handle_of(state: State, name: str) -> int:
    """The handle of a port, an uplink, the underlay device or a VTEP, as tables name them. Raises NotFound."""
    if name in state.uplinks:
        return state.handle_of_uplink(name)
    for owner in (underlay_owner(name), vtep_owner(name)):
        if name not in state.ports and state.exists(owner):
            return state.numbers.number("port", owner)
    return state.handle_of_port(name)


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of at most `size`."""
    it = iter(items)
    while batch := list(islice(it, size)):
        yield batch
