"""Link events, read by a thread of their own."""

from __future__ import annotations

import errno
import os
import select
import threading
from collections.abc import Callable

from vxagent.netlink.base import LinkChange
from vxagent.netlink.table import ADDRESS_INFO, LINK_INFO, RTM_NEWADDR, RTM_NEWLINK, DeviceTable
from vxagent.netlink.wire import Requests, Subscription, attribute, u32

_RTM_GETLINK, _RTM_GETADDR = RTM_NEWLINK + 2, RTM_NEWADDR + 2
_IFLA_EXT_MASK = 29
_RTEXT_FILTER_SKIP_STATS = 1 << 3
_GROUPS = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
_BUFFER_BYTES = 32 << 20  # used only while events wait: some 8,000 of them
_CLOSE_TIMEOUT_S = 5

Notify = Callable[[LinkChange | None], None]


def read_table(requests: Requests) -> DeviceTable:
    """All devices as they are now. Raises OSError."""
    skip_statistics = attribute(_IFLA_EXT_MASK, u32(_RTEXT_FILTER_SKIP_STATS))
    table = DeviceTable(requests.dump(_RTM_GETLINK, LINK_INFO.pack(0, 0, 0, 0, 0) + skip_statistics))
    for message in requests.dump(_RTM_GETADDR, ADDRESS_INFO.pack(0, 0, 0, 0, 0)):
        table.feed(message)
    return table


class Watcher:
    """Calls `notify` for every change of a device, from its own thread, until it is closed.

    It keeps a table of its own, so that an event that changes nothing that a Device shows is passed over.

    Raises:
        OSError: the kernel refuses the subscription.
    """

    def __init__(self, notify: Notify) -> None:
        self._notify = notify
        self._events = Subscription(_GROUPS, _BUFFER_BYTES)
        self._requests = Requests()
        # Subscribed before it is read: what changes in between comes again as an event.
        self._table = read_table(self._requests)
        self._closing = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="link-events", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; `notify` is not called any more afterwards."""
        os.eventfd_write(self._closing, 1)
        self._thread.join(_CLOSE_TIMEOUT_S)
        self._events.close()
        self._requests.close()
        os.close(self._closing)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._events, select.POLLIN)
        poll.register(self._closing, select.POLLIN)
        while all(fd != self._closing for fd, _ in poll.poll()):
            self._read()

    def _read(self) -> None:
        try:
            messages = self._events.receive()
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self._events.drain()
            self._table = read_table(self._requests)
            self._notify(None)
            return
        for message in messages:
            change = self._table.feed(message)
            if change is not None:
                self._notify(change)
