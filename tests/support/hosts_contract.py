"""What holds of hosts and their sessions, whatever engine they share."""

from __future__ import annotations

import asyncio

import pytest

from support.cluster import BLUE, IP, MAC, RED, claim_all, dump, write
from support.engines import TTL_S, Engine, hosts_of, kv_of, until
from vxagent.errors import ClusterRefused, Conflict, NotFound, SessionLost
from vxagent.model.cluster import ClusterHost
from vxagent.store.cluster import Cluster


class HostsContract:
    """Every class that has a fixture `engine` and inherits this runs it."""

    async def test_a_host_is_known_and_alive(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1", "hv2") as (a, _):
            assert [(host.host, host.vtep, live is not None) for host, live in await a.hosts()] == [
                ("hv1", "192.0.2.1", True),
                ("hv2", "192.0.2.2", True),
            ]
            keys = await dump(engine)
            assert keys["vtep/192.0.2.2"] == b'"hv2"'
            assert keys["live/hv1"] == b'{"vtep":"192.0.2.1","boot":"boot of hv1"}'

    async def test_a_host_that_ends_its_session_is_known_and_dead(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1", "hv2") as (a, b):
            assert b.session is not None
            await b.session.close()
            assert [(host.host, live is not None) for host, live in await a.hosts()] == [("hv1", True), ("hv2", False)]
            with pytest.raises(SessionLost):
                await b.session.keepalive()

    async def test_a_host_that_falls_silent_is_dead_in_time_and_can_do_nothing_more(self, engine: Engine) -> None:
        async with kv_of(engine) as kv, hosts_of(engine, "hv1") as (a,):
            silent = Cluster(kv, engine.name, "hv2")
            session = await silent.open(vtep=None, boot="b", ttl_s=TTL_S)
            await session.keepalive()
            await silent.claim_segment(BLUE)

            async def dead() -> bool:
                engine.pass_time()
                return [live for host, live in await a.hosts() if host.host == "hv2"] == [None]

            await until(dead)
            before = await dump(engine)
            for attempt in (silent.bind("vm7", segments=["blue"]), silent.leave_segment("blue"), session.keepalive()):
                with pytest.raises(SessionLost, match="does not take host hv2 for alive"):
                    await attempt
            assert await dump(engine) == before
            await silent.open(vtep=None, boot="b")
            assert (await silent.bind("vm7", segments=["blue"])).owner == "hv2"

    async def test_two_hosts_do_not_have_one_name(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1"), kv_of(engine) as kv:
            before = await dump(engine)
            with pytest.raises(Conflict, match=r"another host with VTEP 192.0.2.1 is alive as hv1 in cluster test"):
                await Cluster(kv, engine.name, "hv1").open(vtep="192.0.2.9", boot="another")
            assert await dump(engine) == before

    async def test_of_hosts_that_begin_under_one_name_at_once_one_does(self, engine: Engine) -> None:
        async def begin(number: int) -> str:
            async with kv_of(engine) as kv:
                try:
                    await Cluster(kv, engine.name, "hv1").open(vtep="192.0.2.1", boot=f"{number}", ttl_s=60)
                except Conflict as error:
                    return error.what
                return "began"

        async with hosts_of(engine, "hv1") as (a,):  # it is known, so that they have to write no more than their lives
            assert a.session is not None
            await a.session.close()
        said = await asyncio.gather(*(begin(number) for number in range(8)))
        assert said.count("began") == 1
        refusal = f"another host with VTEP 192.0.2.1 is alive as hv1 in cluster {engine.name}"
        assert set(said) == {"began", refusal}
        keys = await dump(engine)
        assert keys["live/hv1"] == b'{"vtep":"192.0.2.1","boot":"%d"}' % said.index("began")

    async def test_of_hosts_that_begin_with_one_vtep_at_once_one_does(self, engine: Engine) -> None:
        async def begin(number: int) -> str:
            async with kv_of(engine) as kv:
                try:
                    await Cluster(kv, engine.name, f"hv{number}").open(vtep="192.0.2.1", boot="b", ttl_s=60)
                except Conflict as error:
                    return error.what
                return "began"

        said = await asyncio.gather(*(begin(number) for number in range(8)))
        assert said.count("began") == 1
        assert set(said) == {"began", f"VTEP 192.0.2.1 is host hv{said.index('began')}'s in cluster {engine.name}"}

    async def test_an_agent_that_starts_again_takes_over_its_session(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1") as (old,), kv_of(engine) as kv:
            new = Cluster(kv, engine.name, "hv1")
            session = await new.open(vtep="192.0.2.1", boot="boot of hv1")
            await session.keepalive()
            assert old.session is not None
            assert session.revision > old.session.revision
            with pytest.raises(SessionLost):
                await old.claim_segment(BLUE)
            await new.claim_segment(BLUE)

    async def test_two_hosts_do_not_have_one_vtep_not_even_a_dead_ones(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1") as (a,), kv_of(engine) as kv:
            other = Cluster(kv, engine.name, "hv2")
            with pytest.raises(Conflict, match=r"VTEP 192.0.2.1 is host hv1's in cluster test"):
                await other.open(vtep="192.0.2.1", boot="b")
            assert a.session is not None
            await a.session.close()
            with pytest.raises(Conflict, match=r"if host hv1 is gone for good, .*`vxagent host forget hv1`"):
                await other.open(vtep="192.0.2.1", boot="b")
            await other.open(vtep="192.0.2.2", boot="b")
            await other.forget("hv1")
            await other.open(vtep="192.0.2.1", boot="b")
            assert {key for key in await dump(engine) if key.startswith("vtep/")} == {"vtep/192.0.2.1"}

    async def test_a_host_without_vtep(self, engine: Engine) -> None:
        async with kv_of(engine) as kv:
            a = Cluster(kv, engine.name, "hv1")
            await a.open(vtep=None, boot="b")
            assert [host for host, _ in await a.hosts()] == [ClusterHost(host="hv1")]
            assert not [key for key in await dump(engine) if key.startswith("vtep/")]

    async def test_a_schema_of_another_version_is_refused_and_left_untouched(self, engine: Engine) -> None:
        await write(engine, "schema", b'{"version":2,"id":"x","new":[]}')
        async with kv_of(engine) as kv:
            cluster = Cluster(kv, engine.name, "hv1")
            refusal = f"cluster {engine.name} is of version 2, this vxagent knows 1; use the vxagent"
            with pytest.raises(ClusterRefused, match=refusal):
                await cluster.open(vtep="192.0.2.1", boot="b")
            with pytest.raises(ClusterRefused, match=refusal):
                await cluster.snapshot(["blue"])
        assert await dump(engine) == {"schema": b'{"version":2,"id":"x","new":[]}'}

    async def test_what_is_not_ours_at_all_is_refused(self, engine: Engine) -> None:
        await write(engine, "schema", b"\xffgarbage")
        async with kv_of(engine) as kv:
            with pytest.raises(ClusterRefused, match="holds something else than vxagent's data"):
                await Cluster(kv, engine.name, "hv1").open(vtep=None, boot="b")

    async def test_only_the_dead_without_ports_are_forgotten(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1", "hv2") as (a, b):
            await claim_all([a, b])
            await b.claim_segment(RED)
            await b.claim_bridge("blue")
            await b.bind("vm7", segments=["blue"], macs=[MAC])
            with pytest.raises(NotFound):
                await a.forget("hv9")
            for alive in ("hv1", "hv2"):  # as who asks is itself
                with pytest.raises(Conflict, match=f"host {alive} is alive; stop its agent first"):
                    await a.forget(alive)
            assert b.session is not None
            await b.session.close()
            with pytest.raises(Conflict, match="1 ports are bound on host hv2, vm7 among them"):
                await a.forget("hv2", ["vm6"])
            await a.evacuate("vm7")
            await a.forget("hv2")
            assert set(await dump(engine)) == {
                *("schema", "live/hv1", "host/hv1", "vtep/192.0.2.1"),
                *("segment/blue", "vlan/10", "vni/5010", "has/blue/hv1"),
                *("port/vm7", "fdb/blue/vm7", f"mac/blue/{MAC}"),
            }

    async def test_what_is_a_forgotten_hosts_own_goes_with_it(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1", "hv2") as (a, b):
            await a.claim_segment(BLUE)
            before = await dump(engine)
            await claim_all([b], BLUE, RED)
            await b.bind("mgmt0", segments=["blue"], macs=[MAC], ips=[IP])
            await b.carry("mgmt0", b"luggage")
            await b.claim_bridge("blue")
            await write(engine, "bridge/green", b'{"host":"hv2"}')  # of a segment that it does not have
            await write(engine, "has/blue/hv2/too", b"{}")  # somebody else's
            await _die(b)
            with pytest.raises(Conflict, match=r"1 ports .*, mgmt0 among them; `vxagent host evacuate hv2` first"):
                await a.forget("hv2")
            await a.forget("hv2", ["mgmt0", "vm9"])
            gone = {"live/hv2", "host/hv2", "vtep/192.0.2.2"}
            assert set(await dump(engine)) == {*before.keys() - gone, "has/blue/hv2/too"}
            with pytest.raises(NotFound):
                await a.forget("hv2", ["mgmt0"])

    async def test_a_host_to_which_a_port_is_on_its_way_is_not_forgotten(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1", "hv2") as (a, b):
            await claim_all([a, b])
            await a.bind("vm7", segments=["blue"], macs=[MAC])
            await b.prepare("vm7")
            await _die(b)
            with pytest.raises(Conflict, match="port vm7 is on its way to host hv2; `vxagent migrate cancel vm7` on"):
                await a.forget("hv2")
            await a.cancel("vm7")
            await a.forget("hv2")

    async def test_what_is_another_hosts_by_now_is_not_dropped(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1", "hv2") as (a, b):
            await claim_all([a, b])
            bound = await a.bind("vm7", segments=["blue"], macs=[MAC])
            await b.drop("vm7", "hv3")
            await b.drop("vm8", "hv1")
            assert await b.binding("vm7") == bound
            with pytest.raises(Conflict, match="host hv1 is alive"):
                await b.drop("vm7", "hv1")
            assert await b.binding("vm7") == bound

    async def test_a_host_that_was_forgotten_registers_anew(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1", "hv2") as (a, b):
            before = await dump(engine)
            await _die(b)
            await a.forget("hv2")
            await b.open(vtep="192.0.2.2", boot="boot of hv2", ttl_s=60)
            assert await dump(engine) == before


async def _die(host: Cluster) -> None:
    """The engine takes it for dead."""
    assert host.session is not None
    await host.session.close()
