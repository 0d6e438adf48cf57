"""Hosts of a cluster: what each claims, what it knows of the others, and how it goes on without the engine."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

import pytest

from support.members import (
    BLUE,
    GREEN,
    IP7,
    IP8,
    MAC7,
    MAC8,
    MAC9,
    QUICK,
    RED,
    SOON_S,
    Hosts,
    Member,
    frame,
    hosts_with,
    until,
)
from support.migrating import heard
from vxagent.core.remote import NO_CLUSTER
from vxagent.core.remote_saved import REMOTE
from vxagent.core.switch import Draft
from vxagent.datapath.fake_forwarding import Frame
from vxagent.errors import ClusterAmbiguous, ClusterAway, Conflict, HostError, WrongPhase
from vxagent.model.binding import Phase
from vxagent.model.fdb import StaticEntry
from vxagent.model.ids import mac_to_int
from vxagent.model.port import Port, PortState, Uplink
from vxagent.runtime.evacuation import evacuate
from vxagent.runtime.membership import Connection
from vxagent.runtime.silence import is_there
from vxagent.store.fake_kv import Lost
from vxagent.store.session import TTL_S

VTEP1, VTEP2, VTEP3 = (f"vtep/192.0.2.{n}" for n in (1, 2, 3))


def owners(hosts: Hosts) -> dict[str, str]:
    """Port → its owner, as the engine has it."""
    found = {}
    for key in hosts.keys("port"):
        binding = hosts.binding(key)
        assert binding is not None
        found[key] = binding.owner
    return found


def everything(host: Member) -> tuple[object, ...]:
    """What a refusal must leave as it is."""
    return host.datapath.rows(), host.store.load(), host.datapath.attached(), list(host.links.done)


# Claims


async def test_a_host_claims_what_it_has_and_gives_up_what_it_has_no_longer() -> None:
    async with hosts_with(2, BLUE) as hosts:
        a, b = hosts.all
        await a.attach("vm7", macs=(MAC7,), ips=(IP7,))
        assert owners(hosts) == {"vm7": "hv1"}
        assert hosts.keys("mac") == {f"blue/{MAC7}"}
        assert hosts.keys("has") == {"blue/hv1", "blue/hv2"}
        assert hosts.keys("carry") == {"vm7"}
        await a.detach("vm7")
        assert (hosts.keys("port"), hosts.keys("mac"), hosts.keys("carry")) == (set(), set(), set())
        await a.change(lambda draft: draft.delete_segment("blue"))
        assert hosts.keys("has") == {"blue/hv2"}
        await b.change(lambda draft: draft.delete_segment("blue"))
        assert hosts.keys("segment") == hosts.keys("has") == hosts.keys("vni") == set()


async def test_a_change_claims_no_more_than_what_it_changes() -> None:
    async with hosts_with(1, BLUE) as hosts:
        (a,) = hosts.all
        await a.attach("vm7", macs=(MAC7,))
        revision = hosts.engine.revision
        await a.change(lambda draft: draft.set_port("vm7", isolated=True, max_macs=3))
        await a.change(lambda draft: draft.set_segment("blue", multicast_snooping=True))
        await a.change(lambda draft: draft.add_uplink(Uplink(ifname="eth2")))
        changed = {event.kv.key for event in hosts.engine.history if event.kv.mod_revision > revision}
        assert changed <= {"/vxagent/v1/test/carry/vm7"}


async def test_a_port_that_changes_is_claimed_as_it_is_now() -> None:
    async with hosts_with(1, BLUE, RED) as hosts:
        (a,) = hosts.all
        await a.attach("vm7", macs=(MAC7,), ips=(IP7,))
        await a.change(lambda draft: draft.set_port("vm7", macs=(MAC8,), segment="red"))
        assert hosts.keys("mac") == {f"red/{MAC8}"}
        assert hosts.keys("ip") == {f"red/{IP7}"}
        assert hosts.keys("fdb") == {"red/vm7"}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Port(id="vm7", ifname="tap0", segment="blue"), "port vm7 is bound on host hv1; give this one another --id"),
        (
            Port(id="vm8", ifname="tap0", segment="blue", macs=(MAC7,)),
            f"MAC {MAC7} is port vm7's on host hv1 \\(segment blue\\)",
        ),
        (
            Port(id="vm8", ifname="tap0", segment="blue", macs=(MAC8,), ips=(IP7,)),
            f"IP {IP7} is port vm7's on host hv1 \\(segment blue\\)",
        ),
    ],
    ids=["id", "mac", "ip"],
)
async def test_what_another_hosts_port_has_is_refused_before_anything_changes(wanted: Port, message: str) -> None:
    async with hosts_with(2, BLUE) as hosts:
        a, b = hosts.all
        await a.attach("vm7", macs=(MAC7,), ips=(IP7,))
        await until(lambda: b.fdb(MAC7))
        before, keys = everything(b), dict(hosts.engine.keys)
        with pytest.raises(Conflict, match=message):
            await b.change(lambda draft: draft.attach_port(wanted))
        assert everything(b) == before
        assert hosts.engine.keys == keys


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        (replace(RED, vni=5099), "segment red has vni 5020 on hv1, not vni 5099"),
        (replace(RED, tenant="mallory"), "segment red has tenant acme on hv1, not tenant mallory"),
        (replace(RED, name="pink", vlan=21), "vni 5020 is segment red's in cluster test"),
        (replace(RED, name="pink", vni=5021), "vlan 20 is segment red's in cluster test"),
    ],
)
async def test_a_segment_that_is_another_on_other_hosts_is_refused(segment: object, message: str) -> None:
    async with hosts_with(2) as hosts:
        a, b = hosts.all
        await a.add(RED)
        before = everything(b)
        with pytest.raises(Conflict, match=message):
            await b.add(segment)  # type: ignore[arg-type]  # a Segment
        assert everything(b) == before


async def test_of_a_document_nothing_is_claimed_when_the_last_port_is_refused() -> None:
    async with hosts_with(2, BLUE) as hosts:
        a, b = hosts.all
        await a.attach("vm7", macs=(MAC7,))

        def both(draft: Draft) -> None:
            draft.add_segment(RED)
            draft.attach_port(Port(id="vm8", ifname="tap0", segment="red", macs=(MAC8,)))
            draft.attach_port(Port(id="vm9", ifname="tap1", segment="blue", macs=(MAC7,)))

        with pytest.raises(Conflict, match="is port vm7's"):
            await b.change(both)
        assert owners(hosts) == {"vm7": "hv1"}
        assert hosts.keys("segment") == {"blue"}


async def test_what_fails_here_is_not_claimed() -> None:
    async with hosts_with(1, BLUE) as hosts:
        (a,) = hosts.all
        await a.attach("vm7", macs=(MAC7,))
        a.datapath.missing.add(11)
        with pytest.raises(HostError, match="device tap1 is gone"):
            await a.attach("vm8", "tap1", macs=(MAC8,))
        assert owners(hosts) == {"vm7": "hv1"}
        a.datapath.fail_at = 1
        with pytest.raises(HostError):
            await a.change(lambda draft: draft.set_port("vm7", macs=(MAC9,)))
        assert hosts.keys("mac") == {f"blue/{MAC7}"}


@pytest.mark.parametrize("lost", [Lost.BEFORE, Lost.AFTER, Lost.LATE])
async def test_a_claim_whose_answer_does_not_come_is_given_up_when_nothing_came_of_it(lost: Lost) -> None:
    """The engine may have done it, or may yet."""
    async with hosts_with(2, BLUE) as hosts:
        a, b = hosts.all
        a.kv.losing.extend([lost] * 5)
        with pytest.raises(ClusterAmbiguous):
            await a.attach("vm7", macs=(MAC7,))
        assert "vm7" not in a.state.ports
        await until(lambda: owners(hosts) == {} and not a.kv.losing)
        await b.attach("vm7", macs=(MAC7,))
        assert owners(hosts) == {"vm7": "hv2"}


async def test_racing_hosts_have_one_winner_and_the_others_know_who_it_is() -> None:
    async with hosts_with(3, BLUE) as hosts:
        said = await asyncio.gather(*(host.attach("vm7", macs=(MAC7,)) for host in hosts.all), return_exceptions=True)
        (winner,) = [host for host, answer in zip(hosts.all, said, strict=True) if answer is None]
        refused = [answer for answer in said if answer is not None]
        assert all(isinstance(answer, Conflict) and winner.name in answer.what for answer in refused), said
        assert [host for host in hosts.all if "vm7" in host.state.ports] == [winner]


# What the others have


async def test_ports_of_other_hosts_are_known_with_their_addresses() -> None:
    async with hosts_with(3, BLUE, RED) as hosts:
        a, b, c = hosts.all
        await a.attach("vm7", macs=(MAC7,), ips=(IP7, "10.1.0.0/16"))
        await b.attach("vm8", macs=(MAC8,), ips=(IP8,))
        await until(lambda: all(host.fdb(MAC7) and host.fdb(MAC8) for host in hosts.all))
        assert [host.fdb(MAC7) for host in hosts.all] == ["vm7", VTEP1, VTEP1]
        await until(lambda: all(len(host.neighbours()) == 2 for host in hosts.all))
        assert [host.neighbours() for host in hosts.all] == [
            {IP7: "vm7", IP8: VTEP2},
            {IP7: VTEP1, IP8: "vm8"},
            {IP7: VTEP1, IP8: VTEP2},
        ]
        assert c.neighbours("red") == {}
        await a.change(lambda draft: draft.set_port("vm7", macs=(MAC9,), ips=()))
        await until(lambda: c.fdb(MAC9) and not c.fdb(MAC7))
        await until(lambda: IP7 not in c.neighbours())
        await a.detach("vm7")
        await until(lambda: all(host.fdb(MAC9) is None for host in hosts.all))


async def test_frames_go_to_where_the_cluster_says_and_floods_to_who_has_the_segment() -> None:
    async with hosts_with(3, BLUE) as hosts:
        a, b, c = hosts.all
        await a.attach("vm7", macs=(MAC7,))
        await b.attach("vm8", "tap1", macs=(MAC8,))
        await c.attach("vm9", "tap2", macs=(MAC9,))
        await until(lambda: a.fdb(MAC8) and a.fdb(MAC9) and b.fdb(MAC7))
        assert hosts.send(a, "tap0", frame(MAC7, MAC8)) == {"hv2/tap1"}
        assert hosts.send(a, "tap0", frame(MAC7)) == {"hv2/tap1", "hv3/tap2"}
        await b.attach("other", "tap2", segment="blue")
        spoofed = b.datapath.forward(12, Frame(src=mac_to_int(MAC7), dst=mac_to_int(MAC9)))
        assert spoofed.reason.name == "SRC_MAC_CONFLICT"
        await c.detach("vm9")
        await c.change(lambda draft: draft.delete_segment("blue"))
        await until(lambda: a.state.remote.peers["hv3"].segments == frozenset())
        assert hosts.send(a, "tap0", frame(MAC7)) == {"hv2/tap1", "hv2/tap2"}


async def test_segments_are_followed_as_they_come_and_go() -> None:
    async with hosts_with(2, BLUE) as hosts:
        a, b = hosts.all
        await a.add(RED)
        await a.attach("vm7", segment="red", macs=(MAC7,), ips=(IP7,))
        assert ("red", "vm7") not in b.state.remote.told
        await b.add(RED)
        await until(lambda: b.fdb(MAC7, "red") == VTEP1)
        await until(lambda: b.neighbours("red") == {IP7: VTEP1})
        await until(lambda: a.state.remote.peers["hv2"].segments == {"blue", "red"})
        await b.change(lambda draft: draft.delete_segment("red"))
        await until(lambda: ("red", "vm7") not in b.state.remote.told)
        assert b.state.remote.peers["hv1"].segments == {"blue"}
        await a.change(lambda draft: draft.set_port("vm7", macs=(MAC8,)))
        await b.add(RED)
        await until(lambda: b.fdb(MAC8, "red") == VTEP1)
        assert b.fdb(MAC7, "red") is None


async def test_a_host_that_gets_a_vtep_later_is_flooded_to() -> None:
    async with hosts_with(2, BLUE) as hosts:
        a, b = hosts.all
        await a.attach("vm7", macs=(MAC7,))
        await b.attach("vm8", macs=(MAC8,))
        overlay = b.config.overlay
        b.config = replace(b.config, overlay=None)
        await b.restart()
        await until(lambda: not a.state.remote.peers)
        assert hosts.send(a, "tap0", frame(MAC7)) == set()
        b.config = replace(b.config, overlay=overlay)
        await b.restart()
        await until(lambda: a.fdb(MAC8) == VTEP2)
        await until(lambda: hosts.send(a, "tap0", frame(MAC7)) == {"hv2/tap0"})


async def test_what_is_stated_comes_before_what_is_told() -> None:
    async with hosts_with(2, BLUE) as hosts:
        a, b = hosts.all
        await a.attach("vm7", macs=(MAC7,), ips=(IP7,))
        await until(lambda: b.neighbours() == {IP7: VTEP1})
        await b.attach("gw", macs=(MAC8,), ips=("10.0.0.0/24",))
        assert b.neighbours() == {IP7: VTEP1}


# The engine away


async def test_nothing_is_taken_back_while_the_engine_is_away_and_what_needs_it_is_refused() -> None:
    async with hosts_with(2, BLUE) as hosts:
        a, b = hosts.all
        await a.attach("vm7", macs=(MAC7,), ips=(IP7,))
        await b.attach("vm8", macs=(MAC8,))
        await until(lambda: b.fdb(MAC7) and a.fdb(MAC8))
        b.away = True
        await until(lambda: b.membership.connection is Connection.DISCONNECTED)
        before = everything(b)
        for attempt in (
            b.attach("vm9", "tap1"),
            b.add(RED),
            b.change(lambda draft: draft.set_port("vm8", macs=(MAC9,))),
            b.migrations.prepare("vm7"),
        ):
            with pytest.raises(ClusterAway, match=r"the cluster does not answer.*ask again when `vxagent status` says"):
                await attempt
        assert everything(b) == before
        assert hosts.send(b, "tap0", frame(MAC8, MAC7)) == {"hv1/tap0"}
        await b.change(lambda draft: draft.set_port("vm8", isolated=True))  # nobody else's business
        b.away = False
        await b.connected()
        await b.attach("vm9", "tap1")
        assert owners(hosts)["vm9"] == "hv2"


async def test_an_agent_that_starts_while_the_engine_is_away_goes_by_what_it_knew() -> None:
    async with hosts_with(2, BLUE) as hosts:
        a, b = hosts.all
        await a.attach("vm7", macs=(MAC7,), ips=(IP7,))
        await b.attach("vm8", macs=(MAC8,))
        await until(lambda: b.neighbours() == {IP7: VTEP1})
        b.away = True
        await b.stop()
        b.datapath.destroy()  # the machine restarted, too
        await b.start()
        assert hosts.send(b, "tap0", frame(MAC8, MAC7)) == {"hv1/tap0"}
        assert hosts.send(b, "tap0", frame(MAC8)) == {"hv1/tap0"}
        assert b.neighbours() == {IP7: VTEP1}
        await a.detach("vm7")
        b.away = False
        await until(lambda: b.fdb(MAC7) is None)
        assert b.neighbours() == {}


async def test_a_segment_that_comes_back_has_what_is_in_it_now() -> None:
    """It was deleted while the engine was away, the agent restarted, and what was in it has gone since."""
    async with hosts_with(2, BLUE, RED) as hosts:
        a, b = hosts.all
        await a.attach("vm7", segment="red", macs=(MAC7,))
        await until(lambda: b.fdb(MAC7, "red"))
        b.away = True
        await b.change(lambda draft: draft.delete_segment("red"))
        await b.stop()
        await a.detach("vm7")
        await b.start()
        b.away = False
        await b.connected()
        await b.add(RED)
        await until(lambda: b.state.remote.peers["hv1"].segments == {"blue", "red"})
        assert b.fdb(MAC7, "red") is None


async def test_a_host_that_is_in_no_cluster_any_more_goes_by_nothing_that_one_said() -> None:
    async with hosts_with(2, BLUE) as hosts:
        a, b = hosts.all
        await a.attach("vm7", macs=(MAC7,))
        await until(lambda: b.fdb(MAC7))
        await b.stop()
        b.config = replace(b.config, cluster=None)
        await b.start()
        assert b.running.membership is None
        assert (b.fdb(MAC7), b.state.remote) == (None, NO_CLUSTER)
        assert {kind for kind, _ in b.store.load()} & set(REMOTE) == set()


@pytest.mark.parametrize("restarts", [False, True], ids=["goes on", "restarts"])
async def test_what_is_detached_while_the_engine_is_away_is_let_go_of_later(restarts: bool) -> None:
    async with hosts_with(2, BLUE, RED) as hosts:
        a, b = hosts.all
        await b.attach("vm8", macs=(MAC8,))
        await b.attach("vm9", "tap1", segment="red", macs=(MAC9,))
        session = b.membership.cluster.session
        b.away = True
        await until(lambda: b.membership.connection is Connection.DISCONNECTED)
        await b.detach("vm8")
        await b.detach("vm9")
        await b.change(lambda draft: draft.delete_segment("red"))
        assert "vm8" not in b.state.ports
        assert owners(hosts) == {"vm8": "hv2", "vm9": "hv2"}
        if restarts:
            await b.stop()
            await b.start()
        b.away = False
        await until(lambda: owners(hosts) == {} and hosts.keys("has") == {"blue/hv1", "blue/hv2", "red/hv1"})
        assert restarts or b.membership.cluster.session is session
        await until(lambda: b.state.remote.doubtful == frozenset())
        await a.attach("vm8", macs=(MAC8,))


async def test_what_is_attached_again_meanwhile_is_not_let_go_of() -> None:
    async with hosts_with(1, BLUE) as hosts:
        (a,) = hosts.all
        await a.attach("vm8", macs=(MAC8,))
        a.away = True
        await until(lambda: a.membership.connection is Connection.DISCONNECTED)
        await a.detach("vm8")
        a.away = False
        await a.connected()
        await a.attach("vm8", macs=(MAC8,))
        await a.add(RED)
        await asyncio.sleep(0.05)  # more than two looks at what is to be let go of
        assert owners(hosts) == {"vm8": "hv1"}


# Sessions


async def test_a_session_that_is_lost_is_opened_again_and_everything_claimed_anew() -> None:
    async with hosts_with(2, BLUE) as hosts:
        a, b = hosts.all
        await a.attach("vm7", macs=(MAC7,))
        session = a.membership.cluster.session
        hosts.lose_session(a)
        await until(lambda: a.membership.cluster.session not in (None, session))
        await a.connected()
        assert hosts.keys("live") == {"hv1", "hv2"}
        await until(lambda: b.fdb(MAC7) == VTEP1)
        await a.attach("vm8", "tap1")
        assert owners(hosts) == {"vm7": "hv1", "vm8": "hv1"}


async def test_a_session_is_held_while_everything_is_claimed_however_long_that_takes() -> None:
    async with hosts_with(1, BLUE) as hosts:
        (a,) = hosts.all
        await a.attach("vm7", macs=(MAC7,))
        before = a.membership.cluster.session
        begun: list[object] = []

        async def claiming_takes_long() -> None:
            begun.append(a.membership.cluster.session)
            for _ in range(6):
                hosts.now += TTL_S / 3
                await asyncio.sleep(5 * a.waits.keepalive_s)

        async def opens() -> None:
            a.kv.before = claiming_takes_long

        a.kv.before = opens
        hosts.lose_session(a)
        await until(lambda: begun)
        await a.connected()
        assert begun == [a.membership.cluster.session]
        assert before is not a.membership.cluster.session
        assert hosts.keys("live") == {"hv1"}


async def test_claims_that_are_not_answered_are_made_again_under_the_same_session() -> None:
    async with hosts_with(2, BLUE) as hosts:
        a, b = hosts.all
        await a.attach("vm7", macs=(MAC7,))
        seen: list[object] = []

        async def opens() -> None:
            a.kv.before = claims

        async def claims() -> None:
            seen.append(a.membership.cluster.session)
            a.away = True
            asyncio.get_running_loop().call_later(5 * a.waits.retry_s, setattr, a, "away", False)

        a.kv.before = opens
        hosts.lose_session(a)
        await until(lambda: seen and not a.away)
        await a.connected()
        assert seen == [a.membership.cluster.session]
        await until(lambda: b.membership.live == {"hv1", "hv2"})


async def test_an_agent_takes_the_session_of_the_one_before_it() -> None:
    async with hosts_with(2, BLUE) as hosts:
        a, b = hosts.all
        await a.attach("vm7", macs=(MAC7,))
        await a.restart()
        assert hosts.keys("live") == {"hv1", "hv2"}
        await until(lambda: b.membership.live == {"hv1", "hv2"})
        await until(lambda: (b.fdb(MAC7), a.port_state("vm7")) == (VTEP1, PortState.UP))


async def test_a_host_that_goes_down_is_dead_and_its_ports_stay_its_own() -> None:
    async with hosts_with(2, BLUE) as hosts:
        a, b = hosts.all
        await a.attach("vm7", macs=(MAC7,))
        await until(lambda: b.fdb(MAC7))
        await a.running.down()
        await until(lambda: b.membership.live == {"hv2"})
        assert owners(hosts) == {"vm7": "hv1"}
        assert b.fdb(MAC7) == VTEP1


async def test_two_hosts_with_one_name_are_told_so(caplog: pytest.LogCaptureFixture) -> None:
    async with hosts_with(1, BLUE) as hosts:
        (a,) = hosts.all
        twin = Member(hosts.engine, 2)
        twin.config = replace(twin.config, host="hv1")
        try:
            await twin.start()
            await until(lambda: "another host with VTEP 192.0.2.1 is alive as hv1 in cluster test" in caplog.text)
            with pytest.raises(ClusterAway, match=r"another host with VTEP 192\.0\.2\.1 is alive as hv1"):
                await twin.add(BLUE)
        finally:
            await twin.stop()
        assert a.membership.connection is Connection.CONNECTED


async def test_what_somebody_has_taken_meanwhile_is_said_and_keeps_nothing_else_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with hosts_with(2, BLUE) as hosts:
        a, b = hosts.all
        await a.attach("vm7", macs=(MAC7,))
        await a.attach("vm8", "tap1", macs=(MAC8,))
        await a.stop()
        hosts.lose_session(a)
        await evacuate(b.running.changes, b.membership.cluster, "hv1")
        with caplog.at_level(logging.ERROR):
            await a.start()
            await a.connected()
            await until(lambda: a.port_state("vm7") is None and a.port_state("vm8") is None)
        assert owners(hosts) == {"vm7": "hv2", "vm8": "hv2"}
        await a.attach("vm9", "tap2")


async def test_a_store_that_lost_everything_gets_back_what_is_here() -> None:
    async with hosts_with(2, BLUE) as hosts:
        a, b = hosts.all
        await a.attach("vm7", macs=(MAC7,), ips=(IP7,))
        await b.attach("vm8", macs=(MAC8,))
        await until(lambda: b.fdb(MAC7) and a.fdb(MAC8))
        hosts.engine.lose_everything()
        await until(lambda: hosts.keys("port") == {"vm7", "vm8"})
        await until(lambda: hosts.keys("has") == {"blue/hv1", "blue/hv2"})
        for host in hosts.all:
            await host.connected()
        await until(lambda: (a.fdb(MAC8), b.fdb(MAC7)) == (VTEP2, VTEP1))
        await until(lambda: b.neighbours() == {IP7: VTEP1})
        assert hosts.send(a, "tap0", frame(MAC7)) == {"hv2/tap0"}


# Ports that migrate


async def test_a_port_that_migrates_is_detached_on_neither_host() -> None:
    async with hosts_with(2, BLUE) as hosts:
        a, b = hosts.all
        await a.attach("vm7", macs=(MAC7,))
        await b.migrations.prepare("vm7", "tap1")
        await heard(hosts, Phase.PREPARED)
        await hosts.packed("vm7")
        for host in (a, b):
            before, keys = everything(host), dict(hosts.engine.keys)
            with pytest.raises(WrongPhase, match="cannot detach port vm7: its VM migrates from host hv1 to host hv2"):
                await host.detach("vm7")
            assert everything(host) == before
            assert hosts.engine.keys == keys
        await a.migrations.cancel("vm7")
        await a.detach("vm7")
        assert owners(hosts) == {}


async def test_a_port_that_migrates_is_not_changed() -> None:
    async with hosts_with(2, BLUE) as hosts:
        a, b = hosts.all
        await a.attach("vm7", macs=(MAC7,))
        await b.migrations.prepare("vm7", "tap1")
        await heard(hosts, Phase.PREPARED)
        await hosts.packed("vm7")
        before = everything(a)
        with pytest.raises(WrongPhase, match="cannot change port vm7: its VM migrates from host hv1 to host hv2"):
            await a.change(lambda draft: draft.set_port("vm7", macs=(MAC8,)))
        assert everything(a) == before


# What becomes rows


async def test_what_could_not_be_made_rows_of_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async with hosts_with(2, BLUE) as hosts:
        a, b = hosts.all
        b.datapath.fail_at = 1
        await a.attach("vm7", macs=(MAC7,))
        await until(lambda: "the fake was told to fail here" in caplog.text)
        await until(lambda: b.fdb(MAC7) == VTEP1)
        await b.connected()


async def test_a_vlan_needs_no_rows_for_who_is_elsewhere() -> None:
    async with hosts_with(2, GREEN) as hosts:
        a, b = hosts.all
        await a.attach("vm7", segment="green", macs=(MAC7,), ips=(IP7,))
        await until(lambda: "vm7" in b.state.remote.ports)
        assert (b.fdb(MAC7, "green"), b.neighbours("green")) == (None, {})


# Bridging


async def test_one_host_bridges_a_segment_and_another_takes_over() -> None:
    async with hosts_with(3, RED) as hosts:
        a, b, c = hosts.all
        for host in (a, b):
            await host.change(lambda draft: draft.add_uplink(Uplink(ifname="eth2")))
            await until(lambda: hosts.key("bridge/red") == b'{"host":"hv1"}')
        await c.attach("vm9", segment="red", macs=(MAC9,))
        await until(lambda: a.state.bridges("red"))
        assert [host.state.bridges("red") for host in hosts.all] == [True, False, False]
        assert hosts.send(c, "tap0", frame(MAC9)) == {"hv1/eth2"}
        await a.change(lambda draft: draft.delete_segment("red"))
        await until(lambda: b.state.bridges("red"))
        assert hosts.key("bridge/red") == b'{"host":"hv2"}'
        assert hosts.send(c, "tap0", frame(MAC9)) == {"hv2/eth2"}


async def test_a_host_that_can_bridge_no_longer_leaves_it_to_another() -> None:
    async with hosts_with(2, RED) as hosts:
        a, b = hosts.all
        for host in hosts.all:
            await host.change(lambda draft: draft.add_uplink(Uplink(ifname="eth2")))
            await until(lambda: hosts.key("bridge/red") == b'{"host":"hv1"}')
        await a.change(lambda draft: draft.delete_uplink("eth2"))
        await until(lambda: hosts.key("bridge/red") == b'{"host":"hv2"}')
        await until(lambda: b.state.bridges("red"))


async def test_a_bridge_that_is_dead_and_silent_is_replaced_one_that_answers_is_not() -> None:
    async with hosts_with(2, RED) as hosts:
        a, b = hosts.all
        for host in hosts.all:
            await host.change(lambda draft: draft.add_uplink(Uplink(ifname="eth2")))
            await until(lambda: hosts.key("bridge/red") == b'{"host":"hv1"}')
        await until(lambda: b.state.remote.bridges == {"red": "hv1"})
        asked = b.asked
        b.here.add(a.vtep)
        await a.stop()
        hosts.lose_session(a)
        await until(lambda: b.asked > asked + 1)
        assert hosts.key("bridge/red") == b'{"host":"hv1"}'
        b.here.clear()
        await until(lambda: hosts.key("bridge/red") == b'{"host":"hv2"}')


async def test_a_host_that_goes_down_leaves_its_bridges_to_others() -> None:
    """It answers who asks whether it is there."""
    async with hosts_with(2, RED) as hosts:
        a, b = hosts.all
        for host in hosts.all:
            await host.change(lambda draft: draft.add_uplink(Uplink(ifname="eth2")))
            await until(lambda: hosts.key("bridge/red") == b'{"host":"hv1"}')
        b.here.add(a.vtep)
        await until(lambda: a.state.bridges("red"))
        await a.running.down()
        await until(lambda: b.state.bridges("red"))
        assert hosts.key("bridge/red") == b'{"host":"hv2"}'


async def test_a_store_that_lost_everything_has_no_second_bridge() -> None:
    waits = replace(QUICK, reset_s=0.5)  # or a busy machine puts it back too late
    async with hosts_with(2, RED, waits=waits) as hosts:
        a, b = hosts.all
        for host in hosts.all:
            await host.change(lambda draft: draft.add_uplink(Uplink(ifname="eth2")))
            await until(lambda: hosts.key("bridge/red") == b'{"host":"hv1"}')
        await until(lambda: a.state.bridges("red"))
        hosts.engine.lose_everything()
        seen: set[tuple[bool, bool]] = set()

        def all_is_back() -> bool:
            seen.add((a.state.bridges("red"), b.state.bridges("red")))
            return hosts.key("bridge/red") is not None and hosts.keys("has") == {"red/hv1", "red/hv2"}

        await until(all_is_back)
        for host in hosts.all:
            await host.connected()
        await asyncio.sleep(2 * waits.reset_s)
        assert all_is_back()
        assert seen == {(True, False)}


# Silence


async def with_a_silent_one(hosts: Hosts) -> list[Member]:
    """hv1 has vm7; hv2 has vm8, a dead agent, and does not answer."""
    a, b = hosts.all
    await a.attach("vm7", macs=(MAC7,))
    await b.attach("vm8", macs=(MAC8,))
    await until(lambda: a.fdb(MAC8))
    await b.stop()
    hosts.lose_session(b)
    await until(lambda: a.state.remote.peers["hv2"].silent)
    return [a, b]


async def test_nothing_is_flooded_to_a_host_that_is_silent_until_it_is_back() -> None:
    async with hosts_with(2, BLUE) as hosts:
        a, b = await with_a_silent_one(hosts)
        assert hosts.send(a, "tap0", frame(MAC7)) == set()
        assert hosts.send(a, "tap0", frame(MAC7, MAC8)) == {"hv2/tap0"}  # if it is there after all
        await b.start()
        await until(lambda: not a.state.remote.peers["hv2"].silent)
        assert hosts.send(a, "tap0", frame(MAC7)) == {"hv2/tap0"}


async def test_a_host_that_answers_again_is_flooded_to_though_its_agent_is_dead() -> None:
    async with hosts_with(2, BLUE) as hosts:
        a, b = await with_a_silent_one(hosts)
        a.here.add(b.vtep)
        await until(lambda: not a.state.remote.peers["hv2"].silent)
        assert hosts.send(a, "tap0", frame(MAC7)) == {"hv2/tap0"}
        a.here.clear()
        await until(lambda: a.state.remote.peers["hv2"].silent)


@pytest.mark.parametrize("silent", [False, True])
async def test_where_nobody_says_whether_a_host_is_there_it_stays_what_it_is(silent: bool) -> None:
    """A firewall drops the question: a host that bridges goes on, and a second one would make a loop."""
    async with hosts_with(2, RED) as hosts:
        a, b = hosts.all
        for host in hosts.all:
            await host.change(lambda draft: draft.add_uplink(Uplink(ifname="eth2")))
            await until(lambda: hosts.key("bridge/red") == b'{"host":"hv1"}')
        await until(lambda: b.state.remote.bridges == {"red": "hv1"})
        if not silent:
            b.mute.add(a.vtep)
        await a.stop()
        hosts.lose_session(a)
        await until(lambda: b.state.remote.peers["hv1"].silent or not silent)
        b.mute.add(a.vtep)
        asked = b.asked
        await until(lambda: b.asked > asked + 2)
        assert b.state.remote.peers["hv1"].silent is silent
        assert hosts.key("bridge/red") == (b'{"host":"hv2"}' if silent else b'{"host":"hv1"}')


async def test_a_host_that_comes_back_while_it_is_asked_is_not_silent() -> None:
    async with hosts_with(2, BLUE) as hosts:
        a, b = hosts.all
        await b.stop()
        hosts.lose_session(b)
        asked = asyncio.Event()
        back = asyncio.Event()

        async def answers(vtep: str) -> bool:
            asked.set()
            await back.wait()
            return False

        a.membership._silence._answers = answers
        await asked.wait()
        await b.start()
        await until(lambda: "hv2" in a.membership.live)
        back.set()
        await asyncio.sleep(5 * QUICK.refused_s)
        assert not a.state.remote.peers["hv2"].silent


async def test_this_machine_is_there() -> None:
    assert await is_there("127.0.0.1", within_s=SOON_S)


# Who has a MAC


async def test_what_is_attached_here_comes_before_what_the_cluster_said_of_the_mac_before() -> None:
    """Its VM was stopped elsewhere and is started here, as another port; this host hears late that the other went."""
    async with hosts_with(2, BLUE) as hosts:
        a, b = hosts.all
        await a.attach("vm7", macs=(MAC7,), ips=(IP7,))
        await until(lambda: b.fdb(MAC7) == VTEP1 and b.neighbours() == {IP7: VTEP1})
        b.kv.deaf = True
        await a.detach("vm7")
        await b.attach("vm8", macs=(MAC7,), ips=(IP7,))
        assert (b.fdb(MAC7), b.neighbours()) == ("vm8", {IP7: "vm8"})
        b.kv.deaf = False
        await until(lambda: "vm7" not in b.state.remote.ports and "vm8" in b.state.remote.ports)
        assert (b.fdb(MAC7), b.neighbours()) == ("vm8", {IP7: "vm8"})
        await b.running.reload()
        assert (b.fdb(MAC7), b.neighbours()) == ("vm8", {IP7: "vm8"})
        await b.detach("vm8")
        assert (b.fdb(MAC7), b.neighbours(), b.state.shadowed) == (None, {}, {})


@pytest.mark.parametrize("reloads", [False, True], ids=["at once", "after a reload"])
async def test_what_is_stated_comes_before_what_the_cluster_says_as_long_as_it_is_stated(reloads: bool) -> None:
    async with hosts_with(2, BLUE) as hosts:
        a, b = hosts.all
        await b.attach("vm8", macs=(MAC8,))
        await a.attach("vm7", macs=(MAC7,))
        await until(lambda: b.fdb(MAC7) == VTEP1)
        entry = StaticEntry(segment="blue", mac=MAC7, port="vm8")
        await b.change(lambda draft: draft.add_fdb(entry))
        assert b.fdb(MAC7) == "vm8"
        if reloads:
            await b.running.reload()
            assert b.fdb(MAC7) == "vm8"
        await a.change(lambda draft: draft.set_port("vm7", macs=(MAC7, MAC9)))
        await until(lambda: b.fdb(MAC9) == VTEP1)
        assert b.fdb(MAC7) == "vm8"
        await b.change(lambda draft: draft.delete_fdb("blue", MAC7))
        assert b.fdb(MAC7) == VTEP1
        await b.change(lambda draft: draft.add_fdb(entry))
        await a.detach("vm7")
        await until(lambda: "vm7" not in b.state.remote.ports)
        assert (b.fdb(MAC7), b.fdb(MAC9)) == ("vm8", None)
        await b.change(lambda draft: draft.delete_fdb("blue", MAC7))
        assert (b.fdb(MAC7), b.state.shadowed) == (None, {})
