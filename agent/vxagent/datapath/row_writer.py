"""Writes the agent's rows into the tables, one by one, and what must go with each."""

from __future__ import annotations

from collections.abc import Mapping

from vxagent.core.effects import DeleteRow, PutRow
from vxagent.core.tables import MembershipRow, SegmentFlag, SegmentRow, Table
from vxagent.datapath import codec
from vxagent.datapath.bpf_map import Map, MapType
from vxagent.datapath.counters import Counters
from vxagent.datapath.epoch import Epoch
from vxagent.datapath.fdb_map import FdbMap
from vxagent.datapath.groups import GroupMaps


class RowWriter:
    """Of one set of tables.

    Args:
        maps: by name.
        fdb, groups, counters, epoch: of these.
    """

    def __init__(
        self,
        maps: Mapping[str, Map],
        *,
        fdb: FdbMap,
        groups: GroupMaps,
        counters: Counters,
        epoch: Epoch,
    ) -> None:
        self._maps = maps
        self._fdb = fdb
        self._groups = groups
        self._counters = counters
        self._epoch = epoch

    def put(self, effect: PutRow) -> None:
        """Write one row. Limits that change begin with full buckets, and with no memberships what is new to groups."""
        self._begin(effect)
        if effect.table is Table.FDB:
            self._fdb.put(effect.key, effect.row)
        else:
            self._write(effect.table, effect.key, codec.encode(effect.table, effect.row))
        self._epoch.rise()
        if effect.table is Table.LIMITS:  # a time that was owed at the old rate would stop the port at the new one
            self._counters.clear_buckets(effect.key)

    def delete(self, effect: DeleteRow) -> None:
        """Remove one row; one that is absent is no failure, and a lease in its place stays."""
        try:
            self._delete(effect)
        finally:
            self._epoch.rise()

    def _delete(self, effect: DeleteRow) -> None:
        if effect.table is Table.FDB:
            self._fdb.delete(effect.key)
        elif effect.table is Table.NEIGHBOURS and self._is_leased(effect.key):
            return
        elif self._maps[effect.table].spec.type is MapType.ARRAY:
            self._write(effect.table, effect.key, codec.empty(effect.table))
        else:
            self._maps[effect.table].delete(codec.encode_key(effect.table, effect.key))

    def _is_leased(self, key: int) -> bool:
        value = self._maps[Table.NEIGHBOURS].lookup(codec.encode_key(Table.NEIGHBOURS, key))
        return value is not None and codec.is_leased(value)

    def _write(self, table: Table, key: int, value: bytes) -> None:
        self._maps[table].update(codec.encode_key(table, key), value)

    def _begin(self, effect: PutRow) -> None:
        """What the programs know of groups is not the new place's, nor that of a segment that was not snooped."""
        match effect:
            case PutRow(table=Table.SLOTS, row=MembershipRow(passing=False) as row, old=old):
                if not isinstance(old, MembershipRow) or (old.port, old.counter) != (row.port, row.counter):
                    self._groups.begin_place(row.counter)
            case PutRow(table=Table.SEGMENTS, row=SegmentRow() as segment, old=old):
                before = old.flags if isinstance(old, SegmentRow) else SegmentFlag(0)
                if SegmentFlag.GROUPS & segment.flags & ~before:
                    self._groups.begin_segment(effect.key)
