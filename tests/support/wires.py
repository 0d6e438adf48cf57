"""Taps in a network namespace of their own, with the switch's programs on each: frames go in and out for real.

    write(tap 1) ──► vx_xdp ──► vx_tc ──► bpf_redirect, bpf_clone_redirect ──► read(tap 2), read(tap 3) …
                        └──► bpf_redirect_map ──► read(tap 2)

vx_xdp finishes frames for taps that are in the map `xdp_devices`; as long as that is empty, it finishes none.

The kernel runs the program before write() returns. A frame therefore is at the other taps at once, or never. They
take no offloads: what is read is what a physical network would carry.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from vxagent.datapath.bpf_link import Link
from vxagent.datapath.bpf_map import Map
from vxagent.datapath.bpf_prog import AttachType, Program
from vxagent.lab.namespaces import Namespace
from vxagent.lab.pump import LARGEST, VNET_HDR
from vxagent.lab.tap import open_tap

ARRIVES_S = 5  # how long a frame that was counted as sent may take; it is there at once unless the machine is busy

MTU = 65_521  # a tap's largest

NO_OFFLOAD = bytes(VNET_HDR.size)


class Wires:
    """Taps by number. Close it.

    Args:
        tc, xdp: the programs.
        offloads: whoever reads them takes TSO frames whole.

    Attributes:
        ifindex: tap → the number that the kernel gave its device.
    """

    def __init__(
        self, numbers: Iterable[int], tc: Program, xdp: Program, *, name: str = "bpf", offloads: bool = False
    ) -> None:
        self.namespace = Namespace(f"vx-{os.getpid()}-{name}")
        self.offloads = offloads
        self.ifindex: dict[int, int] = {}
        self._taps: dict[int, int] = {}
        self._links: list[Link] = []
        self.namespace.create()
        try:
            for number in numbers:
                self._plug(number, tc, xdp)
        except BaseException:
            self.close()
            raise

    def _plug(self, number: int, tc: Program, xdp: Program) -> None:
        name = f"p{number}"
        self._taps[number] = open_tap(self.namespace, name, offloads=self.offloads)
        self.namespace.ip("link", "set", name, "mtu", str(MTU), "up")  # the agent wants those of the segments to fit
        with self.inside():
            self.ifindex[number] = socket.if_nametoindex(name)
            self._links.append(Link.create(tc, AttachType.TCX_INGRESS, self.ifindex[number]))
            self._links.append(Link.create(xdp, AttachType.XDP, self.ifindex[number]))

    def close(self) -> None:
        """Remove everything."""
        for link in self._links:
            link.close()
        for fd in self._taps.values():
            os.close(fd)
        self.namespace.delete()

    def inside(self) -> AbstractContextManager[None]:
        """The calling thread in the namespace: a test run finds the devices, and what it clones stays there."""
        return self.namespace.entered()

    def write(self, number: int, frame: bytes, header: bytes = NO_OFFLOAD) -> None:
        """The VM behind a tap sends a frame.

        Args:
            header: struct virtio_net_hdr, which asks the kernel for checksums and segmentation.
        """
        os.write(self._taps[number], header + frame)

    @contextmanager
    def reached(self, devices: Map, numbers: Iterable[int]) -> Iterator[None]:
        """Frames that XDP finishes may go to these taps meanwhile.

        Args:
            devices: `xdp_devices`, whose keys are the numbers.
        """
        keys = {struct.pack("=I", number): struct.pack("=I", self.ifindex[number]) for number in numbers}
        with self.inside():  # the kernel looks for the devices in the caller's namespace
            for key, ifindex in keys.items():
                devices.update(key, ifindex)
        try:
            yield
        finally:
            for key in keys:
                devices.delete(key)

    def read(self, number: int, count: int) -> list[bytes]:
        """The `count` frames that have been sent to a tap, and all others that are there as well."""
        fd = self._taps[number]
        frames: list[bytes] = []
        while len(frames) < count and select.select([fd], [], [], ARRIVES_S)[0]:
            frames.append(os.read(fd, LARGEST)[VNET_HDR.size :])
        with suppress(BlockingIOError):
            while True:
                frames.append(os.read(fd, LARGEST)[VNET_HDR.size :])
        return frames
