"""Step 18: who gets a copy of a frame for everybody, and how tagged."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator

import pytest

from support.frames import BROADCAST, MULTICAST, arp, ethernet, mac, vlan
from support.outcome import FLOODED, FORWARDED, TC_ACT_SHOT
from support.rig import skb
from support.rows import Row, Way, check, rows
from support.world import BLUE, RED, World, blue, counter
from vxagent.core.tables import MembershipRow, PortFlag, PortMode, Table, slot_key
from vxagent.datapath.abi import CHUNK
from vxagent.model.ids import MAX_MEMBERS

FROM_1 = ethernet(BROADCAST, mac(1))
FROM_9 = ethernet(BROADCAST, mac(50), None, vlan(10))


def _copies(frame: bytes, vids: dict[int, int]) -> dict[int, bytes]:
    """Port → an untagged frame as that port gets it."""
    return {port: frame[:12] + vlan(vid) + frame[12:] if vid else frame for port, vid in vids.items()}


def _out(*ports: int) -> dict[int, bytes]:
    return _copies(FROM_1, blue(*ports))


EVERYBODY = (2, 3, 4, 6, 7, 8, 9, 10)
ARP = ethernet(BROADCAST, mac(1), arp("10.0.0.1", "10.0.0.2", sender_mac=mac(1)))


@rows(
    Row(name="broadcast", frame=FROM_1, fate=FLOODED, out=_out(*EVERYBODY)),
    Row(name="an ARP request, of 42 bytes", frame=ARP, fate=FLOODED, out=_copies(ARP, blue(*EVERYBODY))),
    Row(
        name="multicast",
        frame=ethernet(MULTICAST, mac(1)),
        fate=FLOODED,
        out=_copies(ethernet(MULTICAST, mac(1)), blue(*EVERYBODY)),
    ),
    Row(
        name="a group address that the FDB should not have",
        frame=FROM_1,
        prepare=lambda world: world.state_static(BLUE, BROADCAST, 2),
        fate=FLOODED,
        out=_out(*EVERYBODY),
    ),
    Row(
        name="unknown unicast",
        frame=ethernet(mac(99), mac(1)),
        fate=FLOODED,
        out=_copies(ethernet(mac(99), mac(1)), blue(*EVERYBODY)),
    ),
    Row(
        name="an address known in another segment only",
        frame=ethernet(mac(5), mac(1)),
        knows=((RED, 5),),
        fate=FLOODED,
        out=_copies(ethernet(mac(5), mac(1)), blue(*EVERYBODY)),
    ),
    Row(
        name="from a trunk",
        port=6,
        frame=ethernet(BROADCAST, mac(6), None, vlan(120)),
        fate=FLOODED,
        segment=RED,
        out=_copies(ethernet(BROADCAST, mac(6)), {5: 0, 7: 30, 9: 20, 10: 20}),
    ),
    Row(
        name="from a trunk's native segment",
        port=7,
        frame=ethernet(BROADCAST, mac(7)),
        fate=FLOODED,
        out=_copies(ethernet(BROADCAST, mac(7)), blue(1, 2, 3, 4, 6, 8, 9, 10)),
    ),
    Row(
        name="from an uplink to local ports only",
        port=9,
        frame=FROM_9,
        fate=FLOODED,
        out=_copies(ethernet(BROADCAST, mac(50)), blue(1, 2, 3, 4, 6, 7, 8)),
    ),
    Row(
        name="from an isolated port to all but the isolated ones",
        port=3,
        frame=ethernet(BROADCAST, mac(3)),
        fate=FLOODED,
        out=_copies(ethernet(BROADCAST, mac(3)), blue(1, 2, 6, 7, 8, 9, 10)),
    ),
)
def test_every_other_member_gets_one_copy(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


def _port_2(**changes: object) -> Callable[[World], None]:
    return lambda world: world.set_port(2, **changes)


def _foreign_slot(world: World) -> None:
    """The element under blue's slot of port 2 has become port 5's in red."""
    row = world.rig.get(Table.SLOTS, slot_key(RED, 4))
    assert row is not None
    world.rig.put(Table.SLOTS, slot_key(BLUE, 1), row)


def _slot_of_nobody(world: World) -> None:
    world.rig.put(
        Table.SLOTS, slot_key(BLUE, 1), MembershipRow(port=77, segment=BLUE, vid=0, slot=1, counter=counter(2, BLUE))
    )


def _leave(*ports: int) -> Callable[[World], None]:
    def leave(world: World) -> None:
        for port in ports:
            world.leave(port, BLUE)

    return leave


def _alone(world: World) -> None:
    _leave(*EVERYBODY)(world)


def _behind_the_last_slot(world: World) -> None:
    world.set_segment(BLUE, slots=4)


WITHOUT_2 = _out(3, 4, 6, 7, 8, 9, 10)


@rows(
    *(
        Row(
            name=f"a port that is {state.name}", frame=FROM_1, prepare=_port_2(state=state), fate=FLOODED, out=WITHOUT_2
        )
        for state in (PortMode.DOWN, PortMode.STANDBY, PortMode.DRAINING)
    ),
    Row(name="a port without a device", frame=FROM_1, prepare=_port_2(ifindex=0), fate=FLOODED, out=WITHOUT_2),
    Row(name="a slot whose port is gone", frame=FROM_1, prepare=_slot_of_nobody, fate=FLOODED, out=WITHOUT_2),
    Row(name="a slot that was reused", frame=FROM_1, prepare=_foreign_slot, fate=FLOODED, out=WITHOUT_2),
    Row(name="a port that has left", frame=FROM_1, prepare=_leave(2), fate=FLOODED, out=WITHOUT_2),
    Row(
        name="slots from the segment's number on",
        frame=FROM_1,
        prepare=_behind_the_last_slot,
        fate=FLOODED,
        out=_out(2, 3, 4),
    ),
)
def test_no_copy_for(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


@rows(
    Row(
        name="a port that is HOLDING",
        frame=FROM_1,
        prepare=_port_2(state=PortMode.HOLDING),
        fate=FLOODED,
        out=_out(*EVERYBODY),
    ),
    Row(name="the first slot alone", frame=FROM_1, prepare=_leave(*EVERYBODY[1:]), fate=FLOODED, out=_out(2)),
    Row(name="the last slot alone", frame=FROM_1, prepare=_leave(*EVERYBODY[:-1]), fate=FLOODED, out=_out(10)),
    Row(name="nobody", frame=FROM_1, prepare=_alone, fate=FLOODED, out={}),
)
def test_copies_for(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


def test_device_that_does_not_exist_costs_the_others_nothing(world: World) -> None:
    """The agent learns of a device's end a moment after the kernel; until then its copy goes nowhere."""
    world.set_port(2, ifindex=0x7FFFFFF0)
    outcome = world.run(1, FROM_1)
    assert outcome.fate == FLOODED
    assert set(outcome.sent) == set(EVERYBODY)
    assert set(outcome.frames) == set(EVERYBODY) - {2, 10}


def test_peers_get_their_copies_through_their_devices(world: World) -> None:
    """bpf_clone_redirect cannot go to a peer: a flood treats all ports alike."""
    world.set_port(2, flags=PortFlag.PEER)
    world.set_port(10, flags=PortFlag.UPLINK | PortFlag.TRUNK | PortFlag.PEER)
    assert world.send(1, FROM_1).frames == {port: [frame] for port, frame in _out(*EVERYBODY).items()}


# -- Chunks ------------------------------------------------------------------------------------------------------------

EXTRA = 20  # handles from here on are ports of these tests; their device is tap 2


def _fill(world: World, slots: Iterable[int]) -> set[int]:
    """Blue has port 1 (slot 0) and a port in each of these slots, all on the device of tap 2."""
    _alone(world)
    used = set(slots)
    for at, slot in enumerate(sorted(used)):
        world.plug(EXTRA + at, {BLUE: 0}, slot=slot, ifindex=world.wires.ifindex[2])
    world.set_segment(BLUE, slots=max(used) + 1)
    return set(range(EXTRA, EXTRA + len(used)))


@pytest.mark.parametrize(
    "slots",
    [
        pytest.param({CHUNK - 1}, id="the end of the first chunk"),
        pytest.param({CHUNK}, id="the beginning of the second"),
        pytest.param(set(range(1, CHUNK)), id="one whole chunk"),
        pytest.param(set(range(1, CHUNK + 1)), id="one more"),
        pytest.param({1, CHUNK - 1, CHUNK, 2 * CHUNK - 1, 2 * CHUNK}, id="around the borders"),
        pytest.param({1, 5 * CHUNK + 7}, id="four empty chunks in between"),
        pytest.param({MAX_MEMBERS - 1}, id="the last slot there can be"),
        pytest.param(set(range(7, MAX_MEMBERS, 16)) | {MAX_MEMBERS - 1}, id="all 32 chunks"),
    ],
)
def test_flood_goes_on_from_chunk_to_chunk(world: World, slots: set[int]) -> None:
    ports = _fill(world, slots)
    outcome = world.send(1, FROM_1)
    assert outcome.fate == FLOODED
    assert outcome.sent == dict.fromkeys(ports, (1, len(FROM_1)))
    assert outcome.frames == {2: [FROM_1] * len(ports)}


def test_flood_of_a_full_segment(world: World) -> None:
    """2,111 other members; they share a port, because a test's maps have no room for so many."""
    world.plug(EXTRA, {BLUE: 0}, slot=MAX_MEMBERS - 1, ifindex=world.wires.ifindex[2])
    for slot in range(1, MAX_MEMBERS):
        row = MembershipRow(port=EXTRA, segment=BLUE, vid=0, slot=slot, counter=counter(EXTRA, BLUE))
        world.rig.put(Table.SLOTS, slot_key(BLUE, slot), row)
    with world.wires.inside():
        world.rig.tc(FROM_1, world.ports[1].ifindex)
    traffic = world.rig.traffic(counter(EXTRA, BLUE))
    assert traffic["tx"] == (MAX_MEMBERS - 1, (MAX_MEMBERS - 1) * len(FROM_1))
    assert world.rig.traffic(counter(1, BLUE))["copies"] == (MAX_MEMBERS - 1,)
    assert len(world.wires.read(2, 0)) > 0  # what its queue of 500 has kept


def test_state_between_chunks_keeps_tag_and_priority(world: World) -> None:
    """The pending member of one chunk is sent to in the next, as it wants it."""
    world.leave(6, BLUE)
    world.join(6, BLUE, 110, 3 * CHUNK)
    world.leave(9, BLUE)
    world.join(9, BLUE, 10, 5 * CHUNK)
    tci = {"pcp": 6, "dei": 1}
    frame = ethernet(BROADCAST, mac(1), None, vlan(0, **tci))
    plain = ethernet(BROADCAST, mac(1))
    expected = {port: [plain] for port in (2, 3, 4, 7, 8)}
    for port, vid in {6: 110, 9: 10, 10: 10}.items():
        expected[port] = [ethernet(BROADCAST, mac(1), None, vlan(vid, **tci))]
    assert world.send(1, frame).frames == expected


# -- Without the flood program -----------------------------------------------------------------------------------------


@pytest.fixture
def no_flood_program(world: World) -> Iterator[None]:
    """The tail-call table is empty."""
    progs, slot = world.rig.generation.progs, struct.pack("=I", 0)
    progs.delete(slot)
    yield
    progs.update(slot, struct.pack("=I", world.rig.program("vx_flood").fd))


@pytest.mark.usefixtures("no_flood_program")
class TestWithoutFloodProgram:
    """Nothing leaks to the host; what needs no flood goes on."""

    @pytest.mark.parametrize("port", [1, 9], ids=["port", "uplink"])
    def test_flood_is_dropped_and_counted(self, world: World, port: int) -> None:
        frame = FROM_1 if port == 1 else FROM_9
        outcome = world.run(port, frame)
        assert (outcome.fate, outcome.where, outcome.action) == ("no_destination", (port, BLUE), TC_ACT_SHOT)

    def test_known_unicast_goes_on(self, world: World) -> None:
        world.learn(BLUE, mac(2), 2)
        assert world.send(1, ethernet(mac(2), mac(1))).fate == FORWARDED


def test_flood_that_cannot_go_on_sends_what_is_pending(world: World) -> None:
    """vx_flood runs without an entry for itself: its first chunk is all there is."""
    world.leave(10, BLUE)
    world.join(10, BLUE, 10, 3 * CHUNK)
    progs, slot = world.rig.generation.progs, struct.pack("=I", 0)
    words = {"cb0": 1 << 16 | BLUE, "cb1": 0, "cb2": 0, "cb3": 0, "cb4": counter(1, BLUE)}
    progs.delete(slot)
    try:
        with world.wires.inside():
            world.rig.program("vx_flood").test_run(FROM_1, skb(ifindex=world.ports[1].ifindex, **words))
    finally:
        progs.update(slot, struct.pack("=I", world.rig.program("vx_flood").fd))
    assert world.rig.traffic(counter(1, BLUE))["copies"] == (7,)
    assert {port for port in EVERYBODY if world.wires.read(port, 0)} == {2, 3, 4, 6, 7, 8}  # 9: the redirect
