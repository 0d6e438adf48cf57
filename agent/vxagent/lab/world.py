"""A world: everything that a lab needs, under one unique name, gone when the `with` block ends.

   vm a          vm b            vm c                   fabric            host in VLAN 10
┌────────┐    ┌────────┐     ┌─────────┐            ┌───────────┐         ┌───────────┐
│  eth0  │    │  eth0  │     │   eth0  │            │   trunk ──┼── pump ─┼─ eth0     │
└───┬────┘    └───┬────┘     └────┬────┘            └─────┬─────┘         └───────────┘
  veth          veth            pump                    veth
┌───┴─────────────┴───────────────┴───────────────────────┴─────┐
│  va             vb             tc                      up0    │  switch
└───────────────────────────────────────────────────────────────┘
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from vxagent.lab.fabric import Fabric
from vxagent.lab.moving import MovingVm
from vxagent.lab.namespaces import Namespace, run
from vxagent.lab.signals import stoppable
from vxagent.lab.vm import TapVm, VethVm, Vm

V = TypeVar("V", bound=Vm)


class World:
    """Makes namespaces, VMs and directories, and takes them away again in reverse, also when a signal ends it.

    Attributes:
        name: the beginning of every namespace's name.
        cleanup: what happens at the end; things of one's own may be pushed.
    """

    def __init__(self) -> None:
        self.name = f"vx-{os.getpid()}-{secrets.token_hex(2)}"
        self.cleanup = ExitStack()

    def __enter__(self) -> World:
        self.cleanup.enter_context(stoppable())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self.cleanup.__exit__(kind, error, trace)

    def namespace(self, name: str, *, ipv6: bool = False) -> Namespace:
        """A new namespace with lo up. Without `ipv6` its devices say nothing by themselves."""
        namespace = Namespace(f"{self.name}-{name}")
        self.cleanup.callback(namespace.delete)  # before it exists: nothing is left when a signal comes in between
        namespace.create(ipv6=ipv6)
        return namespace

    def directory(self) -> Path:
        """A new, empty directory."""
        path = Path(tempfile.gettempdir(), f"{self.name}-{secrets.token_hex(2)}")
        self.cleanup.callback(_remove, path)
        path.mkdir(mode=0o700)
        return path

    def veth_vm(self, switch: Namespace, port: str, *, mac: str, address: str = "", mtu: int = 1500) -> VethVm:
        """A VM (a container, say) whose device `eth0` is a veth; `port` is the other end, in the switch's namespace."""
        vm = VethVm(namespace=self.namespace(port), switch=switch, port=port, mac=mac, address=address, mtu=mtu)
        return self._plugged(vm)

    def tap_vm(
        self, switch: Namespace, port: str, *, mac: str, address: str = "", mtu: int = 1500, offloads: bool = True
    ) -> TapVm:
        """A VM whose device `eth0` is reached through the tap `port` in the switch's namespace.

        `offloads`: it takes and gives GSO frames and partial checksums, as virtio-net does.
        """
        vm = TapVm(
            namespace=self.namespace(port),
            switch=switch,
            port=port,
            mac=mac,
            address=address,
            mtu=mtu,
            offloads=offloads,
        )
        return self._plugged(vm)

    def moving_vm(
        self,
        host: Namespace,
        port: str,
        *,
        mac: str,
        address: str = "",
        mtu: int = 1500,
        queue: int = 1000,
        beside: MovingVm | None = None,
    ) -> MovingVm:
        """A VM whose device `eth0` is reached through the tap `port` of the host where it runs, for now this one.

        With `beside` it shares a namespace with another one, and its device is called as its port.
        """
        namespace = self.namespace(port) if beside is None else beside.namespace
        vm = MovingVm(namespace=namespace, port=port, mac=mac, address=address, mtu=mtu, queue=queue)
        vm.nic = vm.nic if beside is None else port
        self.cleanup.callback(vm.unplug)
        vm.plug(host)
        return vm

    def fabric(self, switch: Namespace, uplink: str, *, mtu: int = 1500) -> Fabric:
        """A physical network behind the device `uplink` in the switch's namespace."""
        fabric = Fabric(self.namespace, switch, uplink, mtu=mtu)
        self.cleanup.callback(fabric.close)
        return fabric

    def _plugged(self, vm: V) -> V:
        self.cleanup.callback(vm.unplug)
        vm.plug()
        return vm


def _remove(path: Path) -> None:
    """A directory with all that is in it and mounted below it."""
    for line in Path("/proc/mounts").read_text().splitlines():
        if (mounted := line.split()[1]).startswith(f"{path}/"):
            run("umount", "--lazy", mounted, check=False)
    shutil.rmtree(path, ignore_errors=True)
