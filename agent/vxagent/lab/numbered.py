"""Numbered datagrams from one stack to another, and when each of them arrived.

At a thousand a second it shows what becomes of a stream; for more than that there is `vxagent bench --faults`.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise

from vxagent.lab.namespaces import Namespace
from vxagent.lab.vm import NIC

NUMBER = struct.Struct("!Q")
TIME = struct.Struct("ll")  # struct timespec
SO_TIMESTAMPNS = 35  # <asm/socket.h>
ROOM = 1 << 20
ALL = "255.255.255.255"  # RFC 919, section 7: all on this link
TICK_S = 0.0005
QUIET_S = 0.2  # after which nothing is on its way any more


@dataclass(kw_only=True)
class Heard:
    """What became of a stream.

    Attributes:
        sent: how many.
        arrivals: (number, second in which the receiver's kernel had it, of its clock), in this order.
    """

    sent: int = 0
    arrivals: list[tuple[int, float]] = field(default_factory=list)

    @property
    def lost(self) -> int:
        """Numbers that never came."""
        return self.sent - len({number for number, _ in self.arrivals})

    @property
    def duplicated(self) -> int:
        """Arrivals of a number that had come."""
        return len(self.arrivals) - len({number for number, _ in self.arrivals})

    @property
    def reordered(self) -> int:
        """Arrivals behind one that was sent later."""
        newest, found = -1, 0
        for number, _ in self.arrivals:
            found += number < newest
            newest = max(newest, number)
        return found

    def amiss(self, first: int, end: int) -> int:
        """Of the numbers from `first` on, before `end`, how many never came, and how often others came again."""
        came = Counter(number for number, _ in self.arrivals if first <= number < end)
        return sum(abs(came[number] - 1) for number in range(first, end))

    def around(self, moment: float) -> tuple[float, float]:
        """When the last one before a moment came, and the first one after it; `moment` by the same clock.

        Raises:
            ValueError: there is none on one side.
        """
        for (_, before), (_, after) in pairwise(self.arrivals):
            if before <= moment < after:
                return before, after
        raise ValueError("nothing arrived on one side of that moment")


class NumberedStream:
    """Datagrams that are being sent from its making until `end`.

    Args:
        sender, receiver: whose stacks.
        address: the receiver's, IPv4; None: they are for all whom the sender reaches by its NIC.
        per_second: how many.
    """

    def __init__(self, sender: Namespace, receiver: Namespace, address: str | None, *, per_second: int) -> None:
        self._per_second = per_second
        self._heard = Heard()
        self._done, self._deaf = threading.Event(), threading.Event()
        with receiver.entered():
            self._in = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._in.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
        self._in.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._in.bind((address or "", 0))
        self._in.settimeout(QUIET_S)
        with sender.entered():
            self._out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        if address is None:
            self._out.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            self._out.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, NIC.encode())
        self._out.connect((address or ALL, self._in.getsockname()[1]))
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._receive, self._send)]
        for thread in self._threads:
            thread.start()

    @property
    def sent(self) -> int:
        """How many are so far."""
        return self._heard.sent

    @property
    def arrived(self) -> int:
        """How many have so far."""
        return len(self._heard.arrivals)

    def end(self) -> Heard:
        """Send no more, let arrive what is on its way, and tell."""
        listener, sender = self._threads
        self._done.set()
        sender.join()
        self._deaf.set()
        listener.join()
        self._in.close()
        self._out.close()
        return self._heard

    def _send(self) -> None:
        began = time.monotonic()
        while not self._done.wait(TICK_S):
            due = int((time.monotonic() - began) * self._per_second)
            for number in range(self._heard.sent, due):
                with suppress(OSError):  # it counts as lost
                    self._out.send(NUMBER.pack(number))
            self._heard.sent = max(self._heard.sent, due)

    def _receive(self) -> None:
        while True:
            try:
                data, beside, _, _ = self._in.recvmsg(NUMBER.size, socket.CMSG_SPACE(TIME.size))
            except TimeoutError:
                if self._deaf.is_set():
                    return
                continue
            ((_, _, stamp),) = beside
            seconds, nanoseconds = TIME.unpack(stamp)
            self._heard.arrivals.append((NUMBER.unpack(data)[0], seconds + nanoseconds / 1e9))
