"""Hosts that are dead or silent: they are listed as such, forgotten, and register anew when they come back.

hv1/tap0: vm7      hv1/mgmt0: hv1 itself      hv2 looks on, and has the segment red, too
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from support.members import BLUE, MAC7, MAC8, MAC9, RED, Hosts, Member, hosts_with, until
from vxagent.errors import ClusterAway, Conflict, NotFound
from vxagent.model.port import Mode, PortState, Uplink
from vxagent.protocol.answers import HostView
from vxagent.runtime.cluster_api import forget_host, list_hosts
from vxagent.runtime.cluster_doctor import ClusterFacts, gather_cluster
from vxagent.runtime.membership import Connection

KINDS = ("host", "vtep", "live", "segment", "vni", "vlan", "has", "bridge", "port", "fdb", "mac", "ip", "carry")


@asynccontextmanager
async def two() -> AsyncIterator[Hosts]:
    """The hosts above."""
    async with hosts_with(2, BLUE) as hosts:
        a, b = hosts.all
        await a.attach("vm7", macs=(MAC7,))
        await a.attach("mgmt0", "mgmt0", mode=Mode.INTERNAL, macs=(MAC8,), ips=("10.0.0.8",))
        await b.add(RED)
        await hosts.know("vm7", "mgmt0")
        yield hosts


async def forget(by: Member, host: str = "hv1") -> list[str]:
    """`host forget`, and the ports that end with it."""
    return (await forget_host(by.running, host=host)).ports


async def listed(by: Member) -> list[HostView]:
    """`host list`."""
    return [view for batch in (await list_hosts(by.running)).read() for view in batch]


def everything(hosts: Hosts) -> dict[str, set[str]]:
    """All keys of the cluster, by kind."""
    return {kind: hosts.keys(kind) for kind in KINDS}


# Forgetting


async def test_a_dead_host_is_forgotten_with_what_is_its_own() -> None:
    async with two() as hosts:
        a, b = hosts.all
        await a.detach("vm7")
        await a.add(RED)
        await a.change(lambda draft: draft.add_uplink(Uplink(ifname="eth2")))
        await until(lambda: hosts.key("bridge/red") == b'{"host":"hv1"}')
        await until(lambda: b.fdb(MAC8))
        b.here.add(a.vtep)  # or hv2 would take the bridge
        await a.stop()
        hosts.lose_session(a)
        await until(lambda: "hv1" not in b.membership.live)
        assert await forget(b) == ["mgmt0"]
        assert not [
            key for key, kv in hosts.engine.keys.items() if "hv1" in key or b"hv1" in kv.value or "mgmt0" in key
        ]
        await until(lambda: "hv1" not in b.state.remote.peers and b.fdb(MAC8) is None)
        assert [view.host for view in await listed(b)] == ["hv2"]
        await b.attach("vm8", macs=(MAC8,), ips=("10.0.0.8",))


async def test_a_host_with_ports_that_others_can_take_is_not_forgotten() -> None:
    async with two() as hosts:
        a, b = hosts.all
        await a.stop()
        hosts.lose_session(a)
        keys = dict(hosts.engine.keys)
        with pytest.raises(Conflict, match=r"1 ports are bound on host hv1, vm7 .*; `vxagent host evacuate hv1` first"):
            await forget(b)
        assert hosts.engine.keys == keys


@pytest.mark.parametrize(
    ("host", "error", "message"),
    [
        ("hv1", Conflict, "host hv1 is alive; stop its agent first"),
        ("hv2", Conflict, "host hv2 is alive; stop its agent first"),
        ("hv9", NotFound, "no host hv9; see `vxagent host list`"),
    ],
    ids=["alive", "itself", "unknown"],
)
async def test_who_lives_or_was_never_there_is_not_forgotten(host: str, error: type[Exception], message: str) -> None:
    async with two() as hosts:
        keys = dict(hosts.engine.keys)
        with pytest.raises(error, match=message):
            await forget(hosts.all[1], host)
        assert hosts.engine.keys == keys


async def test_a_host_that_comes_back_while_it_is_forgotten_keeps_all_that_it_has() -> None:
    async with two() as hosts:
        a, b = hosts.all
        await a.detach("vm7")
        before = everything(hosts)
        await a.stop()
        hosts.lose_session(a)

        async def come_back() -> None:
            await a.start()
            await a.connected()

        b.kv.before = come_back
        with pytest.raises(Conflict, match="host hv1 is alive"):
            await forget(b)
        assert everything(hosts) == before


async def test_nothing_is_forgotten_while_the_engine_is_away() -> None:
    async with two() as hosts:
        a, b = hosts.all
        await a.stop()
        b.away = True
        await until(lambda: b.membership.connection is Connection.DISCONNECTED)
        with pytest.raises(ClusterAway, match="the cluster does not answer"):
            await forget(b)


@pytest.mark.parametrize("restarts", [True, False], ids=["started anew", "cut off meanwhile"])
async def test_a_host_that_comes_back_after_it_was_forgotten_registers_anew(restarts: bool) -> None:
    async with two() as hosts:
        a, b = hosts.all
        await a.detach("vm7")
        await b.attach("vm9", macs=(MAC9,))
        await until(lambda: a.fdb(MAC9))
        before = everything(hosts)
        if restarts:
            await a.stop()
        else:
            a.away = True
        hosts.lose_session(a)
        await until(lambda: "hv1" not in b.membership.live)
        assert await forget(b) == ["mgmt0"]
        await until(lambda: "hv1" not in b.state.remote.peers)
        if restarts:
            await a.start()
        else:
            a.away = False
            await until(lambda: hosts.key("live/hv1"))
        await a.connected()
        await until(lambda: everything(hosts) == before)
        await until(lambda: b.fdb(MAC8) == "vtep/192.0.2.1")
        assert a.port_state("mgmt0") in (PortState.UP, PortState.PENDING)
        await until(lambda: b.state.remote.peers["hv1"].segments == {"blue"})


# Silence


async def test_a_host_that_is_silent_is_listed_as_such_and_the_doctor_names_it() -> None:
    async with two() as hosts:
        a, b = hosts.all
        assert [(view.host, view.live, view.silent) for view in await listed(b)] == [
            ("hv1", True, False),
            ("hv2", True, False),
        ]
        assert gather_cluster(b.membership, b.state) == ClusterFacts()
        await a.stop()
        hosts.lose_session(a)
        await until(lambda: b.state.remote.peers["hv1"].silent)
        assert [(view.host, view.live, view.silent) for view in await listed(b)] == [
            ("hv1", False, True),
            ("hv2", True, False),
        ]
        assert gather_cluster(b.membership, b.state) == ClusterFacts(silent=("hv1",))
        await a.start()
        await until(lambda: gather_cluster(b.membership, b.state) == ClusterFacts())


async def test_the_doctor_says_that_the_cluster_does_not_answer() -> None:
    async with two() as hosts:
        _, b = hosts.all
        b.away = True
        await until(lambda: b.membership.connection is Connection.DISCONNECTED)
        await until(lambda: "told to be away" in gather_cluster(b.membership, b.state).away)
        assert (
            gather_cluster(b.membership, b.state).away == "the cluster does not answer (the fake was told to be away)"
        )
        assert gather_cluster(None, b.state) == ClusterFacts()
