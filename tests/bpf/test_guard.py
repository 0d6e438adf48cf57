"""Steps 4 to 6: which senders may send."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.frames import BROADCAST, MULTICAST, ethernet, mac, vlan
from support.outcome import FORWARDED
from support.rows import Row, Way, check, rows
from support.world import BLUE, RED, World, number
from vxagent.core.tables import FdbFlag, FdbRow, Origin, PortFlag, PortMode, Table, fdb_key


@rows(
    *(
        Row(
            name=f"a port's {address.hex(':')}", frame=ethernet(mac(2), address), knows=((BLUE, 2),), fate="src_invalid"
        )
        for address in (bytes(6), BROADCAST, MULTICAST, bytes.fromhex("030000000001"))
    ),
    Row(
        name="an uplink's multicast",
        port=9,
        frame=ethernet(mac(1), MULTICAST, None, vlan(10)),
        knows=((BLUE, 1),),
        fate="src_invalid",
    ),
)
def test_source_that_is_nobodys_address(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


def _in(state: PortMode, port: int = 1) -> Callable[[World], None]:
    return lambda world: world.set_port(port, state=state)


@rows(
    *(
        Row(
            name=f"{state.name} says nothing",
            frame=ethernet(mac(2), mac(1)),
            knows=((BLUE, 2),),
            prepare=_in(state),
            fate="standby",
        )
        for state in (PortMode.DOWN, PortMode.STANDBY, PortMode.HOLDING)
    ),
    Row(
        name="DRAINING still sends",
        frame=ethernet(mac(2), mac(1)),
        knows=((BLUE, 2),),
        prepare=_in(PortMode.DRAINING),
        fate=FORWARDED,
        out={2: ethernet(mac(2), mac(1))},
    ),
    Row(
        name="an uplink that is down brings no segment's frames",
        port=9,
        frame=ethernet(mac(1), mac(50), None, vlan(10)),
        knows=((BLUE, 1),),
        prepare=_in(PortMode.DOWN, 9),
        fate="standby",
    ),
)
def test_state_of_the_port(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


def _unlist(world: World) -> None:
    world.state_static(BLUE, mac(8), 8)


def _list_another_vm(world: World) -> None:
    world.state_static(BLUE, mac(1), 1, FdbFlag.LISTED)


def _lock_trunk(world: World) -> None:
    """Port 6 lists its MAC, in both of its segments."""
    world.set_port(6, flags=PortFlag.TRUNK | PortFlag.MAC_LOCKED)
    world.state_static(BLUE, mac(6), 6, FdbFlag.LISTED)
    world.state_static(RED, mac(6), 6, FdbFlag.LISTED)


@rows(
    Row(
        name="the MAC that it lists",
        port=8,
        frame=ethernet(mac(2), mac(8)),
        knows=((BLUE, 2),),
        fate=FORWARDED,
        out={2: ethernet(mac(2), mac(8))},
    ),
    Row(
        name="a MAC that it does not list",
        port=8,
        frame=ethernet(mac(2), mac(88)),
        knows=((BLUE, 2),),
        fate="src_mac_denied",
    ),
    Row(
        name="a MAC learned there before it was locked",
        port=8,
        frame=ethernet(mac(2), mac(88)),
        knows=((BLUE, 2),),
        prepare=lambda world: world.learn(BLUE, mac(88), 8),
        fate="src_mac_denied",
    ),
    Row(
        name="a static entry that is not of its list",
        port=8,
        frame=ethernet(mac(2), mac(8)),
        knows=((BLUE, 2),),
        prepare=_unlist,
        fate="src_mac_denied",
    ),
    Row(
        name="a MAC that another port lists is denied before it conflicts",
        port=8,
        frame=ethernet(mac(2), mac(1)),
        knows=((BLUE, 2),),
        prepare=_list_another_vm,
        fate="src_mac_denied",
    ),
    Row(
        name="the list holds in every segment of a trunk",
        port=6,
        frame=ethernet(mac(5), mac(6), None, vlan(120)),
        knows=((RED, 5),),
        prepare=_lock_trunk,
        fate=FORWARDED,
        segment=RED,
        out={5: ethernet(mac(5), mac(6))},
    ),
    Row(
        name="and denies in every segment",
        port=6,
        frame=ethernet(mac(5), mac(66), None, vlan(120)),
        knows=((RED, 5),),
        prepare=_lock_trunk,
        fate="src_mac_denied",
        segment=RED,
    ),
)
def test_port_that_lists_macs(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


def _stated(
    port: int, *, segment: int = BLUE, address: bytes = mac(1), cluster: bool = False
) -> Callable[[World], None]:
    return lambda world: world.state_static(segment, address, port, cluster=cluster)


FRAME = ethernet(mac(2), mac(1))
FROM_UPLINK = ethernet(mac(2), mac(1), None, vlan(10))


@rows(
    Row(name="static on another port", frame=FRAME, knows=((BLUE, 2),), prepare=_stated(3), fate="src_mac_conflict"),
    Row(name="static on an uplink", frame=FRAME, knows=((BLUE, 2),), prepare=_stated(9), fate="src_mac_conflict"),
    Row(
        name="static behind a VTEP",
        frame=FRAME,
        knows=((BLUE, 2),),
        prepare=_stated(0),
        fate="src_mac_conflict",
    ),
    Row(
        name="the cluster has it elsewhere",
        frame=FRAME,
        knows=((BLUE, 2),),
        prepare=_stated(9, cluster=True),
        fate="src_mac_conflict",
    ),
    Row(
        name="an uplink brings what is static on a port",
        port=9,
        frame=FROM_UPLINK,
        knows=((BLUE, 2),),
        prepare=_stated(1),
        fate="src_mac_conflict",
    ),
    Row(
        name="an uplink brings what a port lists",
        port=9,
        frame=ethernet(mac(2), mac(8), None, vlan(10)),
        knows=((BLUE, 2),),
        fate="src_mac_conflict",
    ),
    Row(
        name="an uplink brings what is static on another uplink",
        port=9,
        frame=FROM_UPLINK,
        knows=((BLUE, 2),),
        prepare=_stated(10),
        fate="src_mac_conflict",
    ),
    Row(
        name="static on this very port",
        frame=FRAME,
        knows=((BLUE, 2),),
        prepare=_stated(1),
        fate=FORWARDED,
        out={2: FRAME},
    ),
    Row(
        name="static on this very uplink",
        port=9,
        frame=FROM_UPLINK,
        knows=((BLUE, 2),),
        prepare=_stated(9),
        fate=FORWARDED,
        out={2: FRAME},
    ),
    Row(
        name="static elsewhere in another segment",
        frame=FRAME,
        knows=((BLUE, 2),),
        prepare=_stated(5, segment=RED),
        fate=FORWARDED,
        out={2: FRAME},
    ),
    Row(
        name="learned elsewhere is a move",
        frame=FRAME,
        knows=((BLUE, 2),),
        prepare=lambda world: world.learn(BLUE, mac(1), 3),
        fate=FORWARDED,
        out={2: FRAME},
    ),
)
def test_source_that_is_stated_elsewhere(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


MIGRATING = (PortMode.STANDBY, PortMode.HOLDING, PortMode.DRAINING)


def _migrating(state: PortMode, owner: int, *, port: int, cluster: bool = False) -> Callable[[World], None]:
    """VM 1's MAC is stated for the owner, while this port is in that state."""

    def prepare(world: World) -> None:
        _stated(owner, cluster=cluster)(world)
        world.set_port(port, state=state)

    return prepare


@rows(
    *(
        Row(
            name=f"an uplink brings what is static on a {state.name} port",
            port=9,
            frame=FROM_UPLINK,
            knows=((BLUE, 2),),
            prepare=_migrating(state, 1, port=1),
            fate=FORWARDED,
            out={2: FRAME},
        )
        for state in MIGRATING
    ),
    *(
        Row(
            name=f"an uplink brings what is static on a port that is {state.name}",
            port=9,
            frame=FROM_UPLINK,
            knows=((BLUE, 2),),
            prepare=_migrating(state, 1, port=1),
            fate="src_mac_conflict",
        )
        for state in (PortMode.UP, PortMode.DOWN)
    ),
    *(
        Row(
            name=f"another port brings what is static on a {state.name} port",
            frame=FRAME,
            knows=((BLUE, 2),),
            prepare=_migrating(state, 3, port=3),
            fate="src_mac_conflict",
        )
        for state in MIGRATING
    ),
    Row(
        name="the cluster has it behind a VTEP",
        frame=FRAME,
        knows=((BLUE, 2),),
        prepare=_stated(0, cluster=True),
        fate="src_mac_conflict",
    ),
    Row(
        name="the cluster has it behind a VTEP already, this port is DRAINING",
        frame=FRAME,
        knows=((BLUE, 2),),
        prepare=_migrating(PortMode.DRAINING, 0, port=1, cluster=True),
        fate=FORWARDED,
        out={2: FRAME},
    ),
    Row(
        name="the cluster has it on an uplink already, this port is DRAINING",
        frame=FRAME,
        knows=((BLUE, 2),),
        prepare=_migrating(PortMode.DRAINING, 9, port=1, cluster=True),
        fate=FORWARDED,
        out={2: FRAME},
    ),
    Row(
        name="a DRAINING port brings what is static on another port",
        frame=FRAME,
        knows=((BLUE, 2),),
        prepare=_migrating(PortMode.DRAINING, 3, port=1),
        fate="src_mac_conflict",
    ),
)
def test_source_whose_vm_migrates(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


@rows(
    *(
        Row(
            name=f"a trunk in {where} and {kind} elsewhere",
            port=6,
            frame=ethernet(mac(receiver), mac(50), None, vlan(vid)),
            knows=((segment, receiver),),
            prepare=_stated(owner, segment=segment, address=mac(50), cluster=cluster),
            fate="src_mac_conflict",
            segment=segment,
        )
        for where, segment, vid, receiver, owner in (("blue", BLUE, 110, 2, 1), ("red", RED, 120, 5, 7))
        for kind, cluster in (("static", False), ("the cluster's", True))
    ),
    Row(
        name="a trunk in red and static elsewhere in blue",
        port=6,
        frame=ethernet(mac(5), mac(50), None, vlan(120)),
        knows=((RED, 5),),
        prepare=_stated(1, address=mac(50)),
        fate=FORWARDED,
        segment=RED,
        out={5: ethernet(mac(5), mac(50))},
    ),
)
def test_source_that_a_trunk_brings(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


def test_listed_entry_whose_element_was_reused_lists_nobody(world: World) -> None:
    """The element under (blue, VM 8) holds a row of red: it is as good as absent, and the port is locked."""
    row = FdbRow(port=8, segment=RED, origin=Origin.STATIC, flags=FdbFlag.LISTED)
    world.rig.put(Table.FDB, fdb_key(BLUE, number(mac(8))), row)
    assert world.send(8, ethernet(mac(2), mac(8))).fate == "src_mac_denied"


@pytest.mark.parametrize("state", [PortMode.STANDBY, PortMode.HOLDING, PortMode.DOWN])
def test_frame_of_a_silent_port_teaches_nothing(world: World, state: PortMode) -> None:
    world.set_port(1, state=state)
    world.send(1, FRAME)
    assert world.entry(BLUE, mac(1)) is None
