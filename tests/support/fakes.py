"""Hosts that share the fake engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from support.cluster import MAC, claim_all
from support.engines import FakeShared, hosts_of
from vxagent.store.cluster import Cluster
from vxagent.store.fake_kv import FakeKv


def kv(cluster: Cluster) -> FakeKv:
    assert isinstance(cluster._kv, FakeKv)
    return cluster._kv


@asynccontextmanager
async def migrating() -> AsyncIterator[tuple[FakeShared, Cluster, Cluster]]:
    """hv1 and hv2 have the segment blue; port vm7 is bound on hv1."""
    engine = FakeShared()
    async with hosts_of(engine, "hv1", "hv2") as (a, b):
        await claim_all([a, b])
        await a.bind("vm7", segments=["blue"], macs=[MAC])
        yield engine, a, b
