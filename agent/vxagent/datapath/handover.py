"""From tables of one layout to those of another, under traffic.

    fill        before any program runs by the new tables: a copy of everything but what is counted
    catch_up    what programs have written to the old ones since: before links are swapped, until that takes no time
                worth mentioning, right behind that, and once more when no old program runs any more; the newer row
                wins (`newer.py`)
    move_counts then, too: what they have counted (`count_mover.py`)

Each may be done again, also by another process and another build: a handover that was cut short is one that goes on.
Rows that the agent writes are copied once: from then on it makes them what it wants.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from vxagent.datapath import codec
from vxagent.datapath.bpf_map import Map
from vxagent.datapath.convert import Converter
from vxagent.datapath.newer import RULES
from vxagent.datapath.ring import RingReader
from vxagent.datapath.table_copy import TableCopy
from vxagent.datapath.table_set import TableSet

_COUNTS = ("traffic", "drops", "learning", "leases_refused", "telling")
_COUNTED_ANEW = ("forgotten", "leases")
_SCRATCH = ("flows", "hops", "audience", "events", "epochs")
_NOT_COPIED = frozenset({*_COUNTS, *_COUNTED_ANEW, *_SCRATCH})

_MARGIN_NS = 100_000_000  # programs' clock is a few milliseconds late
_SHORT_NS = 20_000_000
_ROUNDS = 5


class Handover:
    """From some sets of tables to one.

    Args:
        sources: oldest first; more than one where an earlier handover was cut short.
        target: of this build.
    """

    def __init__(self, sources: Sequence[TableSet], target: TableSet) -> None:
        self.sources = sources
        self.target = target
        self._since = 0  # what is older was copied

    def fill(self) -> None:
        """Copy the newest source.

        Raises:
            MapFull: no room for what the agent has put there.
            BpfError: the kernel refused.
        """
        self._since = time.monotonic_ns() - _MARGIN_NS
        for name in self.target.maps:
            if name not in _NOT_COPIED:
                TableCopy(name, self.sources[-1], self.target).fill()

    def catch_up(self) -> None:
        """Take over what programs have written to the sources since the last time.

        Raises:
            BpfError: the kernel refused.
        """
        began = time.monotonic_ns()
        for source in self.sources:
            for name, rule in RULES.items():
                TableCopy(name, source, self.target).catch_up(rule, self._since)
        self._since = began - _MARGIN_NS

    def catch_up_closely(self) -> None:
        """The same, until hardly anything is left."""
        for _ in range(_ROUNDS):
            began = time.monotonic_ns()
            self.catch_up()
            if time.monotonic_ns() - began < _SHORT_NS:
                return

    def move_counts(self) -> None:
        """Add what the sources have counted to what the target has; nobody counts there any more.

        Raises:
            BpfError: the kernel refused.
        """
        for source in self.sources:
            for name in _COUNTS:
                TableCopy(name, source, self.target).move_counts()

    def events(self) -> list[bytes]:
        """The records that nobody has read from the sources' rings, in the target's layout."""
        wanted = self.target.description.tables["events"].value
        found: list[bytes | None] = []
        for source in self.sources:
            ring, described = source.maps.get("events"), source.description.tables.get("events")
            if ring is None or described is None or ring.id == self.target.maps["events"].id:
                continue
            reader = RingReader(ring)
            found += map(Converter(described.value, wanted), reader.read())
            reader.close()
        return [record for record in found if record is not None]

    def clear(self, counters: Iterable[int], port: int, segment: int) -> None:
        """Forget in the sources, too, what is forgotten in the target; see `ClearCounters`."""
        for source in self.sources:
            _zero(source.maps.get("traffic"), counters)
            if port and not segment:
                _zero(source.maps.get("learning"), (port,))
                _zero(source.maps.get("leases_refused"), (port,))
                _zero(source.maps.get("telling"), (port,))
            if port or segment:
                TableCopy("drops", source, self.target).clear_drops(port, segment)


def _zero(counted: Map | None, indices: Iterable[int]) -> None:
    if counted is not None:
        for index in indices:
            if index < counted.spec.max_entries:
                counted.update(codec.U32.pack(index), bytes(counted.stride))
