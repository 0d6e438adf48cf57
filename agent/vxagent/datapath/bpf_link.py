"""Links: a program at a device's hook, for as long as somebody holds or pins the link."""

from __future__ import annotations

import ctypes
import errno
import struct
from pathlib import Path

from vxagent.datapath import bpf
from vxagent.datapath.bpf import BpfError, Command
from vxagent.datapath.bpf_prog import AttachType, Program, ProgSpec, ProgType
from vxagent.errors import HostError

_CREATE = struct.Struct("=4I")  # prog_fd, target_ifindex, attach_type, flags
_UPDATE = struct.Struct("=4I")  # link_fd, new_prog_fd, flags, old_prog_fd
_DETACH = struct.Struct("=I")  # link_fd
_QUERY = struct.Struct("=4IQI")  # target_ifindex, attach_type, query_flags, attach_flags, prog_ids, count
_LINK_INFO = struct.Struct("=4xII4xI")  # id, prog_id, ifindex of a tcx or XDP link

_F_BEFORE = 1 << 3  # BPF_F_BEFORE, of no other program: before all
_XDP_FLAGS_DRV_MODE = 1 << 2
_FLAGS = {AttachType.TCX_INGRESS: _F_BEFORE, AttachType.TCX_EGRESS: _F_BEFORE, AttachType.XDP: _XDP_FLAGS_DRV_MODE}

_MOST = 64  # programs at one hook, BPF_MPROG_MAX
_NO_SUCH_IFINDEX = 0x7FFFFFFF
_PASS = ProgSpec(name="vx_probe", type=ProgType.SCHED_CLS)
_PASS_CODE = bytes.fromhex("b7000000000000009500000000000000")  # r0 = 0; exit


class Link(bpf.Fd):
    """An open link."""

    @classmethod
    def create(cls, program: Program, hook: AttachType, ifindex: int, ifname: str = "") -> Link:
        """Run a program at a device's hook, on tcx before all others, on XDP in the driver.

        Args:
            ifname: the device's name, for the error.

        Raises:
            HostError: no such device in this network namespace, or the kernel refused.
        """
        request = bpf.attr(_CREATE.pack(program.fd, ifindex, hook, _FLAGS[hook]))
        result = bpf.call(Command.LINK_CREATE, request)
        device = ifname or f"device {ifindex}"
        if result == -errno.ENODEV:
            raise HostError(f"cannot attach to {device}: no such device", "see `ip link`")
        if result == -errno.EEXIST and hook is not AttachType.XDP:
            raise HostError(f"the switch's program runs on {device} already", "detach the other port first")
        if result < 0:
            raise BpfError(f"attach to {device}", -result)
        return cls(result)

    @classmethod
    def open(cls, path: Path) -> Link | None:
        """Open a pinned link, or None where nothing is pinned.

        Raises:
            BpfError: it cannot be opened.
        """
        fd = bpf.open_pin(path)
        return None if fd is None else cls(fd)

    @property
    def ifindex(self) -> int:
        """The device's; 0 once it is gone or the link was detached."""
        return self.where()[0]

    @property
    def program_id(self) -> int:
        """The kernel's number of the program that runs."""
        return self.where()[1]

    def where(self) -> tuple[int, int]:
        """(ifindex, the kernel's number of the program that runs)."""
        _, program, ifindex = _LINK_INFO.unpack(bpf.info(self.fd, _LINK_INFO.size, "a link"))
        return ifindex, program

    def update(self, program: Program) -> bool:
        """Swap the program without losing a frame.

        Returns:
            Whether it runs: not where the device is gone.

        Raises:
            BpfError: the kernel refused.
        """
        result = bpf.call(Command.LINK_UPDATE, bpf.attr(_UPDATE.pack(self.fd, program.fd, 0, 0)))
        if result in (-errno.ENOLINK, -errno.ENODEV):
            return False
        if result < 0:
            raise BpfError("swap a program", -result)
        return True

    def detach(self) -> None:
        """Take the program off now, whoever else holds the link. A device that is gone is no failure.

        Raises:
            BpfError: the kernel refused.
        """
        result = bpf.call(Command.LINK_DETACH, bpf.attr(_DETACH.pack(self.fd)))
        if result not in (0, -errno.ENOLINK, -errno.ENODEV):
            raise BpfError("take a program off", -result)


def tcx_programs(ifindex: int) -> list[int]:
    """The numbers of the programs at a device's tcx ingress, in the order of running; none of one that is gone.

    Raises:
        BpfError: the kernel refused.
    """
    numbers = (ctypes.c_uint32 * _MOST)()
    request = bpf.attr(_QUERY.pack(ifindex, AttachType.TCX_INGRESS, 0, 0, ctypes.addressof(numbers), _MOST))
    result = bpf.call(Command.PROG_QUERY, request)
    if result in (-errno.ENODEV, -errno.ENOENT):
        return []
    if result < 0:
        raise BpfError(f"read the programs of device {ifindex}", -result)
    return list(numbers[: _QUERY.unpack_from(request)[-1]])


def has_tcx() -> bool:
    """Whether this kernel has tcx links (6.6 and later): one that knows them looks for the device first.

    Raises:
        BpfError: no right to load a program.
    """
    with Program.load(_PASS, _PASS_CODE) as program:
        request = bpf.attr(_CREATE.pack(program.fd, _NO_SUCH_IFINDEX, AttachType.TCX_INGRESS, _F_BEFORE))
        return bpf.call(Command.LINK_CREATE, request) == -errno.ENODEV
