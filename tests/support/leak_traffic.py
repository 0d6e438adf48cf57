"""Traffic of several tenants, and ears that judge what arrives: one thread that sends, listens, and sends again.

What is changed about a station while it sends happens between two rounds of that thread (`Traffic.between`), so that a
frame carries the tenant that its station has.
"""

from __future__ import annotations

import os
import queue
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from support import frames
from support.leak_frames import HOST, Frames, Sent, tenants_in
from vxagent.lab.frames import ARP, EXPERIMENTAL, IPV4, IPV6
from vxagent.lab.namespaces import Namespace
from vxagent.lab.pump import VNET_HDR, Packet, Tap

BURST = 8  # frames that are sent between two looks at what arrived
MOST = 20  # leaks that are described; one is enough
STACK_SEES = (IPV4, ARP, IPV6, EXPERIMENTAL, frames.C_TAG, frames.S_TAG, 0x9100)


@dataclass(kw_only=True)
class Station:
    """A VM's NIC or the physical network.

    Attributes:
        name: of the port or uplink.
        number: of the VM in its tenant.
        tenant: whose it is; "" for the physical network, where the VID says.
        wire: a packet socket, or a tap's descriptor; frames go in and out of it behind a virtio_net_hdr.
        trunk: it takes tagged frames.
        offloads: what leaves the socket gets its mark as a tag.
        muted: it sends nothing now.
        heard: tenant → frames of it.
    """

    name: str
    number: int
    tenant: str
    wire: socket.socket | int
    trunk: bool = False
    offloads: bool = False
    muted: bool = True
    heard: Counter[str] = field(default_factory=Counter)

    def send(self, frame: Sent) -> None:
        """Hand a frame over; the device need not take it."""
        with suppress(OSError):
            if isinstance(self.wire, int):
                os.write(self.wire, frame.header + frame.data)
            else:
                if self.offloads:
                    self.wire.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", frame.beside))
                self.wire.send(frame.header + frame.data)

    def read(self) -> bytes | None:
        """The next frame that has arrived, without its virtio_net_hdr; None: there is none."""
        end = Tap(self.wire) if isinstance(self.wire, int) else Packet(self.wire)
        try:
            return end.read()[VNET_HDR.size :]
        except OSError:
            return None


class HostStack:
    """What reaches the stack of the switch's own namespace."""

    def __init__(self, switch: Namespace) -> None:
        self._sockets = []
        for ethertype in STACK_SEES:
            with switch.entered():
                raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ethertype))
            raw.setblocking(False)
            self._sockets.append(raw)

    def close(self) -> None:
        """Stop listening."""
        for raw in self._sockets:
            raw.close()

    def read(self) -> list[tuple[str, bytes]]:
        """(device, frame) of what has arrived."""
        found = []
        for raw in self._sockets:
            with suppress(BlockingIOError):
                while True:
                    data, address = raw.recvfrom(1 << 16)
                    found.append((address[0], data))
        return found


class Traffic:
    """Sends at random and judges what arrives, in a thread of its own.

    Args:
        chance: decides what is sent.
        stations: who sends and listens; the last one is the physical network.
        tenant_of: VID on the uplink → tenant.
        stack: the host's.
        own_macs: of the devices in front of the stations: what comes from them is the host's.

    Attributes:
        leaks: what arrived where it must not; empty if all is well.
        rounds: of sending and listening.
    """

    def __init__(
        self,
        chance: random.Random,
        stations: Sequence[Station],
        tenant_of: Mapping[int, str],
        vids: tuple[int, ...],
        stack: HostStack,
        own_macs: frozenset[bytes],
    ) -> None:
        self.leaks: list[str] = []
        self.rounds = 0
        self.stations = stations
        self._chance = chance
        self._fabric = stations[-1]
        self._tenant_of = tenant_of
        self._frames = Frames(chance, vids)
        self._stack = stack
        self._own_macs = own_macs
        self._asked: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def between(self, ask: Callable[[], Any]) -> Any:
        """Call something between two rounds, and return what it returns."""
        future: Future[Any] = Future()
        self._asked.put((ask, future))
        return future.result(timeout=30)

    def forget(self) -> None:
        """Drop what has arrived so far, and what was said about it; by `between` only."""
        for station in self.stations:
            while station.read() is not None:
                pass
        self._stack.read()
        self.leaks.clear()

    def listen(self, station: Station) -> None:
        """Judge what has arrived at a station; in the thread of `between` only."""
        while (data := station.read()) is not None:
            self._judge(station, data)

    def _run(self) -> None:
        while not self._done.is_set():
            for _ in range(BURST):
                self._send(self._chance.choice(self.stations))
            for station in self.stations:
                self.listen(station)
            for device, data in self._stack.read():
                self._judge_stack(device, data)
            self.rounds += 1
            with suppress(queue.Empty):
                while True:
                    ask, future = self._asked.get_nowait()
                    try:
                        future.set_result(ask())
                    except BaseException as error:  # it is the asker's
                        future.set_exception(error)

    def _send(self, station: Station) -> None:
        if station.muted:
            return
        if station is not self._fabric:
            station.send(self._frames.some(station.tenant, station.number, beside=station.offloads))
            return
        vid = self._chance.choice((0, 99, *self._tenant_of))
        tenant = self._tenant_of.get(vid, HOST)
        station.send(self._frames.some(tenant, station.number, (frames.vlan(vid),)))

    def _judge(self, station: Station, data: bytes) -> None:
        tenants = tenants_in(data)
        if station is self._fabric:
            tags = frames.tags_of(data)
            vid = int.from_bytes(tags[0][2:], "big") & 0xFFF if tags and tags[0][:2] == b"\x81\x00" else 0
            wanted = self._tenant_of.get(vid, HOST)
        else:
            wanted = station.tenant
            if not station.trunk and frames.tags_of(data):
                self._leak(station.name, f"{wanted}, untagged", "+".join(tenants) + ", tagged", data)
            if data[6:12] in self._own_macs:
                self._leak(station.name, wanted, "the host", data)
        station.heard.update(tenants)
        for tenant in tenants - {wanted}:
            self._leak(station.name, wanted, tenant, data)

    def _judge_stack(self, device: str, data: bytes) -> None:
        if device != self._fabric.name and (tenants := tenants_in(data)):
            self._leak("the host's stack", f"nobody's, from {device}", "+".join(tenants), data)

    def _leak(self, where: str, wanted: str, found: str, data: bytes) -> None:
        if len(self.leaks) < MOST:
            self.leaks.append(f"at {where}, which is {wanted}: of {found}: {data[:64].hex(' ', 2)}")
