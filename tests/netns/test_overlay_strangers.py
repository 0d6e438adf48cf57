"""The underlay is trusted no further than its addresses are, and what is no VXLAN of ours there is the kernel's.

     host 1                    host 2                 x66: an attacker        x9: a Linux host
┌───────────────┐        ┌───────────────┐        ┌─────────────────┐    ┌─────────────────┐
│ blue: a, b    │        │ blue: c       │        │                 │    │                 │
│ red: d        │        │               │        │ no VTEP of ours │    │                 │
│ eth1 .1   vx7 │        │ eth1 .2       │        │ eth0        .66 │    │ eth0 .9     vx7 │
└──┬────────────┘        └──┬────────────┘        └──┬──────────────┘    └──┬──────────────┘
   └────────────────────────┴────────────────────────┴──────────────────────┘    IPv4 or IPv6
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.fleet import PROBE_VNI, UNDERLAY, Fleet, running_fleet
from support.hearing import frame, ports_of
from support.lan import AMOUNT, assert_connected
from support.linux_host import EVERYBODY, add_vxlan
from support.vxlan import VNI_FLAG
from vxagent.lab.frames import BROADCAST, IPV4, IPV6
from vxagent.lab.ping import ping
from vxagent.lab.sniffer import Sniffer
from vxagent.lab.traffic import bulk_tcp
from vxagent.lab.vm import NIC, VethVm

BLUE, RED, FOREIGN = 6000, 6001, 7  # VNIs
MALLORY = "02:00:00:00:66:66"
STRANGER = 66


@pytest.fixture(scope="module", params=[4, 6], ids=["IPv4", "IPv6"])
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """Two hosts on such an underlay, the second without the second segment."""
    with running_fleet(2, family=request.param) as fleet:
        fleet.segment("blue", vni=BLUE)
        fleet.segment("red", fleet.hosts[0], vni=RED, tenant="evil")
        yield fleet


@pytest.fixture(scope="module")
def vms(fleet: Fleet) -> list[VethVm]:
    """a, b, d and c; all have spoken."""
    one, other = fleet.hosts
    places = ((one, "blue"), (one, "blue"), (one, "red"), (other, "blue"))
    vms = [host.veth(host.unique("v"), segment) for host, segment in places]
    for vm in vms:
        fleet.who_hears(vm, frame(BROADCAST, vm.mac))
    return vms


@pytest.fixture(scope="module")
def attacker(fleet: Fleet) -> VethVm:
    """Somebody on the underlay."""
    return fleet.outsider(STRANGER)


# --- who may send ---------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [False, True], ids=["everybody", "a VM"])
def test_a_stranger_reaches_nobody(fleet: Fleet, vms: list[VethVm], attacker: VethVm, known: bool) -> None:
    host = fleet.hosts[0]
    before = host.drops(UNDERLAY).get("vtep_denied", 0)
    inside = frame(vms[0].mac if known else BROADCAST, MALLORY)
    with Sniffer(host.switch, UNDERLAY, ethertype=IPV4 if fleet.family == 4 else IPV6) as stack:
        assert fleet.who_hears(attacker, host.packet(inside, attacker.address, vni=BLUE), *vms) == []
        assert stack.frames(lambda arrived: inside in arrived.data) == []
    assert host.drops(UNDERLAY)["vtep_denied"] == before + 1
    assert host.entry("blue", MALLORY) is None


@pytest.mark.parametrize("known", [False, True], ids=["everybody", "a VM"])
def test_a_vtep_reaches_nobody_where_it_was_not_stated_to_be(
    fleet: Fleet, vms: list[VethVm], attacker: VethVm, known: bool
) -> None:
    """Host 2 has no red. So the agent says; somebody there may try."""
    one, other = fleet.hosts
    before = one.drops(other.vtep).get("vtep_denied", 0)
    inside = frame(vms[2].mac if known else BROADCAST, MALLORY)
    assert fleet.who_hears(attacker, one.packet(inside, other.vtep, vni=RED), *vms) == []
    assert one.drops(other.vtep)["vtep_denied"] == before + 1
    assert one.entry("red", MALLORY) is None


def test_a_vtep_that_has_a_vni_no_more_is_denied_from_then_on(fleet: Fleet, vms: list[VethVm]) -> None:
    one, other = fleet.hosts
    near, far = vms[:2], vms[3]
    assert fleet.who_hears(far, frame(BROADCAST, far.mac), *near) == ports_of(*near)
    one.agent.cli("vtep", "set", other.vtep, "--vni", str(PROBE_VNI))
    try:
        assert fleet.who_hears(far, frame(BROADCAST, far.mac), *near) == []
        assert fleet.who_hears(far, frame(near[0].mac, far.mac), *near) == []
        assert fleet.who_hears(near[0], frame(BROADCAST, near[0].mac), near[1], far) == ports_of(near[1])
    finally:
        fleet.tell(one)
    assert fleet.who_hears(far, frame(BROADCAST, far.mac), *near) == ports_of(*near)


def test_from_the_address_of_a_vtep_anybody_speaks(fleet: Fleet, vms: list[VethVm], attacker: VethVm) -> None:
    """The control: the packets of these tests are good ones. Who may use an address is up to the fabric."""
    inside = frame(BROADCAST, MALLORY)
    sent = fleet.hosts[0].packet(inside, fleet.hosts[1].vtep, vni=BLUE)
    assert fleet.who_hears(attacker, sent, *vms) == ports_of(*vms[:2])


# --- what is the kernel's -------------------------------------------------------------------------


def test_vxlan_that_is_not_ours_reaches_the_hosts_own_stack(fleet: Fleet, vms: list[VethVm], attacker: VethVm) -> None:
    """A VNI that this host has not, whoever sends it; and what has no VNI."""
    one, other = fleet.hosts
    for sender, vni, flags in (
        (attacker.address, FOREIGN, VNI_FLAG),
        (other.vtep, FOREIGN, VNI_FLAG),
        (other.vtep, BLUE, 0),
    ):
        inside = frame(BROADCAST, MALLORY)
        with Sniffer(one.switch, UNDERLAY, ethertype=IPV4 if fleet.family == 4 else IPV6) as stack:
            assert fleet.who_hears(attacker, one.packet(inside, sender, vni=vni, flags=flags), *vms) == []
            assert len(stack.frames(lambda arrived, inside=inside: inside in arrived.data)) == 1  # type: ignore[misc]


def test_a_vxlan_device_of_the_hosts_works_beside_the_switch(fleet: Fleet, vms: list[VethVm]) -> None:
    """Another VNI at the same address and UDP port."""
    one = fleet.hosts[0]
    linux = fleet.outsider(9)
    ends = ((one.switch, one.vtep, UNDERLAY, "10.7.0.1"), (linux.namespace, linux.address, NIC, "10.7.0.9"))
    for (namespace, vtep, nic, address), (_, far, *_) in zip(ends, reversed(ends), strict=True):
        add_vxlan(namespace, "vx7", FOREIGN, local=vtep, nic=nic, mtu=fleet.mtu)
        namespace.run("bridge", "fdb", "append", EVERYBODY, "dev", "vx7", "dst", far)
        namespace.ip("address", "add", f"{address}/24", "dev", "vx7")
    for (source, *_), (target, _, _, address) in zip(ends, reversed(ends), strict=True):
        assert ping(source, address).lost == []
        assert bulk_tcp(source, target, address, amount=AMOUNT).received == AMOUNT
    assert_connected(vms[0], vms[3])
    assert fleet.who_hears(vms[3], frame(BROADCAST, vms[3].mac), *vms[:3]) == ports_of(*vms[:2])
