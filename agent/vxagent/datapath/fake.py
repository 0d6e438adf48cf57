"""A data path in memory that does what the programs do with the same rows: where does this frame go?

It applies effects like the real one, so a test can put the same effects in another order, or twice, and ask
whether the tables, and what becomes of a frame (`fake_forwarding.py`), are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_network

from vxagent.core.audit import Fault, Thing, XdpAt
from vxagent.core.effects import (
    AddCounts,
    Announce,
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
    FdbRow,
    Origin,
    Rows,
    Table,
    neighbour_key,
    split_fdb_key,
)
from vxagent.datapath.base import EVENTS_AT_ONCE, Drop, Event, FdbEntry, Learning, Lease, Multicast, Traffic
from vxagent.datapath.fake_forwarding import FakeForwarding
from vxagent.datapath.maps import DEFAULT_SIZES
from vxagent.errors import HostError

_NS = 1_000_000_000
_TAKEN = "somebody else's XDP program runs there"
_LINK_LOCAL = ip_network("fe80::/10")


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


class FakeDatapath(FakeForwarding):
    """Implements `datapath.base.Datapath` in memory.

    Attributes:
        fail_at: raise HostError at the n-th row or attach effect from now (0: never).
        broken: method → what it raises from now on; of `attach`, `destroy`, `events` and `reload`.
        missing: ifindexes that cannot be attached to.
        refused: what `xdp_refused` answers.
        refuses: handles of ports on whose devices somebody else's XDP program runs.
        others: ifindex → programs of others there.
        detached: handles of ports whose tc program somebody took off.
        xdp_detached: the same at XDP.
        misled: port handle → ifindex to which somebody made frames for it go at XDP.
        lost: what `faults` answers, until it is mended.
        known: what IGMP and MLD are to have told; frames of the fake do not follow it.
        announced: what was told to networks.
        counted: by index into traffic; a test fills it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fail_at = 0
        self.broken: dict[str, Exception] = {}
        self.missing: set[int] = set()
        self.opened = False
        self.reloads = 0
        self.xdp_roles: dict[int, Xdp] = {}
        self.refused: dict[int, str] = {}
        self.refuses: set[int] = set()
        self.others: dict[int, list[int]] = {}
        self.announced: list[Announce] = []
        self.counted: dict[int, Traffic] = {}
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
        self.programs_out.clear()
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
        self.programs_out.discard(effect.handle)
        if effect.handle == self._underlay():
            self.programs_out.add(effect.handle)
        self.detached.discard(effect.handle)

    def detach(self, effect: Detach) -> None:
        """See Datapath."""
        self._may_fail()
        self.programs.pop(effect.handle, None)
        self.programs_out.discard(effect.handle)

    def set_xdp(self, effect: SetXdp) -> None:
        """See Datapath."""
        self._may_fail()
        self.xdp_detached.discard(effect.handle)
        self.refused.pop(effect.handle, None)
        if effect.handle in self.refuses and Xdp.SENDS in effect.xdp:
            self.refused[effect.handle] = _TAKEN
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

    def add_counts(self, effect: AddCounts) -> None:
        """See Datapath."""
        if effect.counter:
            there, more = self.counted.get(effect.counter, Traffic()), effect.traffic
            self.counted[effect.counter] = Traffic(
                packets=_add(there.packets, more[:4]),
                bytes=_add(there.bytes, more[4:8]),
                tx_packets=there.tx_packets + more[8],
                tx_bytes=there.tx_bytes + more[9],
                copies=there.copies + more[10],
            )
        port, segment, reason, _ = effect.drop
        if reason:
            self.drop_counts[port, segment, reason] = (
                self.drop_counts.get((port, segment, reason), 0) + effect.dropped[0]
            )

    def announce(self, effect: Announce) -> None:
        """See Datapath."""
        self.announced.append(effect)

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
        return {handle: self._runs(handle, ifindex) for handle, ifindex in wanted.items()}

    def _runs(self, handle: int, ifindex: int) -> bool:
        out = handle in self.programs_out or handle != self._underlay()
        return self.programs.get(handle) == ifindex and handle not in self.detached and out

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

    def xdp_taken(self) -> set[int]:
        """See Datapath."""
        return {handle for handle, why in self.refused.items() if why == _TAKEN}

    def foreign(self, ifindexes: Iterable[int]) -> dict[int, list[int]]:
        """See Datapath."""
        return {ifindex: self.others[ifindex] for ifindex in ifindexes if ifindex in self.others}

    def fdb(self, *, segment: int | None = None) -> Iterator[FdbEntry]:
        """See Datapath."""
        for (table, key), row in sorted(self.table.items(), key=lambda item: item[0][1]):
            if table is Table.FDB and isinstance(row, FdbRow) and segment in (None, row.segment):
                mac = split_fdb_key(key)[1]
                yield FdbEntry(segment=row.segment, mac=mac, port=row.port, origin=row.origin, age_s=None)
        for key, entry in sorted(self.learned.items()):
            at, mac = split_fdb_key(key)
            if segment in (None, at) and not self._aged(entry):
                age = self.now_s - entry.seen_s
                yield FdbEntry(segment=at, mac=mac, port=entry.port, origin=Origin.LEARNED, age_s=age)

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

    def events_fd(self) -> int | None:
        """Nobody is woken."""
        return None

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


def _add(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, int, int, int]:
    a, b, c, d = (x + y for x, y in zip(one, other, strict=True))
    return a, b, c, d
