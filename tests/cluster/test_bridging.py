"""A segment with a VLAN and a VNI: one host bridges the two, and which one it is stands in the engine.

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
from dataclasses import dataclass

import pytest

from support.clustered import Clustered, eventually
from support.fleet import Host
from support.hearing import Party, frame, place_of, vlan
from support.lan import assert_connected
from vxagent.lab.fabric import Fabric
from vxagent.lab.frames import BROADCAST
from vxagent.lab.vm import VethVm

VLAN_HOST = "02:00:00:0f:00:01"

_vids = itertools.count(100)


@dataclass
class Place:
    """A segment of both kinds.

    Attributes:
        segment, vid, vni: of it.
        vms: a, a', b and c.
        f: who is in the VLAN.
    """

    fleet: Clustered
    segment: str
    vid: int
    vni: int
    vms: list[VethVm]
    f: Fabric

    def bridges(self) -> list[str]:
        """The hosts that say of themselves that they are the one."""
        return [host.name for host in self._holders() if host.client.get("v1", "segments", self.segment)["bridges"]]

    def holder(self) -> Host:
        """Who does, once the engine and the hosts agree that it is he and nobody else."""

        def agreed() -> Host | None:
            value = self.fleet.stored.get(f"bridge/{self.segment}")
            said = self.bridges()
            if value is None or len(said) != 1 or f'"{said[0]}"' not in value:
                return None
            return next(host for host in self.fleet.hosts if host.name == said[0])

        found = eventually(agreed, f"one host bridges {self.segment}")
        assert found is not None
        return found

    def copies(self, sender: Party) -> dict[str, int]:
        """How many copies of a broadcast arrive at everybody's port; tagged in the VLAN and only there."""
        parties: list[Party] = [*self.vms, self.f]
        tags = vlan(self.vid) if isinstance(sender, Fabric) else ()
        sent = frame(BROADCAST, VLAN_HOST if isinstance(sender, Fabric) else sender.mac, tags=tags)
        heard = dict(
            zip((place_of(party).port for party in parties), self.fleet.hear(sender, sent, *parties), strict=True)
        )
        for port, copies in heard.items():
            tagged = vlan(self.vid) if port == self.f.uplink else ()
            assert [copy.tags for copy in copies] == [tagged] * len(copies)
        return {port: len(copies) for port, copies in heard.items()}

    def assert_every_broadcast_arrives_once(self) -> None:
        """From each at each other, and not at who sent it."""
        parties: list[Party] = [*self.vms, self.f]
        for sender in parties:
            wanted = {place_of(party).port: int(party is not sender) for party in parties}
            assert self.copies(sender) == wanted, place_of(sender).port

    def _holders(self) -> list[Host]:
        return [
            host for host in self.fleet.hosts if self.segment in [s["name"] for s in host.client.get("v1", "segments")]
        ]


@pytest.fixture
def place(fleet: Clustered, fabric: Fabric) -> Place:
    """A segment of its own."""
    vid, one = next(_vids), fleet.hosts[0]
    segment = one.unique("s")
    vni = fleet.segment(segment, vlan=vid)
    vms = [host.veth(host.unique("v"), segment) for host in (one, *fleet.hosts)]
    return Place(fleet=fleet, segment=segment, vid=vid, vni=vni, vms=vms, f=fabric)


def test_one_host_bridges_and_every_broadcast_arrives_once(place: Place) -> None:
    place.holder()
    place.assert_every_broadcast_arrives_once()
    there = place.fleet.hosts[0].host(place.f, place.vid)
    for vm in place.vms:
        assert_connected(there, vm)


def test_a_host_whose_agent_is_dead_goes_on_bridging(place: Place) -> None:
    holder = place.holder()
    holder.agent.kill()
    try:
        eventually(lambda: place.fleet.stored.get(f"live/{holder.name}") is None, "its session is over")
        assert f'"{holder.name}"' in str(place.fleet.stored.get(f"bridge/{place.segment}"))
        place.assert_every_broadcast_arrives_once()
    finally:
        holder.agent.up()
    place.fleet.connected()
    assert place.holder() is holder
    place.assert_every_broadcast_arrives_once()


def test_the_engine_that_is_away_changes_nothing(place: Place) -> None:
    holder = place.holder()
    place.fleet.etcd.kill()
    try:
        place.assert_every_broadcast_arrives_once()
        holder.agent.kill()
        holder.agent.up()
        assert place.bridges() == [holder.name]
        place.assert_every_broadcast_arrives_once()
    finally:
        place.fleet.etcd.start()
    place.fleet.connected()
    assert place.holder() is holder


def test_another_host_bridges_when_the_one_that_did_has_left(place: Place) -> None:
    before = place.holder()
    own = [vm for vm in place.vms if vm.switch is before.switch]
    place.vms = [vm for vm in place.vms if vm not in own]
    for vm in own:
        before.client.change("DELETE", "v1", "ports", vm.port)
    before.client.change("DELETE", "v1", "segments", place.segment)
    assert place.holder() is not before
    place.assert_every_broadcast_arrives_once()


def test_a_segment_that_has_no_vlan_any_more_is_bridged_by_nobody(fleet: Clustered, fabric: Fabric) -> None:
    vid, one = next(_vids), fleet.hosts[0]
    segment = one.unique("s")
    vni = fleet.segment(segment, one, vlan=vid)
    vms = [one.veth(one.unique("v"), segment) for _ in range(2)]
    place = Place(fleet=fleet, segment=segment, vid=vid, vni=vni, vms=vms, f=fabric)
    assert place.holder() is one
    one.client.change("PATCH", "v1", "segments", segment, body={"vlan": None})
    assert place.bridges() == []
    assert place.copies(vms[0]) == {vms[0].port: 0, vms[1].port: 1, "f": 0}
