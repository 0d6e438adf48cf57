"""Hosts that share the fake engine: all that holds for every engine, and what etcd cannot be made to do on demand."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.cluster import BLUE, MAC, RED, claim_all, dump
from support.cluster_contract import ClusterContract
from support.engines import Engine, FakeShared, hosts_of
from support.fakes import kv, migrating
from support.storm import Log, check, history, storm
from vxagent.errors import (
    ClusterAmbiguous,
    ClusterAway,
    Conflict,
    SessionLost,
)
from vxagent.model.binding import Binding
from vxagent.store.cluster import Cluster
from vxagent.store.fake_kv import Lost
from vxagent.store.kv import Put, Txn
from vxagent.store.schema import Keys, port_value
from vxagent.store.under_session import ASKED

losses = st.lists(st.sampled_from([None, Lost.BEFORE, Lost.AFTER, Lost.LATE]), max_size=12)


@pytest.fixture
def engine() -> Engine:
    return FakeShared()


class TestClusterOnFake(ClusterContract):
    """All of it."""


Step = Callable[[Cluster, Cluster], Awaitable[object]]
STEPS: dict[str, Step] = {
    "bind": lambda a, b: a.bind("vm8", segments=["blue"], macs=["02:00:00:00:00:08"]),
    "change": lambda a, b: a.bind("vm7", segments=["blue"], macs=["02:00:00:00:00:09"]),
    "prepare": lambda a, b: b.prepare("vm7"),
    "switchover": lambda a, b: a.switchover("vm7"),
    "activate": lambda a, b: b.activate("vm7"),
    "cancel": lambda a, b: a.cancel("vm7"),
    "unbind": lambda a, b: a.unbind("vm8"),
    "claim": lambda a, b: b.claim_segment(RED),
    "leave": lambda a, b: b.leave_segment("red"),
    "claim bridge": lambda a, b: a.claim_bridge("blue"),
    "release bridge": lambda a, b: a.release_bridge("blue"),
}
FIRST = {
    "switchover": ["prepare"],
    "activate": ["prepare"],
    "cancel": ["prepare"],
    "unbind": ["bind"],
    "leave": ["claim"],
    "release bridge": ["claim bridge"],
}


async def outcome(step: str, lost: list[Lost]) -> tuple[object, dict[str, bytes], int]:
    """What a step says and leaves, and how many revisions it takes, when so many of its answers do not come."""
    async with migrating() as (engine, a, b):
        for before in FIRST.get(step, []):
            await STEPS[before](a, b)
        for host in (a, b):
            kv(host).losing = deque(lost)
        revision = engine.engine.revision
        said = await STEPS[step](a, b)
        keys = {k: v for k, v in (await dump(engine)).items() if k != "schema" and not k.startswith("port/")}
        return said, keys, engine.engine.revision - revision


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("lost", [[Lost.AFTER], [Lost.LATE], [Lost.BEFORE], [Lost.BEFORE, Lost.AFTER]])
async def test_a_change_whose_answer_does_not_come_is_done_once(step: str, lost: list[Lost]) -> None:
    plain, lossy = await outcome(step, []), await outcome(step, lost)
    assert lossy[1:] == plain[1:]
    if not isinstance(plain[0], Binding):
        assert lossy[0] == plain[0]


async def test_what_is_not_known_after_several_tries_is_said_to_be_so() -> None:
    async with migrating() as (_, a, b):
        kv(b).losing = deque([Lost.AFTER, *[Lost.BEFORE] * (ASKED - 1)])
        with pytest.raises(ClusterAmbiguous):
            await b.prepare("vm7", op="mine")
        assert not kv(b).losing
        again = await b.prepare("vm7", op="mine")
        assert (again.op, again.next) == ("mine", "hv2")
        assert again == await a.binding("vm7")


async def test_what_the_engine_does_not_remember_is_not_known() -> None:
    """Its answer is lost, another host changes the port, and history is forgotten before it is looked at."""
    async with migrating() as (engine, _, b):
        keys = Keys(engine.name)
        bound = await b.binding("vm7")
        assert bound is not None
        cancelled = replace(bound, op="another")

        async def later() -> None:
            engine.engine.do(Txn(success=(Put(keys.port("vm7"), port_value(cancelled)),)))
            engine.compact()

        kv(b).losing = deque([Lost.AFTER])
        kv(b).then = later
        with pytest.raises(ClusterAmbiguous, match="it is not known any more") as raised:
            await b.prepare("vm7")
        assert raised.value.op.endswith(f"@{bound.revision}")


async def test_who_asks_again_with_the_name_of_a_lost_request_is_told_what_became_of_it() -> None:
    async with migrating() as (_, a, b):
        kv(b).losing = deque([Lost.AFTER, *[Lost.BEFORE] * (ASKED - 1)])
        with pytest.raises(ClusterAmbiguous) as raised:
            await b.prepare("vm7")
        await a.cancel("vm7")
        again = await b.prepare("vm7", op=raised.value.op)  # it was done, and is over
        assert (again.op, again.next) == (raised.value.op, "hv2")
        found = await a.binding("vm7")
        assert found is not None
        assert found.next is None
        assert (await b.prepare("vm7")).next == "hv2"


async def test_an_engine_that_goes_away_after_a_lost_answer_leaves_it_unknown() -> None:
    async with migrating() as (_, _, b):
        kv(b).losing = deque([Lost.AFTER])

        async def go() -> None:
            kv(b).away = True

        kv(b).then = go
        with pytest.raises(ClusterAmbiguous):
            await b.prepare("vm7")


@pytest.mark.parametrize("step", STEPS)
async def test_an_engine_that_is_away_changes_nothing(step: str) -> None:
    async with migrating() as (engine, a, b):
        for before in FIRST.get(step, []):
            await STEPS[before](a, b)
        before_it = await dump(engine)
        for host in (a, b):
            kv(host).away = True
        with pytest.raises(ClusterAway):
            await STEPS[step](a, b)
        assert await dump(engine) == before_it


async def test_a_session_that_ends_during_a_lost_answer_is_lost_only_if_nothing_was_done() -> None:
    for lost, done in ((Lost.AFTER, True), (Lost.BEFORE, False)):
        async with migrating() as (_, a, b):
            assert b.session is not None
            lease = b.session.lease
            kv(b).losing = deque([lost])
            kv(b).then = partial(kv(a).revoke, lease)
            if done:
                assert (await b.prepare("vm7")).next == "hv2"
            else:
                with pytest.raises(SessionLost):
                    await b.prepare("vm7")
            found = await a.binding("vm7")
            assert found is not None
            assert (found.next == "hv2") is done


@pytest.mark.parametrize("lost", [Lost.BEFORE, Lost.AFTER, Lost.LATE])
async def test_a_session_begins_once_although_the_answer_does_not_come(lost: Lost) -> None:
    engine = FakeShared()
    client = engine.engine.client()
    client.losing = deque([lost])
    cluster = Cluster(client, engine.name, "hv1")
    session = await cluster.open(vtep="192.0.2.1", boot="b")
    await session.keepalive()
    await cluster.claim_segment(BLUE)
    assert len(engine.engine.leases) == 1


async def test_a_session_that_cannot_begin_leaves_no_lease() -> None:
    engine = FakeShared()
    client = engine.engine.client()
    client.losing = deque([Lost.BEFORE] * ASKED)
    with pytest.raises(ClusterAmbiguous):
        await Cluster(client, engine.name, "hv1").open(vtep=None, boot="b")
    assert not engine.engine.leases


async def test_who_keeps_a_session_goes_on_while_the_engine_is_away_and_ends_when_it_is_lost() -> None:
    async with migrating() as (engine, a, _):
        assert a.session is not None
        kv(a).away = True
        calls = kv(a).calls
        holding = asyncio.ensure_future(a.session.hold(0, 0))
        while kv(a).calls < calls + 5:
            await asyncio.sleep(0)
        kv(a).away = False
        while kv(a).calls < calls + 10:
            await asyncio.sleep(0)
        assert not holding.done()
        engine.engine.end_lease(a.session.lease)
        with pytest.raises(SessionLost):
            await holding


# Who is faster


async def test_a_host_that_claims_while_the_last_one_leaves_keeps_the_segment() -> None:
    engine = FakeShared()
    async with hosts_of(engine, "hv1", "hv2") as (a, b):
        await a.claim_segment(BLUE)
        kv(a).before = partial(b.claim_segment, BLUE)
        assert await a.leave_segment("blue") is False
        assert {"segment/blue", "has/blue/hv2"} <= set(await dump(engine))


async def test_a_host_that_claims_what_the_last_one_leaves_makes_it_anew() -> None:
    engine = FakeShared()
    async with hosts_of(engine, "hv1", "hv2") as (a, b):
        await a.claim_segment(BLUE)
        kv(b).before = partial(a.leave_segment, "blue")
        await b.claim_segment(BLUE)
        assert {"segment/blue", "vni/5010", "vlan/10", "has/blue/hv2"} <= set(await dump(engine))


async def test_two_hosts_that_leave_at_once_leave_nothing() -> None:
    engine = FakeShared()
    async with hosts_of(engine, "hv1", "hv2") as (a, b):
        empty = await dump(engine)
        await claim_all([a, b])
        kv(a).before = partial(b.leave_segment, "blue")
        assert await a.leave_segment("blue") is True
        assert await dump(engine) == empty


async def test_who_changes_a_segment_while_another_claims_it_is_refused() -> None:
    engine = FakeShared()
    async with hosts_of(engine, "hv1", "hv2") as (a, b):
        await a.claim_segment(BLUE)
        kv(a).before = partial(b.claim_segment, BLUE)
        with pytest.raises(Conflict, match="on hv2, not mtu 9000"):
            await a.claim_segment(replace(BLUE, mtu=9000))
        kv(a).before = partial(b.claim_bridge, "blue")
        assert await a.claim_bridge("blue") == "hv2"


async def test_a_host_that_comes_back_while_it_is_evacuated_keeps_its_port() -> None:
    async with migrating() as (_, a, b):
        assert a.session is not None
        await a.session.close()
        kv(b).before = partial(a.open, vtep="192.0.2.1", boot="boot of hv1")
        with pytest.raises(Conflict, match="host hv1 is alive"):
            await b.evacuate("vm7")


async def test_a_host_that_comes_back_while_it_is_forgotten_is_not() -> None:
    for has_segment in (True, False):  # it is left one segment after the other, the host itself at last
        engine = FakeShared()
        async with hosts_of(engine, "hv1", "hv2") as (a, b):
            if has_segment:
                await a.claim_segment(BLUE)
            assert a.session is not None
            await a.session.close()
            before = await dump(engine)
            kv(b).before = partial(a.open, vtep="192.0.2.1", boot="boot of hv1")
            with pytest.raises(Conflict, match=r"host hv1 is (alive|back)"):
                await b.forget("hv1")
            assert {key: value for key, value in (await dump(engine)).items() if key != "live/hv1"} == before


async def test_a_host_that_comes_back_while_its_ports_are_dropped_keeps_them() -> None:
    async with migrating() as (engine, a, b):
        assert a.session is not None
        await a.session.close()
        before = await dump(engine)
        kv(b).before = partial(a.open, vtep="192.0.2.1", boot="boot of hv1")
        with pytest.raises(Conflict, match="host hv1 is alive"):
            await b.forget("hv1", ["vm7"])
        assert {key: value for key, value in (await dump(engine)).items() if key != "live/hv1"} == before


@pytest.mark.parametrize("lost", [[Lost.AFTER], [Lost.LATE], [Lost.BEFORE]])
async def test_a_host_is_forgotten_although_answers_do_not_come(lost: list[Lost]) -> None:
    async with migrating() as (engine, a, b):
        assert a.session is not None
        await a.session.close()
        for answer in lost * 3:  # of the port, the segment and the host itself
            kv(b).losing.append(answer)
            kv(b).losing.append(None)
        await b.forget("hv1", ["vm7"])
        assert not [key for key, value in (await dump(engine)).items() if "hv1" in key or b"hv1" in value]


@given(st.integers(0, 1 << 32))
def test_hosts_that_come_and_go_in_any_order_leave_no_half(seed: int) -> None:
    chance = random.Random(seed)

    async def churn(host: Cluster, engine: FakeShared) -> None:
        for _ in range(chance.randrange(1, 5)):
            await host.claim_segment(BLUE)
            keys = set(engine.engine.keys)
            there = {f"has/blue/{host._host}", "segment/blue", "vni/5010", "vlan/10"}
            assert {f"/vxagent/v1/test/{key}" for key in there} <= keys
            if chance.random() < 0.5:
                await host.claim_bridge("blue")
            await host.leave_segment("blue")

    async def work() -> None:
        engine = FakeShared()
        async with hosts_of(engine, "hv1", "hv2", "hv3") as hosts:
            empty = await dump(engine)
            for host in hosts:
                kv(host).turns = lambda: chance.randrange(1, 4)
            await asyncio.gather(*(churn(host, engine) for host in hosts))
            assert await dump(engine) == empty

    asyncio.run(work())


# Storms


@given(seed=st.integers(0, 1 << 32), first=losses, second=losses)
def test_a_storm_of_migrations_keeps_one_owner_whatever_answers_are_lost(
    seed: int, first: list[Lost | None], second: list[Lost | None]
) -> None:
    async def rage() -> None:
        engine = FakeShared()
        async with hosts_of(engine, "hv1", "hv2", "hv3") as hosts:
            await claim_all(hosts)
            bound = await hosts[0].bind("vm7", segments=["blue"], macs=[MAC])
            chance = random.Random(seed)
            for host, lost in zip(hosts, (first, second, []), strict=True):
                kv(host).losing = deque(lost)
                kv(host).turns = lambda: chance.randrange(1, 4)
            log = Log()
            await storm(hosts, "vm7", 12, seed, log)
            last = await hosts[0].binding("vm7")
            assert last is not None
            told = await history(kv(hosts[0]), engine.name, "vm7", 1, last.revision)
            assert told[0] == bound
            check(told, log)

    asyncio.run(rage())
