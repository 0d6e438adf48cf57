"""Sees what arrives at a device, tags and GSO included."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from types import TracebackType

from vxagent.lab.frames import Frame
from vxagent.lab.namespaces import Namespace
from vxagent.lab.pump import NEEDS_CSUM, SOL_PACKET, VNET_HDR, Packet

ETH_P_ALL = 0x0003
SO_RCVBUFFORCE = 33
RECEIVE_BUFFER = 32 << 20
# <linux/if_packet.h>
PACKET_AUXDATA_OPTION = 8
PACKET_VNET_HDR = 15
PACKET_IGNORE_OUTGOING = 23


def open_packet_socket(
    namespace: Namespace, ifname: str, *, outgoing: bool = False, ethertype: int = ETH_P_ALL
) -> socket.socket:
    """A socket that reads and writes whole frames of one device behind a struct virtio_net_hdr.

    Args:
        namespace, ifname: the device.
        outgoing: read what the host sends there, too.
        ethertype: read only these frames, and only those that reach the host's stack: nothing that a program at
            the device takes away. By default all frames, as they arrive.

    Raises:
        OSError: there is no such device.
    """
    with namespace.entered():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # deaf until it is bound
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        sock.setsockopt(SOL_PACKET, PACKET_AUXDATA_OPTION, 1)
        sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, int(not outgoing))
        sock.bind((ifname, ethertype))
    except BaseException:
        sock.close()
        raise
    return sock


class Sniffer:
    """Keeps every frame that arrives at a device from the moment on when it is made.

    That a frame did *not* arrive is shown without waiting: let one follow on the same way, wait for that, then look.
    The arguments are those of `open_packet_socket`.
    """

    def __init__(
        self, namespace: Namespace, ifname: str, *, outgoing: bool = False, ethertype: int = ETH_P_ALL
    ) -> None:
        self._socket = open_packet_socket(namespace, ifname, outgoing=outgoing, ethertype=ethertype)
        self._socket.setblocking(False)
        self._end = Packet(self._socket)
        self._frames: list[Frame] = []

    def __enter__(self) -> Sniffer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def frames(self, wanted: Callable[[Frame], bool] = lambda _frame: True) -> list[Frame]:
        """Those that arrived so far and are wanted."""
        while True:
            try:
                raw = self._end.read()
            except BlockingIOError:
                return [frame for frame in self._frames if wanted(frame)]
            flags, _gso_type, _, gso_size, _, _ = VNET_HDR.unpack_from(raw)
            self._frames.append(Frame(data=raw[VNET_HDR.size :], gso_size=gso_size, partial=bool(flags & NEEDS_CSUM)))

    def wait_for(self, wanted: Callable[[Frame], bool], *, within: float = 10.0) -> Frame:
        """The first frame that is wanted, as soon as it is there.

        Args:
            wanted: says whether it is this one.
            within: seconds.

        Raises:
            TimeoutError: none came; says what came instead.
        """
        deadline = time.monotonic() + within
        while not (found := self.frames(wanted)):
            left = deadline - time.monotonic()
            if left <= 0:
                seen = "\n".join(str(frame) for frame in self._frames) or "nothing"
                raise TimeoutError(f"not within {within} s; arrived:\n{seen}")
            select.select([self._socket], [], [], left)
        return found[0]

    def forget(self) -> None:
        """Drop what arrived so far."""
        self.frames()
        self._frames.clear()

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
