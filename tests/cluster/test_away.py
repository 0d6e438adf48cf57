"""The engine is away, or an agent is: what is attached goes on, and what needs everybody's consent is refused.

  a ──────► b, c                 frames with numbers, of known unicast
host1      host2    host3
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from support.clustered import Clustered, cluster_of, eventually, where
from support.hearing import frame
from support.lan import assert_connected
from support.scripted import ScriptedVm, Traffic, plug_in_all, traffic
from vxagent.lab.frames import BROADCAST
from vxagent.lab.ping import ping
from vxagent_cli.client import AgentSaysNo

pytestmark = pytest.mark.alone  # streams in real-time priority: others would starve, and be blamed for it

RATE = 20_000
AWAY_S = 60.0 if os.environ.get("LONG") else 4.0
LEASE_S = 15.0  # of a host's session


@pytest.fixture(scope="module")
def vms(fleet: Clustered) -> tuple[str, list[ScriptedVm]]:
    """A segment, and a, b and c in it."""
    one, two, _ = fleet.hosts
    return plug_in_all(fleet, one, two, two)


@pytest.fixture(scope="module")
def streams(fleet: Clustered, vms: tuple[str, list[ScriptedVm]]) -> Traffic:
    """a ► b and c ► a."""
    _, (a, b, c) = vms
    return traffic(fleet.world, [(a, b), (c, a)], RATE)


@pytest.fixture
def back(fleet: Clustered) -> Iterator[None]:
    """The engine is back afterwards."""
    yield
    if not fleet.etcd.serves():
        fleet.etcd.kill()
        fleet.etcd.start()
    fleet.connected()


def kill(fleet: Clustered) -> None:
    fleet.etcd.kill()


def start(fleet: Clustered) -> None:
    fleet.etcd.start()


def hang(fleet: Clustered) -> None:
    fleet.etcd.hang()


def go_on(fleet: Clustered) -> None:
    fleet.etcd.go_on()


@pytest.mark.usefixtures("back")
@pytest.mark.parametrize(("go", "come"), [(kill, start), (hang, go_on)], ids=["killed", "stands still"])
def test_an_engine_that_is_away_for_seconds_costs_no_frame(
    fleet: Clustered, streams: Traffic, go: Callable[[Clustered], None], come: Callable[[Clustered], None]
) -> None:
    one = fleet.hosts[0]
    before = streams.dropped()
    with streams.streams.running() as run:
        go(fleet)
        time.sleep(AWAY_S)
        eventually(lambda: cluster_of(one) == "disconnected", "host1 knows")
        with pytest.raises(AgentSaysNo, match=r"the cluster does not answer.*what is attached goes on"):
            one.segment("late", vni=70000)
        come(fleet)
        fleet.connected()
        found = streams.figures("away", run, before)
    assert found.good, found.why
    assert "late" not in [row["name"] for row in one.client.get("v1", "segments")]
    one.segment("late", vni=70000)
    one.client.change("DELETE", "v1", "segments", "late")


@pytest.mark.usefixtures("back")
def test_an_agent_that_starts_while_the_engine_is_away_goes_by_what_it_knew(
    fleet: Clustered, vms: tuple[str, list[ScriptedVm]], streams: Traffic
) -> None:
    """Its tables are gone: what it has is what it has saved."""
    segment, (a, b, _) = vms
    one, two, three = fleet.hosts
    other = fleet.new_segment()
    near, far = one.veth(one.unique("v"), other), two.veth(two.unique("v"), other)
    assert_connected(near, far)
    one.agent.cli("down")
    fleet.etcd.kill()
    one.agent.up()
    assert cluster_of(one) == "disconnected"
    assert where(one, segment, b.mac) == two.vtep
    assert where(one, segment, a.mac) == a.port
    before = streams.dropped()
    with streams.streams.running() as run:
        near.namespace.wait_running("eth0")
        assert fleet.who_hears(near, frame(BROADCAST, near.mac), far, three.probe) == [far.port]
        assert ping(near.namespace, far.address).lost == []
        eventually(lambda: one.state(a.port) == "up")
        fleet.etcd.start()
        fleet.connected()
        found = streams.figures("away", run, before)
    assert found.good, found.why
    assert fleet.stored.read(f"port/{a.port}")["owner"] == "host1"


@pytest.mark.usefixtures("back")
def test_an_agent_that_is_killed_while_the_engine_is_away_costs_no_frame(fleet: Clustered, streams: Traffic) -> None:
    before = streams.dropped()
    with streams.streams.running() as run:
        fleet.etcd.kill()
        for host in fleet.hosts:
            host.agent.kill()
            host.agent.up()
            assert cluster_of(host) == "disconnected"
        fleet.etcd.start()
        fleet.connected()
        found = streams.figures("killed", run, before)
    assert found.good, found.why


def test_a_host_whose_agent_hangs_for_longer_than_its_session_is_still_sent_to(
    fleet: Clustered, vms: tuple[str, list[ScriptedVm]], streams: Traffic
) -> None:
    segment, (_, b, _) = vms
    one, two, three = fleet.hosts
    pid = two.agent.pid
    before = streams.dropped()
    with streams.streams.running() as run:
        os.kill(pid, signal.SIGSTOP)
        try:
            eventually(lambda: fleet.stored.get("live/host2") is None, "its session is over")
            (row,) = (row for row in one.client.get("v1", "hosts") if row["host"] == "host2")
            assert row["live"] is False
            assert where(one, segment, b.mac) == two.vtep
            assert fleet.stored.read(f"port/{b.port}")["owner"] == "host2"
            with pytest.raises(AgentSaysNo, match=f"MAC {b.mac} is port {b.port}'s on host host2"):
                three.attach("rival", segment, mac=[b.mac])
        finally:
            os.kill(pid, signal.SIGCONT)
        fleet.connected()
        eventually(lambda: fleet.stored.get("live/host2") is not None, "it is back")
        found = streams.figures("hangs", run, before)
    assert found.good, found.why
    assert fleet.stored.read(f"port/{b.port}")["epoch"] == 1
