"""A VM that goes from host to host under streams of numbered frames, and what becomes of them.

c ──────────────► VM ◄────── a
▲                 │                   a and the VM begin on host 1, c is on host 3; the VM goes to host 2 and back
└─────────────────┘
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise

from support.clustered import SOON_S, Clustered, eventually, migrate, where
from support.fleet import Host
from support.lan import address_of, mac_of
from support.scripted import plug_in
from vxagent.bench.faults.figures import Figures, judge
from vxagent.bench.faults.lab import QUEUE
from vxagent.bench.faults.stream import End, Stream, Streams
from vxagent.bench.frames import NO_HEADER, hello
from vxagent.lab.moving import MovingVm
from vxagent.lab.numbered import Heard, NumberedStream
from vxagent.lab.traffic import send_frames
from vxagent.lab.vm import NIC

RATE = 10_000  # frames a second, each stream
BROADCASTS = 2_000  # a second, each host


@dataclass
class Times:
    """How long steps took, in milliseconds, in the order in which they were done."""

    prepare: list[float] = field(default_factory=list)
    switchover: list[float] = field(default_factory=list)
    activate: list[float] = field(default_factory=list)


@dataclass
class ToEverybody:
    """What a VM has heard of a host's broadcasts.

    Attributes:
        heard: all in all.
        each: how many were lost or came again, of those from the beginning of each migration to that of the next.
    """

    heard: Heard
    each: list[int]


class Journey:
    """A VM, its streams and the hosts between which it goes.

    Args:
        segment: one that is a VLAN between hosts; by default a new one, which has a VNI.
        rate: frames a second, each stream.

    Attributes:
        vm: it; its port lists its MAC and address.
        at, other: where it is, and the host to which it goes next.
        times: of steps so far.
        missing: hosts that a switchover did not hear of in time, each time.
    """

    def __init__(self, fleet: Clustered, segment: str = "", *, rate: int = RATE) -> None:
        self.fleet = fleet
        self._rate = rate
        self.at, self.other, third = fleet.hosts
        self.segment = segment or fleet.new_segment()
        number = self.at.count()
        self.vm: MovingVm = fleet.world.moving_vm(
            self.at.switch,
            f"m{number}",
            mac=mac_of(number),
            address=address_of(number),
            mtu=self.at.mtu,
            queue=QUEUE,
        )
        self.at.attach(self.port, self.segment, mac=[self.vm.mac], ip=[self.vm.address])
        self._a, self._c = plug_in(self.at, self.segment), plug_in(third, self.segment)
        if segment:
            self._say_hello()
        for mac, holder in ((self.vm.mac, self.at), (self._a.mac, self.at), (self._c.mac, third)):
            for host in fleet.hosts:
                if host is not holder:
                    eventually(partial(self._has, host, mac), f"{host.name} knows where {mac} is")
        self.times = Times()
        self.missing: list[list[str]] = []
        self._everybody: list[NumberedStream] = []
        self._begun: list[list[int]] = []
        self._streams = self._make_streams()
        self._streams_in = self._make_streams(own=False)

    @property
    def port(self) -> str:
        """Of the VM."""
        return self.vm.port

    def prepare(self) -> None:
        """The other host awaits it."""
        self._begun.append([stream.sent for stream in self._everybody])
        self.vm.await_at(self.other.switch)
        self._timed(self.times.prepare, lambda: migrate(self.other, "prepare", self.port, ifname=self.port))

    def switch_over(self) -> None:
        """And it stands still, once all that came for it here has reached it."""
        self._timed(
            self.times.switchover,
            lambda: self.missing.append(migrate(self.at, "switchover", self.port)["missing"]),
        )
        self.vm.stand_still()

    def activate(self) -> None:
        """It goes on there."""
        self._timed(self.times.activate, lambda: migrate(self.other, "activate", self.port))
        self.go_on(says_so=False)

    def go_on(self, *, says_so: bool) -> None:
        """On the other host; by RARP, or not."""
        self.vm.go_on(says_so=says_so)
        self.vm.leave()
        self.at, self.other = self.other, self.at

    def move(self) -> None:
        """All of it."""
        self.prepare()
        self.switch_over()
        self.activate()

    def appear(self) -> tuple[int, int]:
        """All that hosts are told is to prepare: it stands still here, and then its hypervisor there says by RARP
        that it goes on.

        Returns:
            Frames that came for it here while it stood still, before that word and after it.
        """
        self.prepare()
        target = self.other
        self.vm.stand_still()
        before = self.vm.left_behind()
        self.vm.go_on(says_so=True)
        self.at, self.other = self.other, self.at
        eventually(lambda: self.owner() == target.name, f"{self.port} is on {target.name}")
        self.fleet.known(self.segment, self.vm.mac, target, self.fleet.hosts[2], self.other)
        after = self.vm.left_behind()
        self.vm.leave()
        return before, after

    def owner(self) -> str:
        """The host on which it is, for the cluster."""
        binding = self.fleet.binding(self.port)
        assert binding is not None
        return str(binding["owner"])

    @contextmanager
    def streaming(self, what: str, *, own: bool = True) -> Iterator[list[Figures]]:
        """Streams run meanwhile, the VM's `own` among them or not; afterwards what became of them is in the list."""
        found: list[Figures] = []
        before = self._dropped()
        streams = self._streams if own else self._streams_in
        with streams.running() as run:
            yield found
            self.vm.wait_carried(SOON_S)
            sent, taken = run.end()
        taken = replace(taken, overflow=taken.overflow + self._dropped() - before)
        found.append(judge(what, 1, streams.names, sent, taken))

    @contextmanager
    def broadcasting(self) -> Iterator[dict[str, ToEverybody]]:
        """Meanwhile hosts 1 and 3 send to everybody; afterwards what the VM has heard of each is in there."""
        found: dict[str, ToEverybody] = {}
        senders = [host.veth(host.unique("v"), self.segment) for host in self.fleet.hosts[::2]]
        streams = [
            NumberedStream(sender.namespace, self.vm.namespace, None, per_second=BROADCASTS) for sender in senders
        ]
        eventually(lambda: all(stream.arrived for stream in streams), "the VM hears what all hear")
        self._everybody, self._begun = streams, []
        try:
            yield found
            self.vm.wait_carried(SOON_S)
        finally:
            self._everybody = []
            for number, (host, stream) in enumerate(zip(self.fleet.hosts[::2], streams, strict=True)):
                heard = stream.end()
                bounds = [0, *(sent[number] for sent in self._begun[1:]), heard.sent]
                each = [heard.amiss(first, end) for first, end in pairwise(bounds)]
                found[f"{host.name} → everybody"] = ToEverybody(heard, each)

    def _make_streams(self, *, own: bool = True) -> Streams:
        vm = f"packet:{NIC}"
        here = (self.vm.mac, self.vm.address)
        a, c = self._a, self._c
        flows = [
            Stream(name="host 3 → VM", sender=c.end, receiver=here, source=f"tap:{c.tap}"),
            Stream(name="host 1 → VM", sender=a.end, receiver=here, source=f"tap:{a.tap}"),
            Stream(name="VM → host 3", sender=here, receiver=c.end, source=vm),
        ][: None if own else 2]
        ends = [End(where=vm, streams=(0, 1)), End(where=f"tap:{c.tap}", streams=(2,) if own else ())]
        return Streams(self.fleet.world.directory(), self.vm.namespace, flows, ends, self._rate * len(flows))

    def _say_hello(self) -> None:
        """All do: nobody else tells who is where."""
        for one in (self._a, self._c):
            os.write(one.tap, hello(*one.end))
        send_frames(self.vm.namespace, NIC, hello(self.vm.mac, self.vm.address)[len(NO_HEADER) :])

    def _has(self, host: Host, mac: str) -> bool:
        return where(host, self.segment, mac) is not None

    def _dropped(self) -> int:
        return self._a.dropped() + self._c.dropped()

    def _timed(self, times: list[float], work: Callable[[], object]) -> None:
        began = time.monotonic()
        work()
        times.append((time.monotonic() - began) * 1000)


def percentile(taken: list[float], share: float) -> float:
    """The least that this share of them does not exceed."""
    ordered = sorted(taken)
    return ordered[min(len(ordered) - 1, round(share * len(ordered)))]
