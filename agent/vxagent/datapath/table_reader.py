"""The agent's rows in the kernel's maps, as bytes to compare and as values.

What the data plane wrote into the same maps (learned entries, leases) is passed over by its bytes, so that 100,000
learned entries cost little more than the system calls.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vxagent.core.tables import NeighbourOrigin, Origin, Row, RowKey, Rows, Table
from vxagent.datapath import abi, codec
from vxagent.datapath.bpf_map import Batch, Map, MapType

_NOT_LEARNED = re.compile(rb"[^\x%02x]" % Origin.LEARNED)


@dataclass(frozen=True, slots=True)
class TableBytes:
    """The agent's rows of one table: a key and a value after the other, those of an array with its empty ones."""

    table: Table
    is_array: bool
    key_size: int
    value_size: int
    keys: bytes
    values: bytes

    @property
    def digest(self) -> bytes:
        """The same for the same bytes."""
        found = hashlib.blake2b(self.keys, digest_size=16)
        found.update(self.values)
        return found.digest()

    def rows(self) -> Rows:
        """What they mean."""
        return dict(self._rows())

    def _rows(self) -> Iterator[tuple[RowKey, Row]]:
        absent = codec.empty(self.table) if self.is_array and self.table is not Table.SETTINGS else None
        for at in range(len(self.keys) // self.key_size):
            value = self.values[at * self.value_size : (at + 1) * self.value_size]
            if value != absent:
                key = codec.decode_key(self.table, self.keys[at * self.key_size : (at + 1) * self.key_size])
                yield (self.table, key), codec.decode(self.table, value)


class TableReader:
    """Reads the maps of tables."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._maps = maps

    def rows(self) -> Rows:
        """All rows of the agent's."""
        found: Rows = {}
        for table in Table:
            found.update(self.read(table).rows())
        return found

    def read(self, table: Table) -> TableBytes:
        """Those of one table."""
        opened = self._maps[table]
        key_size = opened.spec.key_size
        keys, values = bytearray(), bytearray()
        for batch in opened.batches():
            stated = _STATED.get(table)
            if stated is None:
                keys += batch.keys
                values += batch.values
                continue
            for at in stated(batch):
                keys += batch.keys[at * key_size : (at + 1) * key_size]
                values += batch.value(at)
        is_array = opened.spec.type is MapType.ARRAY
        return TableBytes(table, is_array, key_size, opened.stride, bytes(keys), bytes(values))


def _learned_by_nobody(batch: Batch) -> Iterator[int]:
    """The places of FDB entries that were not learned."""
    origins = batch.values[abi.FDB_ENTRY.offset("origin") :: batch.stride].tobytes()
    return (found.start() for found in _NOT_LEARNED.finditer(origins))


def _leased_by_nobody(batch: Batch) -> Iterator[int]:
    """The places of neighbours that were not leased."""
    begin, size = abi.NEIGHBOUR.offset("origin"), abi.NEIGHBOUR.size_of("origin")
    leased = NeighbourOrigin.LEASED.to_bytes(size, sys.byteorder)
    for at in range(batch.count):
        if batch.value(at)[begin : begin + size] != leased:
            yield at


_STATED = {Table.FDB: _learned_by_nobody, Table.NEIGHBOURS: _leased_by_nobody}
