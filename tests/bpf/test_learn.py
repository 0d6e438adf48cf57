"""Step 13: what the switch learns from a frame, and what it does not."""

from __future__ import annotations

import itertools
import struct
import time
from contextlib import suppress

import pytest

from support.events import told
from support.frames import BROADCAST, ethernet, mac, payload, vlan
from support.outcome import FLOODED
from support.world import AGEING_S, BLUE, NANOSECONDS, RED, World, number
from vxagent.core.tables import FdbFlag, LimitsRow, Origin, PortMode, Table
from vxagent.datapath import abi
from vxagent.datapath.abi import EventType
from vxagent.datapath.ring import RingReader
from vxagent.errors import MapFull

FRAME = ethernet(BROADCAST, mac(1))


def _counted(**counters: int) -> dict[str, int]:
    """learning[port] with these counters, the others 0."""
    return dict.fromkeys(abi.LEARNING.members, 0) | counters


def _age_s(world: World, segment: int, address: bytes) -> float:
    entry = world.entry(segment, address)
    assert entry is not None
    return (time.monotonic_ns() - entry["seen_ns"]) / NANOSECONDS


def test_learns_the_sender(world: World) -> None:
    world.send(1, FRAME)
    entry = world.entry(BLUE, mac(1))
    assert entry is not None
    assert (entry["port"], entry["via"], entry["segment"], entry["origin"], entry["flags"]) == (
        1,
        0,
        BLUE,
        Origin.LEARNED,
        0,
    )
    assert 0 <= _age_s(world, BLUE, mac(1)) < 5
    assert world.learning(1) == _counted(learned=1)


def test_next_frame_goes_to_the_learned_port(world: World) -> None:
    world.send(1, FRAME)
    assert list(world.send(2, ethernet(mac(1), mac(2))).frames) == [1]


def test_learns_once(world: World) -> None:
    for _ in range(3):
        world.send(1, FRAME)
    assert world.learned(1) == 1


@pytest.mark.parametrize(
    ("port", "tag", "segment"),
    [(6, 110, BLUE), (6, 120, RED), (9, 10, BLUE), (9, 20, RED)],
    ids=["blue", "red", "uplink blue", "uplink red"],
)
def test_learns_in_the_segment_of_the_frame(world: World, port: int, tag: int, segment: int) -> None:
    world.send(port, ethernet(BROADCAST, mac(50), None, vlan(tag)))
    assert world.whereabouts(segment, mac(50)) == port
    assert world.entry(BLUE + RED - segment, mac(50)) is None


def test_same_mac_in_two_segments_is_two_entries(world: World) -> None:
    world.send(1, ethernet(BROADCAST, mac(50)))
    world.send(5, ethernet(BROADCAST, mac(50)))
    assert (world.whereabouts(BLUE, mac(50)), world.whereabouts(RED, mac(50))) == (1, 5)


def test_entry_is_refreshed_once_a_second(world: World) -> None:
    world.learn(BLUE, mac(1), 1, age_s=30)
    world.send(1, FRAME)
    assert _age_s(world, BLUE, mac(1)) < 5
    assert world.learned(1) == 1


def test_entry_younger_than_a_second_is_left_alone(world: World) -> None:
    world.learn(BLUE, mac(1), 1)
    before = world.entry(BLUE, mac(1))
    world.send(1, FRAME)
    assert world.entry(BLUE, mac(1)) == before


def test_entry_that_another_cpu_refreshed_a_moment_later_is_alive(world: World) -> None:
    """seen_ns is ahead of this CPU's clock: the age is negative, not huge."""
    world.learn(BLUE, mac(2), 2, age_s=-1)
    assert list(world.send(1, ethernet(mac(2), mac(1))).frames) == [2]


class TestMove:
    """A MAC that was learned on one port comes from another."""

    def test_moves_the_entry(self, world: World, ring: RingReader) -> None:
        world.learn(BLUE, mac(1), 2)
        world.send(1, FRAME)
        assert world.whereabouts(BLUE, mac(1)) == 1
        assert world.learning(1) == _counted(learned=1, moved=1)
        assert world.learned(2) == 0
        assert told(ring) == [(EventType.MAC_MOVED, 1, 2, BLUE, mac(1))]

    def test_to_an_uplink_and_back(self, world: World) -> None:
        world.learn(BLUE, mac(1), 1)
        world.send(9, ethernet(BROADCAST, mac(1), None, vlan(10)))
        assert world.whereabouts(BLUE, mac(1)) == 9
        world.send(1, FRAME)
        assert world.whereabouts(BLUE, mac(1)) == 1
        assert (world.learned(1), world.learned(9)) == (1, 0)

    def test_not_beyond_the_quota_of_the_new_port(self, world: World) -> None:
        world.set_port(1, max_macs=0)
        world.learn(BLUE, mac(1), 2)
        world.send(1, FRAME)
        assert world.whereabouts(BLUE, mac(1)) == 2
        assert world.learning(1)["limited"] == 1
        assert world.learned(2) == 1


class TestAgeing:
    """An entry that was not seen for longer than ageing_ns counts as absent."""

    def test_destination_is_unknown(self, world: World) -> None:
        world.learn(BLUE, mac(2), 2, age_s=AGEING_S + 1)
        assert world.send(1, ethernet(mac(2), mac(1))).fate == FLOODED

    def test_destination_just_before_is_known(self, world: World) -> None:
        world.learn(BLUE, mac(2), 2, age_s=AGEING_S - 5)
        assert list(world.send(1, ethernet(mac(2), mac(1))).frames) == [2]

    def test_changes_live(self, world: World) -> None:
        world.learn(BLUE, mac(2), 2, age_s=20)
        world.set_ageing(10)
        assert world.send(1, ethernet(mac(2), mac(1))).fate == FLOODED
        world.set_ageing(30)
        assert list(world.send(1, ethernet(mac(2), mac(1))).frames) == [2]

    def test_zero_is_never(self, world: World) -> None:
        world.set_ageing(0)
        world.learn(BLUE, mac(2), 2, age_s=90)
        assert list(world.send(1, ethernet(mac(2), mac(1))).frames) == [2]

    def test_static_entry_has_no_age(self, world: World) -> None:
        world.state_static(BLUE, mac(2), 2)
        world.set_ageing(1)
        assert list(world.send(1, ethernet(mac(2), mac(1))).frames) == [2]

    def test_sender_comes_back_on_its_port(self, world: World, ring: RingReader) -> None:
        world.learn(BLUE, mac(1), 1, age_s=AGEING_S + 1)
        world.send(1, FRAME)
        assert _age_s(world, BLUE, mac(1)) < 5
        assert world.learning(1) == _counted(learned=1)
        assert told(ring) == []

    def test_sender_comes_back_elsewhere_and_has_not_moved(self, world: World, ring: RingReader) -> None:
        world.learn(BLUE, mac(1), 2, age_s=AGEING_S + 1)
        world.send(1, FRAME)
        assert world.whereabouts(BLUE, mac(1)) == 1
        assert world.learning(1) == _counted(learned=1)
        assert world.learned(2) == 0
        assert told(ring) == []


class TestQuota:
    """max_macs bounds what a port has in the FDB; the frames go on."""

    def test_beyond_it_nothing_is_learned(self, world: World) -> None:
        world.set_port(1, max_macs=2)
        fates = [world.send(1, ethernet(BROADCAST, mac(100 + n))).fate for n in range(4)]
        assert fates == [FLOODED] * 4
        assert [world.whereabouts(BLUE, mac(100 + n)) for n in range(4)] == [1, 1, None, None]
        assert world.learning(1) == _counted(learned=2, limited=2)

    def test_known_macs_stay_refreshed(self, world: World) -> None:
        world.set_port(1, max_macs=1)
        world.learn(BLUE, mac(1), 1, age_s=30)
        world.send(1, FRAME)
        assert _age_s(world, BLUE, mac(1)) < 5
        assert world.learning(1)["limited"] == 0

    def test_what_the_agent_forgot_is_free_again(self, world: World) -> None:
        world.set_port(1, max_macs=2)
        for n in range(2):
            world.send(1, ethernet(BROADCAST, mac(100 + n)))
        world.forget(1, 1)
        for n in range(2, 4):
            world.send(1, ethernet(BROADCAST, mac(100 + n)))
        assert [world.whereabouts(BLUE, mac(102 + n)) for n in range(2)] == [1, None]

    def test_more_forgotten_than_learned_is_no_huge_number(self, world: World) -> None:
        """Two CPUs may both take a moved entry off the old port; the agent's correction comes later."""
        world.set_port(1, max_macs=1)
        world.forget(1, 1)
        world.send(1, FRAME)
        assert world.whereabouts(BLUE, mac(1)) == 1

    def test_of_zero_learns_nothing(self, world: World) -> None:
        world.set_port(1, max_macs=0)
        world.send(1, FRAME)
        assert world.entry(BLUE, mac(1)) is None

    def test_events_become_rare(self, world: World, ring: RingReader) -> None:
        world.set_port(1, max_macs=0)
        for n in range(9):
            world.send(1, ethernet(BROADCAST, mac(100 + n)))
        assert world.learning(1)["limited"] == 9
        rare = [(EventType.LEARN_LIMITED, 1, 0, BLUE, mac(100 + n)) for n in (0, 1, 3, 7)]
        assert told(ring) == rare

    def test_spans_the_segments_of_a_trunk(self, world: World) -> None:
        world.set_port(6, max_macs=1)
        world.send(6, ethernet(BROADCAST, mac(6), None, vlan(110)))
        world.send(6, ethernet(BROADCAST, mac(6), None, vlan(120)))
        assert (world.whereabouts(BLUE, mac(6)), world.whereabouts(RED, mac(6))) == (6, None)


SECOND = 16 * NANOSECONDS  # in ticks of a bucket


class TestRate:
    """The learn limit bounds how many MACs a port makes new or moved entries for in a second; the frames go on."""

    @staticmethod
    def _limit(world: World, rate: int, ahead_s: float = 0.0) -> None:
        """Port 1 learns at this rate; its bucket is full in so many seconds."""
        world.rig.put(Table.LIMITS, 1, LimitsRow(learn=rate))
        full = 16 * time.monotonic_ns() + int(ahead_s * SECOND)
        world.rig.maps["buckets"].update(struct.pack("=I", 1), abi.BUCKETS.pack(learn=full))

    @staticmethod
    def _full_at(world: World) -> int:
        buckets = world.rig.maps["buckets"].lookup(struct.pack("=I", 1)) or b""
        return int(abi.BUCKETS.unpack(buckets)["learn"])

    def test_beyond_it_nothing_is_learned(self, world: World, ring: RingReader) -> None:
        self._limit(world, 1, ahead_s=3600)
        assert world.send(1, FRAME).fate == FLOODED
        assert world.entry(BLUE, mac(1)) is None
        assert world.learning(1) == _counted(limited=1)
        assert told(ring) == [(EventType.LEARN_LIMITED, 1, 0, BLUE, mac(1))]

    @pytest.mark.parametrize("rate", [1, 1000])
    def test_each_new_mac_takes_its_share_of_a_second(self, world: World, rate: int) -> None:
        self._limit(world, rate)
        before = 16 * time.monotonic_ns()
        world.send(1, FRAME)
        assert world.whereabouts(BLUE, mac(1)) == 1
        assert before + SECOND // rate <= self._full_at(world) <= 16 * time.monotonic_ns() + SECOND // rate

    def test_a_second_may_come_at_once(self, world: World) -> None:
        self._limit(world, 4)
        for n in range(4):
            world.send(1, ethernet(BROADCAST, mac(100 + n)))
        assert world.learning(1) == _counted(learned=4)

    def test_a_moved_mac_pays_as_well(self, world: World) -> None:
        self._limit(world, 1, ahead_s=3600)
        world.learn(BLUE, mac(1), 2)
        world.send(1, FRAME)
        assert world.whereabouts(BLUE, mac(1)) == 2

    @pytest.mark.parametrize("age_s", [0, 30, AGEING_S + 1])
    def test_a_known_mac_is_free(self, world: World, age_s: float) -> None:
        self._limit(world, 1)
        world.learn(BLUE, mac(1), 1, age_s=age_s)
        before = self._full_at(world)
        world.send(1, FRAME)
        assert self._full_at(world) == before
        assert world.learning(1)["limited"] == 0

    def test_what_the_quota_refuses_is_free(self, world: World) -> None:
        self._limit(world, 1)
        world.set_port(1, max_macs=0)
        before = self._full_at(world)
        world.send(1, FRAME)
        assert self._full_at(world) == before

    def test_is_of_one_port(self, world: World) -> None:
        self._limit(world, 1, ahead_s=3600)
        world.send(2, ethernet(BROADCAST, mac(2)))
        assert world.whereabouts(BLUE, mac(2)) == 2

    def test_none_is_none(self, world: World) -> None:
        self._limit(world, 0, ahead_s=3600)
        world.send(1, FRAME)
        assert world.whereabouts(BLUE, mac(1)) == 1


def _fill_fdb(world: World) -> None:
    value = abi.FDB_ENTRY.pack(port=2, segment=BLUE, origin=Origin.STATIC)
    with suppress(MapFull):
        for n in itertools.count():
            world.rig.maps["fdb"].update(struct.pack("=Q", BLUE << 48 | n << 24), value)


def test_full_fdb_is_counted_and_told_and_the_frame_goes_on(world: World, ring: RingReader) -> None:
    _fill_fdb(world)
    assert world.send(1, FRAME).fate == FLOODED
    assert world.learning(1) == _counted(full=1)
    assert told(ring) == [(EventType.FDB_FULL, 1, 0, BLUE, mac(1))]


class TestLearnsNothing:
    """From a frame that says nothing about where its sender is, or that has been told better."""

    def test_on_a_port_that_lists_macs(self, world: World) -> None:
        before = world.entry(BLUE, mac(8))
        world.send(8, ethernet(BROADCAST, mac(8)))
        world.send(8, ethernet(BROADCAST, mac(88)))
        assert world.entry(BLUE, mac(8)) == before
        assert world.entry(BLUE, mac(88)) is None
        assert world.learned(8) == 0

    @pytest.mark.parametrize("cluster", [False, True], ids=["static", "cluster"])
    def test_that_was_stated(self, world: World, cluster: bool) -> None:
        world.state_static(BLUE, mac(1), 1, cluster=cluster)
        before = world.entry(BLUE, mac(1))
        world.send(1, FRAME)
        assert world.entry(BLUE, mac(1)) == before
        assert world.learned(1) == 0

    def test_from_an_uplink_that_brings_what_migrates(self, world: World) -> None:
        world.set_port(1, state=PortMode.DRAINING)
        world.state_static(BLUE, mac(1), 1)
        before = world.entry(BLUE, mac(1))
        assert world.send(9, ethernet(BROADCAST, mac(1), None, vlan(10))).fate == FLOODED
        assert world.entry(BLUE, mac(1)) == before

    def test_from_what_an_earlier_step_dropped(self, world: World) -> None:
        world.state_static(BLUE, mac(50), 2, FdbFlag(0))
        world.learn(BLUE, mac(2), 2)
        frames = {
            "vlan_denied": ethernet(BROADCAST, mac(60), None, vlan(10)),
            "link_local": ethernet(bytes.fromhex("0180c2000000"), mac(60)),
            "src_invalid": ethernet(BROADCAST, BROADCAST),
            "src_mac_conflict": ethernet(BROADCAST, mac(50)),
        }
        assert [world.send(1, frame).fate for frame in frames.values()] == list(frames)
        # Step 3 has a second half, once the destination is known: it would leave with a tag of the VM's own.
        assert world.send(1, ethernet(mac(2), mac(60), None, vlan(0), vlan(20))).fate == "vlan_denied"
        assert world.learned(1) == 0
        assert world.entry(BLUE, mac(60)) is None

    def test_into_an_element_that_holds_another_key(self, world: World) -> None:
        """An element that is being reused is absent; what is really under the key stays as it is."""
        world.learn(RED, mac(1), 5, key_segment=BLUE)
        before = world.entry(BLUE, mac(1))
        world.send(1, FRAME)
        assert world.entry(BLUE, mac(1)) == before
        assert world.learning(1) == _counted()


def test_learns_from_what_a_later_step_drops(world: World) -> None:
    world.learn(BLUE, mac(50), 1)
    drops = {
        "hairpin": ethernet(mac(50), mac(51)),
        "mtu_exceeded": ethernet(BROADCAST, mac(52), payload(length=1501)),
    }
    assert [world.send(1, frame).fate for frame in drops.values()] == list(drops)
    assert [world.whereabouts(BLUE, mac(n)) for n in (51, 52)] == [1, 1]


def test_key_is_the_segment_and_the_mac_with_its_first_octet_highest(world: World) -> None:
    world.send(1, ethernet(BROADCAST, bytes.fromhex("0a1b2c3d4e5f")))
    (batch,) = (b for b in world.rig.maps["fdb"].batches() if b.count)
    keys = {key for (key,) in struct.iter_unpack("=Q", batch.keys)}
    assert keys == {BLUE << 48 | 0x0A1B2C3D4E5F, BLUE << 48 | number(mac(8))}
