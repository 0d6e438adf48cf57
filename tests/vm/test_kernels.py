"""Uplinks that are NICs: native XDP, tags that the NIC takes out, and what the host itself gets, on Debian's kernels.

 hypervisor (Linux 6.1 or 6.12, vxagent)                         far (its VLAN devices)
┌──────────────────────────────────────┐                        ┌──────────────────────┐
│  VM ── tap0 ── switch ┬ eth0         │── virtio ── b0 ────────│ eth0   eth0.10 …     │
│  10.0.0.1             ├ eth1         │── virtio ── b1 ────────│ eth1   eth1.10 …     │
│                       ├ eth2         │── virtio ── b2 ────────│ eth2   eth2.10 …     │
│                       └ eth3         │── vmxnet3 ── b3 ───────│ eth3   eth3.10 …     │
└──────────────────────────────────────┘                        └──────────────────────┘

virtio_net has native XDP and takes no tags out. eth0 has one queue, which XDP shares with the stack; eth1 has queues to
spare for it; eth2 cannot turn off that it gets merged frames, so its driver refuses XDP. vmxnet3 takes tags out of
frames (rxvlan) and merges frames (LRO) unless it is told not to; it has native XDP from Linux 6.6.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from support.lan import clean_world
from vm.lab.guest import Guest
from vm.lab.hypervisor import PYTHON, Inside, ask, install, namespace_vm, put, up
from vm.lab.qemu import Nic
from vm.lab.traffic import MEGABYTE, Host, bulk_tcp, ping
from vm.lab.vms import Vms
from vxagent.lab.waiting import wait_until

pytestmark = pytest.mark.timeout(600)  # the first test of a kernel starts the guests

VM_MAC, VM, FAR = "02:00:00:00:00:01", "10.0.0.1", "10.0.0.2"
VIRTIO, QUEUES, REFUSING, VMXNET3 = NICS = ("eth0", "eth1", "eth2", "eth3")
BLUE, RED, NOBODY = 10, 20, 30  # VIDs
FOREIGN, LAST = "a5", "5a"  # what pings are filled with
NO_XDP = "its driver has no native XDP, or not with the offloads that it has on"
PATIENCE_S = 60  # a call of vxagent in a guest may take seconds
_REDIRECTS = re.compile(r"(?:rx\d+_|rx_queue_\d+_|^\s+)xdp[_ ]redirects: (\d+)", re.MULTILINE)


@dataclass
class Site:
    """The hypervisor, a VM on it, and a host of the physical network."""

    series: str
    hypervisor: Guest
    vm: Inside
    far: Guest

    def uplink(self, ifname: str) -> dict[str, Any]:
        """Its row of `uplink list`."""
        return next(row for row in ask(self.hypervisor, "uplink", "list") if row["ifname"] == ifname)

    def feature(self, ifname: str, name: str) -> str:
        """What `ethtool -k` says of a feature: on, off, or off and fixed."""
        said = self.hypervisor.run("ethtool", "-k", ifname).output
        return next(line.split(": ")[1] for line in said.splitlines() if line.startswith(f"{name}:"))

    def redirects(self, ifname: str) -> int:
        """Frames that XDP has sent on, as the NIC's driver counts them; 0 of one without XDP."""
        return sum(map(int, _REDIRECTS.findall(self.hypervisor.run("ethtool", "-S", ifname).output)))

    @contextmanager
    def joined(self, ifname: str, *options: str) -> Iterator[None]:
        """The NIC is an uplink, and the far host in the blue VLAN there."""
        self.hypervisor.run("vxagent", "uplink", "add", ifname, *options)
        try:
            wait_until(lambda: self.uplink(ifname)["state"] == "up", within=PATIENCE_S, what=f"{ifname} is up")
            with self.vlan(ifname, BLUE, FAR):
                yield
        finally:
            self.hypervisor.run("vxagent", "uplink", "del", ifname)

    @contextmanager
    def vlan(self, ifname: str, vid: int, address: str) -> Iterator[str]:
        """A VLAN device of the far host, whose name it gives."""
        name = f"{ifname}.{vid}"
        self.far.sh(
            f"ip link add link {ifname} name {name} type vlan id {vid}\n"
            f"ip link set {name} up\nip address add {address}/24 dev {name}"
        )
        try:
            yield name
        finally:
            self.far.sh(f"ip link del {name}")

    @contextmanager
    def hearing(self, pattern: str) -> Iterator[Callable[[], int]]:
        """Gives a function that says, afterwards, how many of the VM's frames were pings filled with this byte."""
        told = "/run/hearing"
        script = put(self.hypervisor, "hear.py")
        self.hypervisor.run("rm", "-f", told)
        hearing = self.vm.begin(f"{PYTHON} {script} eth0 {pattern * 16} {LAST * 16} {told}")
        self.hypervisor.sh(f"for i in $(seq 100); do [ -e {told} ] && exit; sleep 0.1; done; exit 1")
        yield lambda: int(hearing.result(60).output)
        assert ping(self.far, VM, count=1, more=f"-p {LAST}") == 1

    def assert_carries(self, ifname: str, *, xdp: bool) -> None:
        """The VM and the far host send each other bulk TCP in the blue VLAN, and the host its own, beside it."""
        before = self.redirects(ifname)
        assert ping(self.far, VM) == 3
        assert_bulk(self.far, self.vm, (FAR, VM))
        assert (self.redirects(ifname) - before > 100) == xdp
        own, others = host_addresses(ifname)
        assert ping(self.far, own) == 3
        assert_bulk(self.far, self.hypervisor, (others, own))


def assert_bulk(one: Host, other: Host, addresses: tuple[str, str]) -> None:
    """Both send the other a megabyte by TCP, and all of it arrives as it was sent."""
    assert bulk_tcp(one, other, addresses[1], amount=MEGABYTE) == MEGABYTE
    assert bulk_tcp(other, one, addresses[0], amount=MEGABYTE) == MEGABYTE


def host_addresses(ifname: str) -> tuple[str, str]:
    """Of the hypervisor itself and the far host, untagged on the wire of this NIC."""
    net = f"192.0.{ifname.removeprefix('eth')}"
    return f"{net}.1", f"{net}.2"


@pytest.fixture(scope="module", params=["6.1", "6.12"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """Guests that run, vxagent in one of them, and a VM there."""
    with clean_world() as world:
        wires, vms = world.namespace("wires"), Vms(world)
        hypervisor = vms.hypervisor(
            wires,
            Nic(ifname="h0", mac="02:00:00:00:01:00"),
            Nic(ifname="h1", mac="02:00:00:00:01:01", queues=4),  # twice as many as CPUs
            Nic(ifname="h2", mac="02:00:00:00:01:02", options="ctrl_guest_offloads=off"),
            Nic(ifname="h3", mac="02:00:00:00:01:03", model="vmxnet3"),
            series=request.param,
        )
        far = vms.small(wires, *(Nic(ifname=f"f{n}", mac=f"02:00:00:00:02:0{n}") for n in range(len(NICS))), name="far")
        far.wait_up()
        hypervisor.wait_up()
        for number, ifname in enumerate(NICS):
            bridge = f"b{number}"
            wires.ip_batch(
                [
                    f"link add {bridge} type bridge",
                    *(f"link set {port}{number} master {bridge} up" for port in "hf"),
                    f"link set {bridge} up",
                ]
            )
            for guest, address in zip((hypervisor, far), host_addresses(ifname), strict=True):
                guest.sh(f"ip link set {ifname} up\nip address add {address}/24 dev {ifname}")
        install(hypervisor)
        up(hypervisor)
        hypervisor.sh(
            f"vxagent segment add blue --tenant acme --vlan {BLUE}\nvxagent segment add red --tenant zoo --vlan {RED}"
        )
        vm = namespace_vm(hypervisor, "tap0", mac=VM_MAC, address=VM)
        hypervisor.run("vxagent", "port", "attach", "tap0", "--segment", "blue")
        yield Site(request.param, hypervisor, vm, far)


@pytest.fixture
def lro_on_again(site: Site) -> Iterator[None]:
    """In the end the NIC merges frames, as it does by itself."""
    yield
    site.hypervisor.run("ethtool", "-K", VMXNET3, "lro", "on")


@pytest.fixture
def lro_off(site: Site, lro_on_again: None) -> None:
    """The NIC merges no frames."""
    site.hypervisor.run("ethtool", "-K", VMXNET3, "lro", "off")


def test_the_kernels_own_hook_is_under_it(site: Site) -> None:
    with site.joined(VIRTIO):
        qdiscs = site.hypervisor.run("tc", "qdisc", "show", "dev", VIRTIO).output
        assert ("clsact" in qdiscs) == (site.series == "6.1")
        assert ("has no tcx" in site.hypervisor.run("vxagent", "doctor").output) == (site.series == "6.1")


@pytest.mark.parametrize("ifname", [VIRTIO, QUEUES])
def test_xdp_carries_a_vlan_of_virtio_net(site: Site, ifname: str) -> None:
    with site.joined(ifname):
        assert hook_of(site, ifname) == ("xdp+tc", "")
        site.assert_carries(ifname, xdp=True)
        locked = f"{ifname}: XDP request" in site.hypervisor.run("dmesg").output
        assert locked == (ifname == VIRTIO)  # it has no queue of its own then


def test_a_nic_whose_driver_refuses_xdp_has_tc_and_says_why(site: Site) -> None:
    with site.joined(REFUSING):
        hook, why = hook_of(site, REFUSING)
        assert (hook, why) == ("tc", NO_XDP)
        doctor = site.hypervisor.run("vxagent", "doctor").output
        assert f"device {REFUSING} is without XDP: {why}" in doctor
        site.assert_carries(REFUSING, xdp=False)


def test_tc_alone_carries_it_when_asked_to(site: Site) -> None:
    with site.joined(VIRTIO, "--hook", "tc"):
        site.assert_carries(VIRTIO, xdp=False)


@pytest.mark.usefixtures("lro_on_again")
def test_a_nic_that_merges_frames_is_tcs_and_doctor_says_how_to_mend_it(site: Site) -> None:
    with site.joined(VMXNET3):
        hook, why = hook_of(site, VMXNET3)
        mend = f"`ethtool -K {VMXNET3} lro off`"
        assert (hook, mend in why) == ("tc", True)
        said = site.hypervisor.run("vxagent", "doctor", check=False)
        assert (said.code, mend in said.output) == (1, True)
        site.hypervisor.run("ethtool", "-K", VMXNET3, "lro", "off")  # as it says; nothing is reloaded
        expected = ("xdp+tc", "") if site.series != "6.1" else ("tc", NO_XDP)
        wait_until(lambda: hook_of(site, VMXNET3) == expected, within=PATIENCE_S, what=f"{VMXNET3} is {expected}")
        site.assert_carries(VMXNET3, xdp=site.series != "6.1")


def hook_of(site: Site, ifname: str) -> tuple[str, str]:
    """Its hook, and why not XDP."""
    row = site.uplink(ifname)
    return row["hook"], row["hook_why"]


@pytest.mark.usefixtures("lro_off")
def test_a_nic_leaves_tags_in_for_xdp_and_takes_them_out_again_afterwards(site: Site) -> None:
    assert site.feature(VMXNET3, "rx-vlan-offload") == "on"
    with site.joined(VMXNET3):
        assert site.feature(VMXNET3, "rx-vlan-offload") == "off"
        site.assert_carries(VMXNET3, xdp=site.series != "6.1")
    assert site.feature(VMXNET3, "rx-vlan-offload") == "on"


@pytest.mark.usefixtures("lro_off")
def test_tags_that_a_nic_has_taken_out_classify_all_the_same(site: Site) -> None:
    with site.joined(VMXNET3, "--hook", "tc"):
        assert site.feature(VMXNET3, "rx-vlan-offload") == "on"
        site.assert_carries(VMXNET3, xdp=False)


@pytest.mark.usefixtures("lro_off")
@pytest.mark.parametrize(("ifname", "hook"), [(VIRTIO, "auto"), (VIRTIO, "tc"), (VMXNET3, "auto"), (VMXNET3, "tc")])
def test_no_frame_of_another_vlan_reaches_the_vm(site: Site, ifname: str, hook: str) -> None:
    with site.joined(ifname, "--hook", hook):
        assert ping(site.far, VM) == 3  # it is there, and its MAC known
        with site.hearing(FOREIGN) as heard:
            for vid in (RED, NOBODY):
                received = site.uplink(ifname)["rx_packets"]
                with site.vlan(ifname, vid, "10.0.1.2"):
                    for address, mac in (("10.0.1.1", VM_MAC), ("10.0.1.3", "ff:ff:ff:ff:ff:ff")):
                        site.far.sh(f"arp -s {address} {mac}")
                        assert ping(site.far, address, more=f"-p {FOREIGN}") == 0
                assert site.uplink(ifname)["rx_packets"] >= received + 6, "they did not come"
        assert heard() == 0


def test_what_the_vm_gets_of_its_own_vlan_is_heard(site: Site) -> None:
    with site.joined(VIRTIO):
        assert ping(site.far, VM) == 3
        with site.hearing(FOREIGN) as heard:
            assert ping(site.far, VM, more=f"-p {FOREIGN}") == 3
        assert heard() == 6  # and the answers
