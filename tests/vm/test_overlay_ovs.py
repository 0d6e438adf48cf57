"""The far end is Open vSwitch, in a guest with Debian's kernel and that kernel's data path.

     host 1                     host 2                far: Debian 12, Open vSwitch
┌──────────────────┐      ┌──────────────────┐      ┌──────────────────────────────┐
│ blue .1          │      │ blue .3          │      │ blue .2   red .2   green .2  │    VMs with equal addresses
│ green .1 grey .1 │      │ red .1           │      │  └ br      └ br     └ br     │    have equal MACs, too
│ eth1 .1          │      │ eth1 .2          │      │ eth0 .9                      │
└──┬───────────────┘      └──┬───────────────┘      └──┬───────────────────────────┘
   └─────────────────────────┴────────────────── QEMU ─┘    192.0.2.0/24 or 2001:db8:1::/64

Open vSwitch sends what is flooded to both hosts, whatever they have. Host 1 was not told that the far end has green,
and was told that it has grey, which it has not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from support.fleet import Fleet, running_fleet
from support.lan import mac_of
from support.vms import KINDS, plugged
from vm.lab.far import far_guest
from vm.lab.hearing import Ear, who_hears
from vm.lab.here import Here
from vm.lab.hypervisor import Inside
from vm.lab.ovs import OpenVSwitch
from vm.lab.traffic import MEGABYTE, bulk_tcp, datagrams, ping
from vxagent.lab.sniffer import Sniffer

pytestmark = pytest.mark.timeout(900)  # the first test of a family starts the guest

FIRST, FAR, SECOND = ((mac_of(0x100 + number), f"10.0.0.{number}") for number in (1, 2, 3))  # VMs' MACs and addresses
OURS = {
    "blue": (0, "blue", FIRST),
    "green": (0, "green", FIRST),
    "grey": (0, "grey", FIRST),
    "red": (1, "red", FIRST),
    "second": (1, "blue", SECOND),
}  # VM: its host, segment, MAC and address
THEIRS = ("blue", "red", "green")
TOLD = (("blue", "grey"), ("blue", "red"))
"""What each host takes the far end to have."""

PINGS = 3


@dataclass
class Site:
    """Both ends.

    Attributes:
        ours, theirs: the VMs of OURS, and one in each segment of THEIRS, by these names.
    """

    fleet: Fleet
    far: OpenVSwitch
    vtep: str
    ours: dict[str, Here]
    theirs: dict[str, Inside]


@pytest.fixture(scope="module", params=[4, 6], ids=["IPv4", "IPv6"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """Two hosts on such an underlay, and the guest."""
    with running_fleet(2, family=request.param) as fleet:
        guest, vtep = far_guest(fleet)
        one, other = fleet.hosts
        vnis = {"blue": fleet.segment("blue"), "red": fleet.segment("red", other, tenant="zoo")}
        vnis |= {name: fleet.segment(name, one) for name in ("green", "grey")}
        for host, names in zip(fleet.hosts, TOLD, strict=True):
            host.client.change("POST", "v1", "vteps", body={"address": vtep, "vnis": [vnis[name] for name in names]})
        far = OpenVSwitch(guest, vtep, mtu=fleet.mtu)
        for name in THEIRS:
            far.segment(name, vnis[name], *(host.vtep for host in fleet.hosts))
        theirs = {name: far.vm(name, mac=FAR[0], address=FAR[1]) for name in THEIRS}
        yield Site(fleet, far, vtep, our_vms(fleet), theirs)


def our_vms(fleet: Fleet) -> dict[str, Here]:
    """Those of OURS, on veths."""
    found = {}
    for name, (number, segment, (mac, address)) in OURS.items():
        host = fleet.hosts[number]
        found[name] = Here(host.veth(host.unique("v"), segment, mac=mac, address=address).namespace)
    return found


def test_its_data_path_is_the_kernels(site: Site) -> None:
    shown = site.far.data_paths()
    assert "system@ovs-system:" in shown
    assert "vxlan_sys_4789" in shown


@pytest.mark.parametrize("kind", KINDS)
def test_vms_behind_both_kinds_of_ends_are_connected(site: Site, kind: str) -> None:
    """Ping, with the largest packets as well, and bulk TCP, as the VMs' kernels leave it to their NICs."""
    host = site.fleet.hosts[0]
    vm = plugged(host, "blue", kind)
    near, far = Here(vm.namespace), site.theirs["blue"]
    for source, address in ((near, FAR[1]), (far, vm.address)):
        assert ping(source, address) == PINGS
        assert ping(source, address, count=1, size=site.fleet.mtu - 28, more="-M do") == 1
    with Sniffer(host.switch, vm.port) as wire:
        assert bulk_tcp(near, far, FAR[1], amount=MEGABYTE) == MEGABYTE
        merged = wire.frames(lambda arrived: arrived.gso_size > 0 and arrived.partial)
    assert (merged != []) == (kind != "tap without offloads")
    assert bulk_tcp(far, near, vm.address, amount=MEGABYTE) == MEGABYTE
    assert "tcp-segmentation-offload: on" in far.sh("ethtool -k eth0").output


@pytest.mark.parametrize("size", [1, 1400, 4000])  # the last ones are fragmented
def test_udp_arrives_whole_and_once(site: Site, size: int) -> None:
    """Where Open vSwitch has its daemon decide on the first ones of a flow, later ones overtake them."""
    ours, theirs = site.ours["blue"], site.theirs["blue"]
    for sender, receiver, address in ((ours, theirs, FAR[1]), (theirs, ours, FIRST[1])):
        assert ping(sender, address, size=size) == PINGS
        arrived = datagrams(sender, receiver, address, size=size)
        assert (arrived.lost, arrived.copies) == (0, 0)


def test_each_end_learns_whom_the_other_has(site: Site) -> None:
    for name in ("blue", "red", "second"):
        number, segment, (mac, _) = OURS[name]
        host = site.fleet.hosts[number]
        assert ping(site.ours[name], FAR[1]) == PINGS
        entry = host.entry(segment, FAR[0])
        assert entry is not None
        assert (entry["port"], entry["vtep"], entry["origin"]) == (None, site.vtep, "learned")
        assert site.far.has_learned(segment, mac, host.vtep)


HEARD = {
    ("ours", "blue"): {("theirs", "blue"): 2 * PINGS, ("ours", "second"): PINGS},
    ("ours", "second"): {("theirs", "blue"): 2 * PINGS, ("ours", "blue"): PINGS},
    ("theirs", "blue"): {("ours", "blue"): 2 * PINGS, ("ours", "second"): PINGS},
    ("ours", "red"): {("theirs", "red"): 2 * PINGS},
    ("theirs", "red"): {("ours", "red"): 2 * PINGS},
}
"""Of broadcasts, and of what goes to a VM's MAC."""


@pytest.mark.parametrize("sender", HEARD, ids=" ".join)
def test_frames_arrive_once_at_the_vms_of_their_segment_and_at_no_other(site: Site, sender: tuple[str, str]) -> None:
    for vm in ("blue", "second", "red"):  # they are known
        assert ping(site.ours[vm], FAR[1]) == PINGS
    assert heard(site, *sender) == HEARD[sender]


def test_what_a_host_is_not_told_of_does_not_come_in(site: Site) -> None:
    """Both have the VNI."""
    host = site.fleet.hosts[0]
    before = host.drops(site.vtep).get("vtep_denied", 0)
    assert heard(site, "theirs", "green") == {}
    assert host.drops(site.vtep)["vtep_denied"] >= before + 2 * PINGS
    assert heard(site, "ours", "green") == {}


def test_a_vni_that_open_vswitch_has_not_goes_nowhere(site: Site) -> None:
    host = site.fleet.hosts[0]
    before = host.vteps()[site.vtep]["tx_packets"]
    assert heard(site, "ours", "grey") == {}
    assert host.vteps()[site.vtep]["tx_packets"] >= before + 2 * PINGS, "they did not leave"


def heard(site: Site, side: str, name: str) -> dict[tuple[str, str], int]:
    """How many pings of a VM come to each other one: to everybody, and to the MAC of those of the other side."""
    vms: dict[tuple[str, str], Ear] = {("ours", each): vm for each, vm in site.ours.items()}
    vms |= {("theirs", each): vm for each, vm in site.theirs.items()}
    return who_hears(vms, (side, name), FAR[0] if side == "ours" else FIRST[0], count=PINGS)
