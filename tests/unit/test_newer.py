"""Of two rows that programs of two generations wrote the newer one counts."""

from __future__ import annotations

import pytest

from vxagent.core.tables import NeighbourOrigin, Origin
from vxagent.datapath import abi
from vxagent.datapath.newer import RULES

S = 1_000_000_000
NOW = 100 * S


def entry(port: int, seen_s: float, origin: Origin = Origin.LEARNED) -> bytes:
    return abi.FDB_ENTRY.pack(port=port, segment=1, origin=origin, seen_ns=int(seen_s * S))


def lease(port: int, expires_s: float, origin: NeighbourOrigin = NeighbourOrigin.LEASED) -> bytes:
    return abi.NEIGHBOUR.pack(port=port, segment=1, family=4, origin=origin, octets=b"", expires_ns=int(expires_s * S))


def moves(count: int, began_s: int = 1, held_s: int = 0) -> bytes:
    return abi.MOVES_ROW.pack(key=1, began_ns=began_s * S, held_ns=held_s * S, count=count)


def group(expires_s: int) -> bytes:
    return abi.GROUP.pack(segment=1, port=1, family=4, octets=b"", expires_ns=expires_s * S)


def heard(since: int, router: tuple[int, int]) -> bytes:
    return abi.LISTENING.struct.pack(since, *router, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("table", "ours", "theirs", "takes"),
    [
        ("fdb", None, entry(1, 99), True),
        ("fdb", entry(1, 98), entry(2, 99), True),
        ("fdb", entry(1, 99), entry(2, 98), False),
        ("fdb", entry(1, 99), entry(1, 99.5), False),
        ("fdb", entry(1, 90), entry(1, 99), True),
        ("fdb", entry(1, 1, Origin.STATIC), entry(2, 99), False),
        ("fdb", None, entry(1, 99, Origin.STATIC), False),
        ("neighbours", None, lease(1, 200), True),
        ("neighbours", None, lease(1, 99), False),
        ("neighbours", lease(1, 150), lease(1, 200), True),
        ("neighbours", lease(1, 0), lease(1, 200), False),
        ("neighbours", lease(1, 200), lease(1, 0), True),
        ("neighbours", lease(1, 0, NeighbourOrigin.LISTED), lease(1, 200), False),
        ("moves", None, moves(3), True),
        ("moves", moves(2), moves(3), True),
        ("moves", moves(3, held_s=50), moves(4), False),
        ("groups", None, group(150), True),
        ("groups", group(160), group(150), False),
        ("groups", None, group(50), False),
    ],
)
def test_which_row_counts(table: str, ours: bytes | None, theirs: bytes, takes: bool) -> None:
    assert (RULES[table].choose(ours, theirs, NOW) == theirs) is takes
    assert RULES[table].choose(theirs, theirs, NOW) is None


def test_of_times_each_one_that_is_later_counts() -> None:
    choose = RULES["listening"].choose
    assert choose(heard(5, (1, 9)), heard(5, (8, 2)), NOW) == heard(5, (8, 9))
    assert choose(heard(6, (1, 1)), heard(5, (8, 2)), NOW) is None  # the place has begun anew
    assert choose(heard(0, (0, 0)), heard(5, (8, 2)), NOW) == heard(5, (8, 2))
    full = abi.BUCKETS.pack(in_bits=5, learn=2)
    assert RULES["buckets"].choose(full, abi.BUCKETS.pack(in_bits=3, learn=4), NOW) == abi.BUCKETS.pack(
        in_bits=5, learn=4
    )
