"""Where MACs are on the overlay: learned, moved, stated; and what of it goes to whom.

     host 1                 host 2                 host 3
┌───────────────┐      ┌───────────────┐      ┌───────────────┐
│ a, a'         │      │ b             │      │ c             │
│ eth1 .1       │      │ eth1 .2       │      │ eth1 .3       │
└──┬────────────┘      └──┬────────────┘      └──┬────────────┘
   └──────────────────────┴──────────────────────┴──────── x66: puts packets on the wire
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from support.dhcp_hosts import POOL, POOL_6, DhcpClient, serve_dhcp
from support.fleet import Fleet, running_fleet
from support.hearing import frame, ports_of
from support.ipv6 import address_6, echoes, speak_ipv6, start_ipv6, wait_for_dad
from support.lan import assert_connected
from vxagent.lab.frames import BROADCAST
from vxagent.lab.vm import NIC, VethVm

FOREIGN = {4: "10.0.0.240", 6: "2001:db8::240"}
WIDTH = {4: 24, 6: 64}

_macs = itertools.count(1)


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Three hosts."""
    with running_fleet() as fleet:
        yield fleet


@pytest.fixture(scope="module")
def mallory(fleet: Fleet) -> VethVm:
    """Who puts packets on the wire."""
    return fleet.outsider(66)


@pytest.fixture
def mac() -> str:
    """A MAC of its own."""
    return f"02:00:00:0a:00:{next(_macs):02x}"


@dataclass
class Place:
    """A segment on all hosts, with a, a', b and c."""

    fleet: Fleet
    segment: str
    vni: int
    vms: list[VethVm]

    def who_hears(self, sender: VethVm, destination: str, source: str = "") -> list[str]:
        """Of the others."""
        others = [vm for vm in self.vms if vm is not sender]
        return self.fleet.who_hears(sender, frame(destination, source or sender.mac), *others)

    def where(self, mac: str) -> list[str | None]:
        """The port or VTEP of a MAC, as each host has it."""
        entries = (host.entry(self.segment, mac) for host in self.fleet.hosts)
        return [None if entry is None else entry["port"] or entry["vtep"] for entry in entries]


def make(fleet: Fleet, **options: Any) -> Place:
    one = fleet.hosts[0]
    segment = one.unique("s")
    vni = fleet.segment(segment, **options)
    vms = [host.veth(host.unique("v"), segment) for host in (one, *fleet.hosts)]
    return Place(fleet=fleet, segment=segment, vni=vni, vms=vms)


@pytest.fixture
def place(fleet: Fleet) -> Place:
    """A segment of its own."""
    return make(fleet)


# --- 13: learning ---------------------------------------------------------------------------------


def test_a_mac_is_learned_behind_its_vtep_and_found_there(place: Place) -> None:
    a, _, b, _ = place.vms
    vteps = [host.vtep for host in place.fleet.hosts]
    place.who_hears(b, BROADCAST)
    assert place.where(b.mac) == [vteps[1], b.port, vteps[1]]
    assert place.who_hears(a, b.mac) == ports_of(b)
    entry = place.fleet.hosts[0].entry(place.segment, b.mac)
    assert entry is not None
    assert (entry["origin"], entry["age_s"] is not None) == ("learned", True)


def test_a_mac_that_moves_between_hosts_is_followed_by_its_first_frame(place: Place, mac: str) -> None:
    a, beside, b, c = place.vms
    one, two, three = (host.vtep for host in place.fleet.hosts)
    for vm, seen in (
        (b, [two, b.port, two]),
        (c, [three, three, c.port]),
        (a, [a.port, one, one]),
        (b, [two, b.port, two]),
    ):
        place.who_hears(vm, BROADCAST, source=mac)
        assert place.where(mac) == seen
        for sender in (beside, *(other for other in (b, c) if other is not vm)):
            assert place.who_hears(sender, mac) == ports_of(vm)


def test_moves_are_followed_without_an_agent(place: Place, mac: str) -> None:
    _, beside, b, c = place.vms
    agent = place.fleet.hosts[0].agent
    agent.kill()
    try:
        for vm in (b, c, b):
            place.who_hears(vm, BROADCAST, source=mac)
            assert place.who_hears(beside, mac) == ports_of(vm)
    finally:
        agent.up()
    assert place.where(mac)[0] == place.fleet.hosts[1].vtep


def test_a_mac_that_a_port_lists_is_not_believed_to_be_elsewhere(place: Place) -> None:
    a, beside, b, _ = place.vms
    place.fleet.hosts[0].agent.cli("port", "set", a.port, "--mac", a.mac)
    place.who_hears(b, BROADCAST, source=a.mac)
    assert place.where(a.mac)[0] == a.port
    assert place.who_hears(beside, a.mac) == ports_of(a)


def test_what_is_behind_a_vtep_is_forgotten_with_it(place: Place) -> None:
    _, _, b, c = place.vms
    one, two, three = place.fleet.hosts
    for vm in (b, c):
        place.who_hears(vm, BROADCAST)
    known = [vni for vni in place.fleet.vnis(two) if vni != place.vni]
    one.client.change("PATCH", "v1", "vteps", two.vtep, body={"vnis": known})
    assert (place.where(b.mac)[0], place.where(c.mac)[0]) == (None, three.vtep)
    place.fleet.tell(one)
    place.who_hears(b, BROADCAST)
    assert place.where(b.mac)[0] == two.vtep
    one.agent.cli("fdb", "flush", "--port", two.vtep)
    assert (place.where(b.mac)[0], place.where(c.mac)[0]) == (None, three.vtep)


# --- 16, 18: VTEP to VTEP -------------------------------------------------------------------------


def test_nothing_goes_from_vtep_to_vtep(place: Place, mallory: VethVm, mac: str) -> None:
    """A flood comes to each host from the sender's alone; a frame that comes to the wrong one is not passed on."""
    a, beside, b, c = place.vms
    one, two, _ = place.fleet.hosts
    place.who_hears(c, BROADCAST)
    for destination, heard in ((BROADCAST, [a, beside]), ("02:00:00:00:99:99", [a, beside]), (c.mac, [])):
        sent = one.packet(frame(destination, mac), two.vtep, vni=place.vni)
        before = one.drops(two.vtep).get("no_destination", 0)
        with place.fleet.underlay.sniff("h1") as wire:
            assert place.fleet.who_hears(mallory, sent, a, beside, b, c) == ports_of(*heard)
            assert wire.frames(lambda arrived: bytes.fromhex(mac.replace(":", "")) in arrived.data) == []
        assert one.drops(two.vtep).get("no_destination", 0) == before + (destination == c.mac)


# --- static entries -------------------------------------------------------------------------------


def test_a_static_entry_may_point_to_a_vtep(place: Place, mac: str) -> None:
    a, beside, b, c = place.vms
    one, two, three = place.fleet.hosts
    assert place.who_hears(a, mac) == ports_of(beside, b, c)
    one.agent.cli("fdb", "add", mac, "--segment", place.segment, "--vtep", two.vtep)
    assert place.who_hears(a, mac) == ports_of(b)
    place.who_hears(c, BROADCAST, source=mac)  # elsewhere, it says
    assert place.where(mac) == [two.vtep, three.vtep, c.port]
    assert place.who_hears(a, mac) == []  # host 2, to which it goes, passes nothing on
    one.agent.cli("fdb", "del", mac, "--segment", place.segment)
    assert place.who_hears(a, mac) == ports_of(beside, c)


def test_a_vm_does_not_take_a_mac_that_is_static_at_a_vtep(place: Place, mac: str) -> None:
    a = place.vms[0]
    one, two, _ = place.fleet.hosts
    one.agent.cli("fdb", "add", mac, "--segment", place.segment, "--vtep", two.vtep)
    assert place.who_hears(a, BROADCAST, source=mac) == []
    assert one.drops(a.port) == {"src_mac_conflict": 1}


def test_where_unknown_unicast_is_dropped_static_entries_say_where_to(fleet: Fleet) -> None:
    place = make(fleet, unknown_unicast="drop")
    a, _, b, c = place.vms
    one, two, _ = fleet.hosts
    assert place.who_hears(a, b.mac) == []
    assert one.drops(a.port) == {"unknown_unicast": 1}
    for host, vm, at in ((one, b, ("--vtep", two.vtep)), (two, a, ("--vtep", one.vtep)), (two, b, ("--port", b.port))):
        host.agent.cli("fdb", "add", vm.mac, "--segment", place.segment, *at)
    assert place.who_hears(a, b.mac) == ports_of(b)
    assert place.who_hears(b, a.mac) == ports_of(a)
    assert place.who_hears(c, b.mac) == []
    for vm, other in ((a, b), (b, a)):
        vm.set_neighbour(other.address, other.mac)  # nobody has to ask, so nothing is learned
    assert_connected(a, b)


# --- leases ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [4, 6])
def test_a_lease_of_a_server_on_another_host_is_what_a_port_may_use(fleet: Fleet, family: int) -> None:
    """No other address, neither before nor after."""
    one, two, _ = fleet.hosts
    segment = fleet.new_segment()
    server = two.veth(two.unique("v"), segment, trusted=True)
    client = one.veth(one.unique("v"), None)
    client.namespace.ip("address", "flush", "dev", NIC)
    one.attach(client.port, segment, dhcp_snoop=True)
    speak_ipv6(server)
    serve_dhcp(server, fleet.world.directory())
    start_ipv6(client)
    wait_for_dad(client)
    target = server.address if family == 4 else address_6(server)
    taken = f"{FOREIGN[family]}/{WIDTH[family]}"

    def take() -> None:
        client.namespace.ip("address", "add", taken, "dev", NIC, *(("nodad",) if family == 6 else ()))

    def reaches(source: str, *options: str) -> bool:
        return echoes(client, target, "-I", source, *options)

    take()
    assert not reaches(FOREIGN[family], "-c", "2", "-i", "0.1", "-W", "0.3")
    client.namespace.ip("address", "del", taken, "dev", NIC)
    address = DhcpClient(client, fleet.world.directory(), family).ask()
    assert address.startswith((POOL[0][:8], POOL_6[0][:10]))
    assert reaches(address)
    assert [lease["ip"] for lease in one.show(client.port)["leases"]] == [address]
    take()
    assert not reaches(FOREIGN[family], "-c", "2", "-i", "0.1", "-W", "0.3")
    assert reaches(address)
