"""Live migration by whole agents; support/migrating.py draws the hosts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from support.members import BLUE, GREEN, IP7, MAC7, MAC8, MAC9, QUICK, RED, Hosts, frame, hosts_with, until
from support.migrating import (
    DRAINING,
    HOLDING,
    SHORT,
    STANDBY,
    UP,
    VTEP1,
    VTEP2,
    bring,
    heard,
    heard_at,
    knows,
    owner,
    phase,
    reaches,
    states,
    three,
    way,
)
from vxagent.core.effects import Announce
from vxagent.core.tables import Table
from vxagent.errors import ClusterAway, Conflict, HostError, NotFound, WrongPhase
from vxagent.model.binding import Phase
from vxagent.model.port import Mode, Port, PortState, Uplink
from vxagent.runtime.membership import Connection

HERE = (None, False, False)
ASKED = (None, False, True)
LEAVING = (VTEP2, True, True)


# The table in core/migration.py


@pytest.mark.parametrize(
    ("at", "ports", "ways", "others", "place"),
    [
        (Phase.BOUND, [UP, None, None], [HERE, None], VTEP1, "hv1/tap0"),
        (Phase.PREPARED, [UP, STANDBY, None], [ASKED, (VTEP1, False, False)], VTEP1, "hv1/tap0"),
        (Phase.SWITCHED, [DRAINING, STANDBY, None], [LEAVING, (VTEP1, False, False)], VTEP1, "hv2/tap2"),
        (Phase.HELD, [DRAINING, HOLDING, None], [LEAVING, HERE], VTEP2, "hv2/tap2"),
    ],
)
async def test_at_each_phase_all_hosts_send_to_where_the_vm_is_to_get_it(
    at: Phase, ports: list[PortState | None], ways: list[tuple[str | None, bool, bool] | None], others: str, place: str
) -> None:
    async with three(waits=SHORT) as hosts:
        a, b, c = hosts.all
        await bring(hosts, at)
        assert states(hosts) == ports
        assert way(a) == ways[0]
        assert ways[1] is None or way(b) == ways[1]
        assert c.fdb(MAC7) == others
        assert c.neighbours()[IP7] == others
        assert reaches(hosts) == {place}
        assert heard_at(hosts) == {place}


async def test_what_everybody_gets_reaches_the_vm_in_one_place_whatever_is_done_first() -> None:
    """Between the port's draining and the engine's being told, and after a switchover that the engine refused."""
    async with three() as hosts:
        a, b, _ = hosts.all
        await bring(hosts, Phase.PREPARED)
        for drained, place in ((False, "hv1/tap0"), (True, "hv2/tap2")):
            await a.change(
                lambda draft, drained=drained: draft.cluster_says(  # type: ignore[misc]  # of a lambda with a default
                    draft.state.remote.letting("vm7", leave=True, drained=drained)
                )
            )
            assert heard_at(hosts) == {place}
        a.away = True
        with pytest.raises(ClusterAway):
            await a.migrations.switchover("vm7")
        assert b.port_state("vm7") is STANDBY


async def test_vms_that_leave_at_once_get_what_is_for_everybody_once_each() -> None:
    async with three(waits=SHORT) as hosts:
        a, b, c = hosts.all
        for port, to in (("vm7", b), ("vm8", c)):
            await to.migrations.prepare(port, "tap2")
            await hosts.packed(port)
        b.away = c.away = True
        for port in ("vm7", "vm8"):
            await a.migrations.switchover(port)
        assert hosts.send(c, "tap0", frame(MAC9)) == {"hv2/tap2", "hv3/tap2"}
        assert hosts.send(a, "tap0", frame(MAC7)) == {"hv3/tap0", "hv3/tap2"}
        assert hosts.send(a, "tap1", frame(MAC8)) == {"hv3/tap0", "hv2/tap2"}


async def test_a_migration() -> None:
    async with three() as hosts:
        a, b, _ = hosts.all
        await b.migrations.prepare("vm7", "tap2")
        done = await a.migrations.switchover("vm7")
        assert (done.next, done.missing) == ("hv2", ())
        await b.migrations.activate("vm7")
        assert b.port_state("vm7") is UP
        assert reaches(hosts) == {"hv2/tap2"}
        await heard(hosts, Phase.BOUND, owner="hv2")
        await until(lambda: a.port_state("vm7") is None)
        assert reaches(hosts) == {"hv2/tap2"}
        assert hosts.send(b, "tap2", frame(MAC7, MAC9)) == {"hv3/tap0"}
        assert [host.fdb(MAC7) for host in hosts.all] == [VTEP2, "vm7", VTEP2]
        binding = hosts.binding("vm7")
        assert binding is not None
        assert (binding.owner, binding.next, binding.epoch) == ("hv2", None, 2)
        assert a.links.by_name["tap0"].up is False  # as detach leaves it
        assert (hosts.keys("ack"), a.state.remote.leaving, b.state.remote.arrived) == (set(), frozenset(), frozenset())


async def test_a_vm_goes_there_and_back_and_there_again() -> None:
    """Faster than its old ports are dropped, and behind another device each time."""
    async with three(waits=replace(QUICK, linger_s=60)) as hosts:
        a, b, _ = hosts.all
        for here, there, ifname in ((a, b, "tap2"), (b, a, "tap3"), (a, b, "tap1")):
            await there.migrations.prepare("vm7", ifname)
            await heard(hosts, Phase.PREPARED, owner=here.name)
            assert (here.port_state("vm7"), there.port_state("vm7")) == (UP, STANDBY)
            await here.migrations.switchover("vm7")
            await there.migrations.activate("vm7")
            await heard(hosts, Phase.BOUND, owner=there.name)
            assert there.port_state("vm7") is UP
            assert here.port_state("vm7") is DRAINING
            assert reaches(hosts) == {f"{there.name}/{ifname}"}


async def test_the_last_frames_of_the_vm_reach_everybody_but_itself() -> None:
    async with three(RED) as hosts:
        a, b, c = hosts.all
        await a.change(lambda draft: draft.add_uplink(Uplink(ifname="eth2")))
        await until(lambda: a.state.bridges("red"))
        assert "hv1/eth2" in hosts.send(a, "tap0", frame(MAC7))
        await b.migrations.prepare("vm7", "tap2")
        await a.migrations.switchover("vm7")
        assert hosts.send(a, "tap0", frame(MAC7, MAC9)) == {"hv3/tap0"}
        assert hosts.send(a, "tap0", frame(MAC7, MAC8)) == {"hv1/tap1"}
        assert hosts.send(a, "tap0", frame(MAC7)) == {"hv1/eth2", "hv1/tap1", "hv3/tap0"}
        assert c.port_state("vm9") is UP


async def test_in_a_vlan_frames_follow_the_vm_through_a_tunnel_and_the_fabric_is_told() -> None:
    async with three(GREEN) as hosts:
        a, b, _ = hosts.all
        for host in hosts.all:
            await host.change(lambda draft: draft.add_uplink(Uplink(ifname="eth2")))
        await b.migrations.prepare("vm7", "tap2")
        await a.migrations.switchover("vm7")
        assert hosts.send(a, "tap1", frame(MAC8, MAC7)) == {"hv2/tap2"}
        await until(lambda: b.datapath.announced == [Announce(ifindex=22, vid=30, mac=MAC7)])
        assert hosts.send(a, "tap1", frame(MAC8)) == {"hv1/eth2"}
        assert hosts.send(a, "tap0", frame(MAC7)) == {"hv2/eth2"}  # by the fabric it comes back, to vm8
        await b.migrations.activate("vm7")
        await until(lambda: a.port_state("vm7") is None)
        await until(lambda: b.datapath.announced == [Announce(ifindex=22, vid=30, mac=MAC7)] * 2)


async def test_a_trunk_moves_in_all_of_its_segments() -> None:
    async with hosts_with(3, BLUE, RED) as hosts:
        a, b, c = hosts.all
        port = Port(id="vm7", ifname="tap0", mode=Mode.TRUNK, native="blue", trunk=(("red", 7),), macs=(MAC7,))
        await a.change(lambda draft: draft.attach_port(port))
        await until(lambda: c.fdb(MAC7) and c.fdb(MAC7, "red"))
        await b.migrations.prepare("vm7", "tap2")
        done = await a.migrations.switchover("vm7")
        assert done.missing == ()
        assert (way(a), way(a, "red"), way(b), way(b, "red")) == (LEAVING, LEAVING, HERE, HERE)
        await until(lambda: (c.fdb(MAC7), c.fdb(MAC7, "red")) == (VTEP2, VTEP2))
        await b.migrations.activate("vm7")
        await until(lambda: a.port_state("vm7") is None)
        assert (a.fdb(MAC7), a.fdb(MAC7, "red")) == (VTEP2, VTEP2)
        assert b.state.ports["vm7"] == replace(port, ifname="tap2")


# Who is asked


async def test_a_switchover_names_the_hosts_that_have_not_said_that_they_send_to_the_next_one() -> None:
    async with three(waits=replace(QUICK, switchover_s=0.5)) as hosts:
        a, _, c = hosts.all
        await bring(hosts, Phase.PREPARED)
        c.away = True
        done = await a.migrations.switchover("vm7")
        assert done.missing == ("hv3",)
        assert hosts.send(c, "tap0", frame(MAC9, MAC7)) == {"hv2/tap2"}  # by way of hv1
        c.away = False
        await until(lambda: c.fdb(MAC7) == VTEP2)
        await until(lambda: "vm7/hv3" in hosts.keys("ack"))


async def test_a_switchover_says_so_when_the_next_host_has_not_heard_of_it() -> None:
    async with three(waits=SHORT) as hosts:
        a, b, _ = hosts.all
        await bring(hosts, Phase.PREPARED)
        b.away = True
        done = await a.migrations.switchover("vm7")
        assert (done.next, done.missing) == ("hv2", ("hv2",))
        b.away = False
        await heard(hosts, Phase.HELD)
        assert states(hosts) == [DRAINING, HOLDING, None]


async def test_an_owner_that_has_not_heard_of_its_own_binding_yet_switches_it_over() -> None:
    async with hosts_with(2, BLUE, waits=SHORT) as hosts:
        a, b = hosts.all
        a.kv.deaf = True
        await a.attach("vm7", macs=(MAC7,))
        await b.migrations.prepare("vm7", "tap2")
        seen: list[PortState | None] = []

        async def look() -> None:
            seen.append(a.port_state("vm7"))

        a.kv.before = look
        done = await a.migrations.switchover("vm7")
        assert (done.next, a.port_state("vm7")) == ("hv2", DRAINING)
        assert seen == [DRAINING]  # before anybody else knows
        await until(lambda: b.port_state("vm7") is HOLDING)


@pytest.mark.parametrize(
    ("at", "host", "step", "message"),
    [
        (
            Phase.BOUND,
            0,
            "switchover",
            "cannot switchover port vm7: it is bound on host hv1 and does not migrate; `vxag",
        ),
        (Phase.BOUND, 0, "prepare", "cannot prepare port vm7: it is bound on host hv1 .*; it is here already"),
        (Phase.BOUND, 1, "activate", "cannot activate port vm7: it runs on host hv1; prepare it here first"),
        (Phase.BOUND, 1, "cancel", "cannot cancel port vm7: it is bound on host hv1 and does not migrate"),
        (Phase.PREPARED, 1, "switchover", "cannot switchover port vm7: host hv2 has prepared to take it"),
        (Phase.PREPARED, 2, "prepare", "cannot prepare port vm7: host hv2 has prepared to take it from host hv1"),
        (Phase.PREPARED, 0, "activate", "cannot activate port vm7: it runs on host hv1"),
        (Phase.HELD, 2, "cancel", "cannot cancel port vm7: host hv1 has switched it over to host hv2"),
        (Phase.HELD, 2, "activate", "cannot activate port vm7: it runs on host hv1; prepare it here first"),
        (Phase.HELD, 2, "prepare", "cannot prepare port vm7: host hv1 has switched it over to host hv2"),
    ],
)
async def test_what_cannot_be_done_now_is_refused_and_changes_nothing(
    at: Phase, host: int, step: str, message: str
) -> None:
    async with three() as hosts:
        await bring(hosts, at)
        before, keys = [(states(hosts), one.datapath.rows()) for one in hosts.all], dict(hosts.engine.keys)
        with pytest.raises(WrongPhase, match=message):
            await getattr(hosts.all[host].migrations, step)("vm7")
        assert [(states(hosts), one.datapath.rows()) for one in hosts.all] == before
        assert hosts.engine.keys == keys


@pytest.mark.parametrize("step", ["prepare", "switchover", "activate", "cancel"])
async def test_a_port_that_nobody_has_is_not_found(step: str) -> None:
    async with hosts_with(1, BLUE) as hosts:
        (a,) = hosts.all
        with pytest.raises(NotFound, match="no binding vm6; see `vxagent binding list`"):
            await getattr(a.migrations, step)("vm6")


async def test_what_is_done_already_is_done() -> None:
    async with three() as hosts:
        a, b, _ = hosts.all
        for _ in range(2):
            await b.migrations.prepare("vm7", "tap2")
        for _ in range(2):
            await a.migrations.switchover("vm7")
        for _ in range(2):
            await b.migrations.activate("vm7")
        assert (owner(hosts), b.port_state("vm7")) == ("hv2", UP)


@pytest.mark.parametrize("at", [Phase.PREPARED, Phase.HELD])
async def test_a_refused_command_to_prepare_again_leaves_the_migration_as_it_is(at: Phase) -> None:
    async with three() as hosts:
        _, b, _ = hosts.all
        await bring(hosts, at)
        before = states(hosts)
        with pytest.raises((Conflict, WrongPhase)):
            await b.migrations.prepare("vm7", "tap3")
        assert (phase(hosts), states(hosts)) == (at, before)


async def test_a_host_that_prepares_when_the_vm_leaves_already_holds_its_frames() -> None:
    """Its port comes after the news."""
    async with three() as hosts:
        a, b, _ = hosts.all
        switching: list[asyncio.Task[object]] = []

        with_look = b.migrations._look

        async def look() -> None:
            await with_look()
            if not switching:
                await until(lambda: phase(hosts) is Phase.PREPARED)
                switching.append(asyncio.create_task(a.migrations.switchover("vm7")))
                await until(lambda: phase(hosts) is Phase.SWITCHED)

        b.migrations._look = look
        await b.migrations.prepare("vm7", "tap2")
        await until(lambda: states(hosts)[:2] == [DRAINING, HOLDING])
        await asyncio.gather(*switching)


# What keeps a host from being the next one


async def has_no_mac(hosts: Hosts) -> None:
    await hosts.all[0].change(lambda draft: draft.set_port("vm7", macs=(), ips=()))


async def lacks_the_segment(hosts: Hosts) -> None:
    await hosts.all[1].change(lambda draft: draft.delete_segment("blue"))


async def has_the_device_elsewhere(hosts: Hosts) -> None:
    await hosts.all[1].attach("vm6", "tap2")


async def fails_half_way(hosts: Hosts) -> None:
    hosts.all[1].datapath.missing.add(12)


@pytest.mark.parametrize(
    ("why", "error", "message"),
    [
        (has_no_mac, Conflict, "port vm7 lists no MAC; `vxagent port set vm7 --mac …` on its host"),
        (
            lacks_the_segment,
            Conflict,
            "host hv2 does not have segment blue, which port vm7 is in; add the segment here",
        ),
        (has_the_device_elsewhere, Conflict, "tap2 .*vm6|vm6.*tap2"),
        (fails_half_way, HostError, "device tap2 is gone"),
    ],
)
async def test_who_cannot_take_a_port_does_not_prepare_it(
    why: Callable[[Hosts], Awaitable[None]], error: type[Exception], message: str
) -> None:
    async with three() as hosts:
        _, b, _ = hosts.all
        await why(hosts)
        before = b.datapath.rows()
        with pytest.raises(error, match=message):
            await b.migrations.prepare("vm7", "tap2")
        assert phase(hosts) is Phase.BOUND
        assert states(hosts) == [UP, None, None]
        assert {k: v for k, v in b.datapath.rows().items() if k[0] is Table.PORTS} == {
            k: v for k, v in before.items() if k[0] is Table.PORTS
        }


@pytest.mark.parametrize(
    ("who", "message"),
    [
        (0, "host hv1 has no VTEP: what comes for the VM of port vm7 could not follow it; give it an \\[overlay\\]"),
        (1, "this host has no VTEP: what comes for the VM of port vm7 could not follow it; give it an \\[overlay\\]"),
    ],
    ids=["its host", "the next one"],
)
async def test_a_port_does_not_go_where_no_frame_can_follow_it(who: int, message: str) -> None:
    """Its segment is a VLAN of the fabric, and needs no tunnel otherwise."""
    async with three(GREEN) as hosts:
        _, b, _ = hosts.all
        lacks = hosts.all[who]
        lacks.config = replace(lacks.config, overlay=None)
        await lacks.restart()
        await until(lambda: who == 1 or "hv1" not in b.state.remote.peers)
        await hosts.know("vm7")
        with pytest.raises(Conflict, match=message):
            await b.migrations.prepare("vm7", "tap2")
        assert phase(hosts) is Phase.BOUND
        assert b.port_state("vm7") is None


async def test_an_internal_port_does_not_migrate() -> None:
    async with hosts_with(2, BLUE) as hosts:
        a, b = hosts.all
        port = Port(id="mgmt0", ifname="mgmt0", mode=Mode.INTERNAL, segment="blue", macs=(MAC7,))
        await a.change(lambda draft: draft.attach_port(port))
        with pytest.raises(Conflict, match="port mgmt0 is internal; an internal port is its host's own and stays"):
            await b.migrations.prepare("mgmt0")
        assert hosts.binding("mgmt0").phase is Phase.BOUND  # type: ignore[union-attr]  # it is there


async def test_a_host_that_has_lost_the_port_does_not_hold_its_frames(caplog: pytest.LogCaptureFixture) -> None:
    """Its state directory is a new one, say: others must not send there."""
    async with three(waits=SHORT) as hosts:
        a, b, c = hosts.all
        await bring(hosts, Phase.PREPARED)
        await b.stop()
        b.store.documents.clear()
        b.datapath.destroy()
        await b.start()
        await b.connected()
        await b.add(BLUE)
        done = await a.migrations.switchover("vm7")
        assert done.missing == ("hv2",)
        await until(lambda: knows(b) == ("hv1", Phase.SWITCHED))
        await asyncio.sleep(0.02)
        assert phase(hosts) is Phase.SWITCHED
        assert c.fdb(MAC7) == VTEP1
        await a.migrations.cancel("vm7")
        assert reaches(hosts) == {"hv1/tap0"}


# Cancelling


@pytest.mark.parametrize("by", [0, 1], ids=["owner", "next"])
@pytest.mark.parametrize("at", [Phase.PREPARED, Phase.SWITCHED, Phase.HELD])
async def test_a_cancelled_migration_leaves_all_as_it_was(at: Phase, by: int) -> None:
    async with three(waits=SHORT) as hosts:
        _, b, _ = hosts.all
        before = [host.datapath.rows() for host in hosts.all]
        await bring(hosts, at)
        if b.away and by:
            b.away = False
            await b.connected()
        await hosts.all[by].migrations.cancel("vm7")
        b.away = False
        await heard(hosts, Phase.BOUND)
        await until(lambda: states(hosts) == [UP, None, None])
        await until(lambda: [host.datapath.rows() for host in hosts.all] == before)
        assert reaches(hosts) == {"hv1/tap0"}
        assert not b.links.by_name["tap2"].up
        for host in hosts.all:
            assert (host.state.remote.leaving, host.state.remote.arrived) == (frozenset(), frozenset())


@pytest.mark.parametrize("by", [0, 1], ids=["its host", "the next one"])
async def test_a_fabric_that_was_told_that_the_vm_goes_is_told_that_it_stays(by: int) -> None:
    async with three(GREEN) as hosts:
        a, b, _ = hosts.all
        for host in hosts.all:
            await host.change(lambda draft: draft.add_uplink(Uplink(ifname="eth2")))
        await bring(hosts, Phase.HELD)
        await until(lambda: b.datapath.announced)
        assert a.datapath.announced == []
        await hosts.all[by].migrations.cancel("vm7")
        await until(lambda: a.datapath.announced == [Announce(ifindex=22, vid=30, mac=MAC7)])
        assert len(b.datapath.announced) == 1


async def test_after_a_cancelled_migration_the_next_one_is_as_good() -> None:
    async with three() as hosts:
        a, b, _ = hosts.all
        await bring(hosts, Phase.HELD)
        await a.migrations.cancel("vm7")
        await heard(hosts, Phase.BOUND)
        await until(lambda: b.port_state("vm7") is None)
        await bring(hosts, Phase.PREPARED)
        assert states(hosts) == [UP, STANDBY, None]
        assert reaches(hosts) == {"hv1/tap0"}
        await a.migrations.switchover("vm7")
        await b.migrations.activate("vm7")
        assert reaches(hosts) == {"hv2/tap2"}


async def test_what_nobody_has_switched_over_ends_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    async with three(waits=replace(QUICK, prepared_s=0.05)) as hosts:
        _, b, _ = hosts.all
        await b.migrations.prepare("vm7", "tap2")
        await until(lambda: states(hosts) == [UP, None, None])
        assert phase(hosts) is Phase.BOUND
        assert "port vm7 was not switched over within 0 s; its migration is cancelled" in caplog.text


@pytest.mark.parametrize("dead", [0, 1], ids=["its host", "the next one"])
async def test_either_host_ends_it(dead: int) -> None:
    """The other one may be dead."""
    async with three(waits=replace(QUICK, prepared_s=0.05)) as hosts:
        await hosts.all[1].migrations.prepare("vm7", "tap2")
        await heard(hosts, Phase.PREPARED)
        await hosts.all[dead].stop()
        await until(lambda: phase(hosts) is Phase.BOUND)


async def test_it_ends_late_where_the_engine_is_away_in_time() -> None:
    async with three(waits=replace(QUICK, prepared_s=0.05)) as hosts:
        a, b, _ = hosts.all
        await b.migrations.prepare("vm7", "tap2")
        await heard(hosts, Phase.PREPARED)
        prepared = time.monotonic()
        a.away = b.away = True
        await asyncio.sleep(prepared + 0.15 - time.monotonic())
        assert phase(hosts) is Phase.PREPARED
        a.away = b.away = False
        await until(lambda: states(hosts) == [UP, None, None])
        assert phase(hosts) is Phase.BOUND


async def test_who_prepares_again_has_all_of_the_time_for_it() -> None:
    async with three(waits=replace(QUICK, prepared_s=0.1)) as hosts:
        _, b, _ = hosts.all
        await b.migrations.prepare("vm7", "tap2")
        prepared = time.monotonic()
        await b.migrations.cancel("vm7")
        for host in hosts.all:
            host.migrations._waits = QUICK
        await bring(hosts, Phase.PREPARED)
        await asyncio.sleep(prepared + 0.2 - time.monotonic())
        assert (phase(hosts), states(hosts)) == (Phase.PREPARED, [UP, STANDBY, None])


# The engine away


@pytest.mark.parametrize("restarts", [False, True], ids=["goes on", "restarts"])
async def test_what_was_switched_over_is_activated_without_the_engine_and_recorded_later(restarts: bool) -> None:
    async with three() as hosts:
        a, b, _ = hosts.all
        await bring(hosts, Phase.HELD)
        b.away = True
        await b.migrations.activate("vm7")
        assert (b.port_state("vm7"), phase(hosts)) == (UP, Phase.HELD)
        assert hosts.send(b, "tap2", frame(MAC7, MAC9)) == {"hv3/tap0"}
        assert reaches(hosts) == {"hv2/tap2"}
        if restarts:
            await b.stop()
            await b.start()
            assert b.port_state("vm7") is UP
        b.away = False
        await until(lambda: owner(hosts) == "hv2")
        await heard(hosts, Phase.BOUND, owner="hv2")
        await until(lambda: a.port_state("vm7") is None)
        await until(lambda: b.state.remote.arrived == frozenset())
        assert b.port_state("vm7") is UP
        assert reaches(hosts) == {"hv2/tap2"}


async def test_what_was_not_switched_over_is_not_activated_without_the_engine() -> None:
    async with three() as hosts:
        _, b, _ = hosts.all
        await bring(hosts, Phase.PREPARED)
        b.away = True
        await until(lambda: b.membership.connection is Connection.DISCONNECTED)
        for step in (b.migrations.activate, b.migrations.cancel, b.migrations.switchover):
            with pytest.raises(ClusterAway, match="the cluster does not answer"):
                await step("vm7")
        assert states(hosts) == [UP, STANDBY, None]


async def test_a_vm_that_appears_while_the_engine_is_away_takes_part_once_that_is_back() -> None:
    """It announces itself once. Nobody has switched it over, so the engine has to say that it runs here."""
    async with three() as hosts:
        _, b, _ = hosts.all
        await bring(hosts, Phase.PREPARED)
        b.away = True
        await until(lambda: b.membership.connection is Connection.DISCONNECTED)
        b.announce("vm7")
        await until(lambda: not b.datapath.queue)
        await asyncio.sleep(5 * QUICK.record_s)
        assert states(hosts) == [UP, STANDBY, None]
        b.away = False
        await heard(hosts, Phase.BOUND, owner="hv2")
        assert b.port_state("vm7") is UP
        assert reaches(hosts) == {"hv2/tap2"}


async def test_an_owner_that_comes_back_late_lets_the_vm_go() -> None:
    async with three(waits=SHORT) as hosts:
        a, b, _ = hosts.all
        await bring(hosts, Phase.HELD)
        a.away = True
        await b.migrations.activate("vm7")
        assert states(hosts)[:2] == [DRAINING, UP]
        await a.stop()
        await a.start()
        assert states(hosts)[:2] == [DRAINING, UP]  # by what it knew
        a.away = False
        await until(lambda: a.port_state("vm7") is None)
        assert reaches(hosts) == {"hv2/tap2"}


@pytest.mark.parametrize("restarts", [False, True], ids=["goes on", "restarts"])
async def test_who_has_activated_in_vain_gives_way(restarts: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Somebody has cancelled meanwhile: the engine is right."""
    async with three() as hosts:
        a, b, _ = hosts.all
        await bring(hosts, Phase.HELD)
        b.away = True
        await b.migrations.activate("vm7")
        await a.migrations.cancel("vm7")
        if restarts:
            await b.stop()
            await b.start()
        b.away = False
        await until(lambda: states(hosts) == [UP, None, None])
        assert b.state.remote.arrived == frozenset()
        await b.connected()
        await bring(hosts, Phase.PREPARED)
        assert states(hosts) == [UP, STANDBY, None]


async def test_what_was_activated_in_vain_is_not_recorded_of_a_later_migration() -> None:
    """By the same host, a moment after."""
    async with three(waits=replace(QUICK, record_s=0.1)) as hosts:
        a, b, _ = hosts.all
        await bring(hosts, Phase.HELD)
        b.away = True
        await b.migrations.activate("vm7")
        activated = time.monotonic()
        await a.migrations.cancel("vm7")
        b.away = False
        await until(lambda: states(hosts) == [UP, None, None])
        await b.connected()
        await bring(hosts, Phase.PREPARED)
        await asyncio.sleep(activated + 0.2 - time.monotonic())
        assert (phase(hosts), states(hosts)) == (Phase.PREPARED, [UP, STANDBY, None])


async def test_an_activation_that_comes_too_late_is_refused_and_leaves_the_port_as_it_is_to_be() -> None:
    """hv1 has cancelled, and hv2 has not heard of it yet."""
    async with three() as hosts:
        a, b, _ = hosts.all
        await bring(hosts, Phase.HELD)
        b.kv.deaf = True
        await a.migrations.cancel("vm7")
        with pytest.raises(WrongPhase, match="cannot activate port vm7: it is bound on host hv1"):
            await b.migrations.activate("vm7")
        assert b.port_state("vm7") is not UP
        b.kv.deaf = False
        await until(lambda: states(hosts) == [UP, None, None])


async def test_an_activation_that_comes_too_late_lets_no_second_port_send() -> None:
    """hv1's is up again."""
    async with three() as hosts:
        a, b, _ = hosts.all
        await bring(hosts, Phase.HELD)
        b.kv.deaf = True
        await a.migrations.cancel("vm7")
        activating = asyncio.create_task(b.migrations.activate("vm7"))
        seen: list[list[PortState | None]] = []
        while not activating.done():
            seen.append(states(hosts))
            await asyncio.sleep(0)
        assert isinstance(activating.exception(), WrongPhase)
        assert all(each.count(UP) == 1 for each in seen), seen


async def test_an_activation_does_not_wait_long_for_an_engine_that_is_slow() -> None:
    async with three(waits=replace(QUICK, activate_s=0.01)) as hosts:
        _, b, _ = hosts.all
        await bring(hosts, Phase.HELD)
        b.kv.turns = lambda: 1_000_000
        await b.migrations.activate("vm7")
        assert (b.port_state("vm7"), owner(hosts)) == (UP, "hv1")
        b.kv.turns = lambda: 1
        await until(lambda: owner(hosts) == "hv2")
        assert b.port_state("vm7") is UP


async def test_a_watch_that_is_behind_takes_nothing_back() -> None:
    """The answer to an activation comes before the watch tells of what was before."""
    async with three() as hosts:
        a, b, _ = hosts.all
        await bring(hosts, Phase.PREPARED)
        seen: list[PortState | None] = []
        b.kv.deaf = True
        await a.migrations._cluster.switchover("vm7")
        await b.migrations._know(await b.migrations._cluster.hold("vm7"))
        await b.migrations.activate("vm7")
        for revision in range(hosts.engine.revision - 5, hosts.engine.revision + 1):
            b.kv.deaf = revision
            await asyncio.sleep(0.005)
            seen.append(b.port_state("vm7"))
        assert set(seen) == {UP}
        assert owner(hosts) == "hv2"


async def test_a_member_that_has_just_gone_keeps_nobody_from_migrating() -> None:
    """Its hosts are told by another one in moments."""
    async with three(waits=replace(QUICK, back_s=5.0)) as hosts:
        _, b, _ = hosts.all
        b.away = True
        await until(lambda: b.membership.connection is Connection.DISCONNECTED)
        preparing = asyncio.create_task(b.migrations.prepare("vm7", "tap2"))
        await asyncio.sleep(0.02)
        assert not preparing.done()
        b.away = False
        await preparing
        assert (phase(hosts), b.port_state("vm7")) == (Phase.PREPARED, STANDBY)


async def test_an_engine_that_is_away_for_long_is_not_waited_for() -> None:
    async with three(waits=replace(QUICK, back_s=0.05)) as hosts:
        _, b, _ = hosts.all
        b.away = True
        await until(lambda: b.membership.connection is Connection.DISCONNECTED)
        with pytest.raises(ClusterAway, match="the cluster does not answer"):
            await b.migrations.prepare("vm7", "tap2")
        assert states(hosts) == [UP, None, None]
