"""Followers while the engine is away, forgets, or is another one; tests/support/followers_contract.py has the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from support.cluster import BLUE, MAC, write
from support.engines import FakeShared
from support.fakes import kv, migrating
from vxagent.errors import ClusterAway, ClusterRefused, ClusterReset, SessionLost
from vxagent.model.binding import Projection
from vxagent.model.cluster import Change
from vxagent.store.read_ahead import AHEAD


async def all_of(*batches: Awaitable[tuple[Change, ...]]) -> list[Change]:
    return [change for batch in batches for change in await batch]


async def test_a_follower_goes_on_where_it_was_when_the_engine_was_away() -> None:
    async with migrating() as (_, a, b):
        follower = b.follow(["blue"])
        await anext(follower)
        kv(b).away = True
        await a.bind("vm8", segments=["blue"])
        for _ in range(2):
            with pytest.raises(ClusterAway):
                await anext(follower)
            assert not follower.synced
        kv(b).away = False
        assert await anext(follower) == ()  # it is back
        (came,) = await anext(follower)
        assert isinstance(came.now, Projection)
        assert came.now.port == "vm8"


async def test_a_follower_tells_the_difference_when_history_was_forgotten_meanwhile() -> None:
    async with migrating() as (engine, a, b):
        await a.bind("vm8", segments=["blue"])
        follower = b.follow(["blue"])
        await anext(follower)
        kv(b).away = True
        with pytest.raises(ClusterAway):
            await anext(follower)
        await a.unbind("vm8")
        await a.bind("vm9", segments=["blue"])
        await b_like(engine, "vm7")
        engine.compact()
        kv(b).away = False
        told = await all_of(anext(follower), anext(follower))
        named = [(getattr(change.before, "port", None), getattr(change.now, "port", None)) for change in told]
        assert named == [("vm8", None), (None, "vm9")]
        assert set(follower.snapshot.records) == set((await a.snapshot(["blue"])).records)


async def b_like(engine: FakeShared, port: str) -> None:
    """Something else than what is followed changes, so that history is longer than what was told."""
    await write(engine, f"other/{port}", b"")


async def test_an_engine_that_lost_everything_is_told_of_before_anything_is_taken_back() -> None:
    async with migrating() as (engine, a, b):
        follower = b.follow(["blue"])
        await anext(follower)
        known = follower.snapshot
        engine.engine.lose_everything()
        with pytest.raises(ClusterAway):
            await anext(follower)
        with pytest.raises(ClusterReset, match="cluster test has lost data, or was restored"):
            await anext(follower)
        assert follower.snapshot.records == known.records
        assert a.session is not None
        with pytest.raises(SessionLost):
            await a.session.keepalive()
        for number, host in enumerate((a, b), 1):  # as every agent does
            await host.open(vtep=f"192.0.2.{number}", boot="b")
            await host.claim_segment(BLUE)
        await a.bind("vm7", segments=["blue"], macs=[MAC])
        told = await anext(follower)
        assert all(change.before is not None and change.now is not None for change in told)
        assert set(follower.snapshot.records) == set((await a.snapshot(["blue"])).records)


async def test_a_cold_start_with_what_a_store_told_that_is_no_more() -> None:
    async with migrating() as (engine, _, b):
        known = await b.snapshot(["blue"])
        engine.engine.lose_everything()
        follower = b.follow(["blue"], known)
        with pytest.raises(ClusterReset):
            await anext(follower)
        assert {change.now for change in await anext(follower)} == {None}


async def test_a_follower_stops_where_the_schema_becomes_anothers() -> None:
    async with migrating() as (engine, _, b):
        follower = b.follow(["blue"])
        await anext(follower)
        await write(engine, "schema", b'{"version":2}')
        with pytest.raises(ClusterRefused, match="is of version 2"):
            await anext(follower)


async def test_who_is_slow_is_told_more_at_a_time() -> None:
    async with migrating() as (_, a, b):
        follower = b.follow(["blue"])
        await anext(follower)
        for number in range(AHEAD + 10):
            await a.bind(f"vm-{number}", segments=["blue"])
        told = await anext(follower)
        assert [getattr(change.now, "port", None) for change in told] == [f"vm-{number}" for number in range(AHEAD)]
        more = await all_of(anext(follower))
        assert len(more) in range(1, 11)
        await follower.close()


async def test_what_was_read_ahead_of_the_end_is_told_before_the_end() -> None:
    async with migrating() as (_, a, b):
        follower = b.follow(["blue"])
        await anext(follower)
        await a.bind("vm8", segments=["blue"])
        await asyncio.sleep(0)
        kv(b).away = True
        (came,) = await anext(follower)
        assert isinstance(came.now, Projection)
        with pytest.raises(ClusterAway):
            await anext(follower)


async def test_what_was_read_ahead_of_a_segment_that_is_read_anew_is_old() -> None:
    async with migrating() as (_, a, b):
        follower = b.follow(["blue"])
        await anext(follower)
        await a.bind("vm8", segments=["blue"])
        await a.unbind("vm8")
        await a.bind("vm9", segments=["blue"])
        await asyncio.sleep(0)  # all three wait to be taken
        follower.remove("blue")
        follower.add("blue")
        await all_of(anext(follower))
        await a.bind("vm10", segments=["blue"])
        told = await anext(follower)
        assert [(change.before, getattr(change.now, "port", None)) for change in told] == [(None, "vm10")]
        await follower.close()
