"""A frame, what is to become of it, and the ways it can get into the program.

    @rows(
        Row("known unicast goes to its port alone", ethernet(mac(2), mac(1)), knows=((BLUE, 2),), out={2: …}),
    )
    def test_forwards(world: World, row: Row, way: Way) -> None:
        check(world, row, way)

Each row runs four ways, and must end alike: a tag may be in the frame's bytes or in skb->vlan_tci, and what the
kernel does in front of the program and behind it is part of the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import pytest

from support import frames
from support.frames import mac
from support.outcome import (
    FLOODED,
    FORWARDED,
    REPLIED,
    TC_ACT_REDIRECT,
    TC_ACT_SHOT,
    TC_ACT_UNSPEC,
    TO_HOST,
    Outcome,
)
from support.world import BLUE, World


class Way(StrEnum):
    """How a frame gets into the program."""

    WIRE = "wire"  # through a tap: an outer tag of 0x8100 or 0x88a8 is moved to skb->vlan_tci by the kernel
    XDP = "xdp"  # the same, and XDP may finish it for every port
    BYTES = "bytes"  # test run: all tags are in the frame's bytes
    METADATA = "metadata"  # test run: the outermost tag is in skb->vlan_tci; for frames that have such a tag


ON_TAPS = (Way.WIRE, Way.XDP)


def _nothing(world: World) -> None:
    """Prepare nothing."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is to become of a frame.

    Attributes:
        name: the behaviour, in words.
        frame: as it is on the wire.
        port: which brings it.
        knows: (segment, port): the FDB has learned the VM of that port there.
        prepare: what else is different from `World`.
        fate: the verdict or the reason.
        where: (port, segment) that it is counted for; by default `port` and `segment`.
        out: port → the frame that arrives there.
        ways: in which it is tried.
        again: one that is forwarded is sent twice; the second has a flow, and must end alike.
    """

    name: str
    frame: bytes
    port: int = 1
    knows: tuple[tuple[int, int], ...] = ()
    prepare: Callable[[World], object] = _nothing
    fate: str
    segment: int = BLUE
    where: tuple[int, int] | None = None
    out: Mapping[int, bytes] = field(default_factory=dict)
    ways: tuple[Way, ...] = tuple(Way)
    again: bool = True


def rows(*several: Row) -> pytest.MarkDecorator:
    """The test runs for each row, each way."""
    params = [
        pytest.param(row, way, id=f"{row.name} [{way}]")
        for row in several
        for way in row.ways
        if way is not Way.METADATA or _hardware_tag(row.frame)
    ]
    return pytest.mark.parametrize(("row", "way"), params)


def _hardware_tag(frame: bytes) -> bool:
    """Whether the kernel would take the outermost tag into skb->vlan_tci."""
    tags = frames.tags_of(frame)
    return bool(tags) and len(frame) >= 18 and int.from_bytes(tags[0][:2], "big") in (frames.C_TAG, frames.S_TAG)


def enter(world: World, way: Way) -> Callable[[int, bytes], Outcome]:
    """What takes a port and a frame, and says what became of it."""
    match way:
        case Way.WIRE:
            return world.send
        case Way.XDP:
            return world.send_at_xdp
        case Way.BYTES:
            return world.run
        case Way.METADATA:
            return world.run_tagged


def check(world: World, row: Row, way: Way) -> None:
    """Run a row, and look at everything that came of it."""
    for segment, port in row.knows:
        world.learn(segment, mac(port), port)
    row.prepare(world)
    outcome = enter(world, way)(row.port, row.frame)
    _judge(row, way, outcome)
    if row.again and row.fate == FORWARDED:
        _judge(row, way, enter(world, way)(row.port, row.frame))


def _judge(row: Row, way: Way, outcome: Outcome) -> None:
    assert outcome.fate == row.fate
    assert outcome.where == (row.where or (row.port, row.segment))
    assert outcome.octets == len(row.frame)
    assert outcome.sent == {port: (1, len(frame)) for port, frame in row.out.items()}
    if way in ON_TAPS:
        assert outcome.frames == {port: [frame] for port, frame in row.out.items()}
    else:
        _check_run(row, way, outcome)


def _check_run(row: Row, way: Way, outcome: Outcome) -> None:
    """Of a test run: clones have been sent; the last frame would be, and its tag cannot be seen."""
    arrived = {port: got for port, (got,) in outcome.frames.items()}
    assert arrived == {port: frame for port, frame in row.out.items() if port in arrived}
    last = row.out.keys() - arrived.keys()
    if row.fate in (FORWARDED, FLOODED, REPLIED) and row.out:
        assert outcome.action == TC_ACT_REDIRECT
        assert [outcome.data] == [frames.untag(row.out[port]) for port in last]
    elif row.fate == TO_HOST:
        assert outcome.action == TC_ACT_UNSPEC
        assert outcome.data == (frames.untag(row.frame) if way is Way.METADATA else row.frame)
    else:
        assert outcome.action == TC_ACT_SHOT
        assert not last
