"""The tag with which a frame leaves, and tags behind tags: step 3 where it needs to know the destination.

A VM chooses the tags of its frame. Wherever it puts them, they must never become the outermost tag of a frame that
leaves the switch: on a trunk or an uplink that would be another segment.
"""

from __future__ import annotations

from support.frames import BROADCAST, C_TAG, S_TAG, ethernet, mac, tags_of, vlan
from support.outcome import FLOODED, FORWARDED
from support.rows import Row, Way, check, rows
from support.world import BLUE, RED, World, blue
from vxagent.core.tables import PortFlag

RED_ON_UPLINK = 20
FOLLOWING = tuple(vlan(RED_ON_UPLINK, tpid=tpid) for tpid in (C_TAG, S_TAG, 0x9100, 0x9200, 0x9300))


def _name(tag: bytes) -> str:
    return f"0x{tag[:2].hex()}"


def _frame(source: int, destination: int, *tags: bytes) -> bytes:
    return ethernet(mac(destination), mac(source), None, *tags)


PRIORITY = {"pcp": 5, "dei": 1}


@rows(
    Row(
        name="a tagged frame keeps its priority under another VID",
        port=6,
        frame=_frame(6, 9, vlan(110, **PRIORITY)),
        knows=((BLUE, 9),),
        fate=FORWARDED,
        out={9: _frame(6, 9, vlan(10, **PRIORITY))},
    ),
    Row(
        name="a priority tag's priority goes into the tag",
        frame=_frame(1, 9, vlan(0, **PRIORITY)),
        knows=((BLUE, 9),),
        fate=FORWARDED,
        out={9: _frame(1, 9, vlan(10, **PRIORITY))},
    ),
    Row(
        name="an untagged frame has none",
        frame=_frame(1, 9),
        knows=((BLUE, 9),),
        fate=FORWARDED,
        out={9: _frame(1, 9, vlan(10))},
    ),
    Row(
        name="it goes with the tag",
        port=9,
        frame=_frame(9, 1, vlan(10, **PRIORITY)),
        knows=((BLUE, 1),),
        fate=FORWARDED,
        out={1: _frame(9, 1)},
    ),
    Row(
        name="the copies of a flood each have it",
        port=6,
        frame=ethernet(BROADCAST, mac(6), None, vlan(120, **PRIORITY)),
        fate=FLOODED,
        segment=RED,
        out={
            5: ethernet(BROADCAST, mac(6)),
            7: ethernet(BROADCAST, mac(6), None, vlan(30, **PRIORITY)),
            9: ethernet(BROADCAST, mac(6), None, vlan(20, **PRIORITY)),
            10: ethernet(BROADCAST, mac(6), None, vlan(20, **PRIORITY)),
        },
    ),
    Row(
        name="a VID that stays as it is",
        port=9,
        frame=_frame(9, 6, vlan(10, **PRIORITY)),
        knows=((BLUE, 6),),
        prepare=lambda world: world.join(6, BLUE, 10, 5),
        fate=FORWARDED,
        out={6: _frame(9, 6, vlan(10, **PRIORITY))},
    ),
)
def test_priority(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


@rows(
    *(
        Row(
            name=f"{what}, {_name(tag)} follows",
            port=port,
            frame=_frame(port, 2, outer, tag),
            knows=((BLUE, 2),),
            fate="vlan_denied",
        )
        for tag in FOLLOWING
        for what, port, outer in (
            ("a priority tag from an access port", 1, vlan(0)),
            ("a trunk's VID", 6, vlan(110)),
            ("a priority tag in a trunk's native segment", 7, vlan(0, pcp=1)),
            ("an uplink's VID", 9, vlan(10)),
        )
    ),
    Row(
        name="not even VID 0 may follow",
        frame=_frame(1, 2, vlan(0), vlan(0)),
        knows=((BLUE, 2),),
        fate="vlan_denied",
    ),
    Row(
        name="nor VID 0 and then another one",
        frame=_frame(1, 2, vlan(0), vlan(0), vlan(RED_ON_UPLINK)),
        knows=((BLUE, 2),),
        fate="vlan_denied",
    ),
    Row(
        name="to a trunk's native segment no more than to an access port",
        port=6,
        frame=_frame(6, 7, vlan(110), vlan(RED_ON_UPLINK)),
        knows=((BLUE, 7),),
        fate="vlan_denied",
    ),
)
def test_tag_that_would_become_the_outermost_is_denied(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


@rows(
    *(
        Row(
            name=f"{what}, {_name(tag)} follows",
            port=port,
            frame=_frame(port, target, outer, tag),
            knows=((BLUE, target),),
            fate=FORWARDED,
            out={target: _frame(port, target, vlan(vid, pcp=2), tag)},
        )
        for tag in FOLLOWING
        for what, port, outer, target, vid in (
            ("a priority tag from an access port to an uplink", 1, vlan(0, pcp=2), 9, 10),
            ("a trunk to an uplink", 6, vlan(110, pcp=2), 9, 10),
            ("an uplink to a trunk", 9, vlan(10, pcp=2), 6, 110),
        )
    ),
    Row(
        name="several follow",
        port=6,
        frame=_frame(6, 9, vlan(110), vlan(RED_ON_UPLINK), vlan(0), vlan(30, tpid=S_TAG)),
        knows=((BLUE, 9),),
        fate=FORWARDED,
        out={9: _frame(6, 9, vlan(10), vlan(RED_ON_UPLINK), vlan(0), vlan(30, tpid=S_TAG))},
    ),
)
def test_tag_that_follows_stays_where_it_is(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


TAGGED_MEMBERS = {port: vid for port, vid in blue(*range(1, 11)).items() if vid and port != 5}


@rows(
    *(
        Row(
            name=f"{what}, {_name(tag)} follows",
            port=port,
            frame=ethernet(BROADCAST, mac(port), None, outer, tag),
            fate=FLOODED,
            out={to: ethernet(BROADCAST, mac(port), None, vlan(TAGGED_MEMBERS[to]), tag) for to in members},
        )
        for tag in FOLLOWING
        for what, port, outer, members in (
            ("from an access port", 1, vlan(0), (6, 9, 10)),
            ("from a trunk", 6, vlan(110), (9, 10)),
            ("from an uplink", 9, vlan(10), (6,)),
        )
    ),
    Row(
        name="nobody is tagged",
        port=9,
        frame=ethernet(BROADCAST, mac(50), None, vlan(10), vlan(20)),
        prepare=lambda world: world.leave(6, BLUE),
        fate=FLOODED,
    ),
)
def test_flood_reaches_only_those_whom_it_leaves_tagged(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


@rows(
    *(
        Row(
            name=f"an access port's VID {vid}, {_name(tag)} follows",
            frame=_frame(1, 2, vlan(vid), tag),
            knows=((BLUE, 2),),
            fate="vlan_denied",
            segment=0,
        )
        for tag in FOLLOWING
        for vid in (5, 10)
    ),
)
def test_tag_that_does_not_classify_is_denied_whatever_follows(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


def test_members_that_are_tagged_and_untagged_in_turns(world: World) -> None:
    """Pushes and pops on one frame, back and forth, down to the last copy."""
    for port in (1, 2, 3, 4, 6, 7, 8, 9, 10):
        world.leave(port, BLUE)
    turns = {1: 0, 2: 102, 3: 0, 4: 104, 6: 0, 7: 107, 8: 108, 9: 0, 10: 10}
    for port, vid in turns.items():
        world.plug(port, {BLUE: vid}, PortFlag.TRUNK, slot=port)
    outcome = world.send(10, ethernet(BROADCAST, mac(50), None, vlan(10, pcp=4)))
    tags = {port: tags_of(frame) for port, (frame,) in outcome.frames.items()}
    assert tags == {port: (vlan(vid, pcp=4),) if vid else () for port, vid in turns.items() if port != 10}
