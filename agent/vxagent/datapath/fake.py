"""A data path in memory that does what the programs do with the same rows: where does this frame go?

It applies effects like the real one, so a test can put the same effects in another order, or twice, and ask
whether the tables, and what becomes of a frame, are the same. It follows the frame rules (bpf/README.md) 2 to 7, 10
and 12 to 18 by looking at rows alone; of 13 not what goes by the clock, the rate of learning and hold-down.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_network

from vxagent.core.audit import Fault, Thing, XdpAt
from vxagent.core.effects import (
    Attach,
    ClearCounters,
    DeleteRow,
    Detach,
    EndLeases,
    FlushFdb,
    Mend,
    PutLease,
    PutRow,
    SetXdp,
    Xdp,
)
from vxagent.core.tables import (
    FdbFlag,
    FdbRow,
    MembershipRow,
    NeighbourRow,
    Origin,
    PortFlag,
    PortMode,
    PortRow,
    Row,
    Rows,
    SegmentFlag,
    SegmentRow,
    SettingsRow,
    Table,
    address_key,
    fdb_key,
    member_key,
    neighbour_key,
    slot_key,
    split_fdb_key,
    vid_key,
)
from vxagent.datapath.abi import Reason, Verdict
from vxagent.datapath.base import EVENTS_AT_ONCE, Drop, Event, FdbEntry, Learning, Lease, Multicast, Traffic
from vxagent.datapath.maps import DEFAULT_SIZES
from vxagent.errors import HostError

_NS = 1_000_000_000
_LINK_LOCAL = ip_network("fe80::/10")


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
    """What became of it. copies: (ifindex, VID that the switch put on or 0) of each frame that left."""

    verdict: Verdict
    reason: Reason = Reason.NONE
    copies: frozenset[tuple[int, int]] = frozenset()


class _Dropped(Exception):  # a verdict, not an error
    def __init__(self, reason: Reason) -> None:
        self.reason = reason


@dataclass(slots=True)
class _Learned:
    port: int
    seen_s: float


@dataclass(frozen=True, slots=True)
class FakeContents:
    """Implements `datapath.base.TableContents`."""

    found: Rows

    @property
    def digest(self) -> bytes:
        """See TableContents."""
        return repr(sorted(self.found.items(), key=lambda item: item[0])).encode()

    def rows(self) -> Rows:
        """See TableContents."""
        return dict(self.found)


class FakeDatapath:
    """Implements `datapath.base.Datapath` in memory.

    Attributes:
        now_s: the time; a test moves it.
        fail_at: raise HostError at the n-th row or attach effect from now (0: never).
        broken: method → what it raises from now on; of `attach`, `destroy`, `events` and `reload`.
        missing: ifindexes that cannot be attached to.
        refused: what `xdp_refused` answers.
        refuses: handles of ports whose devices take no XDP program from now on.
        others: ifindex → programs of others there.
        detached: handles of ports whose tc program somebody took off.
        xdp_detached: the same at XDP.
        misled: port handle → ifindex to which somebody made frames for it go at XDP.
        lost: what `faults` answers, until it is mended.
        known: what IGMP and MLD are to have told; frames of the fake do not follow it.
        counted: by index into traffic; a test fills it.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self.fail_at = 0
        self.broken: dict[str, Exception] = {}
        self.missing: set[int] = set()
        self.opened = False
        self.reloads = 0
        self.table: Rows = {}
        self.learned: dict[int, _Learned] = {}
        self.programs: dict[int, int] = {}
        self.xdp_roles: dict[int, Xdp] = {}
        self.refused: dict[int, str] = {}
        self.refuses: set[int] = set()
        self.others: dict[int, list[int]] = {}
        self.drop_counts: dict[tuple[int, int, int], int] = {}
        self.counted: dict[int, Traffic] = {}
        self.given: dict[int, Lease] = {}
        self.queue: list[Event] = []
        self.detached: set[int] = set()
        self.xdp_detached: set[int] = set()
        self.misled: dict[int, int] = {}
        self.lost: list[Fault] = []
        self.known = Multicast(groups=[], routers=set(), refused={}, queriers={})

    # The agent's side

    def open(self, *, replace: bool = True) -> None:
        """See Datapath."""
        self.opened = True
        self.reloads += replace

    def take_over(self) -> None:
        """See Datapath."""

    def reload(self, *, fdb_entries: int | None = None) -> None:
        """See Datapath."""
        self._break("reload")
        self.reloads += 1

    def close(self) -> None:
        """See Datapath."""
        self.opened = False

    def destroy(self) -> None:
        """See Datapath."""
        self._break("destroy")
        self.table.clear()
        self.learned.clear()
        self.programs.clear()
        self.xdp_roles.clear()
        self.drop_counts.clear()
        self.counted.clear()
        self.given.clear()
        self.opened = False

    def put(self, effect: PutRow) -> None:
        """See Datapath."""
        self._may_fail()
        self.table[effect.table, effect.key] = effect.row
        if effect.table is Table.FDB:
            self.learned.pop(effect.key, None)

    def delete(self, effect: DeleteRow) -> None:
        """See Datapath."""
        self._may_fail()
        self.table.pop((effect.table, effect.key), None)

    def attach(self, effect: Attach) -> None:
        """See Datapath."""
        self._may_fail()
        self._break("attach")
        if effect.ifindex in self.missing:
            raise HostError(f"device {effect.ifname} is gone")
        self.programs[effect.handle] = effect.ifindex
        self.detached.discard(effect.handle)

    def detach(self, effect: Detach) -> None:
        """See Datapath."""
        self._may_fail()
        self.programs.pop(effect.handle, None)

    def set_xdp(self, effect: SetXdp) -> None:
        """See Datapath."""
        self._may_fail()
        self.xdp_detached.discard(effect.handle)
        if effect.handle in self.refuses and Xdp.SENDS in effect.xdp:
            self.refused[effect.handle] = "somebody else's XDP program runs there"
        self.misled.pop(effect.handle, None)
        if effect.xdp:
            self.xdp_roles[effect.handle] = effect.xdp
        else:
            self.xdp_roles.pop(effect.handle, None)

    def flush(self, effect: FlushFdb) -> int:
        """See Datapath."""
        gone = [
            key
            for key, entry in self.learned.items()
            if effect.segment in (None, split_fdb_key(key)[0]) and effect.port in (None, entry.port)
        ]
        for key in gone:
            del self.learned[key]
        return len(gone)

    def put_lease(self, effect: PutLease) -> None:
        """See Datapath."""
        if neighbour_key(effect.segment, effect.address) not in self.given:
            self.lease(Lease(**{name: getattr(effect, name) for name in Lease.__slots__}))

    def end_leases(self, effect: EndLeases) -> None:
        """See Datapath."""
        for key, lease in list(self.given.items()):
            if lease.port == effect.port and effect.segment in (None, lease.segment):
                del self.given[key]

    def clear_counters(self, effect: ClearCounters) -> None:
        """See Datapath."""
        for counter in effect.counters:
            self.counted.pop(counter, None)
        if effect.port or effect.segment:
            for port, segment, reason in list(self.drop_counts):
                if effect.port in (0, port) and effect.segment in (0, segment):
                    del self.drop_counts[port, segment, reason]

    def age(self) -> int:
        """See Datapath."""
        self.given = {key: lease for key, lease in self.given.items() if self._counts(lease)}
        gone = [key for key, entry in self.learned.items() if self._aged(entry)]
        for key in gone:
            del self.learned[key]
        return len(gone)

    def rows(self) -> Rows:
        """See Datapath."""
        return dict(self.table)

    def contents(self, table: Table) -> FakeContents:
        """See Datapath."""
        return FakeContents({rowkey: row for rowkey, row in self.table.items() if rowkey[0] is table})

    def runs(self, wanted: Mapping[int, int]) -> dict[int, bool]:
        """See Datapath."""
        return {h: self.programs.get(h) == ifindex and h not in self.detached for h, ifindex in wanted.items()}

    def xdp_at(self, wanted: Mapping[int, int]) -> dict[int, XdpAt]:
        """See Datapath."""
        return {handle: self._xdp_at(handle, ifindex) for handle, ifindex in wanted.items()}

    def _xdp_at(self, handle: int, ifindex: int) -> XdpAt:
        role = self.xdp_roles.get(handle, Xdp.NONE)
        sends = Xdp.SENDS in role and handle not in self.xdp_detached and handle not in self.refused
        receives = ifindex if Xdp.RECEIVES in role else 0
        return XdpAt(sends=sends, receives=self.misled.get(handle, receives))

    def faults(self) -> list[Fault]:
        """See Datapath."""
        return list(self.lost)

    def mend(self, effect: Mend) -> None:
        """See Datapath."""
        self._may_fail()
        self.lost.remove(Fault(thing=Thing(effect.thing), name=effect.name))

    def attached(self) -> dict[int, int]:
        """See Datapath."""
        return dict(self.programs)

    def xdp(self) -> dict[int, Xdp]:
        """See Datapath."""
        return dict(self.xdp_roles)

    def xdp_refused(self) -> dict[int, str]:
        """See Datapath."""
        return dict(self.refused)

    def foreign(self, ifindexes: Iterable[int]) -> dict[int, list[int]]:
        """See Datapath."""
        return {ifindex: self.others[ifindex] for ifindex in ifindexes if ifindex in self.others}

    def fdb(self, *, segment: int | None = None) -> Iterator[FdbEntry]:
        """See Datapath."""
        for (table, key), row in sorted(self.table.items(), key=lambda item: item[0][1]):
            if table is Table.FDB and isinstance(row, FdbRow) and segment in (None, row.segment):
                mac = split_fdb_key(key)[1]
                yield FdbEntry(
                    segment=row.segment, mac=mac, port=row.port, vtep=row.vtep, origin=row.origin, age_s=None
                )
        for key, entry in sorted(self.learned.items()):
            at, mac = split_fdb_key(key)
            if segment in (None, at) and not self._aged(entry):
                age = self.now_s - entry.seen_s
                yield FdbEntry(segment=at, mac=mac, port=entry.port, vtep=0, origin=Origin.LEARNED, age_s=age)

    def fdb_room(self) -> int:
        """See Datapath."""
        return DEFAULT_SIZES.fdb

    def fdb_count(self) -> int:
        """See Datapath."""
        return len(self.learned) + sum(table is Table.FDB for table, _ in self.table)

    def traffic(self, counters: Sequence[int]) -> list[Traffic]:
        """See Datapath."""
        return [self.counted.get(index, Traffic()) for index in counters]

    def drops(self) -> list[Drop]:
        """See Datapath."""
        return [
            Drop(port=port, segment=segment, reason=reason, packets=n, bytes=60 * n)
            for (port, segment, reason), n in sorted(self.drop_counts.items())
        ]

    def learning(self, handles: Sequence[int]) -> list[Learning]:
        """See Datapath."""
        return [Learning(entries=self._held(handle)) for handle in handles]

    def leases(self) -> list[Lease]:
        """See Datapath."""
        now = ((lease, lease.left_s) for lease in self.given.values() if self._counts(lease))
        return [replace(lease, left_s=None if until is None else until - self.now_s) for lease, until in now]

    def suppressed_events(self, handles: Sequence[int]) -> list[int]:
        """See Datapath."""
        return [0 for _ in handles]

    def refused_leases(self, handles: Sequence[int]) -> list[int]:
        """See Datapath."""
        return [0 for _ in handles]

    def multicast(self, places: Mapping[tuple[int, int], int]) -> Multicast:
        """See Datapath."""
        return Multicast(
            groups=[group for group in self.known.groups if (group.segment, group.port) in places],
            routers=self.known.routers & places.keys(),
            refused={place: self.known.refused.get(place, 0) for place in places},
            queriers={segment: self.known.queriers.get(segment, (0.0, 0.0)) for segment, _ in places},
        )

    def events(self) -> list[Event]:
        """See Datapath."""
        self._break("events")
        taken, self.queue = self.queue[:EVENTS_AT_ONCE], self.queue[EVENTS_AT_ONCE:]
        return taken

    def _break(self, method: str) -> None:
        if method in self.broken:
            raise self.broken[method]

    def _may_fail(self) -> None:
        if self.fail_at:
            self.fail_at -= 1
            if not self.fail_at:
                raise HostError("the fake was told to fail here")

    # The data plane's side

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
            key = (port.handle, segment, int(dropped.reason))
            self.drop_counts[key] = self.drop_counts.get(key, 0) + 1
            return Outcome(verdict=Verdict.DROPPED, reason=dropped.reason)

    def _classify(self, port: PortRow, frame: Frame) -> tuple[int, bool] | None:
        """(segment, a tag follows the classifying one), or None: to the host's stack."""
        uplink = PortFlag.UPLINK in port.flags
        if frame.dst >> 4 == 0x0180C200000:
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
        row = self.table.get((Table.FDB, fdb_key(segment, frame.src)))
        listed = isinstance(row, FdbRow) and FdbFlag.LISTED in row.flags and row.port == port.handle
        if PortFlag.MAC_LOCKED in port.flags and not listed:
            raise _Dropped(Reason.SRC_MAC_DENIED)
        if isinstance(row, FdbRow) and row.port != port.handle:
            raise _Dropped(Reason.SRC_MAC_CONFLICT)
        locked = (PortFlag.IP_LOCKED | PortFlag.SNOOPED) & port.flags
        if locked and frame.ip is not None and not self._may_use(port, segment, frame.src, frame.ip):
            raise _Dropped(Reason.SRC_IP_DENIED)

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
        self.learned[key] = _Learned(port.handle, self.now_s)

    def _decide(self, port: PortRow, segment: int, inner: bool, frame: Frame) -> Outcome:
        row = self.table.get((Table.SEGMENTS, segment))
        if not isinstance(row, SegmentRow):
            raise _Dropped(Reason.NO_DESTINATION)
        group = frame.dst >> 40 & 1
        target = None if group else self._lookup(segment, frame.dst)
        if target == port.handle:
            raise _Dropped(Reason.HAIRPIN)
        to = self._port(target) if target is not None else None
        if to is not None and PortFlag.ISOLATED in port.flags & to.flags:
            raise _Dropped(Reason.ISOLATED)
        if frame.length > row.mtu:
            raise _Dropped(Reason.MTU_EXCEEDED)
        if target is None:
            if not group and SegmentFlag.DROP_UNKNOWN in row.flags:
                raise _Dropped(Reason.UNKNOWN_UNICAST)
            return Outcome(verdict=Verdict.FLOODED, copies=frozenset(self._flood(port, row, inner)))
        vid = self._egress_vid(port, to, segment)
        if vid is None or to is None:
            raise _Dropped(Reason.NO_DESTINATION)
        if inner and not vid:
            raise _Dropped(Reason.VLAN_DENIED)
        return Outcome(verdict=Verdict.FORWARDED, copies=frozenset({(to.ifindex, vid)}))

    def _flood(self, port: PortRow, segment: SegmentRow, inner: bool) -> Iterator[tuple[int, int]]:
        for slot in range(segment.slots):
            member = self.table.get((Table.SLOTS, slot_key(segment.handle, slot)))
            to = self._port(member.port) if isinstance(member, MembershipRow) else None
            if to is None or to.handle == port.handle or PortFlag.ISOLATED in port.flags & to.flags:
                continue
            vid = self._egress_vid(port, to, segment.handle)
            if vid is not None and (vid or not inner):
                yield to.ifindex, vid

    def _egress_vid(self, port: PortRow, to: PortRow | None, segment: int) -> int | None:
        """The VID (0: untagged) with which a frame of the segment leaves `to`, or None: it cannot take it."""
        if to is None or not to.ifindex or to.state in (PortMode.DOWN, PortMode.STANDBY, PortMode.DRAINING):
            return None
        if PortFlag.UPLINK in port.flags & to.flags:
            return None
        if to.segment == segment:
            return 0
        row = self.table.get((Table.MEMBERS, member_key(to.handle, segment)))
        return row.vid if isinstance(row, MembershipRow) else None

    def _lookup(self, segment: int, mac: int) -> int | None:
        key = fdb_key(segment, mac)
        row = self.table.get((Table.FDB, key))
        if isinstance(row, FdbRow):
            return row.port
        entry = self.learned.get(key)
        return entry.port if entry is not None and not self._aged(entry) else None

    def _port(self, handle: int) -> PortRow | None:
        row: Row | None = self.table.get((Table.PORTS, handle))
        return row if isinstance(row, PortRow) else None

    def _held(self, handle: int) -> int:
        return sum(entry.port == handle for entry in self.learned.values())

    def _aged(self, entry: _Learned) -> bool:
        row = self.table.get((Table.SETTINGS, 0))
        ageing_ns = row.ageing_ns if isinstance(row, SettingsRow) else 0
        return bool(ageing_ns) and (self.now_s - entry.seen_s) * _NS > ageing_ns
