"""What the programs make of a frame, in memory, by the same rows: where does it go?

It follows the frame rules (bpf/README.md) 0, 2 to 7, 10 and 12 to 18 by looking at rows alone, and where a VM that
migrates is; of 13 not what goes by the clock, the rate of learning and hold-down. No VM is heard that announces itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from vxagent.core.tables import (
    AWAITING_SLOT,
    LEAVING_SLOT,
    VTEP_SLOT,
    FdbFlag,
    FdbRow,
    MembershipRow,
    NeighbourRow,
    Origin,
    OverlayRow,
    PortFlag,
    PortMode,
    PortRow,
    SegmentFlag,
    SegmentRow,
    Table,
    VniRow,
    VtepRow,
    address_key,
    fdb_key,
    member_key,
    neighbour_key,
    slot_key,
    tunnel_key,
    vid_key,
)
from vxagent.datapath.abi import Reason, Verdict
from vxagent.datapath.base import Lease
from vxagent.datapath.fake_tables import FakeTables, Learned
from vxagent.model.ids import MAX_LEAVING

_LINK_LOCAL = ip_network("fe80::/10")
_LINK_LOCAL_MACS = 0x0180C200000  # without the last four bits
_MIGRATING = (PortMode.STANDBY, PortMode.HOLDING, PortMode.DRAINING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A frame as a test describes it.

    Attributes:
        src, dst: MACs.
        tags: (TPID, VID), outermost first.
        length: bytes of L3.
        ip: its source.
        asks_for: the address whose MAC it asks for, by ARP or ND.
    """

    src: int
    dst: int
    tags: tuple[tuple[int, int], ...] = ()
    length: int = 46
    ip: IPv4Address | IPv6Address | None = None
    asks_for: IPv4Address | IPv6Address | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of it.

    Attributes:
        copies: (ifindex, VID that the switch put on or 0) of each frame that left as it is.
        tunnelled: (VTEP, VNI) of each that left by VXLAN.
        marked: that one was redirected to the host to which its VM migrates.
        followed: (VTEP, VNI, token) of each copy for a VM that leaves.
    """

    verdict: Verdict
    reason: Reason = Reason.NONE
    copies: frozenset[tuple[int, int]] = frozenset()
    tunnelled: frozenset[tuple[str, int]] = frozenset()
    marked: bool = False
    followed: frozenset[tuple[str, int, int]] = frozenset()


class _Dropped(Exception):  # a verdict, not an error
    def __init__(self, reason: Reason) -> None:
        self.reason = reason


class FakeForwarding(FakeTables):
    """What becomes of a frame by the tables."""

    def lease(self, lease: Lease) -> None:
        """A DHCP server says so."""
        until = None if lease.left_s is None else self.now_s + lease.left_s
        self.given[neighbour_key(lease.segment, lease.address)] = replace(lease, left_s=until)

    def forward(self, ifindex: int, frame: Frame) -> Outcome:
        """What becomes of a frame that comes in on this device; the source is learned where it should be."""
        device = self.table.get((Table.DEVICES, ifindex))
        port = self._port(getattr(device, "port", 0))
        if port is None or self.programs.get(port.handle) != ifindex:
            return Outcome(verdict=Verdict.TO_HOST)
        segment = 0
        try:
            place = self._classify(port, frame)
            if place is None:
                return Outcome(verdict=Verdict.TO_HOST)
            segment, inner = place
            self._guard(port, segment, frame)
            if self._is_answered(port, segment, frame):
                vid = frame.tags[0][1] if frame.tags else 0
                return Outcome(verdict=Verdict.REPLIED, copies=frozenset({(port.ifindex, vid)}))
            self._learn(port, segment, frame.src)
            return self._decide(port, segment, inner, frame)
        except _Dropped as dropped:
            return self._drop(port.handle, segment, dropped.reason)

    def arrive(self, sender: str, vni: int, frame: Frame, *, marked: bool = False, token: int | None = None) -> Outcome:
        """What becomes of a frame that comes to our VTEP by VXLAN.

        marked: another host has redirected it; token: it is a copy for the port of this one.
        """
        here, known = self.table.get((Table.OVERLAY, 0)), self.table.get((Table.VNIS, vni))
        address = ip_address(sender)
        if not isinstance(here, OverlayRow) or not isinstance(known, VniRow) or here.family != address.version:
            return Outcome(verdict=Verdict.TO_HOST)
        if not here.ifindex or self.programs.get(here.port) != here.ifindex:
            return Outcome(verdict=Verdict.TO_HOST)
        tunnel = self.table.get((Table.TUNNELS, tunnel_key(address)))
        handle, segment = tunnel.port if isinstance(tunnel, VtepRow) else here.port, known.segment
        try:
            port = self._admitted(handle, segment)
            away, row = self._entry(segment, frame.dst), self.table.get((Table.SEGMENTS, segment))
            moves = isinstance(row, SegmentRow) and SegmentFlag.MOVING in row.flags
            if moves and away is not None and FdbFlag.REDIRECT in away.flags and token is None:
                return self._passed_on(segment, vni, away.via, marked=marked)
            self._check_inside(frame)
            if not marked:
                self._learn(port, segment, frame.src)
            if token is not None:
                return self._give(segment, token)
            return self._decide(port, segment, False, frame, marked=marked)
        except _Dropped as dropped:
            return self._drop(handle, segment, dropped.reason)

    def _give(self, segment: int, token: int) -> Outcome:
        """A copy of what was flooded goes to the one port that awaits it, unless that has its own."""
        member = self.table.get((Table.SLOTS, slot_key(segment, AWAITING_SLOT | token)))
        to = self._port(member.port) if isinstance(member, MembershipRow) else None
        if not isinstance(member, MembershipRow) or to is None or to.state is not PortMode.STANDBY or not to.ifindex:
            return Outcome(verdict=Verdict.FLOODED)
        return Outcome(verdict=Verdict.FORWARDED, copies=frozenset({(to.ifindex, member.vid)}))

    def _admitted(self, handle: int, segment: int) -> PortRow:
        port = self._port(handle)
        if port is None or (Table.MEMBERS, member_key(handle, segment)) not in self.table:
            raise _Dropped(Reason.VTEP_DENIED)
        return port

    def _passed_on(self, segment: int, vni: int, via: int, *, marked: bool) -> Outcome:
        """A packet for a VM that has left goes on as it is."""
        if marked:
            raise _Dropped(Reason.LOOP)
        to = self._vtep(via)
        if to is None or (Table.MEMBERS, member_key(via, segment)) not in self.table:
            raise _Dropped(Reason.NO_DESTINATION)
        return Outcome(verdict=Verdict.FORWARDED, tunnelled=frozenset({(to, vni)}), marked=True)

    @staticmethod
    def _check_inside(frame: Frame) -> None:
        if frame.dst >> 4 == _LINK_LOCAL_MACS:
            raise _Dropped(Reason.LINK_LOCAL)
        if frame.tags:
            raise _Dropped(Reason.VLAN_DENIED)
        if frame.src >> 40 & 1 or not frame.src:
            raise _Dropped(Reason.SRC_INVALID)

    def _drop(self, port: int, segment: int, reason: Reason) -> Outcome:
        key = (port, segment, int(reason))
        self.drop_counts[key] = self.drop_counts.get(key, 0) + 1
        return Outcome(verdict=Verdict.DROPPED, reason=reason)

    def _classify(self, port: PortRow, frame: Frame) -> tuple[int, bool] | None:
        """(segment, a tag follows the classifying one), or None: to the host's stack."""
        uplink = PortFlag.UPLINK in port.flags
        if frame.dst >> 4 == _LINK_LOCAL_MACS:
            return self._denied(uplink, Reason.LINK_LOCAL)
        tags = frame.tags
        if tags and tags[0][0] != 0x8100:
            return self._denied(uplink, Reason.VLAN_DENIED)
        vid, inner = (tags[0][1], len(tags) > 1) if tags else (0, False)
        if vid:
            row = self.table.get((Table.VIDS, vid_key(port.handle, vid)))
            if isinstance(row, MembershipRow):
                return row.segment, inner
        elif port.segment:
            return port.segment, inner
        return self._denied(uplink, Reason.VLAN_DENIED)

    @staticmethod
    def _denied(uplink: bool, reason: Reason) -> None:
        if not uplink:
            raise _Dropped(reason)

    def _guard(self, port: PortRow, segment: int, frame: Frame) -> None:
        if frame.src >> 40 & 1 or not frame.src:
            raise _Dropped(Reason.SRC_INVALID)
        if port.state in (PortMode.STANDBY, PortMode.HOLDING):
            raise _Dropped(Reason.STANDBY)
        try:
            self._guard_addresses(port, segment, frame)
        except _Dropped:
            if PortFlag.SHADOW not in port.flags:
                raise

    def _guard_addresses(self, port: PortRow, segment: int, frame: Frame) -> None:
        row = self._entry(segment, frame.src)
        listed = row is not None and FdbFlag.LISTED in row.flags and row.port == port.handle
        if PortFlag.MAC_LOCKED in port.flags and not listed:
            raise _Dropped(Reason.SRC_MAC_DENIED)
        if row is not None and self._conflicts(port, row):
            raise _Dropped(Reason.SRC_MAC_CONFLICT)
        locked = (PortFlag.IP_LOCKED | PortFlag.SNOOPED) & port.flags
        if locked and frame.ip is not None and not self._may_use(port, segment, frame.src, frame.ip):
            raise _Dropped(Reason.SRC_IP_DENIED)

    def _conflicts(self, port: PortRow, known: FdbRow) -> bool:
        """The sender is stated to be elsewhere, and does not migrate."""
        owner = self._port(known.port)
        if known.port == port.handle or (known.origin is Origin.CLUSTER and port.state in _MIGRATING):
            return False
        return PortFlag.UPLINK not in port.flags or owner is None or owner.state not in _MIGRATING

    def _may_use(self, of: PortRow, segment: int, mac: int, address: IPv4Address | IPv6Address) -> bool:
        if address.is_unspecified or address in _LINK_LOCAL:
            return True
        lease = self.given.get(neighbour_key(segment, address))
        if lease is not None and PortFlag.SNOOPED in of.flags and self._counts(lease):
            return (lease.port, lease.mac) == (of.handle, mac)
        port = of.handle
        around = (ip_network((address, length), strict=False) for length in range(address.max_prefixlen + 1))
        return any(address_key(port, network) in self.table for network in around)

    def _counts(self, lease: Lease) -> bool:
        """Of those in `given`, whose left_s is a time."""
        port = self._port(lease.port)
        in_force = port is not None and PortFlag.SNOOPED in port.flags
        return in_force and (lease.left_s is None or lease.left_s > self.now_s)

    def _is_answered(self, port: PortRow, segment: int, frame: Frame) -> bool:
        row = self.table.get((Table.SEGMENTS, segment))
        if not isinstance(row, SegmentRow) or SegmentFlag.NEIGHBOURS not in row.flags or frame.asks_for is None:
            return False
        if PortFlag.UPLINK in port.flags or len(frame.tags) > 1 or not frame.dst >> 40 & 1:
            return False
        named = self.table.get((Table.NEIGHBOURS, neighbour_key(segment, frame.asks_for)))
        owner = self._port(named.port) if isinstance(named, NeighbourRow) else None
        if owner is None or owner.handle == port.handle or PortFlag.ISOLATED in port.flags & owner.flags:
            return False
        return self._egress_vid(port, owner, segment) is not None

    def _learn(self, port: PortRow, segment: int, mac: int) -> None:
        key = fdb_key(segment, mac)
        if PortFlag.MAC_LOCKED in port.flags or (Table.FDB, key) in self.table:
            return
        entry = self.learned.get(key)
        if (entry is None or entry.port != port.handle) and self._held(port.handle) >= port.max_macs:
            return
        self.learned[key] = Learned(port.handle, self.now_s)

    def _decide(self, port: PortRow, segment: int, inner: bool, frame: Frame, *, marked: bool = False) -> Outcome:
        row = self.table.get((Table.SEGMENTS, segment))
        if not isinstance(row, SegmentRow):
            raise _Dropped(Reason.NO_DESTINATION)
        group = frame.dst >> 40 & 1
        target, redirected = (None, False) if group else self._receiver(port, row, frame, marked=marked)
        if redirected and marked:
            raise _Dropped(Reason.LOOP)
        if target == port.handle and not redirected:
            raise _Dropped(Reason.HAIRPIN)
        to = self._port(target) if target is not None else None
        if to is not None and PortFlag.ISOLATED in port.flags & to.flags:
            raise _Dropped(Reason.ISOLATED)
        if frame.length > row.mtu:
            raise _Dropped(Reason.MTU_EXCEEDED)
        if target is None:
            if not group and SegmentFlag.DROP_UNKNOWN in row.flags:
                raise _Dropped(Reason.UNKNOWN_UNICAST)
            if inner or not (via := self._drains_by(port, row, frame)):
                outcome = self._sent(Verdict.FLOODED, row, self._flood(port, row, frame, inner))
                return replace(outcome, followed=frozenset(() if inner else self._follow(port, row, frame)))
            to, redirected = self._port(via), True
        vid = self._egress_vid(port, to, segment, awaited=marked)
        if vid is None or to is None:
            raise _Dropped(Reason.NO_DESTINATION)
        if inner and not vid:
            raise _Dropped(Reason.VLAN_DENIED)
        return replace(self._sent(Verdict.FORWARDED, row, [(to, vid)]), marked=redirected)

    def _receiver(self, port: PortRow, segment: SegmentRow, frame: Frame, *, marked: bool) -> tuple[int | None, bool]:
        """Where it goes, and whether it is redirected there: as its receiver migrates, or its sender, whose frames
        would teach the fabric that it is still here."""
        target, redirected = self._lookup(segment.handle, frame.dst), False
        entry = self._entry(segment.handle, frame.dst)
        if entry is not None and entry.via:
            redirected = FdbFlag.REDIRECT in entry.flags
            target = entry.via if redirected or not marked else target
        to = self._port(target) if target is not None else None
        via = self._drains_by(port, segment, frame)
        if to is not None and via and to.flags & (PortFlag.UPLINK | PortFlag.VTEP) == PortFlag.UPLINK:
            return via, True
        return target, redirected

    def _drains_by(self, port: PortRow, segment: SegmentRow, frame: Frame) -> int:
        """By which VTEP the fabric and all others hear of a VM that leaves; 0: as of any other."""
        own = self._entry(segment.handle, frame.src)
        if own is None or own.port != port.handle or FdbFlag.REDIRECT not in own.flags:
            return 0
        return own.via if SegmentFlag.BY_VLAN in segment.flags else 0

    def _sent(self, verdict: Verdict, segment: SegmentRow, to: Iterable[tuple[PortRow, int]]) -> Outcome:
        """It goes to these, with these VIDs or by VXLAN."""
        copies: set[tuple[int, int]] = set()
        tunnelled: set[tuple[str, int]] = set()
        for port, vid in to:
            address = self._vtep(port.handle)
            if PortFlag.VTEP not in port.flags:
                copies.add((port.ifindex, vid))
            elif address is not None:
                tunnelled.add((address, segment.vni))
        return Outcome(verdict=verdict, copies=frozenset(copies), tunnelled=frozenset(tunnelled))

    def _flood(self, port: PortRow, segment: SegmentRow, frame: Frame, inner: bool) -> Iterator[tuple[PortRow, int]]:
        by_vlan = SegmentFlag.BY_VLAN in segment.flags
        vteps = segment.vteps if self._underlay() in self.programs_out and not by_vlan else 0
        awaits = self._left_out(port, segment, frame)
        for slot in (*range(segment.slots), *range(VTEP_SLOT, VTEP_SLOT + vteps)):
            member = self.table.get((Table.SLOTS, slot_key(segment.handle, slot)))
            to = self._port(member.port) if isinstance(member, MembershipRow) else None
            if to is None or to.handle in (port.handle, awaits):
                continue
            origin = replace(port, flags=PortFlag(0)) if by_vlan and PortFlag.VTEP in port.flags else port
            vid = None if PortFlag.ISOLATED in port.flags & to.flags else self._egress_vid(origin, to, segment.handle)
            if vid is not None and (vid or not inner):
                yield to, vid

    def _left_out(self, port: PortRow, segment: SegmentRow, frame: Frame) -> int:
        """The port here of the VM that has sent this elsewhere; 0: there is none."""
        own = self._entry(segment.handle, frame.src)
        listed = PortFlag.UPLINK in port.flags and own is not None and FdbFlag.LISTED in own.flags
        return own.port if listed and own is not None else 0

    def _follow(self, port: PortRow, segment: SegmentRow, frame: Frame) -> Iterator[tuple[str, int, int]]:
        """Copies of a flood for VMs that leave."""
        if SegmentFlag.LEAVING not in segment.flags or self._underlay() not in self.programs_out:
            return
        for slot in range(LEAVING_SLOT, LEAVING_SLOT + MAX_LEAVING):
            member = self.table.get((Table.SLOTS, slot_key(segment.handle, slot)))
            of = self._port(member.port) if isinstance(member, MembershipRow) else None
            if not isinstance(member, MembershipRow) or of is None or of.state is not PortMode.DRAINING:
                continue
            if of.handle in (port.handle, self._left_out(port, segment, frame)):
                continue
            via = self._vtep(member.via)
            if via is not None and PortFlag.ISOLATED not in port.flags & of.flags:
                yield via, segment.vni, member.token

    def _egress_vid(self, port: PortRow, to: PortRow | None, segment: int, *, awaited: bool = False) -> int | None:
        """The VID (0: untagged) with which a frame of the segment leaves `to`, or None: it cannot take it.

        awaited: it is one that a port in standby takes.
        """
        takes = (PortMode.UP, PortMode.HOLDING, PortMode.STANDBY if awaited else PortMode.UP)
        if to is None or not to.ifindex or to.state not in takes:
            return None
        if PortFlag.UPLINK in port.flags & to.flags and PortFlag.VTEP not in port.flags ^ to.flags:
            return None
        if to.segment == segment:
            return 0
        row = self.table.get((Table.MEMBERS, member_key(to.handle, segment)))
        return row.vid if isinstance(row, MembershipRow) else None
