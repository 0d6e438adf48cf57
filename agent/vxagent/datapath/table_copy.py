"""One table of a set, copied to the table of the same name of another set."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence

from vxagent.core.tables import Origin, Table
from vxagent.datapath import abi, codec
from vxagent.datapath.bpf_map import Batch, Map, MapType, Update
from vxagent.datapath.convert import Converter, offsets
from vxagent.datapath.count_mover import CountMover
from vxagent.datapath.newer import RULES, Merged, is_agents
from vxagent.datapath.table_set import TableSet
from vxagent.errors import MapFull

log = logging.getLogger(__name__)

_NOT_COUNTS = {
    "learning": ("learned",),  # a sum that is made anew, with `forgotten`
    "telling": tuple(f"buckets[{kind}]" for kind in range(len(abi.EventType))),  # they begin full
}

Row = tuple[bytes, bytes]


class TableCopy:
    """From a source to the target; nothing, where both have the same one."""

    def __init__(self, name: str, source: TableSet, target: TableSet) -> None:
        self._name = name
        self._new = target.maps[name]
        self._source, self._target = source, target
        self._told = False
        old, there = source.description.tables.get(name), source.maps.get(name)
        self._old = None if there is None or there is self._new or there.id == self._new.id else there
        if self._old is None or old is None:  # there is none, or it is the same one
            self._old = None
            return
        new = target.description.tables[name]
        self._key = Converter(old.key, new.key)
        self._value = Converter(old.value, new.value)
        self._members = old.value, new.value

    def fill(self) -> None:
        """Copy all rows, or as many as there is room for: those of the agent first, then those that are younger."""
        if self._old is None:
            return
        if self._old.spec.type is MapType.DEVMAP:
            self._fill_one_by_one(self._old)
        elif self._name == "fdb" and self._rows_in(self._old) > self._new.spec.max_entries:
            self._fill_sorted()
        else:
            for batch in self._old.batches():
                self._write([row for row in self._rows(batch) if self._is_worth(row) and self._is_known(row)])

    def catch_up(self, rule: Merged, since: int) -> None:
        """Write what the rule chooses, of the rows of ports that are the same ones in both sets."""
        if self._old is None:
            return
        now = time.monotonic_ns()
        same_ports: dict[int, bool] = {}
        for batch in self._old.batches():
            for key, theirs in self._rows(batch, self._changed(batch, rule, since)):
                if not self._is_worth((key, theirs)):
                    continue
                row = rule.layout.unpack(theirs) if rule.port else {}
                if not is_agents(self._name, row) and (not rule.port or self._is_same_port(row[rule.port], same_ports)):
                    self._merge(rule, key, theirs, now)

    def move_counts(self) -> None:
        """Move all counters, row by row."""
        if self._old is None:
            return
        but = _NOT_COUNTS.get(self._name, ())
        with CountMover(self._old, self._members[0], self._new, self._members[1], but=but) as mover:
            for batch in self._old.batches():
                size = self._old.spec.key_size
                for at in range(batch.count):
                    old_key = bytes(batch.keys[at * size : (at + 1) * size])
                    key = self._key(old_key)
                    if key is not None and any(batch.value(at)) and self._make_row(key):
                        mover.move(old_key, key)

    def clear_drops(self, port: int, segment: int) -> None:
        """Forget the drops of a port (0: any) in a segment (0: any)."""
        if self._old is None:
            return
        doomed = []
        for batch in self._old.batches():
            size = self._old.spec.key_size
            keys = [bytes(batch.keys[at : at + size]) for at in range(0, len(batch.keys), size)]
            doomed += [key for key in keys if self._is_drop_of(key, port, segment)]
        for key in doomed:
            self._old.delete(key)

    def _is_drop_of(self, old_key: bytes, port: int, segment: int) -> bool:
        key = self._key(old_key)
        members = None if key is None else abi.DROP_KEY.unpack(key)
        return members is not None and port in (0, members["port"]) and segment in (0, members["segment"])

    def _merge(self, rule: Merged, key: bytes, theirs: bytes, now: int) -> None:
        """Between the look and the write a program may write the row as well: that is a frame's worth of news, and the
        station's next frame tells it again."""
        ours = self._new.lookup(key)
        chosen = rule.choose(ours, theirs, now)
        if chosen is None:
            return
        try:
            self._new.update(key, chosen, Update.NOEXIST if ours is None else Update.ANY)
        except MapFull:
            self._tell_full()

    def _make_row(self, key: bytes) -> bool:
        """Whether there is a row to add to."""
        if self._new.spec.type in (MapType.ARRAY, MapType.PERCPU_ARRAY):
            return bool(codec.U32.unpack(key)[0] < self._new.spec.max_entries)
        try:
            self._new.update(key, bytes(self._new.stride), Update.NOEXIST)
        except MapFull:
            self._tell_full()
            return False
        return True

    def _is_same_port(self, handle: int, known: dict[int, bool]) -> bool:
        """Whether a port was, and is, at one device: else its number is another port's now."""
        if handle not in known:
            there, here = (_device_of(tables, handle, self._target) for tables in (self._source, self._target))
            known[handle] = here == there != 0
        return known[handle]

    def _changed(self, batch: Batch, rule: Merged, since: int) -> Iterable[int]:
        """Which rows of a batch were written since then, as far as their clock tells; quick, for there may be many."""
        at = offsets(self._members[0]).get(rule.clock, 1)
        if at % 8 or batch.stride % 8:
            return range(batch.count)
        clocks = batch.values.cast("Q")[at // 8 :: batch.stride // 8].tolist()
        return [row for row, clock in enumerate(clocks) if clock >= since]

    def _rows(self, batch: Batch, which: Iterable[int] | None = None) -> Iterator[Row]:
        """The rows of a batch (or these of them) that can be said in the new layout."""
        if self._new.spec.type is MapType.ARRAY and bytes(batch.values) == bytes(len(batch.values)):
            return
        size = len(batch.keys) // batch.count
        for at in range(batch.count) if which is None else which:
            key, value = self._key(batch.keys[at * size : (at + 1) * size]), self._value(batch.value(at))
            if key is not None and value is not None:
                yield key, value

    def _is_worth(self, row: Row) -> bool:
        """Not what an array holds where nothing is, nor beyond the end of the new one."""
        if self._new.spec.type is not MapType.ARRAY:
            return True
        return any(row[1]) and codec.U32.unpack(row[0])[0] < self._new.spec.max_entries

    def _is_known(self, row: Row) -> bool:
        """Not a row of the agent's with something in it that only another build knows: the agent makes it anew."""
        if self._value.same or self._name in RULES or self._name not in set(Table):
            return True
        try:
            codec.decode(Table(self._name), row[1])
        except ValueError:
            return False
        return True

    def _write(self, rows: Sequence[Row]) -> None:
        if not rows:
            return
        try:
            self._new.update_batch(b"".join(key for key, _ in rows), b"".join(value for _, value in rows))
        except MapFull:
            rule = RULES.get(self._name)
            if rule is None or self._has_agents_rows(rule, rows):
                raise
            self._tell_full()

    def _has_agents_rows(self, rule: Merged, rows: Sequence[Row]) -> bool:
        return any(is_agents(self._name, rule.layout.unpack(value)) for _, value in rows)

    def _fill_one_by_one(self, old: Map) -> None:
        """What the kernel does not read in batches."""
        for handle in range(min(old.spec.max_entries, self._new.spec.max_entries)):
            value = old.lookup(codec.U32.pack(handle))
            if value is not None:
                self._new.update(codec.U32.pack(handle), value)

    def _fill_sorted(self) -> None:
        assert self._old is not None
        rows = [row for batch in self._old.batches() for row in self._rows(batch)]
        seen = {key: abi.FDB_ENTRY.unpack(value) for key, value in rows}
        rows.sort(key=lambda row: (seen[row[0]]["origin"] == Origin.LEARNED, -seen[row[0]]["seen_ns"]))
        room = self._new.spec.max_entries
        self._write(rows[:room])
        if len(rows) > room:
            if seen[rows[room][0]]["origin"] != Origin.LEARNED:
                raise MapFull(self._name, room)
            self._tell_full()

    def _rows_in(self, opened: Map) -> int:
        return sum(batch.count for batch in opened.batches())

    def _tell_full(self) -> None:
        if self._told:
            return
        self._told = True
        log.warning("the new %s has room for %d entries: not all were kept", self._name, self._new.spec.max_entries)


def _device_of(tables: TableSet, handle: int, target: TableSet) -> int:
    """The ifindex of a port, 0: there is no such port."""
    ports, described = tables.maps.get("ports"), tables.description.tables.get("ports")
    if ports is None or described is None or handle >= ports.spec.max_entries:
        return 0
    value = ports.lookup(codec.U32.pack(handle))
    wanted = target.description.tables["ports"].value
    row = None if value is None else Converter(described.value, wanted)(value)
    members = {} if row is None else abi.PORT.unpack(row)
    return int(members.get("ifindex", 0)) if members.get("handle") == handle else 0
