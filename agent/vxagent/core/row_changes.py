"""From rows that were and rows that shall be: what to write and to delete, and what must go with them."""

from __future__ import annotations

from collections.abc import Mapping

from vxagent.core.effects import ClearCounters, DeleteRow, Effect, EndLeases, FlushFdb, PutRow
from vxagent.core.tables import (
    RANK,
    MembershipRow,
    PortFlag,
    PortMode,
    PortRow,
    Row,
    RowKey,
    Rows,
    SegmentFlag,
    SegmentRow,
    Table,
)

TAKES = (PortMode.UP, PortMode.HOLDING)


def row_changes(there: Mapping[RowKey, Row], was: Rows, now: Rows) -> list[Effect]:
    """The difference: deletions first, those last on which others stand.

    A VM that leaves is followed before its port takes nothing any more, and one that stays is at home before nobody
    follows it: between two rows no frame is without a place to go.

    Args:
        there: all rows that there are.
        was, now: those of the objects that differ.
    """
    gone = {key: row for key, row in was.items() if key not in now}
    changes: list[Effect] = [
        DeleteRow(table=table, key=key, old=row) for (table, key), row in sorted(gone.items(), key=_last_first)
    ]
    puts = [PutRow(table=table, key=key, row=row, old=there.get((table, key))) for (table, key), row in now.items()]
    return changes + sorted((put for put in puts if put.row != put.old), key=_first_first)


def consequences(was: Rows, now: Rows) -> list[Effect]:
    """Learned entries, leases and counters that nobody may inherit."""
    effects: list[Effect] = []
    for (table, handle), row in was.items():
        if table is Table.PORTS and isinstance(row, PortRow):
            after = now.get((table, handle))
            if after is None:
                effects.append(FlushFdb(port=handle))
                effects.append(ClearCounters(port=handle, counters=(row.counter_none,)))
            if _is_snooped(was, handle) and not _is_snooped(now, handle):
                effects.append(EndLeases(port=handle))
            if isinstance(after, PortRow) and PortFlag.MAC_LOCKED & after.flags & ~row.flags:
                effects.append(FlushFdb(port=handle))
        elif table is Table.SEGMENTS and (table, handle) not in now:
            effects.append(FlushFdb(segment=handle))
            effects.append(ClearCounters(segment=handle))
    left, kept = _places(was), _places(now)
    for (port, segment), counter in left.items():
        if (port, segment) not in kept:
            if (Table.PORTS, port) in now:
                effects.append(FlushFdb(port=port, segment=segment))
                if _is_snooped(was, port):
                    effects.append(EndLeases(port=port, segment=segment))
            effects.append(ClearCounters(port=port, segment=segment, counters=(counter,)))
    return effects


def _first_first(put: PutRow) -> tuple[bool, int, int]:
    return _lets_go(put.old, put.row), RANK[put.table], put.key


def _lets_go(old: Row | None, new: Row) -> bool:
    """Whether frames that went by the old row have nowhere to go by the new one, while others are as they were."""
    match old, new:
        case PortRow(), PortRow():
            return old.state in TAKES and new.state not in TAKES
        case SegmentRow(), SegmentRow():
            return SegmentFlag.MOVING in old.flags & ~new.flags
    return False


def _last_first(item: tuple[RowKey, Row]) -> tuple[int, int]:
    (table, key), _ = item
    return -RANK[table], key


def _places(rows: Rows) -> dict[tuple[int, int], int]:
    """(port, segment) → counter of every place that these rows give."""
    return {
        (row.port, row.segment): row.counter
        for (table, _), row in rows.items()
        if table is Table.SLOTS and isinstance(row, MembershipRow) and not row.passing
    }


def _is_snooped(rows: Rows, port: int) -> bool:
    """Whether these rows hold the port to its leases."""
    row = rows.get((Table.PORTS, port))
    return isinstance(row, PortRow) and PortFlag.SNOOPED in row.flags
