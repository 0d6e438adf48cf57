"""Taps, and the process that carries frames for them."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
from collections.abc import Mapping
from contextlib import nullcontext, suppress

from vxagent.lab import pump
from vxagent.lab.namespaces import Namespace

# <linux/if_tun.h>
TUNSETIFF = 0x400454CA
TUNSETOFFLOAD = 0x400454D0
TUNSETVNETHDRSZ = 0x400454D8
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000
TUN_F_CSUM = 0x01
TUN_F_TSO4 = 0x02
TUN_F_TSO6 = 0x04
OFFLOADS = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6

END_TIMEOUT_S = 5


def open_tap(namespace: Namespace | None, ifname: str, *, offloads: bool = True) -> int:
    """Make a tap, as QEMU does: it is there as long as the descriptor is open. Or open a persistent one.

    Args:
        namespace: where the device will be; None: where the caller is.
        ifname: its name.
        offloads: whoever reads it takes partial checksums and TSO frames.

    Returns:
        A non-blocking descriptor that carries frames behind a struct virtio_net_hdr.

    Raises:
        OSError: the name is taken, or /dev/net/tun is not there.
    """
    fd = attach_tap(namespace, ifname, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
    try:
        fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", pump.VNET_HDR.size))
        fcntl.ioctl(fd, TUNSETOFFLOAD, OFFLOADS if offloads else 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def attach_tap(namespace: Namespace | None, ifname: str, flags: int) -> int:
    """A descriptor of a tap with these IFF_… flags, which stay when it is closed. Raises OSError."""
    with nullcontext() if namespace is None else namespace.entered():  # the device is where /dev/net/tun is opened
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", ifname.encode(), flags))
    except BaseException:
        os.close(fd)
        raise
    return fd


def take(tap: int) -> list[bytes]:
    """All frames that wait there, behind their headers."""
    found: list[bytes] = []
    with suppress(BlockingIOError):
        while frame := os.read(tap, pump.LARGEST):
            found.append(frame)
    return found


class Pump:
    """The process that runs `pump.py`. It ends with `stop`, and when this process ends.

    Args:
        trunk: ("tap" or "packet", descriptor).
        branches: "all", "untagged" or a VID → a tap's descriptor.
        held: it carries nothing before `go`.
    """

    def __init__(self, trunk: tuple[str, int], branches: Mapping[str, int], *, held: bool = False) -> None:
        kind, fd = trunk
        words = ["held"] if held else []
        words += [f"{kind}:{fd}", *(f"{name}={tap}" for name, tap in branches.items())]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", pump.__file__, *words],
            stdin=subprocess.PIPE,
            pass_fds=(fd, *branches.values()),
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def go(self) -> None:
        """Begin, after `held`."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    def stop(self) -> None:
        """End it, having carried what had come; the descriptors that it was given are closed in it by then."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
