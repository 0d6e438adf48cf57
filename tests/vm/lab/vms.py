"""The lab itself: makes guests of one world and takes them away with it."""

from __future__ import annotations

from pathlib import Path

from vm.lab import wheel
from vm.lab.debian import debian
from vm.lab.guest import Guest
from vm.lab.initramfs import initramfs
from vm.lab.kernels import PACKAGES, kernel
from vm.lab.qemu import Machine, Nic
from vxagent.lab.namespaces import Namespace
from vxagent.lab.world import World


class Vms:
    """Guests, which end when the world does.

    Args:
        world: owns them.
    """

    def __init__(self, world: World) -> None:
        self._world = world

    def small(
        self,
        netns: Namespace,
        *nics: Nic,
        series: str = "6.12",
        cpus: int = 1,
        name: str = "guest",
        memory_mb: int = 256,
        media: Path | None = None,
    ) -> Guest:
        """A guest that has started and may not be up yet, with busybox and iperf3; its root is an initramfs.

        Args:
            netns: where its taps are.
            nics: what it gets.
            series: of its kernel: "6.1" or "6.12".
            cpus: how many.
            name: by which errors call it.
            memory_mb: MiB.
            media: a file that is its /dev/vda, read-only.
        """
        booted = kernel(series)
        machine = Machine(
            kernel=booted, initramfs=initramfs(booted), nics=nics, cpus=cpus, memory_mb=memory_mb, media=media
        )
        return self._started(machine, netns, name)

    def hypervisor(
        self,
        netns: Namespace,
        *nics: Nic,
        series: str = "6.12",
        cpus: int = 2,
        name: str = "hypervisor",
        systemd: bool = True,
    ) -> Guest:
        """A guest that has started and may not be up yet: Debian with systemd; `hypervisor.install` puts vxagent on it.

        Its disk is as after the image was built; what it writes is lost with it, but survives a reboot. Without systemd
        there is nothing but what is started there, and it is up in half the time.
        """
        booted = kernel(series)
        machine = Machine(
            kernel=booted,
            initramfs=initramfs(booted),
            nics=nics,
            disk=debian([kernel(each) for each in PACKAGES]),
            bare=not systemd,
            media=wheel.media(),
            cpus=cpus,
            memory_mb=1024,
        )
        return self._started(machine, netns, name)

    def _started(self, machine: Machine, netns: Namespace, name: str) -> Guest:
        guest = Guest(machine, netns, self._world.directory(), name)
        self._world.cleanup.callback(guest.kill)
        guest.start()
        return guest
