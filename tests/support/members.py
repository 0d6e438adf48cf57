"""Hosts of one cluster in one process: each a whole agent over fakes, with a client of its own on the fake engine.

hvN     eth1: the underlay, with its VTEP, 192.0.2.N
        eth2: an uplink, where a test adds it
        tap0 … tap3: VMs' devices
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address
from typing import Any, TypeVar

from support.agents import FakeHost
from vxagent.core.state import State
from vxagent.core.switch import Draft
from vxagent.core.tables import FdbRow, NeighbourRow, Row, Table
from vxagent.datapath.abi import EventType
from vxagent.datapath.base import Event
from vxagent.datapath.fake_forwarding import Frame, Outcome
from vxagent.model.binding import Binding
from vxagent.model.cluster import Problem
from vxagent.model.device import Device
from vxagent.model.ids import mac_to_int
from vxagent.model.port import Port, PortState
from vxagent.model.segment import Segment
from vxagent.model.vtep import Overlay
from vxagent.runtime.config import ClusterConfig
from vxagent.runtime.loop import Agent
from vxagent.runtime.membership import Connection, Membership
from vxagent.runtime.migrations import Migrations
from vxagent.runtime.periods import Periods, Waits
from vxagent.store.fake_kv import FakeEngine, FakeKv
from vxagent.store.kv import Put, Range, Txn
from vxagent.store.schema import Keys, parse_binding

T = TypeVar("T")

SOON_S = 20.0  # a test fails by it; none waits for it
QUICK = Waits(
    keepalive_s=0.02,
    retry_s=0.01,
    refused_s=0.02,
    reset_s=0.02,
    silent_s=0.05,
    back_s=0.0,
    drain_s=0.0,
    switchover_s=SOON_S,
    linger_s=0.05,
    record_s=0.01,
)
OFTEN = Periods(events_s=0.01)

BLUE = Segment(name="blue", tenant="acme", vni=5010, mtu=1450)
RED = Segment(name="red", tenant="acme", vlan=20, vni=5020, mtu=1450)
GREEN = Segment(name="green", tenant="acme", vlan=30, mtu=1450)

MAC7, MAC8, MAC9 = (f"02:00:00:00:00:0{n}" for n in (7, 8, 9))
IP7, IP8 = "10.0.0.7", "10.0.0.8"
ALL = 0xFFFFFFFFFFFF


class Member(FakeHost):
    """One host; agents come and go on it.

    Attributes:
        name, vtep: in the cluster.
        running: its agent.
        kv: the agent's way to the engine.
        here: VTEPs of hosts that are there when they are asked.
        mute: VTEPs of which nobody says whether they are.
        asked: how often one was.
        waits: of the next agent.
    """

    def __init__(self, engine: FakeEngine, number: int, waits: Waits = QUICK) -> None:
        self.name, self.vtep = f"hv{number}", f"192.0.2.{number}"
        devices = [Device(ifname=f"tap{n}", ifindex=10 + n, kind="tun") for n in range(4)]
        devices += [Device(ifname="eth1", ifindex=21, addresses=(self.vtep,)), Device(ifname="eth2", ifindex=22)]
        super().__init__(devices)
        self.config = replace(
            self.config,
            host=self.name,
            overlay=Overlay(vtep=self.vtep, device="eth1"),
            cluster=ClusterConfig(name="test", endpoints=("http://fake:1",)),
        )
        self.waits = waits
        self.running: Agent
        self.kv: FakeKv
        self.here: set[str] = set()
        self.mute: set[str] = set()
        self.asked = 0
        self._engine = engine
        self._away = False

    def agent(self) -> Agent:
        """The next one."""
        return Agent(
            datapath=self.datapath,
            links=self.links,
            store=self.store,
            config=self.config,
            read_config=lambda: self.config,
            periods=OFTEN,
            waits=self.waits,
            connect=self._connect,
            answers=self._answers,
            boot=f"boot of {self.name}",
        )

    def _connect(self, cluster: ClusterConfig) -> FakeKv:
        self.kv = self._engine.client()
        self.kv.away = self._away
        return self.kv

    async def _answers(self, vtep: str) -> bool | None:
        self.asked += 1
        return None if vtep in self.mute else vtep in self.here

    @property
    def away(self) -> bool:
        """The engine does not answer this host."""
        return self._away

    @away.setter
    def away(self, away: bool) -> None:
        self._away = self.kv.away = away

    async def start(self) -> None:
        """Start an agent."""
        self.running = self.agent()
        await self.running.start()

    async def connected(self) -> None:
        """Wait until the engine answers it, if it is not away."""
        await until(lambda: self.away or self.membership.connection is Connection.CONNECTED)

    async def stop(self) -> None:
        """End it; what it forwards goes on."""
        if not self.running.ended.is_set():
            await self.running.stop()

    async def restart(self) -> None:
        """The next agent takes over from this one."""
        await self.stop()
        await self.start()
        await self.connected()

    @property
    def membership(self) -> Membership:
        """The agent's."""
        assert self.running.membership is not None
        return self.running.membership

    @property
    def migrations(self) -> Migrations:
        """The agent's."""
        assert self.running.migrations is not None
        return self.running.migrations

    @property
    def state(self) -> State:
        """Of its switch."""
        return self.running.switch.state

    async def change(self, make: Callable[[Draft], T]) -> T:
        """As the API would."""
        return await self.running.change(make)

    async def add(self, *segments: Segment) -> None:
        """It has these segments."""
        await self.change(lambda draft: [draft.add_segment(segment) for segment in segments])

    async def attach(self, port: str, ifname: str = "tap0", *, segment: str = "blue", **fields: Any) -> None:
        """It has this port."""
        wanted = Port(id=port, ifname=ifname, segment=segment, **fields)
        await self.change(lambda draft: draft.attach_port(wanted))

    async def detach(self, port: str) -> None:
        """It has it no longer."""
        await self.change(lambda draft: draft.detach_port(port))

    def port_state(self, port: str) -> PortState | None:
        """None: it does not have it."""
        return self.state.port_state(port)[0] if port in self.state.ports else None

    def fdb(self, mac: str, segment: str = "blue") -> str | None:
        """Where frames for a MAC go, as it knows without having learned it: a port, a VTEP, or None."""
        names = self.state.names("port")
        return next((names[row.port] for row in self._rows(Table.FDB, segment, mac) if isinstance(row, FdbRow)), None)

    def neighbours(self, segment: str = "blue") -> dict[str, str]:
        """For which addresses it answers, and where those are."""
        names, handle = self.state.names("port"), self.state.handle_of_segment(segment)
        rows = [row for row in self.datapath.rows().values() if isinstance(row, NeighbourRow)]
        return {_address(row): names[row.port] for row in rows if row.segment == handle}

    def _rows(self, table: Table, segment: str, mac: str) -> Iterable[Row]:
        at = self.state.handle_of_segment(segment)
        found = self.datapath.rows().items()
        return [row for (of, key), row in found if of is table and key == at << 48 | mac_to_int(mac)]

    def announce(self, port: str) -> None:
        """The data plane says that a port's VM has announced itself."""
        handle = self.state.handle_of_port(port)
        kind = EventType.ANNOUNCED
        self.datapath.queue.append(Event(time_ns=0, type=kind, port=handle, other_port=0, segment=1, mac=7))


class Hosts:
    """All hosts of a cluster.

    Attributes:
        engine: that they share.
        now: seconds; leases end by it.
        all: hv1, hv2 …
    """

    def __init__(self, number: int, waits: Waits = QUICK) -> None:
        self.now = 0.0
        self.engine = FakeEngine(lambda: self.now)
        self.all = [Member(self.engine, n + 1, waits) for n in range(number)]

    def key(self, key: str) -> bytes | None:
        """What the engine holds there."""
        found = self.engine.read(Range(f"/vxagent/v1/test/{key}")).found
        return found[0].value if found else None

    def keys(self, kind: str) -> set[str]:
        """The keys of a kind, without it."""
        root = f"/vxagent/v1/test/{kind}/"
        return {key.removeprefix(root) for key in self.engine.keys if key.startswith(root)}

    def binding(self, port: str) -> Binding | None:
        """As the engine has it."""
        keys = Keys("test")
        found = self.engine.read(Range(keys.port(port))).found
        parsed = parse_binding(keys, found[0]) if found else None
        assert not isinstance(parsed, Problem), parsed
        return parsed

    async def know(self, *ports: str) -> None:
        """Wait until each has heard of these, also of its own: in which order they hear is not said."""
        await until(lambda: all(host.state.remote.ports.keys() >= set(ports) for host in self.all))

    async def packed(self, port: str) -> None:
        """Wait until the owner of a port that was just prepared has left for the next host what goes along."""
        root = "/vxagent/v1/test"
        keys = self.engine.keys
        await until(lambda: keys[f"{root}/carry/{port}"].mod_revision > keys[f"{root}/port/{port}"].mod_revision)

    def write(self, key: str, value: bytes) -> None:
        """As somebody else's tool would."""
        self.engine.do(Txn(success=(Put(f"/vxagent/v1/test/{key}", value),)))

    def lose_session(self, host: Member) -> None:
        """The engine takes a host for dead."""
        (live,) = self.engine.read(Range(f"/vxagent/v1/test/live/{host.name}")).found
        self.engine.end_lease(live.lease)

    def send(self, host: Member, ifname: str, frame: Frame) -> set[str]:
        """Where a frame that comes in there comes out, as HOST/DEVICE."""
        return self._follow(host, frame, host.datapath.forward(host.links.by_name[ifname].ifindex, frame))

    def _follow(self, host: Member, frame: Frame, outcome: Outcome) -> set[str]:
        names = {device.ifindex: device.ifname for device in host.links.by_name.values()}
        out = {f"{host.name}/{names[ifindex]}" for ifindex, _ in outcome.copies}
        for vtep, vni in outcome.tunnelled:
            (to,) = (other for other in self.all if other.vtep == vtep)
            out |= self._follow(to, frame, to.datapath.arrive(host.vtep, vni, frame, marked=outcome.marked))
        for vtep, vni, token in outcome.followed:
            (to,) = (other for other in self.all if other.vtep == vtep)
            out |= self._follow(to, frame, to.datapath.arrive(host.vtep, vni, frame, marked=True, token=token))
        return out


@asynccontextmanager
async def hosts_with(number: int, *segments: Segment, waits: Waits = QUICK) -> AsyncIterator[Hosts]:
    """So many hosts, whose agents are connected and know each other, and have these segments; stopped at the end."""
    hosts = Hosts(number, waits)
    started: list[Member] = []
    try:
        for host in hosts.all:
            await host.start()
            started.append(host)
        for host in hosts.all:
            await host.connected()
            await host.add(*segments)
        names = {segment.name for segment in segments}
        await until(lambda: all(len(h.state.remote.peers) == number - 1 for h in hosts.all))
        await until(lambda: all(p.segments == names for h in hosts.all for p in h.state.remote.peers.values()))
        yield hosts
    finally:
        for host in started:
            await host.stop()


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition that comes true."""
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline, "did not come true"
        await asyncio.sleep(0.001)


def frame(src: str, dst: str | None = None) -> Frame:
    """From one MAC to another, or to everybody."""
    return Frame(src=mac_to_int(src), dst=ALL if dst is None else mac_to_int(dst))


def _address(row: NeighbourRow) -> str:
    return str(ip_address(row.octets[: 4 if row.family == 4 else 16]))
