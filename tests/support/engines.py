"""Engines for a test of what holds for all of them: the fake, and etcd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol, TypeVar
from uuid import uuid4

from support.etcd_nodes import Nodes
from vxagent.store.cluster import Cluster
from vxagent.store.engine import connect
from vxagent.store.fake_kv import FakeEngine
from vxagent.store.kv import Kv

T = TypeVar("T")

TTL_S = 2  # the shortest that etcd takes with a test's election timeout is 1 s


class Engine(Protocol):
    """Something that hosts share.

    Attributes:
        name: of a cluster that nobody else uses.
    """

    name: str

    def kv(self) -> Kv:
        """A client's way to it. Close it."""

    def pass_time(self) -> None:
        """Half of TTL_S passes, where time does not pass by itself."""

    def compact(self) -> int:
        """Forget all history before now; return the revision."""


class FakeShared:
    """The fake, with a clock of its own."""

    def __init__(self) -> None:
        self.name = "test"
        self.now = 0.0
        self.engine = FakeEngine(lambda: self.now)

    def kv(self) -> Kv:
        """A client."""
        return self.engine.client()

    def pass_time(self) -> None:
        """By its clock."""
        self.now += TTL_S / 2

    def compact(self) -> int:
        """Forget."""
        self.engine.compact()
        return self.engine.compacted


class EtcdShared:
    """Members of etcd, which other tests use too."""

    def __init__(self, nodes: Nodes) -> None:
        self.name = f"test-{uuid4().hex[:8]}"
        self.nodes = nodes

    def kv(self) -> Kv:
        """A client."""
        return connect(self.nodes.endpoints, self.nodes.credentials)

    def pass_time(self) -> None:
        """It does."""

    def compact(self) -> int:
        """Forget."""
        return self.nodes.compact()


@asynccontextmanager
async def kv_of(engine: Engine) -> AsyncIterator[Kv]:
    """A client, closed at the end."""
    kv = engine.kv()
    try:
        yield kv
    finally:
        await kv.close()


@asynccontextmanager
async def hosts_of(engine: Engine, *names: str) -> AsyncIterator[list[Cluster]]:
    """Hosts hv1, hv2 … or as named, each with a client and a session of its own; VTEPs count from 192.0.2.1."""
    async with AsyncExitStack() as stack:
        hosts = []
        for number, name in enumerate(names, 1):
            cluster = Cluster(await stack.enter_async_context(kv_of(engine)), engine.name, name)
            await cluster.open(vtep=f"192.0.2.{number}", boot=f"boot of {name}", ttl_s=60)
            hosts.append(cluster)
        yield hosts


async def until(condition: Callable[[], Awaitable[T]], *, within: float = 15.0) -> T:
    """Ask until the answer is true, and return that.

    Raises:
        TimeoutError: it was not, in time.
    """
    async with asyncio.timeout(within):
        while not (answer := await condition()):
            await asyncio.sleep(0.02)
        return answer
