"""A segment that has a VLAN and a VNI: one host, the one with the lowest VTEP, takes frames from one to the other.

     host 1                 host 2                 host 3
┌───────────────┐      ┌───────────────┐      ┌───────────────┐
│ a, a'         │      │ b             │      │ c             │
│ eth1   up0    │      │ eth1   up0    │      │ eth1   up0    │
└──┬──────┬─────┘      └──┬──────┬─────┘      └──┬──────┬─────┘
   └──────┼───────────────┴──────┼───────────────┘      │        underlay: VNI
          └──────────────────────┴───────────────┬──────┘        fabric: VLAN
                                            f ───┘
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from support.fleet import Fleet, Wire, running_fleet
from support.hearing import Party, frame, ports_of, vlan
from support.lan import assert_connected
from vxagent.lab.fabric import Fabric
from vxagent.lab.frames import BROADCAST
from vxagent.lab.sniffer import Sniffer
from vxagent.lab.vm import VethVm

UPLINK = "up0"
VLAN_HOST = "02:00:00:0f:00:01"
NOBODY = "02:00:00:00:99:99"

_vids = itertools.count(100)


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Three hosts."""
    with running_fleet() as fleet:
        yield fleet


@pytest.fixture(scope="module")
def fabric(fleet: Fleet) -> Fabric:
    """f, on the network on which the hosts have their uplinks."""
    wire = Wire(fleet.world, "wire")
    for host in fleet.hosts:
        wire.connect(host.switch, UPLINK, f"u{host.number}")
        host.client.change("POST", "v1", "uplinks", body={"ifname": UPLINK})
    return wire.trunk("f")


@dataclass
class Place:
    """A segment of both kinds.

    Attributes:
        fleet, segment, vid, vni: of it.
        vms: a, a', b and c.
        f: who is in the VLAN.
    """

    fleet: Fleet
    segment: str
    vid: int
    vni: int
    vms: list[VethVm]
    f: Fabric

    @property
    def parties(self) -> list[Party]:
        """Everybody."""
        return [*self.vms, self.f]

    def bridges(self) -> list[bool]:
        """Whether each host that has the segment says of itself that it is the one."""
        hosts = [host for host in self.fleet.hosts if self.vni in self.fleet.vnis(host)]
        return [bool(host.client.get("v1", "segments", self.segment)["bridges"]) for host in hosts]

    def frame(self, sender: Party, destination: str = BROADCAST) -> bytes:
        """One as it has to be sent."""
        if isinstance(sender, Fabric):
            return frame(destination, VLAN_HOST, tags=vlan(self.vid))
        return frame(destination, sender.mac)

    def assert_reaches_all(self, sender: Party, destination: str = BROADCAST) -> None:
        """What is flooded arrives at everybody else once, tagged in the VLAN, and not at who sent it."""
        arrived = self.fleet.hear(sender, self.frame(sender, destination), *self.parties)
        tags = [[copy.tags for copy in copies] for copies in arrived]
        wanted = [vlan(self.vid) if party is self.f else () for party in self.parties]
        assert tags == [[] if party is sender else [tag] for party, tag in zip(self.parties, wanted, strict=True)]


@pytest.fixture
def place(fleet: Fleet, fabric: Fabric) -> Place:
    """A segment of its own."""
    vid, one = next(_vids), fleet.hosts[0]
    segment = one.unique("s")
    vni = fleet.segment(segment, vlan=vid)
    vms = [host.veth(host.unique("v"), segment) for host in (one, *fleet.hosts)]
    return Place(fleet=fleet, segment=segment, vid=vid, vni=vni, vms=vms, f=fabric)


@pytest.mark.parametrize("destination", [BROADCAST, NOBODY, "01:00:5e:01:02:03"], ids=["broadcast", "unknown", "group"])
def test_a_flood_from_each_arrives_once_at_each_other(place: Place, destination: str) -> None:
    assert place.bridges() == [True, False, False]
    for sender in place.parties:
        place.assert_reaches_all(sender, destination)


def test_vlan_and_vni_are_one_segment(place: Place) -> None:
    """Ping, and bulk TCP both ways, between a host in the VLAN and VMs on each host, by unicast alone."""
    host = place.fleet.hosts[0]
    there = host.host(place.f, place.vid)
    for vm in place.vms:
        assert_connected(there, vm)
    for vm in place.vms:
        others = [party for party in place.parties if party not in (vm, place.f)]
        sent = frame(vm.mac, there.mac, tags=vlan(place.vid))
        assert place.fleet.who_hears(place.f, sent, vm, *others) == ports_of(vm)
        assert place.fleet.who_hears(vm, frame(there.mac, vm.mac), place.f, *others) == ports_of(place.f)
    seen = [one.entry(place.segment, there.mac) for one in place.fleet.hosts]
    assert [(entry["port"], entry["vtep"]) for entry in seen if entry is not None] == [
        (UPLINK, None),
        (None, host.vtep),
        (None, host.vtep),
    ]


def test_the_vlan_of_a_host_that_does_not_bridge_is_not_the_segments(place: Place) -> None:
    """Its uplink takes nothing and sends nothing of it."""
    wires = [f"u{host.number}" for host in place.fleet.hosts]
    where = place.f.switch
    with Sniffer(where, wires[0]) as one, Sniffer(where, wires[1]) as two, Sniffer(where, wires[2]) as three:
        for vm in place.vms:
            place.assert_reaches_all(vm)
        sent = [len(ear.frames(lambda arrived: arrived.vid == place.vid)) for ear in (one, two, three)]
    assert sent == [len(place.vms), 0, 0]


def test_the_next_host_bridges_when_one_leaves_and_gives_it_back_when_it_returns(place: Place) -> None:
    fleet, (one, two, three) = place.fleet, place.fleet.hosts
    there = one.host(place.f, place.vid)
    c = place.vms[-1]
    assert_connected(there, c)
    here, place.vms = place.vms[:2], place.vms[2:]
    for vm in here:
        one.agent.cli("port", "detach", vm.port)
    fleet.leave(one, place.segment, place.vni)
    assert place.bridges() == [True, False]
    for sender in place.parties:
        place.assert_reaches_all(sender)
    assert_connected(there, c)
    entry = three.entry(place.segment, there.mac)
    assert entry is not None
    assert entry["vtep"] == two.vtep

    fleet.segment(place.segment, one, vni=place.vni, vlan=place.vid)
    for vm in here:
        one.attach(vm.port, place.segment)
        one.switch.wait_running(vm.port)
    place.vms = [*here, *place.vms]
    assert place.bridges() == [True, False, False]
    for sender in place.parties:
        place.assert_reaches_all(sender)
    assert_connected(there, c)


def test_without_a_vlan_there_is_nothing_to_bridge(place: Place) -> None:
    for host in place.fleet.hosts:
        host.agent.cli("segment", "set", place.segment, "--no-vlan")
    assert place.bridges() == [False] * 3
    a, _, b, c = place.vms
    assert place.fleet.who_hears(a, frame(BROADCAST, a.mac), b, c, place.f) == ports_of(b, c)
    assert place.fleet.who_hears(place.f, place.frame(place.f), *place.vms) == []


def test_two_hosts_that_both_think_so_double_but_do_not_loop(place: Place) -> None:
    """Host 2 has not been told of host 1. The frame's copies have an end."""
    one, two, _ = place.fleet.hosts
    known = [vni for vni in place.fleet.vnis(one) if vni != place.vni]
    two.client.change("PATCH", "v1", "vteps", one.vtep, body={"vnis": known})
    try:
        assert place.bridges() == [True, True, False]
        for sender in place.parties:
            sent = place.frame(sender)
            copies = [copy for heard in place.fleet.hear(sender, sent, *place.parties) for copy in heard]
            assert len(place.parties) - 1 <= len(copies) <= 4 * len(place.parties)
    finally:
        place.fleet.tell(two)
    assert place.bridges() == [True, False, False]
    for sender in place.parties:
        place.assert_reaches_all(sender)
