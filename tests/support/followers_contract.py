"""What those are told who follow the cluster."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from support.cluster import BLUE, MAC, RED, changes, claim_all, dump, of, quiet, write
from support.engines import Engine, hosts_of
from vxagent.model.binding import Projection
from vxagent.model.cluster import Bridge, Change, ClusterHost, ClusterSegment, Live, Presence


class FollowersContract:
    """Every class that has a fixture `engine` and inherits this runs it."""

    async def test_a_snapshot_is_of_what_was_asked_for(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1", "hv2") as (a, b):
            await claim_all([a], BLUE, RED)
            await a.claim_bridge("blue")
            await a.bind("vm7", segments=["blue"], macs=[MAC])
            bound = await a.bind("vm8", segments=["red"])
            assert a.session is not None
            assert b.session is not None
            snapshot = await b.snapshot(["blue"])
            assert snapshot.revision == bound.revision
            assert set(of(snapshot, ClusterHost)) == {
                ClusterHost(host="hv1", vtep="192.0.2.1"),
                ClusterHost(host="hv2", vtep="192.0.2.2"),
            }
            assert {(live.host, live.session) for live in of(snapshot, Live)} == {
                ("hv1", a.session.revision),
                ("hv2", b.session.revision),
            }
            assert of(snapshot, ClusterSegment) == [BLUE]
            assert of(snapshot, Presence) == [Presence(segment="blue", host="hv1")]
            assert of(snapshot, Bridge) == [Bridge(segment="blue", host="hv1")]
            assert [told.port for told in of(snapshot, Projection)] == ["vm7"]

    async def test_a_follower_tells_what_there_is_and_then_what_changes(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1") as (a,):
            await a.claim_segment(BLUE)
            follower = a.follow(["blue"])
            before = follower.synced
            first = await anext(follower)
            assert (before, follower.synced) == (False, True)
            assert {type(change.now) for change in first} == {ClusterHost, Live, ClusterSegment, Presence}
            await a.claim_segment(RED)  # is not followed
            await a.bind("vm7", segments=["blue"])
            (came,) = await changes(follower, 1)
            assert isinstance(came.now, Projection)
            await a.unbind("vm7")
            assert await changes(follower, 1) == [Change(before=came.now, now=None)]
            await follower.close()

    async def test_segments_come_and_go_while_somebody_waits(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1") as (a,):
            await claim_all([a], BLUE, RED)
            follower = a.follow(["blue"])
            await anext(follower)
            waiting = asyncio.ensure_future(anext(follower))
            await asyncio.sleep(0.05)
            follower.add("red")
            follower.add("red")
            assert {change.now for change in await waiting} == {RED, Presence(segment="red", host="hv1")}
            await a.bind("vm7", segments=["red"])
            (came,) = await changes(follower, 1)
            waiting = asyncio.ensure_future(anext(follower))
            await asyncio.sleep(0.05)
            follower.remove("red")
            assert {change.before for change in await waiting} == {
                RED,
                Presence(segment="red", host="hv1"),
                came.now,
            }
            await a.unbind("vm7")
            await quiet(follower)
            follower.add("red")
            assert {change.now for change in await anext(follower)} == {RED, Presence(segment="red", host="hv1")}
            await follower.close()

    async def test_who_stops_waiting_loses_nothing(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1") as (a,):
            await a.claim_segment(BLUE)
            follower = a.follow(["blue"])
            await anext(follower)
            for number in range(5):
                await quiet(follower)
                await a.bind(f"vm{number}", segments=["blue"])
                (came,) = await changes(follower, 1)
                assert isinstance(came.now, Projection)
                assert came.now.port == f"vm{number}"
            await follower.close()

    async def test_a_follower_that_knows_something_tells_the_difference(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1") as (a,):
            await a.claim_segment(BLUE)
            for port in ("vm1", "vm2", "vm3"):
                await a.bind(port, segments=["blue"])
            known = await a.snapshot(["blue"])
            await a.unbind("vm1")
            await a.bind("vm2", segments=["blue"], macs=[MAC])
            await a.bind("vm4", segments=["blue"])
            engine.compact()  # what happened meanwhile cannot be read any more
            follower = a.follow(["blue"], known)
            told = await anext(follower)
            named = [(getattr(change.before, "port", None), getattr(change.now, "port", None)) for change in told]
            assert sorted(named, key=str) == [("vm1", None), ("vm2", "vm2"), (None, "vm4")]
            assert set(follower.snapshot.records) == set((await a.snapshot(["blue"])).records)
            await follower.close()

    async def test_what_cannot_be_read_is_reported_and_left_alone(self, engine: Engine) -> None:
        foreign = {
            "fdb/blue/vm1": b"not json",
            "fdb/blue/vm2": b'{"o":"hv1","p":"flying","e":1}',
            "fdb/blue/vm3": b'{"o":"hv1","p":"prepared","e":1}',
            "fdb/blue/a/b": b"{}",
            "live/hv9": b'{"vtep":"nowhere"}',
            "has/blue/no host": b"{}",
        }
        for key, value in foreign.items():
            await write(engine, key, value)
        async with hosts_of(engine, "hv1") as (a,):
            await a.claim_segment(replace(BLUE, vni=None))
            await a.bind("vm7", segments=["blue"])
            follower = a.follow(["blue"])
            told = await anext(follower)
            assert [change.now.port for change in told if isinstance(change.now, Projection)] == ["vm7"]
            root = f"/vxagent/v1/{engine.name}/"
            problems = {problem.key.removeprefix(root): problem.why for problem in follower.snapshot.problems}
            assert set(problems) == set(foreign)
            assert "does not go with phase" in problems["fdb/blue/vm3"]
            assert "is no key of this version's" in problems["fdb/blue/a/b"]
            await write(engine, "fdb/blue/vm7", b"[]")  # spoilt, then mended, then removed
            (gone,) = await changes(follower, 1)
            assert (gone.now, len(follower.snapshot.problems)) == (None, len(foreign) + 1)
            await write(engine, "fdb/blue/vm7", b'{"o":"hv1","p":"bound","e":1,"later":true}')
            (back,) = await changes(follower, 1)
            assert isinstance(back.now, Projection)
            await write(engine, "fdb/blue/vm1", None)
            await a.unbind("vm7")
            await changes(follower, 1)
            assert {problem.key.removeprefix(root) for problem in follower.snapshot.problems} == set(foreign) - {
                "fdb/blue/vm1"
            }
            keys = await dump(engine)
            assert {key: keys[key] for key in foreign if key in keys} == {
                key: value for key, value in foreign.items() if key != "fdb/blue/vm1"
            }
            await follower.close()
