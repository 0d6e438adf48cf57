"""What tests of hosts that share an engine have in common."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import pytest

from support.engines import Engine, kv_of
from vxagent.model.cluster import Change, ClusterSegment, Snapshot
from vxagent.store.cluster import Cluster
from vxagent.store.follower import Follower
from vxagent.store.kv import Delete, Put, Range, Txn, prefix

BLUE = ClusterSegment(name="blue", tenant="acme", vlan=10, vni=5010, mtu=1450)
RED = ClusterSegment(name="red", tenant="acme", vni=5020, mtu=1450)
MAC, IP = "02:00:00:00:00:07", "10.0.0.7"

T = TypeVar("T")


async def claim_all(hosts: list[Cluster], *segments: ClusterSegment) -> None:
    """All of them have these segments, or (none given) blue."""
    for host in hosts:
        for segment in segments or (BLUE,):
            await host.claim_segment(segment)


async def dump(engine: Engine) -> dict[str, bytes]:
    """Every key of the cluster, without its root."""
    async with kv_of(engine) as kv:
        root = f"/vxagent/v1/{engine.name}/"
        return {kv.key.removeprefix(root): kv.value for kv in (await kv.range(prefix(root))).found}


async def write(engine: Engine, key: str, value: bytes | None) -> None:
    """As somebody else's tool would."""
    async with kv_of(engine) as kv:
        whole = f"/vxagent/v1/{engine.name}/{key}"
        await kv.txn(Txn(success=(Delete(Range(whole)) if value is None else Put(whole, value),)))


async def changes(follower: Follower, number: int) -> list[Change]:
    """The next so many; not one more comes with them."""
    told: list[Change] = []
    async with asyncio.timeout(10):
        while len(told) < number:
            told += await anext(follower)
    assert len(told) == number, told
    return told


async def quiet(follower: Follower) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(follower), 0.2)


def of(snapshot: Snapshot, kind: type[T]) -> list[T]:
    return [record for record in snapshot.records if isinstance(record, kind)]
