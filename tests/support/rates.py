"""How much UDP gets through, as its receiver counts it.

with UdpSink(receiver.namespace, receiver.address) as sink, blasting(sender.namespace, sink):
    wait_until(lambda: "rate_limited" in lan.drops(port))   # the bucket is empty
    rate = sink.measure(seconds=1)
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vxagent.lab.namespaces import Namespace
from vxagent.lab.vm import VethVm

SO_RCVBUFFORCE = 33
UDP_GRO = 104  # <linux/udp.h>
BUFFER = 32 << 20
LARGEST = 1 << 16
HEADERS = 14 + 20 + 8  # Ethernet, IPv4, UDP


@dataclass(frozen=True, slots=True, kw_only=True)
class UdpRate:
    """What arrived in a second: bits of whole frames, as on the wire, and frames."""

    bits: float
    packets: float


class UdpSink:
    """A UDP socket whose datagrams are of one size.

    Args:
        namespace, address: where it listens.
        size: bytes of payload of each datagram.
    """

    def __init__(self, namespace: Namespace, address: str, *, size: int) -> None:
        with namespace.entered():
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        self._socket.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        self._socket.bind((address, 0))
        self._socket.settimeout(5)
        self.size = size

    def __enter__(self) -> UdpSink:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    @property
    def name(self) -> tuple[str, int]:
        """Where to send to."""
        address, port = self._socket.getsockname()
        return str(address), int(port)

    def measure(self, *, seconds: float) -> UdpRate:
        """What arrives from now on, between the first datagram and the first one after so many seconds.

        Raises:
            TimeoutError: nothing arrives.
        """
        self._drain()
        self._socket.recv(LARGEST)
        begun = now = time.monotonic()
        octets = 0
        while now < begun + seconds:
            octets += len(self._socket.recv(LARGEST))
            now = time.monotonic()
        frames = octets / self.size
        return UdpRate(bits=(octets + frames * HEADERS) * 8 / (now - begun), packets=frames / (now - begun))

    def _drain(self) -> None:
        """Throw away what waits."""
        until = time.monotonic()
        self._socket.setblocking(False)
        try:
            while time.monotonic() < until + 1:
                self._socket.recv(LARGEST)
        except BlockingIOError:
            pass
        finally:
            self._socket.settimeout(5)


@contextmanager
def flooding(sender: VethVm, address: str, mac: str) -> Iterator[None]:
    """Meanwhile a process sends UDP to an address as fast as it can, which the VM believes to be behind that MAC."""
    sender.set_neighbour(address, mac)
    with _sending(sender.namespace, address, 9, 64, 1):
        yield


@contextmanager
def blasting(sender: Namespace, sink: UdpSink, *, segments: int = 1) -> Iterator[None]:
    """Meanwhile a process sends to the sink as fast as it can, `segments` datagrams in each GSO frame."""
    address, port = sink.name
    with _sending(sender, address, port, sink.size, segments):
        yield


@contextmanager
def _sending(sender: Namespace, address: str, *numbers: int) -> Iterator[None]:
    """`numbers` are the port and what else `blast.py` takes."""
    script = Path(__file__).with_name("blast.py")
    process = sender.start(sys.executable, str(script), address, *map(str, numbers))
    try:
        yield
    finally:
        process.kill()
        process.communicate()
