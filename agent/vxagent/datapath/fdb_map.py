"""The FDB in the kernel: read it, forget what was learned, keep each port's count of learned entries.

What is forgotten or stated takes its row of `moves` along: a hold is over when its entry is.

The data plane learns and moves entries at any time. What is removed here is therefore taken out whole
(LOOKUP_AND_DELETE) and looked at again: an entry that was refreshed or moved since it was read goes back.

A port holds learning[port].learned - forgotten[port] entries, both modulo 2^64; `learned` is written by
the data plane alone, `forgotten` here alone.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

from vxagent.core.tables import Origin, Row, Table, split_fdb_key
from vxagent.datapath import abi, codec
from vxagent.datapath.base import FdbEntry
from vxagent.datapath.bpf_map import Map, Update
from vxagent.errors import MapFull

_U64 = 1 << 64
_ENTRY = abi.FDB_ENTRY.struct
_NS = 1_000_000_000
_ROOM = 1024  # entries; more than are learned while one is written
_TRIES = 3

# port, segment, seen_ns of a learned entry → whether it has to go
_Doomed = Callable[[int, int, int], bool]


class FdbMap:
    """The fdb, moves, learning and forgotten maps. Changes exclude each other; reads go on beside them."""

    def __init__(self, fdb: Map, moves: Map, learning: Map, forgotten: Map) -> None:
        self._fdb = fdb
        self._moves = moves
        self._learning = learning
        self._forgotten = forgotten
        self._lock = threading.Lock()

    def count(self) -> int:
        """Entries, those aged out but not yet removed included."""
        return sum(batch.count for batch in self._fdb.batches())

    def entries(self, ageing_ns: int, segment: int | None = None) -> Iterator[FdbEntry]:
        """The entries, those aged out left out, 4096 in memory at a time.

        Args:
            ageing_ns: 0: learned entries never age.
            segment: only those of this one.
        """
        now = time.monotonic_ns()
        oldest = now - ageing_ns if ageing_ns else 0
        held = self._held(now)
        for key, (port, _, _, origin, _, seen_ns) in self._raw():
            of_segment, mac = split_fdb_key(key)
            if segment is not None and of_segment != segment:
                continue
            learned = origin == Origin.LEARNED
            if learned and seen_ns < oldest:
                continue
            yield FdbEntry(
                segment=of_segment,
                mac=mac,
                port=port,
                origin=Origin(origin),
                age_s=max(0, now - seen_ns) / _NS if learned else None,
                held_s=held[key] / _NS if learned and key in held else None,
            )

    def put(self, key: int, row: Row) -> None:
        """Write a static or cluster entry; a learned one in its place is forgotten. Where all is full, some of those go
        that the port with the most of them has learned: no VM can keep out what is stated.

        Raises:
            MapFull: no more entries, and none is learned.
        """
        raw = codec.encode_key(Table.FDB, key)
        with self._lock:
            before = self._fdb.lookup(raw)
            self._write(raw, codec.encode(Table.FDB, row))
            self._moves.delete(raw)
            self._forget_if_learned(before)

    def delete(self, key: int) -> None:
        """Remove the entry, whatever its origin."""
        with self._lock:
            raw = codec.encode_key(Table.FDB, key)
            self._moves.delete(raw)
            self._forget_if_learned(self._fdb.pop(raw))

    def flush(self, segment: int | None = None, port: int | None = None) -> int:
        """Remove learned entries of a segment, a port, both (and) or all; return how many."""

        def doomed(of_port: int, of_segment: int, _: int) -> bool:
            return (segment is None or of_segment == segment) and (port is None or of_port == port)

        with self._lock:
            return self._remove(doomed)

    def age(self, ageing_ns: int) -> int:
        """Remove learned entries not seen for `ageing_ns` (0: none), and put `forgotten` right.

        Returns:
            How many were removed.
        """
        with self._lock:
            removed = 0
            if ageing_ns:
                oldest = time.monotonic_ns() - ageing_ns
                removed = self._remove(lambda _port, _segment, seen_ns: seen_ns < oldest)
            self._recount()
            return removed

    def recount(self) -> None:
        """Put `forgotten` right, as `age` does."""
        with self._lock:
            self._recount()

    def clear_learning(self, port: int) -> None:
        """Forget what a port has learned, as numbers; its entries are flushed before."""
        key = codec.U32.pack(port)
        with self._lock:
            self._learning.update(key, bytes(abi.LEARNING.size))
            self._forgotten.update(key, bytes(codec.U64.size))

    def _write(self, key: bytes, value: bytes) -> None:
        for left in reversed(range(_TRIES)):
            try:
                self._fdb.update(key, value)
            except MapFull:
                if not left or not self._make_room():
                    raise
            else:
                return

    def _make_room(self) -> int:
        """Forget some of what has been learned behind the port that has learned most; return how many."""
        holds = {port: (learned - forgotten) % _U64 for port, (learned, forgotten) in self._learned().items()}
        most = max(holds, key=holds.__getitem__)
        return self._remove(lambda port, _segment, _seen_ns: port == most, _ROOM)

    def _remove(self, doomed: _Doomed, at_most: int | None = None) -> int:
        gone: Counter[int] = Counter()
        moved = {key for key, _ in self._moves_rows()}
        for key, (port, _, segment, origin, _, seen_ns) in self._raw():
            if origin == Origin.LEARNED and doomed(port, segment, seen_ns):
                raw = codec.U64.pack(key)
                if key in moved:  # before the entry, which may be back at once
                    self._moves.delete(raw)
                owner = self._take_out(raw, doomed)
                if owner is not None:
                    gone[owner] += 1
                if gone.total() == at_most:
                    break
        for port, count in gone.items():
            self._add_forgotten(port, count)
        return gone.total()

    def _take_out(self, key: bytes, doomed: _Doomed) -> int | None:
        """Remove one entry unless it has changed; return the port that it was learned for."""
        value = self._fdb.pop(key)
        if value is None:
            return None
        port, _, segment, origin, _, seen_ns = _ENTRY.unpack(value)
        if origin == Origin.LEARNED and doomed(port, segment, seen_ns):
            return int(port)
        if self._fdb.update(key, value, Update.NOEXIST):
            return None
        return int(port)  # learned anew in the meantime, and counted anew: this one is gone

    def _recount(self) -> None:
        """Put `forgotten` right for every port that learned nothing while its entries were counted."""
        before = self._learned()
        held = Counter(port for _, (port, _, _, origin, _, _) in self._raw() if origin == Origin.LEARNED)
        for port, (learned, forgotten) in self._learned().items():
            right = (learned - held[port]) % _U64
            if forgotten != right and before[port][0] == learned:
                self._forgotten.update(codec.U32.pack(port), codec.U64.pack(right))

    def _learned(self) -> dict[int, tuple[int, int]]:
        """Port → (learned, forgotten)."""
        learned = (
            values[0] for batch in self._learning.batches() for values in abi.LEARNING.struct.iter_unpack(batch.values)
        )
        forgotten = (number for batch in self._forgotten.batches() for (number,) in codec.U64.iter_unpack(batch.values))
        return dict(enumerate(zip(learned, forgotten, strict=True)))

    def _forget_if_learned(self, value: bytes | None) -> None:
        if value is not None:
            port, _, _, origin, _, _ = _ENTRY.unpack(value)
            if origin == Origin.LEARNED:
                self._add_forgotten(port, 1)

    def _add_forgotten(self, port: int, count: int) -> None:
        key = codec.U32.pack(port)
        (now,) = codec.U64.unpack(self._forgotten.lookup(key) or bytes(codec.U64.size))
        self._forgotten.update(key, codec.U64.pack((now + count) % _U64))

    def _held(self, now: int) -> dict[int, int]:
        """Key → nanoseconds of hold that are left, of the MACs that are held."""
        return {key: held_ns - now for key, held_ns in self._moves_rows() if held_ns > now}

    def _moves_rows(self) -> Iterator[tuple[int, int]]:
        """Key and held_ns of every MAC that has moved of late."""
        for batch in self._moves.batches():
            for key, _, held_ns, *_ in abi.MOVES_ROW.struct.iter_unpack(batch.values):
                yield key, held_ns

    def _raw(self) -> Iterator[tuple[int, tuple[int, int, int, int, int, int]]]:
        """Key → port, via, segment, origin, flags, seen_ns of every entry."""
        for batch in self._fdb.batches():
            yield from zip(memoryview(batch.keys).cast("Q"), _ENTRY.iter_unpack(batch.values), strict=True)
