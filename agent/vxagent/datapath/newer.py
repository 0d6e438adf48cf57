"""Which of two rows of a table counts, of the one that was copied and the one that is still written elsewhere.

While programs of two generations run, by tables of their own, both write what they learn. A rule is given our row
(None: there is none) and theirs, both in this build's layout, and says what to write: a row, or None to leave it.
Rules go by the times in the rows, so they may be asked again, in any order and by another process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from vxagent.core.tables import NeighbourOrigin, Origin
from vxagent.datapath import abi

Rule = Callable[["bytes | None", bytes, int], "bytes | None"]
"""(ours, theirs, now in ns of the monotonic clock) → what to write."""

_REFRESH_NS = 1_000_000_000  # of an entry's age programs keep no better track (learn.h)
_FOR_EVER = 1 << 64
_moves_order = itemgetter("held_ns", "began_ns", "count")


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """How a table is brought up to date.

    Attributes:
        choose: the rule.
        layout: of its rows.
        port: the member that says to which port a row belongs; "": to none.
        clock: the member that is never older than the row's last change; "": there is none.
    """

    choose: Rule
    layout: abi.Layout
    port: str = ""
    clock: str = ""


def station(ours: bytes | None, theirs: bytes, now: int) -> bytes | None:
    """An FDB entry: where the station was seen last. What is not learned is not looked at."""
    new = abi.FDB_ENTRY.unpack(theirs)
    if new["origin"] != Origin.LEARNED:
        return None
    if ours is None:
        return theirs
    old = abi.FDB_ENTRY.unpack(ours)
    later = new["seen_ns"] - old["seen_ns"]
    if old["origin"] != Origin.LEARNED or later <= (_REFRESH_NS if old["port"] == new["port"] else 0):
        return None
    return theirs


def moves(ours: bytes | None, theirs: bytes, now: int) -> bytes | None:
    """How often a station has moved: what was counted further."""
    if ours is None or _moves_order(abi.MOVES_ROW.unpack(theirs)) > _moves_order(abi.MOVES_ROW.unpack(ours)):
        return theirs
    return None


def lease(ours: bytes | None, theirs: bytes, now: int) -> bytes | None:
    """A leased address: the lease that ends last. What the agent has listed stays."""
    new = abi.NEIGHBOUR.unpack(theirs)
    ends = new["expires_ns"] or _FOR_EVER
    if new["origin"] != NeighbourOrigin.LEASED or ends <= now:
        return None
    if ours is None:
        return theirs
    old = abi.NEIGHBOUR.unpack(ours)
    if old["origin"] != NeighbourOrigin.LEASED or ends <= (old["expires_ns"] or _FOR_EVER):
        return None
    return theirs


def membership(ours: bytes | None, theirs: bytes, now: int) -> bytes | None:
    """A membership in a group: the one that ends last."""
    ends = abi.GROUP.unpack(theirs)["expires_ns"]
    if ends <= now or (ours is not None and ends <= abi.GROUP.unpack(ours)["expires_ns"]):
        return None
    return theirs


def listening(ours: bytes | None, theirs: bytes, now: int) -> bytes | None:
    """What is known of a place: the later of all times, if both speak of the same place."""
    since = abi.LISTENING.struct.unpack
    if ours is not None and since(ours)[0] not in (0, since(theirs)[0]):
        return None
    return _latest(abi.LISTENING, ours, theirs)


def _latest(layout: abi.Layout, ours: bytes | None, theirs: bytes) -> bytes | None:
    """Member by member the larger, where all are times."""
    if ours is None:
        return theirs
    both = zip(layout.struct.unpack(ours), layout.struct.unpack(theirs), strict=True)
    merged = layout.struct.pack(*map(max, both))
    return None if merged == ours else merged


def _times(layout: abi.Layout) -> Rule:
    def rule(ours: bytes | None, theirs: bytes, now: int) -> bytes | None:
        return _latest(layout, ours, theirs)

    return rule


RULES: dict[str, Merged] = {
    "moves": Merged(choose=moves, layout=abi.MOVES_ROW),
    "neighbours": Merged(choose=lease, layout=abi.NEIGHBOUR, port="port"),
    "groups": Merged(choose=membership, layout=abi.GROUP, port="port"),
    "listening": Merged(choose=listening, layout=abi.LISTENING),
    "queriers": Merged(choose=_times(abi.QUERIERS), layout=abi.QUERIERS),
    "buckets": Merged(choose=_times(abi.BUCKETS), layout=abi.BUCKETS),
    "fdb": Merged(choose=station, layout=abi.FDB_ENTRY, port="port", clock="seen_ns"),
}
"""The tables that programs write, and how two of each become one; last the one in which most is new."""


def is_agents(table: str, row: dict[str, Any]) -> bool:
    """Whether a row of one of these tables is the agent's all the same."""
    match table:
        case "fdb":
            return bool(row["origin"] != Origin.LEARNED)
        case "neighbours":
            return bool(row["origin"] != NeighbourOrigin.LEASED)
    return False
