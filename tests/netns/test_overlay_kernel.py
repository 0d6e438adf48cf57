"""The far end is the kernel's vxlan device, as on any Linux host.

     host 1                    host 2                    x9: a Linux host
┌───────────────┐        ┌───────────────┐        ┌─────────────────────┐
│ vN  tN        │        │ vN  tN        │        │ kN   kN             │
│               │        │               │        │ br0 ── vx0          │    a static entry of zeroes (BUM) for
│ eth1 .1       │        │ eth1 .2       │        │ eth0 .9             │    each of our VTEPs
└──┬────────────┘        └──┬────────────┘        └──┬──────────────────┘
   └────────────────────────┴────────────────────────┘    192.0.2.0/24 or 2001:db8:1::/64
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.fleet import Fleet, running_fleet
from support.hearing import frame, ports_of
from support.lan import assert_connected
from support.linux_host import LinuxHost
from support.vms import KINDS, plugged
from vxagent.lab.frames import BROADCAST

SEGMENT = "blue"


@pytest.fixture(scope="module", params=[4, 6], ids=["IPv4", "IPv6"])
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """Two hosts on such an underlay."""
    with running_fleet(2, family=request.param) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def linux(fleet: Fleet) -> LinuxHost:
    """The other end, which has the segment as well."""
    return LinuxHost(fleet, 9, fleet.segment(SEGMENT))


@pytest.mark.parametrize("theirs", KINDS)
@pytest.mark.parametrize("ours", KINDS)
def test_vms_behind_both_kinds_of_ends_are_connected(fleet: Fleet, linux: LinuxHost, ours: str, theirs: str) -> None:
    one, other = plugged(fleet.hosts[0], SEGMENT, ours), linux.vm(theirs)
    assert_connected(one, other)
    largest = ("ping", "-c", "1", "-W", "2", "-M", "do", "-s", str(fleet.mtu - 28))
    one.namespace.run(*largest, other.address)
    other.namespace.run(*largest, one.address)


@pytest.mark.parametrize("theirs", KINDS)
def test_a_broadcast_of_either_arrives_once_at_every_other_port(fleet: Fleet, linux: LinuxHost, theirs: str) -> None:
    near, beside = (fleet.hosts[0].veth(fleet.hosts[0].unique("v"), SEGMENT) for _ in range(2))
    third, other, behind = fleet.hosts[1].veth(fleet.hosts[1].unique("v"), SEGMENT), linux.vm("veth"), linux.vm(theirs)
    for sender in (near, third, other):
        others = [vm for vm in (near, beside, third, other, behind) if vm is not sender]
        assert fleet.who_hears(sender, frame(BROADCAST, sender.mac), *others) == ports_of(*others)


def test_each_end_learns_whom_the_other_has(fleet: Fleet, linux: LinuxHost) -> None:
    one, other = fleet.hosts[0].veth(fleet.hosts[0].unique("v"), SEGMENT), linux.vm("veth")
    third = fleet.hosts[1].veth(fleet.hosts[1].unique("v"), SEGMENT)
    for vm in (one, other):
        fleet.who_hears(vm, frame(BROADCAST, vm.mac))
    entry = fleet.hosts[0].entry(SEGMENT, other.mac)
    assert entry is not None
    assert (entry["port"], entry["vtep"], entry["origin"]) == (None, linux.vtep, "learned")
    assert linux.place_of(one.mac) == fleet.hosts[0].vtep
    assert fleet.who_hears(other, frame(one.mac, other.mac), one, third) == ports_of(one)
    assert fleet.who_hears(one, frame(other.mac, one.mac), other, third) == ports_of(other)
