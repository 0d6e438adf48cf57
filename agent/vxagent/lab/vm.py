"""VMs: a namespace whose device `eth0` is connected to a device in the switch's namespace."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol

from vxagent.lab.namespaces import Namespace
from vxagent.lab.tap import Pump, open_tap

NIC = "eth0"
PREFIX = 24


@dataclass(kw_only=True)
class Endpoint:
    """Something with a network stack of its own.

    Attributes:
        namespace: where its device `eth0` is.
        mac, address: of that device; the address is IPv4 in a /24, or "".
    """

    namespace: Namespace
    mac: str
    address: str = ""

    def configure(self, *, mtu: int, nic: str = NIC) -> None:
        """Give `eth0`, or what it is called, its MAC, its MTU (bytes of L3) and its address, and set it up."""
        lines = [f"link set {nic} address {self.mac} mtu {mtu} up"]
        if self.address:
            lines.append(f"address add {self.address}/{PREFIX} dev {nic}")
        self.namespace.ip_batch(lines)

    def add_address(self, address: str) -> None:
        """Give `eth0` another IPv4 address."""
        self.namespace.ip("address", "add", f"{address}/{PREFIX}", "dev", NIC)

    def set_neighbour(self, address: str, mac: str) -> None:
        """Tell it where an address is, so that it does not ask."""
        self.namespace.ip("neighbour", "replace", address, "lladdr", mac, "dev", NIC)


class Vm(Protocol):
    """What plugs into the switch's namespace.

    Attributes:
        port: the device's name there.
    """

    port: str

    def plug(self) -> None:
        """Make the devices, as a VM that starts does."""

    def unplug(self) -> None:
        """Remove the devices, as a VM that ends does; they may be gone already."""


@dataclass(kw_only=True)
class VethVm(Endpoint):
    """A VM on a veth pair, as containers have it."""

    switch: Namespace
    port: str
    mtu: int = 1500

    def plug(self) -> None:
        """Make the pair."""
        self.switch.ip(
            *f"link add {self.port} mtu {self.mtu} type veth peer name {NIC} netns {self.namespace.name}".split()
        )
        self.configure(mtu=self.mtu)
        self.switch.ip("link", "set", self.port, "up")
        self.namespace.wait_running(NIC)

    def unplug(self) -> None:
        """Remove the pair."""
        self.switch.run("ip", "link", "delete", self.port, check=False)


@dataclass(kw_only=True)
class TapVm(Endpoint):
    """A VM on a tap. A process stands in for the hypervisor: it carries frames, with their virtio_net_hdr, between
    the tap `port` and a tap in the VM's namespace. Where it ends, the devices vanish."""

    switch: Namespace
    port: str
    mtu: int = 1500
    offloads: bool = True
    hypervisor: Pump | None = None

    def plug(self) -> None:
        """Make the taps and start the process."""
        outer = open_tap(self.switch, self.port, offloads=self.offloads)
        try:
            inner = open_tap(self.namespace, NIC, offloads=self.offloads)
            try:
                self.hypervisor = Pump(("tap", outer), {"all": inner})
            finally:
                os.close(inner)
        finally:
            os.close(outer)
        self.configure(mtu=self.mtu)
        self.switch.ip("link", "set", self.port, "mtu", str(self.mtu), "up")

    def unplug(self) -> None:
        """End the process."""
        if self.hypervisor is not None:
            self.hypervisor.stop()
            self.hypervisor = None
