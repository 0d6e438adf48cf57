"""The overlay: tenants with equal addresses on hosts that are joined by VXLAN, over IPv4 and IPv6, and jumbo frames.

     host 1                 host 2                 host 3
┌───────────────┐      ┌───────────────┐      ┌───────────────┐
│ a (veth)      │      │ b (tap)       │      │ c (veth)      │    tenant acme, 10.0.0.1, .2, .3
│ a'            │      │ b'            │      │ c'            │    tenant evil: the same MACs and addresses
│ eth1 .1       │      │ eth1 .2       │      │ eth1 .3       │
└──┬────────────┘      └──┬────────────┘      └──┬────────────┘
   └──────────────────────┴──────────────────────┘    192.0.2.0/24 or 2001:db8:1::/64
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator

import pytest

from support.fleet import UNDERLAY, Fleet, running_fleet
from support.hearing import frame, ports_of
from support.lan import AMOUNT, address_of, assert_apart, assert_connected, mac_of
from support.linux_host import EVERYBODY, add_vxlan
from support.vms import KINDS, plugged
from support.vxlan import Packet, read_packet
from vxagent.lab.frames import BROADCAST, IPV4, Frame
from vxagent.lab.ping import ping
from vxagent.lab.sniffer import Sniffer
from vxagent.lab.traffic import bulk_tcp
from vxagent.lab.vm import NIC, Endpoint

UDP_SEGMENT = 103  # <linux/udp.h>
GSO_MAX_SIZE = 65_536  # <linux/netdevice.h>: GSO_LEGACY_MAX_SIZE
DATAGRAMS = 100

FABRICS = {"IPv4": (4, 1500), "IPv6": (6, 1500), "jumbo": (4, 9000)}


@pytest.fixture(scope="module", params=FABRICS)
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """Three hosts on such an underlay."""
    family, mtu = FABRICS[request.param]
    with running_fleet(family=family, mtu=mtu) as fleet:
        yield fleet


@pytest.fixture
def blue(fleet: Fleet) -> str:
    """A segment of its own on all hosts."""
    return fleet.new_segment()


def tunnelled(sniffer: Sniffer) -> list[Packet]:
    """What has left a host by VXLAN."""
    packets = (read_packet(arrived.data) for arrived in sniffer.frames())
    return [packet for packet in packets if packet is not None]


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations_with_replacement(KINDS, 2)))
def test_vms_on_different_hosts_are_connected(fleet: Fleet, blue: str, one: str, other: str) -> None:
    """Ping, and bulk TCP both ways, with the largest segments that fit."""
    near, far = plugged(fleet.hosts[0], blue, one), plugged(fleet.hosts[1], blue, other)
    assert_connected(near, far)
    largest = ("ping", "-c", "1", "-W", "2", "-M", "do", "-s", str(fleet.mtu - 28))
    near.namespace.run(*largest, far.address)
    far.namespace.run(*largest, near.address)
    assert all("mtu_exceeded" not in host.drops(vm.port) for host, vm in zip(fleet.hosts, (near, far), strict=False))


def test_each_of_three_hosts_reaches_each_other_one(fleet: Fleet, blue: str) -> None:
    vms = [host.veth(host.unique("v"), blue) for host in fleet.hosts]
    for one, other in itertools.combinations(vms, 2):
        assert_connected(one, other)
    for host, vm in zip(fleet.hosts, vms, strict=True):
        for home, there in zip(fleet.hosts, vms, strict=True):
            entry = host.entry(blue, there.mac)
            assert entry is not None
            assert (entry["port"], entry["vtep"]) == ((vm.port, None) if home is host else (None, home.vtep))


@pytest.mark.parametrize("kind", ["veth", "tap"])
def test_what_a_vm_leaves_to_its_nic_crosses_the_underlay_so(fleet: Fleet, blue: str, kind: str) -> None:
    """Frames that stand for several, and checksums that are still to be completed."""
    one, other = plugged(fleet.hosts[0], blue, kind), plugged(fleet.hosts[1], blue, "veth")
    assert_connected(one, other)
    with fleet.underlay.sniff("h1") as wire:
        assert bulk_tcp(one.namespace, other.namespace, other.address, amount=AMOUNT).received == AMOUNT
        assert wire.frames(lambda arrived: arrived.gso_size > fleet.mtu // 2 and arrived.partial)


@pytest.mark.parametrize("size", ["1 byte", "the largest", "in fragments"])
def test_udp_arrives(fleet: Fleet, blue: str, size: str) -> None:
    one, other = plugged(fleet.hosts[0], blue, "veth"), plugged(fleet.hosts[1], blue, "tap")
    length = {"1 byte": 1, "the largest": fleet.mtu - 28, "in fragments": 3 * fleet.mtu}[size]
    for source, target in ((one, other), (other, one)):
        assert datagrams(source, target, length) == [length] * DATAGRAMS


def test_what_the_underlays_nic_does_not_cut_the_kernel_does(fleet: Fleet, blue: str) -> None:
    """TCP and UDP (UDP_SEGMENT); few NICs cut what is in a tunnel."""
    vms = [plugged(host, blue, kind) for host, kind in zip(fleet.hosts, ("veth", "tap", "veth"), strict=True)]
    for host in fleet.hosts:
        host.switch.ip("link", "set", UNDERLAY, "gso_max_size", str(fleet.underlay.mtu))
    try:
        with fleet.underlay.sniff("h1") as wire:
            for one, other in itertools.combinations(vms, 2):
                assert_connected(one, other)
                length = fleet.mtu - 28
                assert datagrams(one, other, length, segmented=True) == [length] * DATAGRAMS
            assert {arrived.gso_size for arrived in wire.frames()} == {0}
    finally:
        for host in fleet.hosts:
            host.switch.ip("link", "set", UNDERLAY, "gso_max_size", str(GSO_MAX_SIZE))


def datagrams(source: Endpoint, target: Endpoint, length: int, *, segmented: bool = False) -> list[int]:
    """The sizes of those that arrive of DATAGRAMS; `segmented`: some are sent in one frame, which the kernel cuts."""
    with target.namespace.entered():
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with source.namespace.entered():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with receiver, sender:
        receiver.bind((target.address, 0))
        receiver.settimeout(5)
        sender.connect(receiver.getsockname())
        at_once = 1
        if segmented:
            sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, length)
            at_once = min(20, 60_000 // length)
        found: list[int] = []
        while left := DATAGRAMS - len(found):
            count = min(at_once, left)
            sender.send(bytes(length * count))
            found += [len(receiver.recv(1 << 16)) for _ in range(count)]
        return found


@pytest.mark.parametrize("kind", ["veth", "tap"])
def test_a_vm_may_have_tunnels_of_its_own(fleet: Fleet, blue: str, kind: str) -> None:
    """Frames that stand for several do not go into a second tunnel: a container's kernel has to cut them before."""
    vms = [plugged(host, blue, kind) for host in fleet.hosts[:2]]
    assert_connected(*vms)
    inner = ("10.99.0.1", "10.99.0.2")
    for vm, address, peer in zip(vms, inner, reversed(vms), strict=True):
        add_vxlan(vm.namespace, "vx0", 7, local=vm.address, nic=NIC, mtu=fleet.mtu - 50)
        vm.namespace.run("bridge", "fdb", "append", EVERYBODY, "dev", "vx0", "dst", peer.address)
        vm.namespace.ip("address", "add", f"{address}/24", "dev", "vx0")
        vm.namespace.ip("link", "set", NIC, "gso_max_size", str(fleet.mtu))
    for (one, _), (other, address) in itertools.permutations(zip(vms, inner, strict=True)):
        assert ping(one.namespace, address).lost == []
        assert bulk_tcp(one.namespace, other.namespace, address, amount=AMOUNT).received == AMOUNT
    assert fleet.hosts[0].drops(vms[0].port) == {}


# --- isolation ------------------------------------------------------------------------------------


def test_tenants_with_the_same_addresses_do_not_meet(fleet: Fleet) -> None:
    """What one says is nowhere the other's: not at a VM, and on the underlay in its own VNI alone."""
    tenants = {}
    for tenant in ("acme", "evil"):
        name = fleet.hosts[0].unique("s")
        vni = fleet.segment(name, tenant=tenant)
        tenants[tenant] = (
            vni,
            [
                plugged(host, name, kind, mac=mac_of(0xDD00 + host.number), address=address_of(host.number))
                for host, kind in zip(fleet.hosts, ("veth", "tap", "veth"), strict=True)
            ],
        )
    for (vni, vms), (other_vni, silent) in itertools.permutations(tenants.values()):
        with fleet.underlay.sniff("h1") as wire, Sniffer(silent[0].namespace, NIC) as here:
            with Sniffer(silent[1].namespace, NIC) as there, Sniffer(silent[2].namespace, NIC) as further:
                for one, other in itertools.combinations(vms, 2):
                    assert_connected(one, other)
                fleet.settle()
                heard = [arrived for ear in (here, there, further) for arrived in ear.frames(speaks_ip)]
            assert heard == []  # they ask for each other's MAC at times
            left = [packet for packet in tunnelled(wire) if packet.frame[12:14] == IPV4.to_bytes(2, "big")]
            assert {packet.vni for packet in left} == {vni}
        assert fleet.who_hears(vms[0], frame(BROADCAST, vms[0].mac), *vms[1:], *silent) == ports_of(*vms[1:])
        assert other_vni != vni


def speaks_ip(arrived: Frame) -> bool:
    return arrived.ethertype == IPV4


def test_a_segment_without_a_vni_stays_on_its_host(fleet: Fleet) -> None:
    name = fleet.hosts[0].unique("s")
    for host in fleet.hosts:
        host.segment(name)
    vms = [host.veth(host.unique("v"), name) for host in fleet.hosts]
    assert_apart(vms[0], vms[1])
    with fleet.underlay.sniff("h1") as wire:
        assert fleet.who_hears(vms[0], sent := frame(BROADCAST, vms[0].mac), *vms[1:]) == []
        assert [packet for packet in tunnelled(wire) if sent[14:] in packet.frame] == []


def test_equal_names_with_different_vnis_do_not_meet(fleet: Fleet) -> None:
    """It is the VNI that joins, whatever a host calls it."""
    one, other, third = fleet.hosts
    name, another = one.unique("s"), one.unique("s")
    vni = fleet.segment(name, one)
    fleet.segment(name, other)
    fleet.segment(another, third, vni=vni)
    vms = [one.veth(one.unique("v"), name), other.veth(other.unique("v"), name), third.veth(third.unique("v"), another)]
    assert fleet.who_hears(vms[0], frame(BROADCAST, vms[0].mac), *vms[1:]) == ports_of(vms[2])
