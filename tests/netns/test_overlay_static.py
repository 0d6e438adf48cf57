"""Numbered streams between two hosts by VXLAN, whatever their agents do and suffer: nothing lost, doubled or overtaken.

     host 1                                   host 2
┌───────────────┐                        ┌───────────────┐
│ s1 (tap) ─────┼── 10,000 frames/s ────►│ s2 (tap)       │    whoever reads and writes the taps is `c/stream.c`
│          ◄────┼── 10,000 frames/s ─────┼─              │    unknown unicast is dropped: who forgets, loses
│ eth1 .1       │                        │ eth1 .2       │
└──┬────────────┘                        └──┬────────────┘
   └────────────────────────────────────────┘
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest

from support.fleet import UNDERLAY, Fleet, running_fleet
from support.lan import address_of, mac_of
from vxagent.bench.faults.figures import Figures, judge
from vxagent.bench.faults.stream import End, Stream, Streams
from vxagent.bench.frames import hello
from vxagent.lab.pump import VNET_HDR
from vxagent.lab.tap import open_tap

pytestmark = pytest.mark.alone  # streams in real-time priority: others would starve, and be blamed for it

RATE = 20_000  # frames in a second, of both streams together
QUEUE = 131_072  # frames that a tap holds
SEGMENT = "blue"


@dataclass(frozen=True)
class Place:
    """Two hosts, and streams between their taps."""

    fleet: Fleet
    streams: Streams

    def overflow(self) -> int:
        """Frames for which a receiver's tap had no room, ever."""
        shown = (
            json.loads(host.switch.ip("-j", "-s", "link", "show", "dev", f"s{host.number}"))
            for host in self.fleet.hosts
        )
        return sum(int(one[0]["stats64"]["tx"]["dropped"]) for one in shown)

    def during(self, strike: Callable[[Fleet], object]) -> Figures:
        """What becomes of the streams while something is done."""
        before = self.overflow()
        with self.streams.running() as run:
            strike(self.fleet)
            sent, taken = run.end()
        taken = replace(taken, overflow=taken.overflow + self.overflow() - before)
        return judge("own", 1, self.streams.names, sent, taken)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """The hosts know each other's way, and where the MACs are."""
    with running_fleet(2) as fleet:
        fleet.segment(SEGMENT, unknown_unicast="drop")
        taps = []
        for host in fleet.hosts:
            fd = open_tap(host.switch, f"s{host.number}")
            fleet.world.cleanup.callback(os.close, fd)
            host.switch.ip("link", "set", f"s{host.number}", "txqueuelen", str(QUEUE), "up")
            host.attach(f"s{host.number}", SEGMENT)
            taps.append(f"tap:{fd}")
        one, other = ((mac_of(n), address_of(n)) for n in (1, 2))
        streams = [
            Stream(name="1 → 2", sender=one, receiver=other, source=taps[0]),
            Stream(name="2 → 1", sender=other, receiver=one, source=taps[1]),
        ]
        ends = [
            End(where=taps[1], streams=(0,), hello=hello(*other)[VNET_HDR.size :]),
            End(where=taps[0], streams=(1,), hello=hello(*one)[VNET_HDR.size :]),
        ]
        place = Place(fleet, Streams(fleet.world.directory(), fleet.hosts[0].switch, streams, ends, RATE))
        place.during(Fleet.settle)
        yield place


def kill(fleet: Fleet) -> None:
    """Each agent in turn, and the next one."""
    for host in fleet.hosts:
        host.agent.kill()
        host.agent.up()


def stop(fleet: Fleet) -> None:
    """Both, so that there is none for a while."""
    for host in fleet.hosts:
        host.agent.cli("stop")
    for host in fleet.hosts:
        host.agent.up()


def reload(fleet: Fleet) -> None:
    """Both."""
    for host in fleet.hosts:
        host.agent.cli("reload")


def hang(fleet: Fleet) -> None:
    """One for some other's reload."""
    one, other = fleet.hosts
    pid = one.agent.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        other.agent.cli("reload")
    finally:
        os.kill(pid, signal.SIGCONT)


def neighbours(fleet: Fleet) -> None:
    """Other VTEPs, segments and entries, and an uplink on the underlay."""
    far, vni = fleet.address(77), "9100"
    for host in fleet.hosts:
        cli = host.agent.cli
        cli("segment", "add", "other", "--tenant", "evil", "--vni", vni, "--vlan", "77")
        cli("vtep", "add", far, "--vni", vni)
        cli("fdb", "add", "02:00:00:00:77:77", "--segment", "other", "--vtep", far)
        cli("uplink", "add", UNDERLAY)
        cli("vtep", "set", far, "--vni", "9101", "--vni", vni)
        cli("uplink", "del", UNDERLAY)
        cli("vtep", "del", far)
        cli("segment", "del", "other")


@pytest.mark.parametrize("strike", [kill, stop, reload, hang, neighbours])
def test_no_frame_between_hosts_is_lost_doubled_or_overtaken(place: Place, strike: Callable[[Fleet], object]) -> None:
    found = place.during(strike)
    assert found.good, found.why
    assert found.streams is not None
    assert all(sent > 0 for sent, *_ in found.streams.values())


def test_a_vtep_that_is_forgotten_for_a_moment_costs_frames(place: Place) -> None:
    """The control: what is lost is found out."""

    def forget(fleet: Fleet) -> None:
        one, other = fleet.hosts
        one.agent.cli("vtep", "del", other.vtep)
        fleet.tell(one)

    found = place.during(forget)
    assert found.lost > 0
    assert not found.good
