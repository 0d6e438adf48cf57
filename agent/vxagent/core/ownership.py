"""Who has a row that two want: what is attached or stated here comes before what the cluster says of other hosts.

A MAC or an address is one port's in the whole cluster, but what the cluster says may be old news, and static entries
are nobody's claim. What the cluster says comes into force again when the other row goes.
"""

from __future__ import annotations

from collections.abc import Mapping

from vxagent.core.state import Owner, State
from vxagent.core.tables import FdbRow, NeighbourOrigin, NeighbourRow, Origin, Row, RowKey, Rows


def take(state: State, wanted: Mapping[Owner, Rows]) -> tuple[Rows, Rows]:
    """Have these objects own these rows from now on, instead of those that they owned.

    Returns:
        The rows that were theirs, and those that are; also those that others get by it.
    """
    was: Rows = {}
    for owner in wanted:
        was.update(_let_go(state, owner))
    now: Rows = {}
    for owner, rows in wanted.items():
        if not _is_told(owner) and rows:
            state.owned[owner] = rows
            now.update(rows)
    for key in [key for key in now if key not in was and _says_the_cluster(state.rows.get(key))]:
        _shadow(state, key)
    for owner, rows in wanted.items():
        if _is_told(owner):
            now.update(_in_force(state, owner, rows, was, now))
    for key in [key for key in state.shadowed if key in was and key not in now]:
        owner, row = state.shadowed.pop(key)
        state.owned[owner] = {**state.owned.get(owner, {}), key: row}
        now[key] = row
    return was, now


def _let_go(state: State, owner: Owner) -> Rows:
    rows = state.owned.pop(owner, {})
    if not _is_told(owner):
        return rows
    for key in [key for key, (of, _) in state.shadowed.items() if of == owner]:
        del state.shadowed[key]
    return {key: row for key, row in rows.items() if state.rows.get(key) == row}  # else a later one has taken it


def _in_force(state: State, owner: Owner, rows: Rows, was: Rows, now: Rows) -> Rows:
    """Of what the cluster says, that which nobody here says otherwise."""
    taken = {}
    for key, row in rows.items():
        there = None if key in was else state.rows.get(key)
        if (key in now and not _says_the_cluster(now[key])) or (there is not None and not _says_the_cluster(there)):
            state.shadowed[key] = (owner, row)
        else:
            taken[key] = row
    if taken:
        state.owned[owner] = taken
    return taken


def _shadow(state: State, key: RowKey) -> None:
    """Somebody here has what the cluster gave to another host's port."""
    for owner, rows in state.owned.items():
        if _is_told(owner) and key in rows:
            state.shadowed[key] = (owner, rows[key])
            state.owned[owner] = {other: row for other, row in rows.items() if other != key}
            return


def _is_told(owner: Owner) -> bool:
    return owner[0] == "told"


def _says_the_cluster(row: Row | None) -> bool:
    return (isinstance(row, FdbRow) and row.origin is Origin.CLUSTER) or (
        isinstance(row, NeighbourRow) and row.origin is NeighbourOrigin.CLUSTER
    )
