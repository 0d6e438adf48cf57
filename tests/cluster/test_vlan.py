"""A VM that migrates in a segment that is a VLAN between hosts: all who are in it hear the VM, and find it.

     host 1                 host 2                 host 3
┌───────────────┐      ┌───────────────┐      ┌───────────────┐
│ VM ──────────────────►  VM           │      │               │
│ a             │      │ b             │      │ c             │
│ eth1   up0    │      │ eth1   up0    │      │ eth1   up0    │
└──┬──────┬─────┘      └──┬──────┬─────┘      └──┬──────┬─────┘
   └──────┼───────────────┴──────┼───────────────┘      │        underlay: what follows the VM
          └──────────────────────┴───────────────┬──────┘        fabric: VLAN
                                            f ───┘
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from statistics import median

import pytest

from support.clustered import Clustered, eventually, migrate
from support.hearing import Party, frame, place_of
from support.journeys import RATE, Journey
from support.lan import assert_connected, mac_of
from vxagent.lab.fabric import Fabric
from vxagent.lab.frames import BROADCAST
from vxagent.lab.vm import Endpoint, VethVm

NOBODY = "02:00:00:0f:00:02"
MIGRATIONS = 5
PAUSE_S = 0.1  # of streams between two migrations

_vids = itertools.count(300)


@dataclass
class Vlan:
    """The segment and who is in it.

    Attributes:
        vm: where the VM is in the beginning; next: what awaits it on host 2.
        others: a, b and c.
        f: the fabric; there: somebody in it.
    """

    fleet: Clustered
    vm: VethVm
    next: VethVm
    others: list[VethVm]
    f: Fabric
    there: Endpoint

    def heard(self, sender: Party, destination: str) -> dict[str, int]:
        """How many copies of a frame of the VM arrive, at whose ports."""
        parties: list[Party] = [self.vm, self.next, *self.others, self.f]
        ears = [one for one in parties if one is not sender]
        arrived = self.fleet.hear(sender, frame(destination, self.vm.mac), *ears)
        return {place_of(ear).port: len(copies) for ear, copies in zip(ears, arrived, strict=True) if copies}

    @property
    def once(self) -> dict[str, int]:
        """By all but the VM."""
        parties: list[Party] = [*self.others, self.f]
        return {place_of(one).port: 1 for one in parties}


@pytest.fixture
def it(fleet: Clustered, fabric: Fabric) -> Vlan:
    """A segment of its own."""
    one, two, _ = fleet.hosts
    segment, vid = one.unique("s"), next(_vids)
    for host in fleet.hosts:
        host.segment(segment, tenant="acme", vlan=vid)
    mac = mac_of(one.count())
    vm = one.veth(one.unique("v"), None, mac=mac)
    one.attach(vm.port, segment, mac=[mac])
    others = [host.veth(host.unique("v"), segment) for host in fleet.hosts]
    awaits = two.veth(two.unique("v"), None, mac=mac, address=vm.address)
    there = one.host(fabric, vid)
    assert_connected(there, vm)
    return Vlan(fleet=fleet, vm=vm, next=awaits, others=others, f=fabric, there=there)


def test_all_hear_once_what_the_vm_says_at_each_step_and_find_it(it: Vlan) -> None:
    one, two, _ = it.fleet.hosts
    port = it.vm.port
    for destination in (BROADCAST, NOBODY):
        assert it.heard(it.vm, destination) == it.once
    migrate(two, "prepare", port, ifname=it.next.port)
    for destination in (BROADCAST, NOBODY):
        assert it.heard(it.vm, destination) == it.once
    assert migrate(one, "switchover", port)["missing"] == []
    for destination in (BROADCAST, NOBODY):
        assert it.heard(it.vm, destination) == it.once
    migrate(two, "activate", port)
    for destination in (BROADCAST, NOBODY):
        assert it.heard(it.next, destination) == it.once
    assert_connected(it.there, it.next)
    eventually(lambda: port not in [row["id"] for row in one.client.get("v1", "ports")], "host 1 has it no more")
    for other in it.others:
        assert_connected(it.next, other)


@pytest.mark.alone  # streams in real-time priority: others would starve, and be blamed for it
@pytest.mark.usefixtures("fabric")
def test_no_frame_is_lost_on_the_way_there_and_back(fleet: Clustered) -> None:
    segment, vid = fleet.hosts[0].unique("s"), next(_vids)
    for host in fleet.hosts:
        host.segment(segment, tenant="acme", vlan=vid)
    journey = Journey(fleet, segment)
    with journey.streaming("there and back in a VLAN") as found:
        for _ in range(MIGRATIONS):
            time.sleep(PAUSE_S)
            journey.move()
    (figures,) = found
    assert figures.good, figures.why
    assert all(sent > MIGRATIONS * PAUSE_S * RATE / 2 for sent, *_ in (figures.streams or {}).values())
    assert journey.missing == [[]] * MIGRATIONS
    with journey.broadcasting() as heard:
        for _ in range(MIGRATIONS):
            time.sleep(PAUSE_S)
            journey.move()
    for sender, of in heard.items():
        assert len(of.each) == MIGRATIONS
        assert (sum(of.each) <= MIGRATIONS, median(of.each) <= 1, of.heard.reordered) == (True, True, 0), (
            sender,
            of.each,
        )
