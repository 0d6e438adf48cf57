"""Steps 10 and 14 to 17: frames for one receiver."""

from __future__ import annotations

from collections.abc import Callable

from support.frames import ethernet, mac, vlan
from support.outcome import FLOODED, FORWARDED, TC_ACT_REDIRECT
from support.rows import Row, Way, check, rows
from support.world import BLUE, RED, World, blue
from vxagent.core.tables import PortFlag, PortMode

FRAME = ethernet(mac(2), mac(1))


def _known(source: int, destination: int, *tags: bytes) -> bytes:
    return ethernet(mac(destination), mac(source), None, *tags)


@rows(
    Row(name="access to access", frame=FRAME, knows=((BLUE, 2),), fate=FORWARDED, out={2: FRAME}),
    Row(
        name="access to trunk", frame=_known(1, 6), knows=((BLUE, 6),), fate=FORWARDED, out={6: _known(1, 6, vlan(110))}
    ),
    Row(
        name="access to a trunk's native", frame=_known(1, 7), knows=((BLUE, 7),), fate=FORWARDED, out={7: _known(1, 7)}
    ),
    Row(
        name="access to uplink", frame=_known(1, 9), knows=((BLUE, 9),), fate=FORWARDED, out={9: _known(1, 9, vlan(10))}
    ),
    Row(
        name="access to a trunk's other segment",
        port=5,
        frame=_known(5, 7),
        knows=((RED, 7),),
        fate=FORWARDED,
        segment=RED,
        out={7: _known(5, 7, vlan(30))},
    ),
    Row(
        name="trunk to access",
        port=6,
        frame=_known(6, 1, vlan(110)),
        knows=((BLUE, 1),),
        fate=FORWARDED,
        out={1: _known(6, 1)},
    ),
    Row(
        name="trunk to trunk",
        port=6,
        frame=_known(6, 7, vlan(120)),
        knows=((RED, 7),),
        fate=FORWARDED,
        segment=RED,
        out={7: _known(6, 7, vlan(30))},
    ),
    Row(
        name="trunk to uplink",
        port=6,
        frame=_known(6, 9, vlan(110)),
        knows=((BLUE, 9),),
        fate=FORWARDED,
        out={9: _known(6, 9, vlan(10))},
    ),
    Row(
        name="uplink to access",
        port=9,
        frame=_known(9, 1, vlan(10)),
        knows=((BLUE, 1),),
        fate=FORWARDED,
        out={1: _known(9, 1)},
    ),
    Row(
        name="uplink to trunk",
        port=9,
        frame=_known(9, 6, vlan(10)),
        knows=((BLUE, 6),),
        fate=FORWARDED,
        out={6: _known(9, 6, vlan(110))},
    ),
    Row(
        name="to a static entry",
        frame=FRAME,
        prepare=lambda world: world.state_static(BLUE, mac(2), 2),
        fate=FORWARDED,
        out={2: FRAME},
    ),
    Row(
        name="to what the cluster says is here",
        frame=FRAME,
        prepare=lambda world: world.state_static(BLUE, mac(2), 2, cluster=True),
        fate=FORWARDED,
        out={2: FRAME},
    ),
    Row(
        name="an isolated port to another one",
        port=3,
        frame=_known(3, 1),
        knows=((BLUE, 1),),
        fate=FORWARDED,
        out={1: _known(3, 1)},
    ),
    Row(
        name="an isolated port to an uplink",
        port=3,
        frame=_known(3, 9),
        knows=((BLUE, 9),),
        fate=FORWARDED,
        out={9: _known(3, 9, vlan(10))},
    ),
)
def test_known_unicast_goes_to_its_port_tagged_as_that_wants_it(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


@rows(
    Row(
        name="the receiver is behind the sender's port",
        frame=FRAME,
        prepare=lambda w: w.learn(BLUE, mac(2), 1),
        fate="hairpin",
    ),
    Row(name="the receiver is the sender", frame=_known(1, 1), knows=((BLUE, 1),), fate="hairpin"),
    Row(
        name="the receiver is behind the sender's uplink",
        port=9,
        frame=_known(50, 51, vlan(10)),
        prepare=lambda w: w.learn(BLUE, mac(51), 9),
        fate="hairpin",
    ),
    Row(
        name="another segment of the same trunk is another matter",
        port=6,
        frame=_known(6, 66, vlan(110)),
        prepare=lambda w: w.learn(RED, mac(66), 6),
        fate=FLOODED,
        out={port: _known(6, 66, *([vlan(vid)] if vid else [])) for port, vid in blue(1, 2, 3, 4, 7, 8, 9, 10).items()},
    ),
    Row(name="both ports are isolated", port=3, frame=_known(3, 4), knows=((BLUE, 4),), fate="isolated"),
)
def test_same_port_and_isolated_ports(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


def _target(**changes: object) -> Callable[[World], None]:
    return lambda world: world.set_port(2, **changes)


def _leave(world: World) -> None:
    """VM 2's port has gone to no segment; its FDB entry is still there."""
    world.leave(2, BLUE)


def _move_to_red(world: World) -> None:
    world.leave(2, BLUE)
    world.plug(2, {RED: 0})


def _leave_trunk(world: World) -> None:
    world.leave(6, BLUE)


@rows(
    *(
        Row(
            name=f"{state.name}",
            frame=FRAME,
            knows=((BLUE, 2),),
            prepare=_target(state=state),
            fate="no_destination",
        )
        for state in (PortMode.DOWN, PortMode.STANDBY, PortMode.DRAINING)
    ),
    Row(
        name="HOLDING receives",
        frame=FRAME,
        knows=((BLUE, 2),),
        prepare=_target(state=PortMode.HOLDING),
        fate=FORWARDED,
        out={2: FRAME},
    ),
    Row(name="without a device", frame=FRAME, knows=((BLUE, 2),), prepare=_target(ifindex=0), fate="no_destination"),
    Row(name="gone", frame=FRAME, knows=((BLUE, 2),), prepare=_target(handle=0), fate="no_destination"),
    Row(name="in no segment any more", frame=FRAME, knows=((BLUE, 2),), prepare=_leave, fate="no_destination"),
    Row(name="in another segment by now", frame=FRAME, knows=((BLUE, 2),), prepare=_move_to_red, fate="no_destination"),
    Row(
        name="a trunk that has left",
        frame=_known(1, 6),
        knows=((BLUE, 6),),
        prepare=_leave_trunk,
        fate="no_destination",
    ),
    Row(
        name="a port that nobody knows",
        frame=FRAME,
        prepare=lambda world: world.state_static(BLUE, mac(2), 0),
        fate="no_destination",
    ),
    Row(
        name="an uplink, from an uplink",
        port=9,
        frame=_known(9, 10, vlan(10)),
        knows=((BLUE, 10),),
        fate="no_destination",
    ),
)
def test_known_receiver_whose_port_cannot_take_the_frame(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


def _reused(world: World) -> None:
    """The element under (blue, VM 2) has become one of red."""
    world.learn(RED, mac(2), 5, key_segment=BLUE)


def _reused_member(world: World) -> None:
    """The element under (port 6, blue) has become port 6's in red, with another VID."""
    world.learn(BLUE, mac(6), 6)
    world.rig.maps["members"].update(_key(6, BLUE), world.rig.maps["members"].lookup(_key(6, RED)) or b"")


def _key(high: int, low: int) -> bytes:
    return (high << 16 | low).to_bytes(4, "little")


EVERYBODY_ELSE = blue(2, 3, 4, 6, 7, 8, 9, 10)


@rows(
    Row(
        name="an FDB element of another key is no entry",
        frame=FRAME,
        prepare=_reused,
        fate=FLOODED,
        out={port: _known(1, 2, *([vlan(vid)] if vid else [])) for port, vid in EVERYBODY_ELSE.items()},
    ),
    Row(name="a membership of another key is none", frame=_known(1, 6), prepare=_reused_member, fate="no_destination"),
)
def test_element_that_was_reused_is_absent(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


def test_peer_in_another_namespace_is_reached_by_redirect_peer(world: World) -> None:
    """Whether it arrives needs a veth; that the frame is counted and handed over does not."""
    world.set_port(2, flags=PortFlag.PEER)
    world.learn(BLUE, mac(2), 2)
    outcome = world.run(1, FRAME)
    assert (outcome.fate, outcome.action, outcome.data) == (FORWARDED, TC_ACT_REDIRECT, FRAME)
    assert outcome.sent == {2: (1, len(FRAME))}
