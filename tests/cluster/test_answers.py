"""ARP and ND for VMs of other hosts are answered where they are asked: nobody asks over the underlay.

  a             b, c                     a asks; b lists its MAC and addresses, c lists nothing
host1 ───────── host3      host2
"""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from support import frames
from support.clustered import Clustered, eventually, migrate
from support.fleet import Host
from support.ipv6 import address_6, echoes, speak_ipv6
from support.vxlan import read_packet
from vxagent.lab.frames import Frame
from vxagent.lab.ping import ping
from vxagent.lab.sniffer import Sniffer
from vxagent.lab.vm import Endpoint, VethVm

ARP_REQUEST = b"\0\1"
GROUP = b"\x33\x33"  # RFC 2464, section 7


def questions(wire: Sniffer, vm: Endpoint) -> list[Frame]:
    """ARP requests and NS for a VM's addresses that went over the underlay."""

    def asks(frame: Frame) -> bool:
        packet = read_packet(frame.data)
        if packet is None:
            return False
        inner = packet.frame
        if inner[12:14] == b"\x08\x06":
            return inner[20:22] == ARP_REQUEST and inner[38:42] == ip_address(vm.address).packed
        is_solicitation = inner[12:14] == b"\x86\xdd" and inner[:2] == GROUP and inner[54:55] == bytes([frames.NS])
        return is_solicitation and inner[62:78] == ip_address(address_6(vm)).packed

    return wire.frames(asks)


def replied(host: Host, vm: VethVm) -> int:
    """Questions of a VM that were answered."""
    return int(host.show(vm.port)["verdicts"]["replied"])


def locked(host: Host, segment: str) -> VethVm:
    """A VM whose port lists its MAC and addresses."""
    vm = host.veth(host.unique("v"), segment)
    host.client.change("PATCH", "v1", "ports", vm.port, body={"mac": [vm.mac], "ip": [vm.address, address_6(vm)]})
    return vm


@pytest.fixture
def three(fleet: Clustered) -> tuple[VethVm, VethVm, VethVm]:
    """a, b and c."""
    one, _, host3 = fleet.hosts
    segment = fleet.new_segment()
    a, b, c = one.veth(one.unique("v"), segment), locked(host3, segment), host3.veth(host3.unique("v"), segment)
    for vm in (a, b, c):
        speak_ipv6(vm)
    fleet.known(segment, b.mac, host3)
    return a, b, c


def test_who_is_listed_on_another_host_is_not_asked_for_there(
    fleet: Clustered, three: tuple[VethVm, VethVm, VethVm]
) -> None:
    a, b, c = three
    one = fleet.hosts[0]
    before = replied(one, a)
    with fleet.underlay.sniff("h1") as wire:
        assert ping(a.namespace, b.address).lost == []
        assert replied(one, a) == before + 1
        assert questions(wire, b) == []
        assert ping(a.namespace, c.address).lost == []  # the same way, and nobody can answer for it
        assert len(questions(wire, c)) >= 1


def test_so_it_is_by_ipv6(fleet: Clustered, three: tuple[VethVm, VethVm, VethVm]) -> None:
    a, b, c = three
    one = fleet.hosts[0]
    before = replied(one, a)
    with fleet.underlay.sniff("h1") as wire:
        assert echoes(a, address_6(b))
        assert replied(one, a) > before
        assert questions(wire, b) == []
        assert echoes(a, address_6(c))
        assert len(questions(wire, c)) >= 1


def test_what_a_port_lists_no_longer_is_asked_for_again(fleet: Clustered, three: tuple[VethVm, VethVm, VethVm]) -> None:
    a, b, _ = three
    host3 = fleet.hosts[2]
    assert ping(a.namespace, b.address).lost == []
    host3.client.change("PATCH", "v1", "ports", b.port, body={"ip": [address_6(b), "10.99.0.1"]})

    def asked() -> int:
        a.namespace.ip("neighbour", "flush", "dev", "eth0")
        with fleet.underlay.sniff("h1") as wire:
            ping(a.namespace, b.address, count=1, patience=0.3)
            return len(questions(wire, b))

    eventually(asked, "the question goes over the underlay")
    host3.client.change("PATCH", "v1", "ports", b.port, body={"ip": [b.address, address_6(b)]})
    eventually(lambda: not asked(), "it is answered where it is asked")


def test_the_answer_is_the_same_while_the_vm_migrates(fleet: Clustered, three: tuple[VethVm, VethVm, VethVm]) -> None:
    a, b, _ = three
    one, two, host3 = fleet.hosts
    two.switch.ip(*f"link add {b.port} type veth peer name {b.port}p".split())
    for name in (b.port, f"{b.port}p"):
        two.switch.ip("link", "set", name, "up")
    steps = (("prepare", two), ("switchover", host3), ("activate", two))
    for step, host in steps:
        migrate(host, step, b.port)
        before = replied(one, a)
        a.namespace.ip("neighbour", "flush", "dev", "eth0")
        with fleet.underlay.sniff("h1") as wire:
            ping(a.namespace, b.address, count=1, patience=0.1)
            assert (replied(one, a), questions(wire, b)) == (before + 1, []), step
