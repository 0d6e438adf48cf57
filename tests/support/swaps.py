"""Two VMs that send each other streams and change places, both at once.

x ◄────────► y
host 1       host 2      host 3 looks on
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from support.clustered import SOON_S, Clustered, eventually, migrate
from support.fleet import Host
from support.lan import address_of, mac_of
from vxagent.bench.faults.figures import Figures, judge
from vxagent.bench.faults.lab import QUEUE
from vxagent.bench.faults.stream import End, Stream, Streams
from vxagent.lab.moving import MovingVm

RATE = 10_000  # frames a second, each stream


@dataclass
class Mover:
    """One of them.

    Attributes:
        vm: it; its port lists its MAC and address.
        at, to: where it is, and where it goes next.
    """

    vm: MovingVm
    at: Host
    to: Host

    def prepare(self) -> None:
        """It is awaited."""
        migrate(self.to, "prepare", self.vm.port, ifname=self.vm.port)

    def switch_over(self) -> list[str]:
        """It stands still; return the hosts that have not heard of it in time."""
        missing: list[str] = migrate(self.at, "switchover", self.vm.port)["missing"]
        self.vm.stand_still()
        return missing

    def activate(self) -> None:
        """It goes on."""
        migrate(self.to, "activate", self.vm.port)
        self.vm.go_on(says_so=False)


class Swap:
    """The two."""

    def __init__(self, fleet: Clustered) -> None:
        self._fleet = fleet
        one, two, _ = fleet.hosts
        segment = fleet.new_segment()
        x = self._mover(segment, one, two, None)
        y = self._mover(segment, two, one, x.vm)
        self.movers = (x, y)
        for mover in self.movers:
            fleet.known(segment, mover.vm.mac, mover.at)
        ends = [(mover.vm.mac, mover.vm.address) for mover in self.movers]
        places = [f"packet:{mover.vm.nic}" for mover in self.movers]
        flows = [
            Stream(name="x → y", sender=ends[0], receiver=ends[1], source=places[0]),
            Stream(name="y → x", sender=ends[1], receiver=ends[0], source=places[1]),
        ]
        takers = [End(where=places[1], streams=(0,)), End(where=places[0], streams=(1,))]
        self._streams = Streams(fleet.world.directory(), x.vm.namespace, flows, takers, RATE * len(flows))

    def swap(self) -> None:
        """All steps of both, each at the same time."""
        for mover in self.movers:
            mover.vm.await_at(mover.to.switch)
        for step in (Mover.prepare, Mover.switch_over, Mover.activate):
            self._both(step)
        for mover in self.movers:
            mover.vm.leave()
            mover.at, mover.to = mover.to, mover.at
            eventually(lambda mover=mover: self._fleet.stored.history(mover.vm.port)[-1].owner == mover.at.name)  # type: ignore[misc]

    @contextmanager
    def streaming(self, what: str) -> Iterator[list[Figures]]:
        """Streams run meanwhile; afterwards what became of them is in the list."""
        found: list[Figures] = []
        with self._streams.running() as run:
            yield found
            for mover in self.movers:
                mover.vm.wait_carried(SOON_S)
            found.append(judge(what, 1, self._streams.names, *run.end()))

    def _both(self, step: Callable[[Mover], object]) -> None:
        with ThreadPoolExecutor(len(self.movers)) as pool:
            list(pool.map(step, self.movers))

    def _mover(self, segment: str, at: Host, to: Host, beside: MovingVm | None) -> Mover:
        number = at.count()
        vm = self._fleet.world.moving_vm(
            at.switch,
            f"w{number}",
            mac=mac_of(number),
            address=address_of(number),
            mtu=at.mtu,
            queue=QUEUE,
            beside=beside,
        )
        at.attach(vm.port, segment, mac=[vm.mac], ip=[vm.address])
        return Mover(vm, at, to)
