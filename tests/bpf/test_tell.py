"""What the agent is told: of each kind a port tells a few events at once and then one a second; the rest is counted."""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from support.events import told
from support.frames import BROADCAST, ethernet, mac
from support.rig import Rig
from support.wires import Wires
from support.world import BLUE, NANOSECONDS, PORTS, World, number
from vxagent.core.tables import fdb_key
from vxagent.datapath import abi, maps
from vxagent.datapath.abi import EVENT_BURST, MOVES, EventType
from vxagent.datapath.ring import RingReader

TICKS_PER_S = 16 * NANOSECONDS
RECORD = abi.EVENT.size + 8  # with the ring's own header
FROM, TO, OTHER = 2, 1, 3  # ports in blue


def _move(world: World, count: int, *, to: int = TO, first: int = 100) -> None:
    """So many MACs move to a port."""
    for n in range(first, first + count):
        world.learn(BLUE, mac(n), FROM)
        world.send(to, ethernet(BROADCAST, mac(n)))


def _contend(world: World, sender: int, *, holder: int) -> None:
    """A MAC whose home is FROM moves once too often: `sender` brings it while `holder` has it."""
    world.learn(BLUE, mac(1), holder)
    key = fdb_key(BLUE, number(mac(1)))
    row = abi.MOVES_ROW.pack(key=key, began_ns=time.monotonic_ns() - NANOSECONDS, count=MOVES, home=FROM)
    world.rig.maps["moves"].update(struct.pack("=Q", key), row)
    world.send(sender, ethernet(BROADCAST, mac(1)))


def _set_missing(world: World, port: int, kind: EventType, missing_s: float) -> None:
    """A port may tell as many events of a kind as ever in so many seconds."""
    buckets = [0] * len(EventType)
    buckets[kind - 1] = 16 * time.monotonic_ns() + int(missing_s * TICKS_PER_S)
    world.rig.maps["telling"].update(struct.pack("=I", port), abi.TELLING.struct.pack(0, *buckets))


def _suppressed(world: World, port: int) -> int:
    row = world.rig.maps["telling"].lookup(struct.pack("=I", port)) or b""
    return int(abi.TELLING.struct.unpack(row)[0])


def _kinds(ring: RingReader) -> list[tuple[int, int]]:
    """(type, port) of each event that waits."""
    return [(kind, port) for kind, port, *_ in told(ring)]


def test_a_port_tells_so_many_at_once_and_the_rest_is_counted(world: World, ring: RingReader) -> None:
    _move(world, EVENT_BURST + 3)
    first = [(EventType.MAC_MOVED, TO, FROM, BLUE, mac(100 + n)) for n in range(EVENT_BURST)]
    assert told(ring) == first
    assert _suppressed(world, TO) == 3
    assert world.learning(TO)["moved"] == EVENT_BURST + 3


@pytest.mark.parametrize(("missing_s", "tells"), [(EVENT_BURST - 1.1, True), (EVENT_BURST - 0.1, False)])
def test_and_one_more_a_second(world: World, ring: RingReader, missing_s: float, tells: bool) -> None:
    _set_missing(world, TO, EventType.MAC_MOVED, missing_s)
    _move(world, 1)
    assert _kinds(ring) == [(EventType.MAC_MOVED, TO)] * tells
    assert _suppressed(world, TO) == (not tells)


def test_what_is_not_told_costs_nothing(world: World) -> None:
    _set_missing(world, TO, EventType.MAC_MOVED, EVENT_BURST)
    before = (world.rig.maps["telling"].lookup(struct.pack("=I", TO)) or b"")[8:]
    _move(world, 10)
    assert (world.rig.maps["telling"].lookup(struct.pack("=I", TO)) or b"")[8:] == before
    assert _suppressed(world, TO) == 10


def test_one_kind_is_not_hidden_by_another(world: World, ring: RingReader) -> None:
    _move(world, EVENT_BURST + 1)
    world.set_port(TO, max_macs=0)
    world.send(TO, ethernet(BROADCAST, mac(99)))
    assert _kinds(ring) == [(EventType.MAC_MOVED, TO)] * EVENT_BURST + [(EventType.LEARN_LIMITED, TO)]


def test_one_port_is_not_hidden_by_another(world: World, ring: RingReader) -> None:
    _move(world, EVENT_BURST + 20)
    _move(world, 1, to=OTHER, first=50)
    assert _kinds(ring) == [(EventType.MAC_MOVED, TO)] * EVENT_BURST + [(EventType.MAC_MOVED, OTHER)]
    assert _suppressed(world, OTHER) == 0


@pytest.mark.parametrize(("sender", "holder"), [(TO, FROM), (FROM, TO)], ids=["the rival", "home"])
def test_a_hold_is_told_of_the_rival_whoever_sends(world: World, ring: RingReader, sender: int, holder: int) -> None:
    """Whoever takes its own MAC back pays nothing for that somebody contends for it."""
    _set_missing(world, TO, EventType.MAC_HELD, EVENT_BURST)
    _contend(world, sender, holder=holder)
    assert EventType.MAC_HELD not in [kind for kind, _ in _kinds(ring)]
    assert (_suppressed(world, TO), _suppressed(world, FROM)) == (1, 0)
    assert world.learning(TO)["held"] == 1


@pytest.fixture(scope="module")
def small(bytecode_cache: Path) -> Iterator[World]:
    """The switch of `world` with the smallest ring there can be."""
    rig = Rig(bytecode_cache, replace(maps.DEFAULT_SIZES, events=mmap.PAGESIZE))
    wires = Wires(PORTS, rig.program("vx_tc"), rig.program("vx_xdp"), name="tell")
    yield World(rig, wires, rig.prelude())
    wires.close()
    rig.close()


def test_what_finds_the_ring_full_is_counted(small: World) -> None:
    ring = RingReader(small.rig.maps["events"])
    room = (mmap.PAGESIZE - 1) // RECORD  # the kernel never fills the last byte
    small.set_port(TO, max_macs=2 * room)
    for n in range(room):
        _set_missing(small, TO, EventType.MAC_MOVED, 0)
        _move(small, 1, first=100 + n)
    assert _suppressed(small, TO) == 0
    _move(small, 1, first=100 + room)
    assert _suppressed(small, TO) == 1
    assert _kinds(ring) == [(EventType.MAC_MOVED, TO)] * room
    _move(small, 1, first=101 + room)
    assert _kinds(ring) == [(EventType.MAC_MOVED, TO)]
    ring.close()
