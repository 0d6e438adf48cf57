"""Steps 15 and 17, what a segment does not carry; and the order in which the steps give their reasons."""

from __future__ import annotations

from support.frames import BROADCAST, EXPERIMENTAL, L3, MULTICAST, ethernet, mac, payload, vlan
from support.outcome import FLOODED, FORWARDED
from support.rows import Row, Way, check, rows
from support.world import BLUE, RED, World, blue
from vxagent.core.tables import PortFlag, PortMode, SegmentFlag

FRAME = ethernet(mac(2), mac(1))
EVERYBODY_ELSE = blue(2, 3, 4, 6, 7, 8, 9, 10)


def _known(source: int, destination: int, *tags: bytes) -> bytes:
    return ethernet(mac(destination), mac(source), None, *tags)


AT_MTU = ethernet(mac(2), mac(1), payload(length=1500))
OVER_MTU = ethernet(mac(2), mac(1), payload(length=1501))


def _large(length: int, *tags: bytes) -> bytes:
    return ethernet(mac(9), mac(6), payload(length=length), *tags)


@rows(
    Row(name="1500 bytes of L3 fit", frame=AT_MTU, knows=((BLUE, 2),), fate=FORWARDED, out={2: AT_MTU}),
    Row(name="1501 do not", frame=OVER_MTU, knows=((BLUE, 2),), fate="mtu_exceeded"),
    Row(
        name="a tag is no L3",
        port=6,
        frame=_large(1500, vlan(110)),
        knows=((BLUE, 9),),
        fate=FORWARDED,
        out={9: _large(1500, vlan(10))},
    ),
    Row(
        name="behind a tag 1501 do not fit either",
        port=6,
        frame=_large(1501, vlan(110)),
        knows=((BLUE, 9),),
        fate="mtu_exceeded",
    ),
    Row(
        name="the tag that follows is no L3 either",
        port=6,
        frame=_large(1500, vlan(110), vlan(7)),
        knows=((BLUE, 9),),
        fate=FORWARDED,
        out={9: _large(1500, vlan(10), vlan(7))},
    ),
    Row(
        name="nor are its bytes too many",
        port=6,
        frame=_large(1501, vlan(110), vlan(7)),
        knows=((BLUE, 9),),
        fate="mtu_exceeded",
    ),
    Row(
        name="floods have the same limit", frame=ethernet(BROADCAST, mac(1), payload(length=1501)), fate="mtu_exceeded"
    ),
    Row(
        name="the limit is the segment's",
        frame=ethernet(mac(2), mac(1), payload(length=601)),
        knows=((BLUE, 2),),
        prepare=lambda world: world.set_segment(BLUE, mtu=600),
        fate="mtu_exceeded",
    ),
    Row(
        name="which may be large",
        frame=OVER_MTU,
        knows=((BLUE, 2),),
        prepare=lambda world: world.set_segment(BLUE, mtu=9000),
        fate=FORWARDED,
        out={2: OVER_MTU},
    ),
)
def test_mtu_of_the_segment(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


def _drop_unknown(world: World) -> None:
    world.set_segment(BLUE, flags=SegmentFlag.DROP_UNKNOWN)


@rows(
    Row(name="unknown unicast is dropped", frame=FRAME, prepare=_drop_unknown, fate="unknown_unicast"),
    Row(
        name="from an uplink too",
        port=9,
        frame=_known(50, 1, vlan(10)),
        prepare=_drop_unknown,
        fate="unknown_unicast",
    ),
    Row(
        name="known unicast is not",
        frame=FRAME,
        knows=((BLUE, 2),),
        prepare=_drop_unknown,
        fate=FORWARDED,
        out={2: FRAME},
    ),
    *(
        Row(
            name=f"nor is {kind}",
            frame=ethernet(address, mac(1)),
            prepare=_drop_unknown,
            fate=FLOODED,
            out={
                port: ethernet(address, mac(1), None, *([vlan(vid)] if vid else []))
                for port, vid in EVERYBODY_ELSE.items()
            },
        )
        for kind, address in (("broadcast", BROADCAST), ("multicast", MULTICAST))
    ),
    Row(
        name="nor another segment's",
        port=5,
        frame=ethernet(mac(1), mac(5)),
        prepare=_drop_unknown,
        fate=FLOODED,
        segment=RED,
        out={port: ethernet(mac(1), mac(5), None, vlan(vid)) for port, vid in {6: 120, 7: 30, 9: 20, 10: 20}.items()},
    ),
)
def test_segment_that_drops_unknown_unicast(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


TOO_LARGE = L3(EXPERIMENTAL, bytes(1501))


def _isolated_pair(world: World) -> None:
    world.set_port(1, flags=PortFlag.ISOLATED)
    world.set_port(2, flags=PortFlag.ISOLATED)
    world.learn(BLUE, mac(2), 2)


def _isolated_alone(world: World) -> None:
    world.set_port(1, flags=PortFlag.ISOLATED)
    world.learn(BLUE, mac(2), 1)


def _down_unknown(world: World) -> None:
    world.set_port(2, state=PortMode.DOWN)
    world.learn(BLUE, mac(2), 2)


@rows(
    Row(
        name="2 before 3",
        frame=ethernet(bytes.fromhex("0180c2000000"), mac(1), None, vlan(10)),
        fate="link_local",
        segment=0,
    ),
    Row(name="3 before 4", frame=ethernet(mac(2), BROADCAST, None, vlan(10)), fate="vlan_denied", segment=0),
    Row(
        name="4 before 4a",
        frame=ethernet(mac(2), BROADCAST),
        prepare=lambda world: world.set_port(1, state=PortMode.STANDBY),
        fate="src_invalid",
    ),
    Row(
        name="4a before 5",
        port=8,
        frame=ethernet(mac(2), mac(1)),
        prepare=lambda world: world.set_port(8, state=PortMode.STANDBY),
        fate="standby",
    ),
    Row(
        name="6 before 14",
        frame=ethernet(mac(8), mac(8)),
        fate="src_mac_conflict",
    ),
    Row(name="hairpin before isolated", frame=FRAME, prepare=_isolated_alone, fate="hairpin"),
    Row(name="isolated before 15", frame=ethernet(mac(2), mac(1), TOO_LARGE), prepare=_isolated_pair, fate="isolated"),
    Row(
        name="15 before no_destination",
        frame=ethernet(mac(2), mac(1), TOO_LARGE),
        prepare=_down_unknown,
        fate="mtu_exceeded",
    ),
    Row(name="15 before 17", frame=ethernet(mac(2), mac(1), TOO_LARGE), prepare=_drop_unknown, fate="mtu_exceeded"),
)
def test_first_reason_in_the_order_of_the_steps_counts(world: World, row: Row, way: Way) -> None:
    check(world, row, way)
