"""Hold-down, a part of step 13: a MAC that moves too often stays where it was at first.

Ports 1, 2 and 3 are in blue; the MAC is VM 1's, and `STEADY` is from whom it was learned first.
"""

from __future__ import annotations

import struct
import time

import pytest

from support.events import told
from support.frames import BROADCAST, ethernet, mac, vlan
from support.outcome import FLOODED
from support.world import AGEING_S, BLUE, NANOSECONDS, RED, World, number
from vxagent.core.tables import PortMode, fdb_key
from vxagent.datapath import abi
from vxagent.datapath.abi import HOLD_S, MOVES, MOVES_S, EventType
from vxagent.datapath.ring import RingReader

FRAME = ethernet(BROADCAST, mac(1))
STEADY, RIVAL, THIRD = 1, 2, 3
MARGIN_S = 0.1  # the program's clock is as of the last tick


def _key(segment: int = BLUE) -> bytes:
    return struct.pack("=Q", fdb_key(segment, number(mac(1))))


def _moves(world: World, segment: int = BLUE) -> dict[str, int] | None:
    value = world.rig.maps["moves"].lookup(_key(segment))
    return None if value is None else abi.MOVES_ROW.unpack(value)


def _moved(world: World, count: int, *, ago_s: float = 1, held_s: float | None = None, segment: int = BLUE) -> None:
    """The MAC has moved so often since, and is held for so long from now on. Home is where it is steady."""
    now = time.monotonic_ns()
    row = abi.MOVES_ROW.pack(
        key=fdb_key(segment, number(mac(1))),
        began_ns=now - int(ago_s * NANOSECONDS),
        held_ns=0 if held_s is None else now + int(held_s * NANOSECONDS),
        count=count,
        home=STEADY,
    )
    world.rig.maps["moves"].update(_key(segment), row)


def _held_s(world: World) -> float:
    row = _moves(world)
    assert row is not None
    return (row["held_ns"] - time.monotonic_ns()) / NANOSECONDS


def test_a_first_move_is_counted_from_then_on(world: World) -> None:
    world.learn(BLUE, mac(1), STEADY)
    world.send(RIVAL, FRAME)
    row = _moves(world)
    assert row is not None
    assert 0 <= (time.monotonic_ns() - row.pop("began_ns")) / NANOSECONDS < 5
    key = fdb_key(BLUE, number(mac(1)))
    assert row == {"key": key, "held_ns": 0, "count": 1, "home": STEADY, "reserved": 0}


def test_the_last_move_that_is_allowed_is_made(world: World, ring: RingReader) -> None:
    world.learn(BLUE, mac(1), STEADY)
    _moved(world, MOVES - 1)
    world.send(RIVAL, FRAME)
    assert world.whereabouts(BLUE, mac(1)) == RIVAL
    row = _moves(world)
    assert row is not None
    assert (row["count"], row["held_ns"]) == (MOVES, 0)
    assert told(ring) == [(EventType.MAC_MOVED, RIVAL, STEADY, BLUE, mac(1))]


def test_the_next_one_is_not_and_begins_a_hold(world: World, ring: RingReader) -> None:
    world.learn(BLUE, mac(1), STEADY)
    _moved(world, MOVES)
    assert world.send(RIVAL, FRAME).fate == FLOODED
    assert world.whereabouts(BLUE, mac(1)) == STEADY
    assert HOLD_S - 5 < _held_s(world) <= HOLD_S
    assert (world.learning(RIVAL)["held"], world.learning(RIVAL)["moved"]) == (1, 0)
    assert told(ring) == [(EventType.MAC_HELD, RIVAL, STEADY, BLUE, mac(1))]


def test_a_hold_is_told_once(world: World, ring: RingReader) -> None:
    world.learn(BLUE, mac(1), STEADY)
    _moved(world, MOVES)
    for port in (RIVAL, STEADY, THIRD, RIVAL):
        assert world.send(port, FRAME).fate == FLOODED
    assert [kind for kind, *_ in told(ring)] == [EventType.MAC_HELD]
    assert [world.learning(port)["held"] for port in (STEADY, RIVAL, THIRD)] == [0, 1, 0]
    assert world.whereabouts(BLUE, mac(1)) == STEADY


def test_in_a_hold_a_mac_that_is_elsewhere_goes_home_and_stays(world: World, ring: RingReader) -> None:
    world.learn(BLUE, mac(1), RIVAL)
    _moved(world, MOVES)
    for port, then in ((THIRD, RIVAL), (STEADY, STEADY), (RIVAL, STEADY), (THIRD, STEADY)):
        world.send(port, FRAME)
        assert world.whereabouts(BLUE, mac(1)) == then
    assert told(ring) == [
        (EventType.MAC_HELD, THIRD, STEADY, BLUE, mac(1)),
        (EventType.MAC_MOVED, STEADY, RIVAL, BLUE, mac(1)),
    ]


def test_the_move_that_begins_the_hold_may_be_the_one_home(world: World, ring: RingReader) -> None:
    world.learn(BLUE, mac(1), RIVAL)
    _moved(world, MOVES)
    world.send(STEADY, FRAME)
    assert world.whereabouts(BLUE, mac(1)) == STEADY
    assert (world.learned(STEADY), world.learned(RIVAL)) == (1, 0)
    assert _held_s(world) > 0
    assert [world.learning(port)["held"] for port in (STEADY, RIVAL)] == [0, 1]
    assert told(ring) == [
        (EventType.MAC_HELD, RIVAL, STEADY, BLUE, mac(1)),
        (EventType.MAC_MOVED, STEADY, RIVAL, BLUE, mac(1)),
    ]


@pytest.mark.parametrize("rivals", [(RIVAL,), (RIVAL, THIRD)], ids=["one rival", "two rivals"])
def test_whoever_contends_for_a_mac_does_not_win_it(world: World, ring: RingReader, rivals: tuple[int, ...]) -> None:
    world.send(STEADY, FRAME)
    for _ in range(MOVES + 1):
        for port in (*rivals, STEADY):
            world.send(port, FRAME)
    assert list(world.send(THIRD, ethernet(mac(1), mac(3))).frames) == [STEADY]
    assert [kind for kind, *_ in told(ring)].count(EventType.MAC_HELD) == 1


@pytest.mark.parametrize(
    ("ago_s", "held"), [(MOVES_S - 5, True), (MOVES_S + MARGIN_S, False)], ids=["within", "beyond"]
)
def test_moves_count_for_ten_seconds(world: World, ago_s: float, held: bool) -> None:
    world.learn(BLUE, mac(1), STEADY)
    _moved(world, MOVES, ago_s=ago_s)
    world.send(RIVAL, FRAME)
    assert world.whereabouts(BLUE, mac(1)) == (STEADY if held else RIVAL)
    row = _moves(world)
    assert row is not None
    assert row["count"] == (MOVES + 1 if held else 1)


def test_a_hold_ends(world: World, ring: RingReader) -> None:
    world.learn(BLUE, mac(1), THIRD)
    _moved(world, MOVES + 1, ago_s=HOLD_S + 5, held_s=-MARGIN_S)
    world.send(RIVAL, FRAME)
    assert world.whereabouts(BLUE, mac(1)) == RIVAL
    row = _moves(world)
    assert row is not None
    assert (row["count"], row["held_ns"], row["home"]) == (1, 0, THIRD)
    assert [kind for kind, *_ in told(ring)] == [EventType.MAC_MOVED]


def test_in_a_hold_only_its_own_port_refreshes_the_entry(world: World) -> None:
    world.learn(BLUE, mac(1), STEADY, age_s=30)
    before = world.entry(BLUE, mac(1))
    _moved(world, MOVES + 1, held_s=HOLD_S / 2)
    world.send(RIVAL, FRAME)
    assert world.entry(BLUE, mac(1)) == before
    world.send(STEADY, FRAME)
    after = world.entry(BLUE, mac(1))
    assert before is not None
    assert after is not None
    assert after["seen_ns"] > before["seen_ns"]


def test_a_hold_is_of_one_segment(world: World) -> None:
    world.learn(BLUE, mac(1), STEADY)
    world.learn(RED, mac(1), 5)
    _moved(world, MOVES + 1, held_s=HOLD_S / 2, segment=BLUE)
    world.send(6, ethernet(BROADCAST, mac(1), None, vlan(110)))
    world.send(6, ethernet(BROADCAST, mac(1), None, vlan(120)))
    assert (world.whereabouts(BLUE, mac(1)), world.whereabouts(RED, mac(1))) == (STEADY, 6)


def test_an_uplink_does_not_take_a_held_mac_either(world: World) -> None:
    world.learn(BLUE, mac(1), STEADY)
    _moved(world, MOVES)
    world.send(9, ethernet(BROADCAST, mac(1), None, vlan(10)))
    assert world.whereabouts(BLUE, mac(1)) == STEADY


def test_a_mac_that_aged_out_is_held_nowhere(world: World) -> None:
    world.learn(BLUE, mac(1), STEADY, age_s=AGEING_S + 1)
    _moved(world, MOVES + 1, held_s=HOLD_S / 2)
    world.send(RIVAL, FRAME)
    assert world.whereabouts(BLUE, mac(1)) == RIVAL


def test_a_row_whose_element_was_reused_holds_nobody(world: World) -> None:
    world.learn(BLUE, mac(1), STEADY)
    other = abi.MOVES_ROW.pack(key=fdb_key(BLUE, 77), held_ns=time.monotonic_ns() + HOLD_S * NANOSECONDS, home=THIRD)
    world.rig.maps["moves"].update(_key(), other)
    world.send(RIVAL, FRAME)
    assert world.whereabouts(BLUE, mac(1)) == RIVAL


class TestIsNoMove:
    """What is not counted begins no hold either."""

    def test_of_a_mac_that_had_aged_out(self, world: World) -> None:
        world.learn(BLUE, mac(1), STEADY, age_s=AGEING_S + 1)
        world.send(RIVAL, FRAME)
        assert _moves(world) is None

    def test_beyond_the_quota(self, world: World, ring: RingReader) -> None:
        world.set_port(RIVAL, max_macs=0)
        world.learn(BLUE, mac(1), STEADY)
        for _ in range(2 * MOVES):
            world.send(RIVAL, FRAME)
        assert _moves(world) is None
        assert EventType.MAC_HELD not in [kind for kind, *_ in told(ring)]

    @pytest.mark.parametrize("state", [PortMode.STANDBY, PortMode.HOLDING, PortMode.DRAINING])
    def test_from_a_port_that_migrates(self, world: World, state: PortMode) -> None:
        world.set_port(STEADY, state=state)
        world.learn(BLUE, mac(1), STEADY)
        world.send(RIVAL, FRAME)
        assert world.whereabouts(BLUE, mac(1)) == RIVAL
        assert _moves(world) is None

    def test_to_a_port_that_migrates(self, world: World) -> None:
        world.set_port(RIVAL, state=PortMode.DRAINING)
        world.learn(BLUE, mac(1), STEADY)
        world.send(RIVAL, FRAME)
        assert world.whereabouts(BLUE, mac(1)) == RIVAL
        assert _moves(world) is None


def test_not_even_a_hold_stops_a_migration(world: World) -> None:
    world.set_port(STEADY, state=PortMode.DRAINING)
    world.learn(BLUE, mac(1), STEADY)
    _moved(world, MOVES + 1, held_s=HOLD_S / 2)
    world.send(9, ethernet(BROADCAST, mac(1), None, vlan(10)))
    assert world.whereabouts(BLUE, mac(1)) == 9


def test_a_flapping_mac_is_not_evicted_by_those_that_move_once(world: World) -> None:
    """Ten times as many others as the table has rows, and a frame of the MAC now and then."""
    world.learn(BLUE, mac(1), STEADY)
    _moved(world, MOVES + 1, held_s=HOLD_S)
    size = world.rig.maps["moves"].spec.max_entries
    for n in range(10 * size):
        world.rig.maps["moves"].update(struct.pack("=Q", n), bytes(abi.MOVES_ROW.size))
        if n % (size // 4) == 0:
            world.send(RIVAL, FRAME)
    assert world.whereabouts(BLUE, mac(1)) == STEADY


def test_a_full_table_keeps_nobody_from_moving(world: World) -> None:
    for n in range(2 * world.rig.maps["moves"].spec.max_entries):
        world.rig.maps["moves"].update(struct.pack("=Q", n), bytes(abi.MOVES_ROW.size))
    world.learn(BLUE, mac(1), STEADY)
    world.send(RIVAL, FRAME)
    assert world.whereabouts(BLUE, mac(1)) == RIVAL
    assert _moves(world) is not None
