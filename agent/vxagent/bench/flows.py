"""How traffic goes over a path and is counted at its end; a class for each kind."""

from __future__ import annotations

import os
import select
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from vxagent.bench.cases import Case, Kind
from vxagent.bench.frames import NO_HEADER, frame, hello
from vxagent.bench.paths import Path, Station
from vxagent.bench.programs import Counter, Programs
from vxagent.bench.traffic import Receiver, Traffic
from vxagent.errors import HostError
from vxagent.lab.frames import BROADCAST
from vxagent.lab.ping import ping
from vxagent.lab.pump import SOL_PACKET
from vxagent.lab.traffic import bulk_tcp, send_frames
from vxagent.lab.waiting import wait_until

PACKET_QDISC_BYPASS = 20  # <linux/if_packet.h>
PROBE_BYTES = 4 << 20
PROBE_S = 0.03
PROBES = 3  # until something arrives: a busy machine may not run the receiver in time
PING_S = 2.0
DRAIN_S = 2.0
LIVE_FRAMES = 4096  # of one system call
TCP_PORT, UDP_PORT = 5009, 5010
STRAY_MOST = 16  # unicast frames at the port of nobody: an ARP answer may be flooded, a slice's frames may not
SPREAD_MAC = "02:01:00:00:00:00"  # the first of those that `announce` numbers
MS_PER_S, NS_PER_S, US_PER_NS = 1000, 1_000_000_000, 1e-3
BITS = 8


class Broken(HostError):
    """A path does not carry what it should, so that measuring it would say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One contender's turn in one round.

    Attributes:
        sent: frames, bytes or requests, as the sender says.
        delivered: of these, as the receiver says.
        value: in the case's unit.
    """

    sent: int
    delivered: int
    value: float


class Flow(ABC):
    """Sends over paths and counts what arrives."""

    def __init__(self, case: Case, traffic: Traffic) -> None:
        self.case = case
        self.traffic = traffic

    def probe(self, path: Path, *, stacks: bool = True) -> None:
        """Show that the path carries what is to be measured.

        Args:
            stacks: the stacks of the two VMs, too. A bare program may carry nothing but what is measured.

        Raises:
            Broken: it does not.
        """
        if stacks:
            self.probe_stacks(path)
        if not any(self.slice(path, PROBE_S).delivered for _ in range(PROBES)):
            raise Broken("nothing that was sent has arrived")

    def probe_stacks(self, path: Path) -> None:
        """By ping and by bulk TCP at the receiver, which breaks where ping does not."""
        with self.carrying(path):
            address = path.receiver.address
            if ping(path.sender.namespace, address, count=3, patience=PING_S).received != 3:
                raise Broken(f"no answer to a ping of {address}")
            got = bulk_tcp(path.sender.namespace, path.receiver.namespace, address, amount=PROBE_BYTES, within=3)
            if got.received != PROBE_BYTES:
                raise Broken(f"TCP to {address}: {got.received} of {PROBE_BYTES} bytes arrived")

    def slice(self, path: Path, seconds: float) -> Slice:
        """Teach the switch where both are, then measure.

        Raises:
            Broken: it flooded what it should have sent to the receiver alone.
            HostError: a process failed.
        """
        greet(path.sender)
        greet(path.receiver)
        before = path.witness.read() if path.witness else 0
        found = self.measure(path, seconds)
        stray = path.witness.read() - before if path.witness else 0
        if stray > STRAY_MOST:
            raise Broken(f"{stray} frames were flooded: the switch did not know where the receiver is")
        return found

    @abstractmethod
    def measure(self, path: Path, seconds: float) -> Slice:
        """Send for so long; count at the receiver."""

    @contextmanager
    def carrying(self, path: Path) -> Iterator[None]:
        """While a process for each tap carries frames between it and its VM, as a hypervisor does."""
        with ExitStack() as running:
            cpus = (self.traffic.sender_cpu, self.traffic.receiver_cpu)
            for station, cpu in zip((path.sender, path.receiver), cpus, strict=True):
                if station.tap is not None:
                    ends = (station.tap, station.inner)
                    fds = [fd for fd in ends if fd is not None]
                    carrier = self.traffic.receiving(station.namespace, "carry", *fds, fds=fds, cpu=cpu)
                    running.enter_context(carrier)
            yield

    def frame(self, path: Path, destination: str | None = None) -> bytes:
        """The frame that is sent, behind a virtio_net_hdr."""
        to = (destination or path.receiver.mac, path.receiver.address)
        return frame(self.case, (path.sender.mac, path.sender.address), to, vid=path.vid)


class TapFrames(Flow):
    """Written to a tap as fast as it goes, read from another one by a process that spins. The sender waits, and its
    clock stands still, while the receiver's queue is read: otherwise the reader, which can be slower than a switch,
    would be what is measured."""

    def measure(self, path: Path, seconds: float) -> Slice:
        tap, queue = path.sender.tap, path.receiver.tap
        assert tap is not None
        assert queue is not None
        data = self.frame(path, SPREAD_MAC if path.stations else None)
        words = ("write", tap, queue, ms(seconds), path.stations, data.hex())
        with reading(self.traffic, path.receiver) as receiver:
            sent = self.traffic.send(path.sender.namespace, *words, seconds=seconds, fds=[tap, queue])
            got = receiver.end()
        return rate(sent.count, got.count, sent.ns)


class PacketFrames(Flow):
    """Sent out of a packet socket in the VM, past its queueing discipline; taken by a program at the receiver."""

    def probe_stacks(self, path: Path) -> None:
        """Of a flood, that all get the same."""
        if path.others is None:
            super().probe_stacks(path)
            return
        others, before = len(path.ports) - 2, path.others.read()
        found = self.measure(path, PROBE_S)
        copies = settled(path.others) - before
        if copies != found.delivered * others:
            raise Broken(f"{found.delivered} frames for everybody arrived at one port and {copies} at {others} others")

    def measure(self, path: Path, seconds: float) -> Slice:
        assert path.counter is not None
        destination = BROADCAST if path.others is not None else None
        data = self.frame(path, destination)[len(NO_HEADER) :]
        before = path.counter.read()
        with past_the_qdisc(path.sender) as fd:
            words = ("packet", fd, ms(seconds), data.hex())
            sent = self.traffic.send(path.sender.namespace, *words, seconds=seconds, fds=[fd])
        return rate(sent.count, settled(path.counter) - before, sent.ns)


class LiveFrames(Flow):
    """Frames that the kernel hands to the uplink's XDP program as a NIC's driver would."""

    def __init__(self, case: Case, traffic: Traffic, loaded: Programs) -> None:
        super().__init__(case, traffic)
        self._programs = loaded

    def measure(self, path: Path, seconds: float) -> Slice:
        assert path.uplink is not None
        data = self.frame(path)[len(NO_HEADER) :]
        nic = self._programs.nic(path.switch, path.uplink)
        nic.prepare(data)
        with (
            reading(self.traffic, path.receiver) as receiver,
            path.switch.entered(),
            on_cpu(self.traffic.sender_cpu),
        ):
            sent, spent, end = 0, 0, time.monotonic() + seconds
            while time.monotonic() < end:
                begun = time.monotonic_ns()
                nic.receive(data, LIVE_FRAMES)
                spent += time.monotonic_ns() - begun
                sent += LIVE_FRAMES
                drain(path.receiver)
            got = receiver.end()
        return rate(sent, got.count, spent)


class Tcp(Flow):
    """TCP connections, with whatever offloads the devices have; the time ends when the receiver has read all."""

    def measure(self, path: Path, seconds: float) -> Slice:
        to = (path.receiver.address, TCP_PORT, self.case.streams)
        with self.carrying(path), self.traffic.receiving(path.receiver.namespace, "sink", *to) as sink:
            sent = self.traffic.send(path.sender.namespace, "stream", *to, ms(seconds), seconds=seconds)
            got = sink.end()
        return rate(sent.count, got.count, sent.ns, unit=BITS)


class RoundTrips(Flow):
    """UDP requests and answers; both sides spin, because a halt and a wake-up cost more than any switch."""

    def measure(self, path: Path, seconds: float) -> Slice:
        to = (path.receiver.address, UDP_PORT)
        with self.traffic.receiving(path.receiver.namespace, "answer", *to) as answering:
            asked = self.traffic.send(path.sender.namespace, "ask", *to, ms(seconds), seconds=seconds)
            answered = answering.end()
        return Slice(sent=answered.count, delivered=asked.count, value=asked.ns * US_PER_NS)


def flow(case: Case, traffic: Traffic, loaded: Programs) -> Flow:
    """The one for a case."""
    if case.kind is Kind.LIVE:
        return LiveFrames(case, traffic, loaded)
    kinds: dict[Kind, type[Flow]] = {
        Kind.TAP: TapFrames,
        Kind.PACKET: PacketFrames,
        Kind.TCP: Tcp,
        Kind.ROUND_TRIP: RoundTrips,
    }
    return kinds[case.kind](case, traffic)


def greet(station: Station) -> None:
    """Have a VM say where it is."""
    said = hello(station.mac, station.address)
    if station.tap is not None:
        os.write(station.tap, said)
    else:
        send_frames(station.namespace, station.nic, said[len(NO_HEADER) :])


def announce(traffic: Traffic, path: Path, entries: int) -> None:
    """Have the receiver's tap speak once for each of so many MACs."""
    tap = path.receiver.tap
    assert tap is not None
    greet(path.sender)
    said = hello(SPREAD_MAC, path.receiver.address, to=path.sender.mac).hex()  # a broadcast would be flooded
    traffic.send(path.receiver.namespace, "announce", tap, entries, said, seconds=60, fds=[tap])


@contextmanager
def reading(traffic: Traffic, station: Station) -> Iterator[Receiver]:
    """While a process takes what comes out of the station's tap."""
    assert station.tap is not None
    with traffic.receiving(station.namespace, "read", station.tap, fds=[station.tap]) as receiver:
        yield receiver


def drain(station: Station) -> None:
    """Wait until the queue of a station's tap has been read. Raises TimeoutError."""
    queue, end = select.poll(), time.monotonic() + DRAIN_S
    assert station.tap is not None
    queue.register(station.tap, select.POLLIN)
    while queue.poll(0):
        if time.monotonic() > end:
            raise TimeoutError("nobody reads the receiver's tap")


@contextmanager
def past_the_qdisc(station: Station) -> Iterator[int]:
    """A packet socket of the VM's device that sends directly to the driver."""
    with station.namespace.entered():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with sock:
        sock.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        sock.bind((station.nic, 0))
        yield sock.fileno()


@contextmanager
def on_cpu(cpu: int) -> Iterator[None]:
    """Keep the calling thread on a CPU."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def settled(counter: Counter) -> int:
    """What it has counted once nothing is on its way any more."""
    seen = [-1, counter.read()]

    def still() -> bool:
        seen.append(counter.read())
        return seen[-1] == seen[-2]

    wait_until(still, what="the last frames arrive")
    return seen[-1]


def rate(sent: int, delivered: int, ns: int, *, unit: int = 1) -> Slice:
    """A slice in which so much arrived in so long."""
    return Slice(sent=sent, delivered=delivered, value=delivered * unit * NS_PER_S / ns if ns else 0.0)


def ms(seconds: float) -> int:
    """Seconds as senders take them."""
    return max(1, round(seconds * MS_PER_S))
