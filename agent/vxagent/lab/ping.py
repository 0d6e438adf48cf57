"""Echo requests, with every answer accounted for (RFC 792)."""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

from vxagent.lab.namespaces import Namespace

ECHO_REQUEST, ECHO_REPLY = 8, 0
HEADER = struct.Struct("!BBHHH")  # type code checksum identifier sequence
PAYLOAD = bytes(56)


@dataclass(kw_only=True)
class Pings:
    """What became of echo requests.

    Attributes:
        sent: how many.
        rtts_s: by sequence number, of those that were answered.
    """

    sent: int = 0
    rtts_s: dict[int, float] = field(default_factory=dict)

    @property
    def received(self) -> int:
        """How many were answered."""
        return len(self.rtts_s)

    @property
    def lost(self) -> list[int]:
        """Sequence numbers of those that were not."""
        return [number for number in range(self.sent) if number not in self.rtts_s]


class Pinger:
    """Sends echo requests to one IPv4 address at a steady pace.

    Args:
        namespace: whose stack sends.
        address: whom.
        interval: seconds between two requests.
        patience: seconds that the last one is waited for.
    """

    def __init__(self, namespace: Namespace, address: str, *, interval: float = 0.02, patience: float = 1.0) -> None:
        self.pings = Pings()
        self._interval = interval
        self._patience = patience
        self._identifier = int.from_bytes(os.urandom(2), "big")
        self._sent_at: dict[int, float] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._send_until_done, daemon=True)
        with namespace.entered():
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self._socket.setblocking(False)
        with suppress(OSError):  # no route: all of them will be lost
            self._socket.connect((address, 0))

    def start(self) -> Pinger:
        """Send in a thread until `stop`."""
        self._thread.start()
        return self

    def stop(self) -> Pings:
        """Send no more, wait for what is under way, and tell."""
        self._done.set()
        self._thread.join()
        self._finish()
        return self.pings

    def send(self, count: int) -> Pings:
        """Send that many and tell."""
        for _ in range(count):
            self._request()
            self._listen(self._interval)
        self._finish()
        return self.pings

    def _send_until_done(self) -> None:
        while not self._done.is_set():
            self._request()
            self._listen(self._interval)

    def _finish(self) -> None:
        deadline = time.monotonic() + self._patience
        while self.pings.lost and (left := deadline - time.monotonic()) > 0:
            self._listen(min(left, 0.01))
        self._socket.close()

    def _request(self) -> None:
        number = self.pings.sent
        self.pings.sent += 1
        self._sent_at[number] = time.monotonic()
        blank = HEADER.pack(ECHO_REQUEST, 0, 0, self._identifier, number & 0xFFFF) + PAYLOAD
        message = blank[:2] + checksum(blank).to_bytes(2, "big") + blank[4:]
        with suppress(OSError):  # an ARP request that was not answered
            self._socket.send(message)

    def _listen(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self._socket], [], [], left)[0]:
                return
            with suppress(OSError):
                self._reply(self._socket.recv(2048))

    def _reply(self, packet: bytes) -> None:
        at = 4 * (packet[0] & 0xF)
        kind, _, _, identifier, low = HEADER.unpack_from(packet, at)
        if kind != ECHO_REPLY or identifier != self._identifier:
            return
        number = self.pings.sent - 1 - ((self.pings.sent - 1 - low) & 0xFFFF)  # the latest with these 16 bits
        if number in self._sent_at:
            self.pings.rtts_s[number] = time.monotonic() - self._sent_at.pop(number)


def checksum(data: bytes) -> int:
    """The Internet checksum of an even number of bytes (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ping(namespace: Namespace, address: str, *, count: int = 3, interval: float = 0.02, patience: float = 1.0) -> Pings:
    """Send `count` echo requests; see `Pinger`."""
    return Pinger(namespace, address, interval=interval, patience=patience).send(count)
