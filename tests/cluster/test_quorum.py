"""The engine has three members, and loses some of them: what becomes of frames and of migrations.

  a ──────► b, c    VM          frames with numbers, of known unicast
host1      host2    host1 ► host2      host3
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from support.clustered import cluster_of, eventually, migrate, where
from support.fleet import Host
from support.journeys import Journey
from support.mortal import never_up_twice
from support.perils import assert_one_owner
from support.quorum import Quorum, running_quorum
from support.scripted import ScriptedVm, Traffic, plug_in_all, traffic
from vxagent.runtime.periods import WAITS
from vxagent_cli.client import AgentSaysNo

pytestmark = pytest.mark.alone  # streams in real-time priority: others would starve, and be blamed for it

RATE = 10_000
SLOWLY = 2_000  # what is held while nobody knows whether the engine answers has room
LONG = bool(os.environ.get("LONG"))


@pytest.fixture(scope="module")
def fleet() -> Iterator[Quorum]:
    with running_quorum() as fleet:
        yield fleet


@pytest.fixture(scope="module")
def journey(fleet: Quorum) -> Journey:
    return Journey(fleet, rate=SLOWLY)


@pytest.fixture(autouse=True)
def back(fleet: Quorum) -> Iterator[None]:
    """The engine is back afterwards."""
    yield
    fleet.heal()


@pytest.fixture(scope="module")
def vms(fleet: Quorum) -> tuple[str, list[ScriptedVm]]:
    """A segment, and a, b and c in it."""
    one, two, _ = fleet.hosts
    return plug_in_all(fleet, one, two, two)


@pytest.fixture(scope="module")
def streams(fleet: Quorum, vms: tuple[str, list[ScriptedVm]]) -> Traffic:
    """a ► b and c ► a."""
    _, (a, b, c) = vms
    return traffic(fleet.world, [(a, b), (c, a)], RATE)


def rows(fleet: Quorum) -> list[Any]:
    """What all hosts have of ports, and where frames go."""
    counts = ("rx_", "tx_", "verdicts", "egress", "age")
    found = [row for host in fleet.hosts for kind in ("ports", "fdb") for row in host.client.get("v1", kind)]
    return [{key: value for key, value in row.items() if not key.startswith(counts)} for row in found]


def is_away(host: Host) -> bool:
    """For its agent the engine is."""
    return cluster_of(host) == "disconnected"


def kill_a_follower(fleet: Quorum) -> None:
    with fleet.at_engine():
        fleet.nodes.followers()[0].kill()


def kill_the_leader(fleet: Quorum) -> None:
    with fleet.at_engine():
        fleet.nodes.leader().kill()


def lose_a_disk(fleet: Quorum) -> None:
    with fleet.at_engine():
        node = fleet.nodes.followers()[0]
    fleet.replace(node)


@pytest.mark.parametrize("lose", [kill_a_follower, kill_the_leader, lose_a_disk])
def test_a_member_that_is_lost_costs_no_frame_and_no_migration(
    fleet: Quorum, journey: Journey, lose: Callable[[Quorum], None]
) -> None:
    with journey.streaming(lose.__name__) as found:
        lose(fleet)
        journey.move()
    (figures,) = found
    assert figures.good, figures.why


def test_without_quorum_nobody_begins_to_migrate_and_who_has_begun_ends(fleet: Quorum, journey: Journey) -> None:
    source, target = journey.at, journey.other
    begun = len(fleet.stored.history(journey.port))
    with journey.streaming("no quorum") as found, never_up_twice((source, target), journey.port):
        journey.prepare()
        journey.switch_over()
        fleet.kill_majority()
        journey.activate()
        assert target.state(journey.port) == "up"
        fleet.heal()
        eventually(lambda: journey.owner() == target.name, "it is recorded")
        fleet.known(journey.segment, journey.vm.mac, target)
    (figures,) = found
    assert figures.good, figures.why
    assert_one_owner(fleet.stored.history(journey.port)[begun - 1 :])


def test_what_is_refused_without_quorum_changes_nothing(fleet: Quorum, journey: Journey) -> None:
    source, target = journey.at, journey.other
    steps = ((target, "prepare"), (source, "switchover"), (target, "activate"), (source, "cancel"))
    with journey.streaming("refused") as found:
        journey.prepare()
        before = rows(fleet), fleet.stored.history(journey.port)
        fleet.kill_majority()
        for host in fleet.hosts:
            eventually(partial(is_away, host), f"{host.name} knows")
        for host, step in steps:
            with pytest.raises(AgentSaysNo, match=r"the cluster does not answer \(etcd.*; what is attached goes on"):
                migrate(host, step, journey.port)
        assert rows(fleet) == before[0]
        fleet.heal()
        assert fleet.stored.history(journey.port) == before[1]
        journey.switch_over()
        journey.activate()
    (figures,) = found
    assert figures.good, figures.why


def test_an_agent_whose_watch_is_forgotten_while_it_stands_still_knows_all_afterwards(
    fleet: Quorum, vms: tuple[str, list[ScriptedVm]], streams: Traffic
) -> None:
    """History is compacted under it."""
    segment, (a, b, _) = vms
    one, two, three = fleet.hosts
    pid = three.agent.pid
    dropped = streams.dropped()
    with streams.streams.running() as run:
        os.kill(pid, signal.SIGSTOP)
        try:
            gone, new = (one.veth(one.unique("v"), segment) for _ in range(2))
            one.client.change("PATCH", "v1", "ports", new.port, body={"mac": [new.mac]})
            one.client.change("DELETE", "v1", "ports", gone.port)
            with fleet.at_engine():
                fleet.nodes.compact()
        finally:
            os.kill(pid, signal.SIGCONT)
        fleet.known(segment, new.mac, one)
        assert [where(three, segment, vm.mac) for vm in (a, b)] == [one.vtep, two.vtep]
        found = streams.figures("compacted", run, dropped)
    assert found.good, found.why


def test_a_host_that_the_engine_does_not_hear_of_is_sent_to_all_the_same(
    fleet: Quorum, vms: tuple[str, list[ScriptedVm]], streams: Traffic
) -> None:
    """Its peers do."""
    segment, (_, b, _) = vms
    one, two, _ = fleet.hosts
    dropped = streams.dropped()
    with streams.streams.running() as run:
        fleet.cut_off(two)
        eventually(partial(is_away, two), "host2 knows")
        if LONG:
            eventually(lambda: fleet.stored.get("live/host2") is None, "its session is over")
            time.sleep(WAITS.silent_s + 2 * WAITS.refused_s)  # others have tried to reach it
        assert where(one, segment, b.mac) == two.vtep
        assert two.vtep in one.client.get("v1", "segments", segment)["vteps"]
        with pytest.raises(AgentSaysNo, match="the cluster does not answer"):
            two.attach("late", segment)
        fleet.reach(two)
        fleet.connected()
        found = streams.figures("cut off", run, dropped)
    assert found.good, found.why
    assert fleet.stored.read(f"port/{b.port}")["epoch"] == 1
