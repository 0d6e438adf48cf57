"""What holds of bindings and of acknowledgements."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from support.cluster import BLUE, IP, MAC, RED, changes, claim_all, dump, of, write
from support.engines import Engine, hosts_of
from vxagent.errors import Conflict, NotFound, WrongPhase
from vxagent.model.binding import Binding, Phase, Projection
from vxagent.model.cluster import ClusterSegment


class BindingsContract:
    """Every class that has a fixture `engine` and inherits this runs it."""

    async def test_a_port_is_bound_and_told_of(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1") as (a,):
            await claim_all([a], BLUE, RED)
            bound = await a.bind("vm7", segments=["blue", "red"], macs=[MAC], ips=[IP, "fd00::/64"], op="first")
            assert bound == Binding(
                id="vm7", segments=("blue", "red"), macs=(MAC,), ips=(IP, "fd00::/64"), owner="hv1", op="first"
            )
            assert await a.binding("vm7") == bound
            keys = await dump(engine)
            assert {key for key in keys if key.split("/")[0] in {"port", "fdb", "mac", "ip"}} == {
                *("port/vm7", "fdb/blue/vm7", "fdb/red/vm7"),
                *(f"mac/blue/{MAC}", f"mac/red/{MAC}", f"ip/blue/{IP}", f"ip/red/{IP}"),
            }
            assert keys["fdb/red/vm7"] == (
                b'{"o":"hv1","p":"bound","e":1,"n":null,"m":["02:00:00:00:00:07"],"i":["10.0.0.7","fd00::/64"]}'
            )
            assert keys[f"mac/blue/{MAC}"] == b'"vm7"'

    async def test_binding_what_is_bound_writes_nothing(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1") as (a,):
            await claim_all([a])
            first = await a.bind("vm7", segments=["blue"], macs=[MAC])
            again = await a.bind("vm7", segments=["blue"], macs=[MAC])
            assert (again, again.revision) == (first, first.revision)

    async def test_its_owner_changes_what_a_port_lists(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1") as (a,):
            await claim_all([a], BLUE, RED)
            await a.bind("vm7", segments=["blue"], macs=[MAC], ips=[IP])
            await a.bind("vm7", segments=["red"], macs=[MAC, "02:00:00:00:00:08"])
            keys = {key for key in await dump(engine) if key.split("/")[0] in {"port", "fdb", "mac", "ip"}}
            assert keys == {"port/vm7", "fdb/red/vm7", f"mac/red/{MAC}", "mac/red/02:00:00:00:00:08"}
            await a.unbind("vm7")
            await a.unbind("vm7")
            assert not [key for key in await dump(engine) if key.split("/")[0] in {"port", "fdb", "mac", "ip"}]

    async def test_a_refusal_names_the_holder(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1", "hv2") as (a, b):
            await claim_all([a, b])
            await b.bind("vm7", segments=["blue"], macs=[MAC], ips=[IP])
            before = await dump(engine)
            for attempt, message in (
                (a.bind("vm7", segments=["blue"]), "port vm7 is bound on host hv2"),
                (a.bind("vm8", segments=["blue"], macs=[MAC]), f"MAC {MAC} is port vm7's on host hv2 .segment blue"),
                (a.bind("vm8", segments=["blue"], ips=[IP]), f"IP {IP} is port vm7's on host hv2 .segment blue"),
                (a.bind("vm8", segments=["blue", "red"]), "host hv1 does not have segment red, which port vm8 is in"),
            ):
                with pytest.raises(Conflict, match=message):
                    await attempt
            assert await dump(engine) == before

    async def test_prefixes_and_other_segments_are_free(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1", "hv2") as (a, b):
            await claim_all([a, b], BLUE, RED)
            await a.bind("vm7", segments=["blue"], macs=[MAC], ips=[IP, "fd00::/64"])
            await b.bind("vm8", segments=["red"], macs=[MAC], ips=[IP])
            await b.bind("vm9", segments=["blue"], ips=["fd00::/64"])

    async def test_a_port_that_is_too_large_is_refused_and_whatever_begins_can_end(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1") as (a,):
            names = [f"s{number}" for number in range(43)]
            await claim_all([a], *(ClusterSegment(name=name, tenant="acme", mtu=1450) for name in names))
            bound = []
            for count in range(40, 44):
                try:
                    await a.bind(f"vm{count}", segments=names[:count], macs=[MAC], ips=[IP])
                except Conflict as error:
                    assert "too many segments, MACs and addresses: it takes" in str(error)  # noqa: PT017  # some are not
                else:
                    bound.append(count)
                    await a.unbind(f"vm{count}")
            assert bound == [40, 41]
            assert not [key for key in await dump(engine) if key.split("/")[0] in {"port", "fdb", "mac", "ip"}]

    async def test_a_migration_and_what_hosts_are_told_of_it(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1", "hv2", "hv3") as (a, b, c):
            await claim_all([a, b, c])
            bound = await a.bind("vm7", segments=["blue"], macs=[MAC])
            follower = c.follow(["blue"])
            await anext(follower)
            prepared = await b.prepare("vm7")
            switched = await a.switchover("vm7")
            activated = await b.activate("vm7")
            assert (prepared.owner, prepared.next, prepared.phase) == ("hv1", "hv2", Phase.PREPARED)
            assert (switched.owner, switched.next, switched.phase) == ("hv1", "hv2", Phase.SWITCHED)
            assert activated == replace(bound, owner="hv2", epoch=2, op=activated.op)
            told = [change.now for change in await changes(follower, 3)]
            assert [(p.owner, p.next, p.phase, p.epoch, p.revision) for p in told if isinstance(p, Projection)] == [
                ("hv1", "hv2", Phase.PREPARED, 1, prepared.revision),
                ("hv1", "hv2", Phase.SWITCHED, 1, switched.revision),
                ("hv2", None, Phase.BOUND, 2, activated.revision),
            ]
            await follower.close()

    async def test_steps_out_of_order_change_nothing(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1", "hv2", "hv3") as (a, b, c):
            await claim_all([a, b])
            await a.bind("vm7", segments=["blue"])
            for attempt in (a.switchover("vm7"), b.activate("vm7"), a.cancel("vm7"), b.unbind("vm7")):
                with pytest.raises(WrongPhase):
                    await attempt
            with pytest.raises(NotFound, match="no binding vm9"):
                await b.prepare("vm9")
            with pytest.raises(Conflict, match="host hv3 does not have segment blue"):
                await c.prepare("vm7")
            await b.prepare("vm7")
            assert await b.prepare("vm7") == await b.binding("vm7")
            with pytest.raises(WrongPhase):
                await c.prepare("vm7")
            with pytest.raises(WrongPhase):
                await a.bind("vm7", segments=["blue"], macs=[MAC])
            cancelled = await b.cancel("vm7")
            assert (cancelled.owner, cancelled.next, cancelled.phase, cancelled.epoch) == ("hv1", None, Phase.BOUND, 1)

    async def test_the_dead_are_evacuated_and_nobody_else(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1", "hv2", "hv3") as (a, b, c):
            await claim_all([a, b, c])
            for port in ("vm7", "vm8"):
                await a.bind(port, segments=["blue"])
            await b.prepare("vm8")
            await a.switchover("vm8")
            with pytest.raises(Conflict, match="host hv1 is alive; port vm7 stays there unless it is migrated"):
                await c.evacuate("vm7")
            assert a.session is not None
            assert b.session is not None
            await a.session.close()
            assert (await c.evacuate("vm7")).owner == "hv3"
            with pytest.raises(Conflict, match="host hv2 is alive"):  # the VM may run there
                await c.evacuate("vm8")
            await b.session.close()
            evacuated = await c.evacuate("vm8")
            assert (evacuated.owner, evacuated.phase, evacuated.next, evacuated.epoch) == ("hv3", Phase.BOUND, None, 2)

    async def test_all_bindings(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1") as (a,):
            await claim_all([a])
            made = [await a.bind(port, segments=["blue"]) for port in ("vm1", "vm2", "vm3")]
            await write(engine, "port/vm2", b"{}")
            assert await a.bindings() == (made[0], made[2])
            assert await a.binding("vm2") is None
            with pytest.raises(Conflict, match="what the cluster holds of port vm2 cannot be read"):
                await a.bind("vm2", segments=["blue"])

    # Races

    async def test_of_eight_hosts_that_bind_at_once_one_does(self, engine: Engine) -> None:
        async with hosts_of(engine, *(f"hv{n}" for n in range(8))) as hosts:
            await claim_all(hosts)
            for number in range(5):
                port, mac = f"vm{number}", f"02:00:00:00:01:{number:02x}"
                said = await asyncio.gather(
                    *(host.bind(port, segments=["blue"], macs=[mac]) for host in hosts), return_exceptions=True
                )
                won = [answer for answer in said if isinstance(answer, Binding)]
                lost = [answer for answer in said if isinstance(answer, Conflict)]
                assert (len(won), len(lost)) == (1, 7), said
                assert {f"port {port} is bound on host {won[0].owner}"} == {answer.what for answer in lost}

    async def test_of_ports_that_want_one_mac_at_once_one_has_it(self, engine: Engine) -> None:
        async with hosts_of(engine, *(f"hv{n}" for n in range(8))) as hosts:
            await claim_all(hosts)
            said = await asyncio.gather(
                *(host.bind(f"vm-{host._host}", segments=["blue"], macs=[MAC]) for host in hosts),
                return_exceptions=True,
            )
            (won,) = [answer for answer in said if isinstance(answer, Binding)]
            refused = {answer.what for answer in said if isinstance(answer, Conflict)}
            assert refused == {f"MAC {MAC} is port {won.id}'s on host {won.owner} (segment blue)"}
            assert len(await hosts[0].bindings()) == 1

    # Acknowledgements

    async def test_who_acts_on_a_switchover_is_known(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1", "hv2", "hv3", "hv4") as (a, b, c, d):
            await claim_all([a, b, c])
            await claim_all([d], RED)  # is not asked
            await a.bind("vm7", segments=["blue"])
            await b.prepare("vm7")
            switched = await a.switchover("vm7")
            assert await a.missing_acks(switched, 0.1) == {"hv2", "hv3"}
            waiting = asyncio.ensure_future(a.missing_acks(switched, 10))
            for host in (b, c):
                (seen,) = of(await host.snapshot(["blue"]), Projection)
                assert await host.ack(seen)
            assert await waiting == frozenset()
            await b.activate("vm7")
            assert not await c.ack(seen)
            assert not [key for key in await dump(engine) if key.startswith("ack/")]

    async def test_who_holds_has_said_so(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1", "hv2", "hv3") as (a, b, c):
            await claim_all([a, b, c])
            await a.bind("vm7", segments=["blue"])
            await b.prepare("vm7")
            await a.switchover("vm7")
            held = await b.hold("vm7")
            assert await a.missing_acks(held, 0.1) == {"hv3"}
            (seen,) = of(await c.snapshot(["blue"]), Projection)
            assert await c.ack(seen)
            async with asyncio.timeout(5):
                assert await a.missing_acks(held, 60) == frozenset()

    async def test_the_dead_are_not_waited_for(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1", "hv2", "hv3") as (a, b, c):
            await claim_all([a, b, c])
            await a.bind("vm7", segments=["blue"])
            await b.prepare("vm7")
            assert c.session is not None
            await c.session.close()
            assert await a.missing_acks(await a.switchover("vm7"), 0.1) == {"hv2"}

    async def test_nobody_waits_for_what_is_no_more(self, engine: Engine) -> None:
        async with hosts_of(engine, "hv1", "hv2") as (a, b):
            await claim_all([a, b])
            await a.bind("vm7", segments=["blue"])
            await b.prepare("vm7")
            switched = await a.switchover("vm7")
            waiting = asyncio.ensure_future(a.missing_acks(switched, 60))
            await b.activate("vm7")
            async with asyncio.timeout(5):
                assert await waiting == {"hv2"}
