"""Reading a ring buffer that a program writes: in order, around its end, without what was thrown away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.rig import Rig, skb
from vxagent.datapath.bpf_map import Map, MapSpec, MapType
from vxagent.datapath.bpf_prog import Program, ProgSpec, ProgType
from vxagent.datapath.ring import RingReader

SIZE = 4096
SHORT, LONG = 20, 1000  # as ring.c has them
ROOM = SIZE // (LONG + 8)
TC_ACT_OK, TC_ACT_SHOT = 0, 2

Write = Callable[..., bool]


@pytest.fixture(scope="module")
def ring(loaded: Rig) -> tuple[Program, Map]:
    spec = MapSpec(name="ring", type=MapType.RINGBUF, key_size=0, value_size=0, max_entries=SIZE)
    writer = ProgSpec(name="writer", type=ProgType.SCHED_CLS)
    programs, own = loaded.compile(Path(__file__).with_name("ring.c"), (writer,), {"ring": spec})
    return programs["writer"], own["ring"]


@pytest.fixture
def reader(ring: tuple[Program, Map]) -> Iterator[RingReader]:
    made = RingReader(ring[1])
    made.read()
    yield made
    made.close()


@pytest.fixture
def write(ring: tuple[Program, Map]) -> Write:
    def one(fill: int, *, short: bool = False, discard: bool = False) -> bool:
        run = ring[0].test_run(bytes(60), skb(mark=fill, cb0=short, cb1=discard))
        assert run.verdict in (TC_ACT_OK, TC_ACT_SHOT)
        return run.verdict == TC_ACT_OK

    return one


def test_an_empty_ring_gives_nothing(reader: RingReader) -> None:
    assert reader.read() == []


def test_records_come_in_order_and_once(reader: RingReader, write: Write) -> None:
    for fill in (1, 2, 3):
        assert write(fill, short=True)
    assert reader.read() == [bytes([fill]) * SHORT for fill in (1, 2, 3)]
    assert reader.read() == []


def test_records_around_the_end_are_whole(reader: RingReader, write: Write) -> None:
    for fill in range(1, 100):
        assert write(fill)
        assert write(fill, short=True)
        assert reader.read() == [bytes([fill]) * LONG, bytes([fill]) * SHORT]


def test_what_was_thrown_away_is_left_out(reader: RingReader, write: Write) -> None:
    assert write(1, short=True)
    assert write(2, discard=True)
    assert write(3, short=True)
    assert reader.read() == [bytes([1]) * SHORT, bytes([3]) * SHORT]


def test_reading_makes_room_in_a_full_ring(reader: RingReader, write: Write) -> None:
    assert [write(fill) for fill in range(ROOM + 1)] == [True] * ROOM + [False]
    assert len(reader.read()) == ROOM
    assert write(1)


def test_no_more_are_read_than_asked_for(reader: RingReader, write: Write) -> None:
    for fill in (1, 2, 3):
        assert write(fill, short=True)
    assert reader.read(2) == [bytes([fill]) * SHORT for fill in (1, 2)]
    assert reader.read(0) == []
    assert reader.read(2) == [bytes([3]) * SHORT]


def test_the_next_reader_goes_on_where_the_last_one_stopped(
    reader: RingReader, write: Write, ring: tuple[Program, Map]
) -> None:
    assert write(1, short=True)
    assert len(reader.read()) == 1
    assert write(2, short=True)
    second = RingReader(ring[1])
    assert second.read() == [bytes([2]) * SHORT]
    second.close()
