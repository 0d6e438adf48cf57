"""QEMU's command line for a guest of the lab."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vm.lab.kernels import Kernel

QEMU = "qemu-system-x86_64"
PORT = "vxagent.lab"


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """A NIC of a guest; there it is `eth0`, `eth1` … in their order, virtio's before others.

    Attributes:
        ifname: the tap in the switch's namespace. QEMU makes it when it is not there, and removes it then.
        mac: the guest's.
        queues: pairs of them; a tap that is there already must have been made with `multi_queue` for more than one.
        vhost: let the kernel serve the tap (vhost-net).
        model: of the NIC; with others than virtio-net-pci the tap has no offloads.
        options: more of the device's, as "mq=on".
    """

    ifname: str
    mac: str
    queues: int = 1
    vhost: bool = False
    model: str = "virtio-net-pci"
    options: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a guest consists of.

    Attributes:
        kernel, initramfs: what it boots.
        nics: its NICs.
        disk: of an image that holds the system to start; None: the initramfs is all there is. Writes to it are lost.
        bare: the system on the disk has no init.
        media: a file that the guest finds as its next disk, read-only.
        cpus: how many.
        memory_mb: MiB.
        arguments: more of the kernel's command line.
    """

    kernel: Kernel
    initramfs: Path
    nics: tuple[Nic, ...] = ()
    disk: Path | None = None
    bare: bool = False
    media: Path | None = None
    cpus: int = 1
    memory_mb: int = 256
    arguments: str = ""


def command(machine: Machine, directory: Path) -> list[str]:
    """The words of it.

    Args:
        machine: what to start.
        directory: where its sockets and its console's log will be.
    """
    return [
        *(QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-M", "pc", *_accelerator()),
        *("-smp", str(machine.cpus), "-m", str(machine.memory_mb)),
        *("-kernel", str(machine.kernel.image), "-initrd", str(machine.initramfs)),
        *("-append", _arguments(machine)),
        *("-serial", f"file:{directory}/console.log"),
        *("-qmp", f"unix:{directory}/qmp.sock,server=on,wait=off"),
        *("-device", "virtio-serial-pci", "-chardev", f"socket,id=lab,path={directory}/lab.sock,server=on,wait=off"),
        *("-device", f"virtserialport,chardev=lab,name={PORT}"),
        *_disks(machine),
        *(word for number, nic in enumerate(machine.nics) for word in _nic(number, nic)),
    ]


def _accelerator() -> tuple[str, ...]:
    """TCG works everywhere. /dev/kvm may be there and not be able to boot these kernels: who knows better says so."""
    return ("-accel", os.environ.get("VXAGENT_VM_ACCEL", "tcg,thread=multi"), "-cpu", "max")


def _arguments(machine: Machine) -> str:
    words = ["console=ttyS0", "quiet", "panic=-1", "net.ifnames=0", "mitigations=off", machine.arguments]
    if machine.disk is not None:
        words.append("vx.root=/dev/vda")
    if machine.bare:
        words.append("vx.bare")
    return " ".join(word for word in words if word)


def _disks(machine: Machine) -> Iterator[str]:
    if machine.disk is not None:
        yield from ("-drive", f"file={machine.disk},format=raw,if=virtio,snapshot=on")
    if machine.media is not None:
        yield from ("-drive", f"file={machine.media},format=raw,if=virtio,readonly=on")


def _nic(number: int, nic: Nic) -> Iterator[str]:
    several = nic.queues > 1
    backend = f"tap,id=n{number},ifname={nic.ifname},script=no,downscript=no,vhost={'on' if nic.vhost else 'off'}"
    yield from ("-netdev", f"{backend},queues={nic.queues}" if several else backend)
    device = f"{nic.model},netdev=n{number},mac={nic.mac},romfile="
    vectors = f",mq=on,vectors={2 * nic.queues + 2}" if several else ""
    yield from ("-device", f"{device}{vectors}{',' if nic.options else ''}{nic.options}")
