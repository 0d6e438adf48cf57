"""What holds of segments, and of who bridges them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from support.cluster import BLUE, RED, claim_all, dump
from support.engines import Engine, hosts_of
from vxagent.errors import Conflict
from vxagent.store.cluster import Cluster


class SegmentsContract:
    """Every class that has a fixture `engine` and inherits this runs it."""

    async def test_the_first_claims_a_segment_and_the_last_takes_it_along(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1", "hv2") as (a, b):
            empty = await dump(engine)
            await a.claim_segment(BLUE)
            await a.claim_segment(BLUE)
            keys = await dump(engine)
            assert keys["segment/blue"] == b'{"name":"blue","tenant":"acme","mtu":1450,"vlan":10,"vni":5010}'
            assert (keys["vni/5010"], keys["vlan/10"], keys["has/blue/hv1"]) == (b'"blue"', b'"blue"', b"{}")
            await b.claim_segment(BLUE)
            assert await a.leave_segment("blue") is False
            assert await a.leave_segment("blue") is False
            assert await b.leave_segment("blue") is True
            assert await b.leave_segment("blue") is True
            assert await dump(engine) == empty

    async def test_a_segment_is_the_same_everywhere(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1", "hv2") as (a, b):
            await a.claim_segment(BLUE)
            for other, message in (
                (replace(BLUE, tenant="evil"), "segment blue has tenant acme on hv1, not tenant evil"),
                (replace(BLUE, vni=None, mtu=9000), "blue has vni 5010, mtu 1450 on hv1, not vni none, mtu 9000"),
                (replace(RED, vni=5010), "vni 5010 is segment blue's in cluster test.*; choose another vni for red"),
                (replace(RED, vlan=10), "vlan 10 is segment blue's"),
            ):
                with pytest.raises(Conflict, match=message):
                    await b.claim_segment(other)
            assert "has/blue/hv2" not in await dump(engine)

    async def test_who_has_a_segment_alone_may_change_it(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1", "hv2") as (a, b):
            await a.claim_segment(BLUE)
            other = replace(BLUE, vlan=None, vni=5011)
            await a.claim_segment(other)
            keys = await dump(engine)
            assert {key for key in keys if key.startswith(("vni/", "vlan/"))} == {"vni/5011"}
            await b.claim_segment(other)
            with pytest.raises(Conflict, match="on hv2, not"):
                await a.claim_segment(BLUE)

    async def test_hosts_that_come_and_go_at_once_leave_no_half(self, engine: Engine) -> None:
        names = [f"hv{n}" for n in range(6)]
        async with hosts_of(engine, *names) as hosts:
            empty = await dump(engine)

            async def churn(host: Cluster) -> None:
                for _ in range(5):
                    await host.claim_segment(BLUE)
                    keys = await dump(engine)
                    assert {f"has/blue/{host._host}", "segment/blue", "vni/5010", "vlan/10"} <= set(keys)
                    await host.leave_segment("blue")

            await asyncio.gather(*(churn(host) for host in hosts))
            assert await dump(engine) == empty

    async def test_a_segment_with_a_port_here_is_not_left(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1", "hv2") as (a, b):
            await claim_all([a, b])
            await a.bind("vm7", segments=["blue"])
            with pytest.raises(Conflict, match="segment blue is in use by port vm7 on this host"):
                await a.leave_segment("blue")
            await b.leave_segment("blue")

    async def test_one_host_bridges(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1", "hv2", "hv3") as hosts:
            with pytest.raises(Conflict, match="host hv1 does not have segment blue"):
                await hosts[0].claim_bridge("blue")
            await claim_all(hosts)
            said = await asyncio.gather(*(host.claim_bridge("blue") for host in hosts))
            assert len(set(said)) == 1
            assert await hosts[2].claim_bridge("blue") == said[0]
            await next(host for host in hosts if host._host != said[0]).release_bridge("blue")
            assert await hosts[0].claim_bridge("blue") == said[0]
            await next(host for host in hosts if host._host == said[0]).release_bridge("blue")
            assert await hosts[1].claim_bridge("blue") == "hv2"
            await hosts[1].leave_segment("blue")
            assert await hosts[2].claim_bridge("blue") == "hv3"

    async def test_a_dead_hosts_bridge_is_taken_by_who_says_so(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1", "hv2") as (a, b):
            await claim_all([a, b])
            await a.claim_bridge("blue")
            with pytest.raises(Conflict, match="host hv1, which bridges segment blue, is alive"):
                await b.claim_bridge("blue", instead_of="hv1")
            assert a.session is not None
            await a.session.close()
            assert await b.claim_bridge("blue") == "hv1"  # its data plane may go on
            assert await b.claim_bridge("blue", instead_of="hv1") == "hv2"
