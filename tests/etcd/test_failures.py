"""What etcd does when members die, stand still or lose their disks, and what a host makes of it.

hv1 … hvN ── one client each, every one knows all members ──► etcd0 ◄─► etcd1 ◄─► etcd2
"""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from support.cluster import BLUE, MAC, changes, claim_all
from support.engines import EtcdShared, hosts_of, until
from support.etcd_nodes import Node, Nodes, etcd_nodes
from support.storm import Log, check, history, storm
from vxagent.errors import (
    ClusterAway,
    ClusterReset,
    Conflict,
    HostError,
    SessionLost,
)
from vxagent.model.binding import Binding, Projection
from vxagent.model.cluster import Change
from vxagent.store.cluster import Cluster
from vxagent.store.engine import Credentials, connect
from vxagent.store.follower import Follower
from vxagent.store.kv import Range

SOON_S = 6.0  # for what a person waits for


@pytest.fixture
def nodes(three_nodes: Nodes) -> Iterator[Nodes]:
    yield three_nodes
    three_nodes.heal()


@pytest.fixture
def engine(nodes: Nodes) -> EtcdShared:
    return EtcdShared(nodes)


async def kill(node: Node) -> None:
    await asyncio.to_thread(node.kill)


async def start(nodes: Nodes, *members: Node) -> None:
    for node in members:
        node.start()
    await asyncio.to_thread(nodes.wait)


@asynccontextmanager
async def at(engine: EtcdShared, host: str, *members: Node) -> AsyncIterator[Cluster]:
    """A host that asks these members first, in this order, with a session and the segment blue."""
    others = [node for node in engine.nodes.members if node not in members]
    kv = connect([node.url for node in (*members, *others)], engine.nodes.credentials)
    try:
        cluster = Cluster(kv, engine.name, host)
        await cluster.open(vtep=None, boot=f"boot of {host}", ttl_s=60)
        await cluster.claim_segment(BLUE)
        yield cluster
    finally:
        await kv.close()


async def follow_on(follower: Follower, number: int) -> tuple[list[Change], int]:
    """The next so many changes, however often the engine is away; and how often it was."""
    told: list[Change] = []
    away = 0
    async with asyncio.timeout(30):
        while len(told) < number:
            try:
                told += await anext(follower)
            except ClusterAway:
                away += 1
                await asyncio.sleep(0.05)
    return told, away


def ports(told: list[Change]) -> list[str]:
    return [change.now.port for change in told if isinstance(change.now, Projection)]


@pytest.mark.parametrize("which", ["leader", "follower"])
async def test_a_member_that_is_killed_costs_nobody_anything(engine: EtcdShared, nodes: Nodes, which: str) -> None:
    leader, followers = nodes.leader(), nodes.followers()
    victim = leader if which == "leader" else followers[0]
    async with at(engine, "hv1", victim) as a, at(engine, "hv2", victim) as b:
        follower = b.follow(["blue"])
        await anext(follower)
        await a.bind("vm0", segments=["blue"])
        await changes(follower, 1)
        await kill(victim)
        for number in range(1, 21):
            await a.bind(f"vm{number}", segments=["blue"])
        told, away = await follow_on(follower, 20)
        assert ports(told) == [f"vm{number}" for number in range(1, 21)]
        assert away >= 1  # it was told, and then went on
        assert a.session is not None
        await a.session.keepalive()
        await follower.close()


async def test_a_member_that_stands_still_is_passed_over(engine: EtcdShared, nodes: Nodes) -> None:
    """Its connections stay open. When it goes on, what was sent to it is too late."""
    leader = nodes.leader()
    async with at(engine, "hv1", leader) as a, at(engine, "hv2", *nodes.followers()) as b:
        follower = b.follow(["blue"])
        await anext(follower)
        leader.signal(signal.SIGSTOP)
        began = time.monotonic()
        bound = await a.bind("vm7", segments=["blue"], macs=[MAC])
        assert time.monotonic() - began < SOON_S
        await b.prepare("vm7")
        leader.signal(signal.SIGCONT)
        await asyncio.to_thread(nodes.wait)
        moved = await b.activate("vm7")
        told = await history(b._kv, engine.name, "vm7", bound.revision, moved.revision)
        assert [(binding.owner, binding.next, binding.epoch) for binding in told] == [
            ("hv1", None, 1),
            ("hv1", "hv2", 1),
            ("hv2", None, 2),
        ]
        assert told[0] == bound
        assert (await follow_on(follower, 3))[0]
        await follower.close()


async def test_a_watch_at_a_member_that_stands_still_ends(engine: EtcdShared, nodes: Nodes) -> None:
    still, *others = nodes.followers()
    async with at(engine, "hv1", *others) as a, at(engine, "hv2", still) as b:
        follower = b.follow(["blue"])
        await anext(follower)
        still.signal(signal.SIGSTOP)
        await a.bind("vm7", segments=["blue"])
        with pytest.raises(ClusterAway):
            async with asyncio.timeout(12):
                await anext(follower)
        assert ports((await follow_on(follower, 1))[0]) == ["vm7"]
        await follower.close()


async def test_a_watch_that_a_member_ended_leaves_nothing_behind(engine: EtcdShared, nodes: Nodes) -> None:
    victim = nodes.followers()[0]
    kv = connect([victim.url])
    before = asyncio.all_tasks()
    watch = await kv.watch(Range("/x"))
    assert asyncio.all_tasks() > before
    await kill(victim)
    with pytest.raises(ClusterAway):
        await watch.next()
    await watch.close()

    async def gone() -> bool:
        return asyncio.all_tasks() == before

    await until(gone)
    await kv.close()


async def test_without_quorum_everybody_is_told_within_seconds_and_nothing_is_lost(
    engine: EtcdShared, nodes: Nodes
) -> None:
    leader, others = nodes.leader(), nodes.followers()
    async with at(engine, "hv1", others[0]) as a, at(engine, "hv2", others[0]) as b:
        bound = await a.bind("vm7", segments=["blue"])
        follower = b.follow(["blue"])
        await anext(follower)
        waiting = asyncio.ensure_future(anext(follower))
        await kill(leader)
        await kill(others[1])
        with pytest.raises(ClusterAway):  # though its member runs, and its connection stands
            await asyncio.wait_for(waiting, SOON_S)
        assert a.session is not None
        began = time.monotonic()
        attempts = (b.binding("vm7"), b.prepare("vm7"), a.session.keepalive(), anext(follower))
        for said in await asyncio.gather(*attempts, return_exceptions=True):
            assert isinstance(said, ClusterAway)
            assert re.match(r"etcd is away \(.+\); see that a majority of its members runs: http://", str(said))
        assert time.monotonic() - began < SOON_S
        await start(nodes, leader, others[1])
        assert await anext(follower) == ()
        assert await a.binding("vm7") == bound
        await a.session.keepalive()
        await b.prepare("vm7")
        assert ports((await follow_on(follower, 1))[0]) == ["vm7"]
        await follower.close()


async def test_nobody_is_there(engine: EtcdShared, nodes: Nodes) -> None:
    async with at(engine, "hv1") as a:
        for node in nodes.members:
            await kill(node)
        began = time.monotonic()
        with pytest.raises(ClusterAway, match="onnect"):
            await a.prepare("vm7")
        assert time.monotonic() - began < SOON_S


async def test_history_that_is_forgotten_under_a_watcher_who_does_not_ask(engine: EtcdShared, nodes: Nodes) -> None:
    watched = nodes.followers()[0]
    async with at(engine, "hv1", nodes.leader()) as a, at(engine, "hv2", watched) as b:
        follower = b.follow(["blue"])
        await anext(follower)
        for port in ("vm1", "vm2", "vm3"):
            await a.bind(port, segments=["blue"])
        await changes(follower, 3)
        await kill(watched)
        await a.unbind("vm1")
        await a.bind("vm2", segments=["blue"], macs=[MAC])
        await a.bind("vm4", segments=["blue"])
        await a.claim_bridge("blue")  # after what is followed last, so that all of it is forgotten
        nodes.compact()
        told, away = await follow_on(follower, 4)
        named = {(type(change.before).__name__, getattr(change.now, "port", None)) for change in told}
        assert away == 1
        assert named == {("Projection", None), ("Projection", "vm2"), ("NoneType", "vm4"), ("NoneType", None)}
        assert set(follower.snapshot.records) == set((await a.snapshot(["blue"])).records)
        await follower.close()


async def test_a_watcher_who_does_not_ask_holds_up_nobody_and_catches_up(engine: EtcdShared, nodes: Nodes) -> None:
    async with at(engine, "hv1") as a, at(engine, "hv2") as b:
        follower = b.follow(["blue"])
        await anext(follower)
        for number in range(300):
            await a.bind("vm7", segments=["blue"], macs=[f"02:00:00:00:01:{number % 256:02x}"])
            if number % 100 == 50:
                nodes.compact()
        last = await a.bind("vm7", segments=["blue"])
        told: list[Change] = []
        async with asyncio.timeout(20):
            while not (told and isinstance(told[-1].now, Projection) and told[-1].now.revision == last.revision):
                told += await anext(follower)
        await follower.close()


async def test_a_member_whose_disk_is_new_joins_again(engine: EtcdShared, nodes: Nodes) -> None:
    victim = nodes.followers()[0]
    async with at(engine, "hv1", victim) as a, at(engine, "hv2") as b:
        follower = a.follow(["blue"])
        await anext(follower)
        await kill(victim)
        victim.lose_data()
        await b.bind("vm1", segments=["blue"])
        nodes.replace(victim)
        await b.bind("vm2", segments=["blue"])
        told, _ = await follow_on(follower, 2)
        assert ports(told) == ["vm1", "vm2"]
        kv = connect([victim.url])
        assert (await kv.range(Range(a._keys.port("vm1")))).found  # it has all of it
        await kv.close()
        await follower.close()


async def test_an_etcd_whose_only_disk_is_new_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    with etcd_nodes(tmp_path) as nodes:
        (node,) = nodes.members
        engine = EtcdShared(nodes)
        async with at(engine, "hv1") as a:
            await a.bind("vm7", segments=["blue"])
            follower = a.follow(["blue"])
            await anext(follower)
            before = follower.snapshot.records
            await kill(node)
            node.lose_data()
            await start(nodes, node)
            with pytest.raises(ClusterAway):
                await anext(follower)
            with pytest.raises(ClusterReset):
                await anext(follower)
            assert follower.snapshot.records == before
            assert a.session is not None
            with pytest.raises(SessionLost):
                await a.session.keepalive()
            await a.open(vtep=None, boot="boot of hv1")
            await a.claim_segment(BLUE)
            await a.bind("vm7", segments=["blue"])
            for change in await anext(follower):
                assert change.now is not None
            await follower.close()


# Races while members die


async def test_a_storm_of_migrations_keeps_one_owner_while_leaders_are_killed(fresh_nodes: Nodes) -> None:
    nodes, engine = fresh_nodes, EtcdShared(fresh_nodes)
    names = [f"hv{number}" for number in range(6)]
    async with hosts_of(engine, *names) as hosts:
        await claim_all(hosts)
        bound = await hosts[0].bind("vm7", segments=["blue"], macs=[MAC])
        log = Log()
        rounds = 0

        async def rage(number: int) -> None:
            nonlocal rounds
            for _ in range(number):
                await storm(hosts, "vm7", 10, rounds, log)
                rounds += 1

        await rage(5)
        for _ in range(2):
            leader = await asyncio.to_thread(nodes.leader)
            raging = asyncio.ensure_future(rage(5))
            await kill(leader)
            await raging
            await start(nodes, leader)
        last = await hosts[0].binding("vm7")
        assert last is not None
        told = await history(hosts[0]._kv, engine.name, "vm7", 1, last.revision)
        assert told[0] == bound
        done = check(told, log)
        assert done["activate"] > 5


async def test_of_eight_hosts_that_bind_while_the_leader_is_killed_one_does(engine: EtcdShared, nodes: Nodes) -> None:
    names = [f"hv{number}" for number in range(8)]
    async with hosts_of(engine, *names) as hosts:
        await claim_all(hosts)
        racing = [host.bind("vm7", segments=["blue"], macs=[MAC]) for host in hosts]
        said, _ = await asyncio.gather(asyncio.gather(*racing, return_exceptions=True), kill(nodes.leader()))
        found = await hosts[0].binding("vm7")
        assert found is not None
        won = [answer for answer in said if isinstance(answer, Binding)]
        assert won == [found]
        assert all(isinstance(answer, Conflict) for answer in said if not isinstance(answer, Binding)), said


# Who may come in


async def test_tls_is_held_against_our_own_authority(one_node: Nodes, tmp_path: Path) -> None:
    async def ask(credentials: Credentials) -> list[str]:
        kv = connect(one_node.endpoints, credentials, patience_s=0.5)
        said = []
        for asked in (kv.range, kv.watch):
            with pytest.raises(ClusterAway) as raised:
                await asked(Range("/x"))
            said.append(str(raised.value))
        await kv.close()
        return said

    trusted, taken = "its certificate is by nobody whom this host trusts", "it does not take this host's certificate"
    for said, why in (
        (await ask(Credentials()), trusted),
        (await ask(Credentials(ca=one_node.credentials.ca)), taken),
    ):
        for line in said:
            assert re.match(rf"etcd is away \({why}.+\); see that .+ https://.+, and ca, cert and key of", line)
    with pytest.raises(HostError, match=r"no.pem cannot be read: No such file or directory; see ca, cert and key"):
        connect(one_node.endpoints, Credentials(ca=tmp_path / "no.pem"))
