"""A host whose end of the overlay is the kernel's: a vxlan device under a plain bridge (LinuxHost).

 VMs (veth, tap)
┌──┴───────┴───┐
│ br0          │
│  └ vx0 (VNI) │
│ eth0     .N  │
└──┬───────────┘
 underlay
"""

from __future__ import annotations

import json

from support.fleet import Fleet, Host
from support.lan import address_of, mac_of
from support.vxlan import VXLAN_PORT
from vxagent.lab.bridge import Bridge
from vxagent.lab.namespaces import Namespace
from vxagent.lab.vm import NIC, TapVm, VethVm

EVERYBODY = "00:00:00:00:00:00"  # of a static entry: where BUM goes (ip-link(8), vxlan)
VXLAN_DEVICE = "vx0"


class LinuxHost:
    """One more VTEP of a fleet, which the hosts are told of.

    Args:
        number: of its tunnel address.
        vni: the one that it has.

    Attributes:
        vtep: its tunnel address.
        namespace: the host's.
    """

    def __init__(self, fleet: Fleet, number: int, vni: int) -> None:
        self._fleet = fleet
        outsider = fleet.outsider(number)
        self.vtep, self.namespace = outsider.address, outsider.namespace
        self._bridge = Bridge(self.namespace)
        add_vxlan(self.namespace, VXLAN_DEVICE, vni, local=self.vtep, nic=NIC, mtu=fleet.mtu)
        self._bridge.add(VXLAN_DEVICE)
        for host in fleet.hosts:
            self.flood_to(host)
            host.client.change("POST", "v1", "vteps", body={"address": self.vtep, "vnis": [vni]})

    def flood_to(self, host: Host) -> None:
        """Have BUM go there."""
        self.namespace.run("bridge", "fdb", "append", EVERYBODY, "dev", VXLAN_DEVICE, "dst", host.vtep)

    def place_of(self, mac: str) -> str:
        """The tunnel address behind which the kernel has learned a MAC; "" for none."""
        shown = self.namespace.run("bridge", "-json", "fdb", "show", "dev", VXLAN_DEVICE).stdout
        return next((str(row["dst"]) for row in json.loads(shown) if row["mac"] == mac and "dst" in row), "")

    def vm(self, kind: str) -> VethVm | TapVm:
        """Somebody behind it: "veth", "tap" or "tap without offloads"."""
        first = self._fleet.hosts[0]
        number, port = first.count(), first.unique("k")
        world, here, mtu = self._fleet.world, self.namespace, self._fleet.mtu
        mac, address = mac_of(number), address_of(number)
        vm: VethVm | TapVm
        if kind == "veth":
            vm = world.veth_vm(here, port, mac=mac, address=address, mtu=mtu)
        else:
            vm = world.tap_vm(here, port, mac=mac, address=address, mtu=mtu, offloads=kind == "tap")
        self._bridge.add(port)
        return vm


def add_vxlan(namespace: Namespace, ifname: str, vni: int, *, local: str, nic: str, mtu: int) -> None:
    """A vxlan device of the kernel's, up. It sends UDP checksums, and takes packets without any (RFC 6935)."""
    zero = ("udp6zerocsumrx",) if ":" in local else ("udpcsum",)
    words = f"link add {ifname} mtu {mtu} type vxlan id {vni} local {local} dstport {VXLAN_PORT} dev {nic}"
    namespace.ip(*words.split(), *zero)
    namespace.ip("link", "set", ifname, "up")
