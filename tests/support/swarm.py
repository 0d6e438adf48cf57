"""Simulated hosts of one cluster, many in a process: each with a client, a session, watches and bindings of its own.

What speaks to the engine is the agent's: session, claims, what goes along with a port, the follower, acknowledgements
of migrations. What it would do in the kernel is left out, and with it the rows that it would make of what it hears:
a simulated host only counts that.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from functools import partial

from support.spread import Spread
from support.swarm_layout import Layout, due_us
from vxagent.core.plan import Plan
from vxagent.core.switch import Switch
from vxagent.datapath.fake import FakeDatapath
from vxagent.errors import VxagentError
from vxagent.model.binding import Phase, Projection
from vxagent.model.cluster import Change, ClusterHost, ClusterSegment, Live, Presence, Record
from vxagent.model.port import Port
from vxagent.netlink.fake import FakeLinks
from vxagent.runtime.changes import Changes
from vxagent.runtime.executor import Executor
from vxagent.runtime.losses import EgressLosses
from vxagent.runtime.luggage import pack
from vxagent.runtime.membership import Connection, Membership
from vxagent.store.cluster import Cluster
from vxagent.store.engine import connect
from vxagent.store.fake import FakeStore
from vxagent.store.follower import Follower

LOOKED_EVERY_S = 0.05
PATIENCE_S = 30.0  # hosts that have a CPU of their own wait for 1 s
TTL_S = 120  # and say every 5 s that they live, as these do, but within 15


@dataclass
class Heard:
    """What all hosts of a process have heard of ports that came while it was measured.

    Attributes:
        told: from when a port was due until another host knew of it.
        last: by port, when the last of them did, in µs from then on.
    """

    told: Spread = field(default_factory=Spread)
    last: dict[str, int] = field(default_factory=dict)

    def note(self, port: str, due: int) -> None:
        """Another host knows of this port now."""
        took = time.monotonic_ns() // 1000 - due
        self.told.add(took)
        self.last[port] = max(took, self.last.get(port, 0))


class Behind:
    """What a host does about bindings that it hears of."""

    def __init__(self, cluster: Cluster, host: str) -> None:
        self._cluster = cluster
        self._host = host
        self._tasks: set[asyncio.Task[object]] = set()

    async def told(self, now: Projection | None, before: Projection | None) -> None:
        """Hold or acknowledge what migrates."""
        if now is None or now.phase not in (Phase.SWITCHED, Phase.HELD):
            return
        if now.next == self._host and now.phase is Phase.SWITCHED:
            self._spawn(self._cluster.hold(now.port))
        elif now.next != self._host and now.phase is Phase.HELD:
            self._spawn(self._cluster.ack(now))

    def _spawn(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]  # a coroutine
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def carry(self, port: Port) -> None:
        """As an agent does."""
        await self._cluster.carry(port.id, pack(self._host, port))


class SimulatedHost(Membership):
    """One host.

    Attributes:
        number: in the layout.
        ready_at: when it had bound all that it has and knew all that there is, by `time.monotonic`; 0: not yet.
    """

    def __init__(self, layout: Layout, number: int, endpoints: Collection[str], cluster: str, heard: Heard) -> None:
        links = FakeLinks([])
        executor = Executor(FakeDatapath(), links, FakeStore())
        name = layout.name(number)
        switch = Switch({}, host=name)
        segments = {name: layout.segment(name) for name in layout.segments_of(number)}
        ports = {port.id: port for port in layout.ports_of(number)}
        switch.state = replace(switch.state, segments=segments, ports=ports)
        super().__init__(
            Changes(switch, executor, EgressLosses(links)),
            connect(tuple(endpoints), patience_s=PATIENCE_S, attempt_s=PATIENCE_S),
            name=cluster,
            host=name,
            vtep=layout.vtep(number),
            boot=f"boot of {name}",
        )
        self.cluster.open = partial(self.cluster.open, ttl_s=TTL_S)  # type: ignore[method-assign]
        self.number = number
        self.ready_at = 0.0
        self.records: Counter[type[Record]] = Counter()
        self.expected = {
            ClusterSegment: len(segments),
            Presence: sum(len(layout.members[name]) for name in segments),
            Projection: sum(layout.count_in(name) for name in segments),
        }
        self._name = name
        self._measured = heard

    def start(self) -> None:
        """Begin, as an agent does that knows of no cluster yet."""
        self.begin(Behind(self.cluster, self._name))

    @property
    def follower(self) -> Follower:
        """Its."""
        assert self._follower is not None
        return self._follower

    def knows(self, hosts: int) -> bool:
        """Whether it is connected, and knows so many hosts and all that is in its segments."""
        expected = {**self.expected, ClusterHost: hosts, Live: hosts}
        return self.connection is Connection.CONNECTED and all(self.records[kind] == n for kind, n in expected.items())

    async def change(self, make: Callable[[dict[str, Port]], dict[str, Port]]) -> None:
        """Change its ports, as the API would: claimed first, and then what goes along is left for others."""

        async def work() -> None:
            old = self.state
            new = replace(old, ports=make(old.ports))
            agreed = await self.ask(old, new)
            self._changes.switch.commit(Plan(state=new, effects=()))
            await agreed.settle()

        await self._changes.in_turn(work)

    async def attach(self, port: Port) -> None:
        """It has this port."""
        await self.change(lambda ports: {**ports, port.id: port})

    async def detach(self, port: str) -> None:
        """It has it no longer."""
        await self.change(lambda ports: {id_: there for id_, there in ports.items() if id_ != port})

    async def _take(self, changes: tuple[Change, ...]) -> None:
        """Count what is told, where an agent makes rows of it."""
        assert self._hears is not None
        self._follows = True
        for change in changes:
            now, before = change.now, change.before
            kind = type(now or before)
            self.records[kind] += (now is not None) - (before is not None)  # type: ignore[index]  # one of them is
            if isinstance(now, Projection):
                due = due_us(now.port) if before is None else None
                if due is not None and now.owner != self._name:
                    self._measured.note(now.port, due)
                await self._hears.told(now, None)


class Swarm:
    """Some of the hosts of a layout.

    Args:
        numbers: which.
        others: hosts beside those of the layout.
        at_once: so many start at the same time, each when one before it is connected. All of them would have to wait
            for the few CPUs that they share, longer than a host waits that has one of its own.
    """

    def __init__(
        self,
        layout: Layout,
        numbers: Collection[int],
        endpoints: Collection[str],
        cluster: str,
        *,
        others: int = 0,
        at_once: int = 10,
    ) -> None:
        self.layout = layout
        self.heard = Heard()
        self._all = layout.hosts + others
        self._make = partial(SimulatedHost, layout, endpoints=endpoints, cluster=cluster)
        self.hosts = [self._make(number, heard=self.heard) for number in numbers]
        self._at_once = asyncio.Semaphore(at_once)

    async def start(self) -> None:
        """All of them, some at once; each has claimed what it has when this returns."""
        await asyncio.gather(*(self._start(host) for host in self.hosts))

    async def restart(self) -> None:
        """On each host an agent that takes over from the one before; the same way."""
        await asyncio.gather(*(self._restart(at) for at in range(len(self.hosts))))

    async def _start(self, host: SimulatedHost) -> None:
        async with self._at_once:
            await self._connect(host)

    async def _restart(self, at: int) -> None:
        async with self._at_once:
            await self.hosts[at].end(leave=False)
            self.hosts[at] = self._make(self.hosts[at].number, heard=self.heard)
            await self._connect(self.hosts[at])

    async def _connect(self, host: SimulatedHost) -> None:
        host.start()
        while host.connection is not Connection.CONNECTED:
            await asyncio.sleep(LOOKED_EVERY_S)

    async def converge(self, within_s: float) -> list[float]:
        """When each of them had bound all that it has and knew all that there is; 0 for those that did not in time."""
        deadline = time.monotonic() + within_s
        waiting = set(self.hosts)
        while waiting and time.monotonic() < deadline:
            for host in [host for host in waiting if host.knows(self._all)]:
                host.ready_at = time.monotonic()
                waiting.remove(host)
            await asyncio.sleep(LOOKED_EVERY_S)
        return [host.ready_at for host in self.hosts]

    def mistakes(self) -> list[str]:
        """What hosts know otherwise than it is, as text; of ports of this layout's hosts, and of those themselves."""
        names = {self.layout.name(number) for number in range(self.layout.hosts)}
        found: list[str] = []
        wanted: dict[str, set[tuple[object, ...]]] = {}
        for host in self.hosts:
            right: set[tuple[object, ...]] = {
                ("host", self.layout.name(number), self.layout.vtep(number)) for number in range(self.layout.hosts)
            }
            for segment in self.layout.segments_of(host.number):
                right |= wanted.setdefault(segment, self._right(segment))
            there = [record for record in host.follower.snapshot.records if not isinstance(record, Live)]
            known = {said for said in map(_said, there) if said[1] in names}
            found += [f"{self.layout.name(host.number)} lacks {what}" for what in right - known]
            found += [f"{self.layout.name(host.number)} has {what}" for what in known - right]
            found += [f"{self.layout.name(host.number)} cannot read {what}" for what in host.unreadable]
        return found

    def _right(self, segment: str) -> set[tuple[object, ...]]:
        """What there is to be known of it."""
        return {
            *(("port", owner, segment, p.id, p.macs, p.ips, "bound") for owner, p in self.layout.ports_in(segment)),
            *(("has", self.layout.name(number), segment) for number in self.layout.members[segment]),
        }

    async def end(self) -> None:
        """Let go of the engine."""
        results = await asyncio.gather(*(host.end(leave=True) for host in self.hosts), return_exceptions=True)
        assert all(result is None or isinstance(result, VxagentError) for result in results), results


def _said(record: Record) -> tuple[object, ...]:
    match record:
        case ClusterHost(host=host, vtep=vtep):
            return ("host", host, vtep)
        case Presence(segment=segment, host=host):
            return ("has", host, segment)
        case Projection() as told:
            return ("port", told.owner, told.segment, told.port, told.macs, told.ips, str(told.phase))
        case _:
            return (type(record).__name__, "")
