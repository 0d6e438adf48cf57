"""A VM that goes from one host to another, its stack and connections with it, as in a live migration."""

from __future__ import annotations

import os
import select
from dataclasses import dataclass, field

from vxagent.lab.frames import announcement
from vxagent.lab.namespaces import Namespace
from vxagent.lab.pump import VNET_HDR
from vxagent.lab.tap import Pump, open_tap, take
from vxagent.lab.vm import NIC, Endpoint
from vxagent.lab.waiting import wait_until


@dataclass(kw_only=True)
class MovingVm(Endpoint):
    """Its device `eth0` is there wherever it runs; what plays the hypervisor is on one host at a time.

      eth0 ── hypervisor ── tap `port` of the host where it runs
                            tap `port` of the host that it goes to, whose queue keeps what comes

    Attributes:
        port: what the device is called on every host.
        queue: frames that the devices hold while nobody reads.
        nic: its device, where it shares a namespace with another one.
    """

    port: str
    mtu: int = 1500
    queue: int = 1000
    nic: str = NIC
    _inner: int = -1
    _outer: int = -1
    _left: int = -1
    _hypervisor: Pump | None = None
    _next: tuple[int, Pump] | None = field(default=None, repr=False)

    def plug(self, host: Namespace) -> None:
        """Begin, on this host."""
        self._inner = open_tap(self.namespace, self.nic)
        self.namespace.ip("link", "set", self.nic, "txqueuelen", str(self.queue))
        self.configure(mtu=self.mtu, nic=self.nic)
        self.await_at(host)
        self.go_on(says_so=False)

    def await_at(self, host: Namespace) -> None:
        """Have a device on another host, from which nobody reads yet."""
        self.leave()
        tap = open_tap(host, self.port)
        try:
            host.ip("link", "set", self.port, "mtu", str(self.mtu), "txqueuelen", str(self.queue), "up")
            self._next = tap, Pump(("tap", tap), {"all": self._inner}, held=True)
        except BaseException:
            os.close(tap)
            raise

    def stand_still(self) -> None:
        """Where it runs now nothing reaches it any more; what had come has. Its device there stays."""
        if self._hypervisor is not None:
            self._hypervisor.stop()
            self._hypervisor = None

    def go_on(self, *, says_so: bool = True) -> None:
        """On the host where it is awaited. Its hypervisor says so by RARP, or not."""
        assert self._next is not None
        self._left = self._outer
        (self._outer, self._hypervisor), self._next = self._next, None
        if says_so:
            os.write(self._outer, bytes(VNET_HDR.size) + announcement(self.mac))
        self._hypervisor.go()

    def stay(self) -> int:
        """It goes on where it is, and is awaited nowhere any more; how many frames had come there to its MAC."""
        held: list[bytes] = []
        if self._next is not None:
            (tap, hypervisor), self._next = self._next, None
            hypervisor.stop()
            held = take(tap)
            self._close(tap)
        if self._hypervisor is None:
            self._hypervisor = Pump(("tap", self._outer), {"all": self._inner})
        own = bytes.fromhex(self.mac.replace(":", ""))
        return sum(frame[VNET_HDR.size :].startswith(own) for frame in held)

    def wait_carried(self, within: float) -> None:
        """Wait until its hypervisor has carried what had come by now, either way. Raises TimeoutError."""
        for tap in (self._outer, self._inner):
            poll = select.poll()
            poll.register(tap, select.POLLIN)
            wait_until(lambda poll=poll: not poll.poll(0), within=within, what="nothing waits")  # type: ignore[misc]

    def left_behind(self) -> int:
        """Take what has come for it, since it stands still, where it was; how many frames that was."""
        return len(take(self._outer if self._hypervisor is None else self._left))

    def leave(self) -> None:
        """The device of the host where it was goes; it may have done so already."""
        self._left = self._close(self._left)

    def unplug(self) -> None:
        """End; it may have done so already."""
        self.stand_still()
        if self._next is not None:
            tap, hypervisor = self._next
            hypervisor.stop()
            self._close(tap)
            self._next = None
        self._left, self._outer, self._inner = map(self._close, (self._left, self._outer, self._inner))

    @staticmethod
    def _close(tap: int) -> int:
        if tap >= 0:
            os.close(tap)
        return -1
