"""The promises that hold whatever a frame is, on frames that nobody thought of.

`Oracle` says from the drawing in `support.world` alone where a frame may be seen. It knows nothing of how the data
plane works.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from support.frames import (
    BROADCAST,
    C_TAG,
    LINK_LOCAL,
    MULTICAST,
    TPIDS,
    ethernet,
    mac,
    payload,
    tags_of,
    vlan,
)
from support.outcome import TC_ACT_REDIRECT, TC_ACT_SHOT, TO_HOST, Outcome
from support.world import BLUE, PORTS, RED, UPLINKS, World

FRAMES = 400

UNTAGGED = {1: BLUE, 2: BLUE, 3: BLUE, 4: BLUE, 5: RED, 7: BLUE, 8: BLUE}
TAGGED = {
    (6, 110): BLUE,
    (6, 120): RED,
    (7, 30): RED,
    (9, 10): BLUE,
    (9, 20): RED,
    (10, 10): BLUE,
    (10, 20): RED,
}
VIDS = (0, 1, 10, 20, 30, 110, 120, 4095)


def _tag(frame: bytes) -> tuple[int, int]:
    """(TPID, VID) of the outermost tag; (0, 0) where there is none."""
    tags = tags_of(frame)
    if not tags:
        return 0, 0
    return int.from_bytes(tags[0][:2], "big"), int.from_bytes(tags[0][2:], "big") & 0xFFF


def _segment(port: int, frame: bytes) -> int | None:
    """To which segment a frame on this port's wire belongs."""
    tpid, vid = _tag(frame)
    if tpid not in (0, C_TAG):
        return None
    return TAGGED.get((port, vid)) if vid else UNTAGGED.get(port)


def _seen(port: int, frame: bytes) -> int | None:
    """As `_segment`, for a frame that leaves: a priority tag is none of the switch's."""
    tpid, vid = _tag(frame)
    return None if tpid and not vid else _segment(port, frame)


def _frames(seed: int) -> Iterator[tuple[int, bytes]]:
    """(port, frame): addresses, tags and lengths of every kind, most of them nearly right."""
    draw = random.Random(seed)
    for serial in range(FRAMES):
        port = draw.choice(PORTS)
        tags = []
        for _ in range(draw.choices((0, 1, 2, 3), (5, 6, 3, 1))[0]):
            tpid = C_TAG if draw.random() < 0.8 else draw.choice(TPIDS)
            tags.append(vlan(draw.choice(VIDS), pcp=draw.randrange(8), dei=draw.randrange(2), tpid=tpid))
        to = draw.choices((BROADCAST, MULTICAST, LINK_LOCAL, mac(draw.choice(PORTS)), mac(99)), (3, 1, 1, 9, 1))[0]
        sender = draw.choices(
            (mac(port), mac(draw.choice(PORTS)), mac(50 + draw.randrange(9)), MULTICAST), (8, 2, 2, 1)
        )[0]
        length = draw.choice((46, 46, 46, 1500, 1501))
        yield port, ethernet(to, sender, payload(serial.to_bytes(4, "big"), length=length), *tags)


def _inside(frame: bytes) -> bytes:
    """What no switch may change: the MACs, and all that follows the outermost tag, if that is a C-tag."""
    tpid, _ = _tag(frame)
    return frame[:12] + (frame[16:] if tpid == C_TAG else frame[12:])


@pytest.fixture(params=range(6))
def traffic(request: pytest.FixtureRequest, world: World) -> list[tuple[int, bytes, Outcome]]:
    """Frames that came in one after the other, and what became of them. The FDB is as they have taught it."""
    world.state_static(BLUE, mac(2), 2)
    return [(port, frame, world.send(port, frame)) for port, frame in _frames(request.param)]


def test_isolation(traffic: list[tuple[int, bytes, Outcome]]) -> None:
    """No frame of a segment is ever seen where its segment is not; and it is itself when it is seen."""
    seen = 0
    for port, frame, outcome in traffic:
        segment = _segment(port, frame)
        for to, copies in outcome.frames.items():
            (copy,) = copies
            assert segment is not None
            assert _seen(to, copy) == segment
            assert _inside(copy) == _inside(frame)
            assert to != port
            assert {port, to} != {3, 4}, "isolated"
            assert not {port, to} <= set(UPLINKS), "split horizon"
            seen += 1
    assert seen > FRAMES / 2, "the frames are too wrong to show anything"


def test_port_never_reaches_the_host(world: World) -> None:
    """Whatever a VM sends, and wherever its tag is, the program takes it."""
    for port, frame in _frames(99):
        if port not in UPLINKS:
            assert world.run(port, frame).action in (TC_ACT_SHOT, TC_ACT_REDIRECT)
            tpid, _ = _tag(frame)
            if tpid in (0x8100, 0x88A8):
                assert world.run_tagged(port, frame).action in (TC_ACT_SHOT, TC_ACT_REDIRECT)
            for number in PORTS:
                world.wires.read(number, 0)


def test_host_gets_what_is_no_segments(traffic: list[tuple[int, bytes, Outcome]]) -> None:
    """All of it and nothing else, and only from an uplink."""
    for port, frame, outcome in traffic:
        hosts = port in UPLINKS and (frame[:6] == LINK_LOCAL or _segment(port, frame) is None)
        assert (outcome.fate == TO_HOST) == hosts


def test_counters_add_up(world: World) -> None:
    """Frames in = Σ verdicts; copies made = frames that were sent = frames that arrived."""
    frames_in: dict[int, list[int]] = {port: [] for port in PORTS}
    arrived: dict[int, list[int]] = {port: [] for port in PORTS}
    for port, frame in _frames(7):
        outcome = world.send(port, frame)
        frames_in[port].append(len(frame))
        for to, got in outcome.frames.items():
            arrived[to] += [len(copy) for copy in got]
    counts = world.counts()
    for port in PORTS:
        verdicts = [value for (what, at, _), value in counts.items() if at == port and what not in ("sent", "copies")]
        assert sum(packets for packets, _ in verdicts) == len(frames_in[port])
        assert sum(octets for _, octets in verdicts) == sum(frames_in[port])
        sent = [value for (what, at, _), value in counts.items() if at == port and what == "sent"]
        assert sum(packets for packets, _ in sent) == len(arrived[port])
        assert sum(octets for _, octets in sent) == sum(arrived[port])
    copies = sum(packets for (what, _, _), (packets, _) in counts.items() if what == "copies")
    assert copies == sum(len(lengths) for lengths in arrived.values())
