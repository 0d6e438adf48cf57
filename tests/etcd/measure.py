"""What agreeing costs, with three members of etcd on loopback and all hosts in one process. Prints a table.

PYTHONPATH=tests .venv/bin/python tests/etcd/measure.py [ROUNDS]
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path
from statistics import quantiles
from typing import TypeVar

from support.cluster import MAC, claim_all
from support.engines import EtcdShared, hosts_of
from support.etcd_nodes import Nodes, etcd_nodes
from vxagent.errors import ClusterAway
from vxagent.store.cluster import Cluster
from vxagent.store.kv import Put, Txn
from vxagent.store.schema import Keys, encode

T = TypeVar("T")

ROUNDS = 500
PORTS = 20_000  # of the segment that is read as a whole


class Table:
    """Times of each kind of thing, in ms."""

    def __init__(self) -> None:
        self._times: dict[str, list[float]] = {}

    async def time(self, what: str, done: Awaitable[T]) -> T:
        began = time.perf_counter()
        result = await done
        self.add(what, time.perf_counter() - began)
        return result

    def add(self, what: str, seconds: float) -> None:
        self._times.setdefault(what, []).append(seconds * 1e3)

    def print(self) -> None:
        print(f"{'ms':<44}{'n':>6}{'p50':>9}{'p99':>9}{'max':>9}")
        for what, times in self._times.items():
            cuts = quantiles(times, n=100, method="inclusive") if len(times) > 1 else times * 99
            print(f"{what:<44}{len(times):>6}{cuts[49]:>9.2f}{cuts[98]:>9.2f}{max(times):>9.2f}")


async def steps(table: Table, hosts: list[Cluster], rounds: int) -> None:
    """Ports that are bound, migrate and end, one after the other."""
    a, b, *_ = hosts
    for number in range(rounds):
        port = f"vm{number}"
        mac = f"02:00:00:01:{number >> 8:02x}:{number & 255:02x}"
        await table.time(
            "bind", a.bind(port, segments=["blue"], macs=[mac], ips=[f"10.1.{number >> 8}.{number & 255}"])
        )
        await table.time(
            "bind again, nothing to do",
            a.bind(port, segments=["blue"], macs=[mac], ips=[f"10.1.{number >> 8}.{number & 255}"]),
        )
        await table.time("prepare", b.prepare(port))
        await table.time("switchover", a.switchover(port))
        await table.time("activate", b.activate(port))
        await table.time("unbind", b.unbind(port))
        assert a.session is not None
        await table.time("keepalive", a.session.keepalive())


async def told(table: Table, hosts: list[Cluster], rounds: int) -> None:
    """How long after a change was asked for the last of all hosts knows it, and after a switchover all have said so."""
    a, b, *others = hosts
    followers = [host.follow(["blue"]) for host in hosts]
    for follower in followers:
        await anext(follower)
    await a.bind("vm", segments=["blue"], macs=[MAC])
    await asyncio.gather(*(anext(follower) for follower in followers))
    for number in range(rounds):
        step = (b.prepare, b.cancel)[number % 2]
        began = time.perf_counter()
        await asyncio.gather(step("vm"), *(anext(follower) for follower in followers))
        table.add(f"a change, until {len(hosts)} hosts know it", time.perf_counter() - began)
    for _ in range(rounds // 10):
        await b.prepare("vm")
        await asyncio.gather(*(anext(follower) for follower in followers))
        began = time.perf_counter()
        switched = asyncio.ensure_future(a.switchover("vm"))

        async def act(host: Cluster, follower: object) -> None:
            (change,) = await anext(follower)  # type: ignore[call-overload]  # a Follower
            await host.ack(change.now)

        acting = [asyncio.ensure_future(act(h, f)) for h, f in zip([b, *others], followers[1:], strict=True)]
        missing = await a.missing_acks(await switched, 10)
        assert not missing
        table.add(f"switchover, until {len(hosts) - 1} hosts have acknowledged", time.perf_counter() - began)
        await asyncio.gather(*acting, anext(followers[0]))
        await b.cancel("vm")
        await asyncio.gather(*(anext(follower) for follower in followers))
    for follower in followers:
        await follower.close()


async def whole(table: Table, host: Cluster, engine: EtcdShared) -> None:
    """A segment of many ports, read as a whole."""
    keys = Keys(engine.name)
    for start in range(0, PORTS, 100):
        puts = tuple(
            Put(
                keys.fdb("big", f"p{number}"),
                encode(
                    {
                        "o": f"hv{number % 1000}",
                        "p": "bound",
                        "e": 1,
                        "n": None,
                        "m": [f"02:00:00:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"],
                        "i": [],
                    }
                ),
            )
            for number in range(start, start + 100)
        )
        await host._kv.txn(Txn(success=puts))
    for _ in range(5):
        snapshot = await table.time(f"a snapshot with {PORTS:,} ports", host.snapshot(["big"]))
        assert len(snapshot.records) > PORTS
    follower = host.follow(["big"], snapshot)
    await table.time("the same, known already", anext(follower))
    await follower.close()


async def failures(table: Table, hosts: list[Cluster], nodes: Nodes) -> None:
    """How long binding takes and watches are silent when members die."""
    a, b, *_ = hosts
    for number in range(5):
        follower = b.follow(["blue"])
        await anext(follower)
        leader = await asyncio.to_thread(nodes.leader)
        leader.kill()
        began = time.perf_counter()
        await a.bind(f"dead{number}", segments=["blue"])
        table.add("leader killed: bind", time.perf_counter() - began)
        while True:
            try:
                if any(change.now is not None for change in await anext(follower)):
                    break
            except ClusterAway:
                await asyncio.sleep(0.05)
        table.add("leader killed: until a follower knows the port", time.perf_counter() - began)
        await follower.close()
        leader.start()
        await asyncio.to_thread(nodes.wait)


async def measure(nodes: Nodes, rounds: int) -> None:
    table = Table()
    engine = EtcdShared(nodes)
    async with hosts_of(engine, *(f"hv{number}" for number in range(8))) as hosts:
        await claim_all(hosts)
        await steps(table, hosts, rounds)
        await told(table, hosts, rounds)
        await whole(table, hosts[0], engine)
        await failures(table, hosts, nodes)
    table.print()


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with tempfile.TemporaryDirectory() as directory, etcd_nodes(Path(directory), 3) as nodes:
        asyncio.run(measure(nodes, rounds))


if __name__ == "__main__":
    main()
