"""Link events, read by a thread of their own."""

from __future__ import annotations

import errno
import os
import select
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from vxagent.errors import mend_lack
from vxagent.model.device import Device
from vxagent.netlink import vhost
from vxagent.netlink.base import LinkChange
from vxagent.netlink.offloads import read_offloads
from vxagent.netlink.table import ADDRESS_INFO, LINK_INFO, RTM_NEWADDR, RTM_NEWLINK, DeviceTable
from vxagent.netlink.wire import Requests, Subscription, attribute, u32

_RTM_GETLINK, _RTM_GETADDR = RTM_NEWLINK + 2, RTM_NEWADDR + 2
_IFLA_EXT_MASK = 29
_RTEXT_FILTER_SKIP_STATS = 1 << 3
_GROUPS = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
_BUFFER_BYTES = 32 << 20  # used only while events wait: some 8,000 of them
_CLOSE_TIMEOUT_S = 5
_LOOK_AGAIN_S = 1
PLACES = (vhost.VHOST, vhost.DRIVER)

Notify = Callable[[LinkChange | None], None]


class Look:
    """Adds to a device what rtnetlink does not tell of hardware and taps.

    Args:
        places, proc: as in `netlink.vhost`: where vhost-net shows, and of the processes.
    """

    def __init__(self, places: tuple[Path, ...] = PLACES, proc: Path = vhost.PROC) -> None:
        self._places = places
        self._proc = proc
        self._taps: Callable[[], set[str] | None]
        self.anew()

    def anew(self) -> None:
        """From now on, look at the processes as they are now; once, however many taps there are."""
        self._taps = cache(partial(vhost.taps_of_vhost, self._proc))

    def is_there(self) -> bool:
        """Whether this host has vhost-net."""
        return any(place.exists() for place in self._places)

    def __call__(self, device: Device) -> Device:
        if not device.kind:
            offloads = read_offloads(device.ifname)
            return replace(device, lro=offloads.lro, rxvlan=offloads.rxvlan, rxvlan_fixed=offloads.rxvlan_fixed)
        if device.is_tap and device.carrier and self.is_there():
            taps = self._taps()
            return replace(device, vhost=taps is not None and device.ifname in taps, unseen=taps is None)
        return device


def read_table(requests: Requests, look: Look | None = None) -> DeviceTable:
    """All devices as they are now. Raises OSError."""
    look = look or Look()
    look.anew()
    skip_statistics = attribute(_IFLA_EXT_MASK, u32(_RTEXT_FILTER_SKIP_STATS))
    dumped = requests.dump(_RTM_GETLINK, LINK_INFO.pack(0, 0, 0, 0, 0) + skip_statistics)
    table = DeviceTable(dumped, look=look)
    for message in requests.dump(_RTM_GETADDR, ADDRESS_INFO.pack(0, 0, 0, 0, 0)):
        table.feed(message)
    return table


class Watcher:
    """Calls `notify` for every change of a device, from its own thread, until it is closed.

    It keeps a table of its own, so that an event that changes nothing that a Device shows is passed over. A hypervisor
    opens a tap, which is an event, and then vhost-net, which is none: it looks again a little later.

    Raises:
        OSError: the kernel refuses the subscription.
    """

    def __init__(self, notify: Notify) -> None:
        self._notify = notify
        self._events = Subscription(_GROUPS, _BUFFER_BYTES)
        self._requests = Requests()
        self._look = Look()
        # Subscribed before it is read: what changes in between comes again as an event.
        self._table = read_table(self._requests, self._look)
        self._stale = False  # it lacks what happened since
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
        ready = poll.poll()
        while all(fd != self._closing for fd, _ in ready):
            try:
                if self._stale:
                    self._read_anew()
                elif ready:
                    self._read()
                else:
                    self._look_again()
            except OSError as error:
                if not mend_lack(error.errno):
                    raise
                self._stale = True  # there was no descriptor to look at a device with
            later = ready and self._look.is_there()
            ready = poll.poll(_LOOK_AGAIN_S * 1000 if later or self._stale else None)

    def _read_anew(self) -> None:
        """Begin with what is there now; whoever is told reads it, too."""
        self._events.drain()
        self._table = read_table(self._requests, self._look)
        self._stale = False
        self._notify(None)

    def _look_again(self) -> None:
        self._look.anew()
        for change in self._table.look_again():
            self._notify(change)

    def _read(self) -> None:
        try:
            messages = self._events.receive()
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self._read_anew()
            return
        self._look.anew()
        for message in messages:
            change = self._table.feed(message)
            if change is not None:
                self._notify(change)
