"""What may be asked of a port whose VM migrates, and of whom.

host1 ── host2 ── host3 ── etcd      each test has a segment and a VM of its own
"""

from __future__ import annotations

from functools import partial

import pytest

from support.clustered import Clustered, eventually, migrate
from support.fleet import Host
from support.mortal import never_up_twice
from support.moving_port import STEPS, Moving, hosts_but
from support.perils import assert_one_owner
from vxagent.lab.ping import ping
from vxagent.model.binding import Phase
from vxagent_cli.client import AgentSaysNo

ROUNDS = 3

NEXT = {Phase.PREPARED: ("switchover",), Phase.HELD: ("switchover", "activate")}


@pytest.fixture
def moving(fleet: Clustered) -> Moving:
    return Moving(fleet)


@pytest.mark.parametrize("steps", [STEPS[:1], STEPS[:2]], ids=["prepared", "switched"])
def test_a_port_that_migrates_is_detached_on_neither_host(moving: Moving, steps: tuple[str, ...]) -> None:
    moving.go(*steps)
    before, states = moving.where(), moving.states()
    for host in (moving.one, moving.two):
        with pytest.raises(AgentSaysNo, match=f"cannot detach port {moving.port}: its VM migrates from host host1 to"):
            host.client.change("DELETE", "v1", "ports", moving.port)
    assert (moving.where(), moving.states()) == (before, states)


@pytest.mark.parametrize("steps", [STEPS[:1], STEPS[:2]], ids=["prepared", "switched"])
def test_a_port_that_migrates_keeps_what_the_cluster_was_told_of_it(moving: Moving, steps: tuple[str, ...]) -> None:
    moving.go(*steps)
    before = moving.fleet.stored.read(f"port/{moving.port}")
    for host in (moving.one, moving.two):
        with pytest.raises(AgentSaysNo, match="host1"):
            host.client.change("PATCH", "v1", "ports", moving.port, body={"ip": ["10.77.0.1"]})
        assert host.show(moving.port)["ips"] == [moving.vm.address]
    assert moving.fleet.stored.read(f"port/{moving.port}") == before


def test_a_port_that_ends_at_its_new_host_ends_where_its_vm_has_left_it(moving: Moving) -> None:
    moving.go(*STEPS)
    assert moving.states() == ["draining", "up"]
    moving.two.client.change("DELETE", "v1", "ports", moving.port)
    eventually(lambda: moving.states() == [None, None], "host1 lets go of it")
    assert moving.fleet.binding(moving.port) is None


def test_a_vm_that_comes_back_at_once_counts_its_frames_once(moving: Moving) -> None:
    peer = moving.three.veth(moving.three.unique("v"), moving.segment)
    assert ping(moving.vm.namespace, peer.address, count=50).lost == []
    before = moving.one.show(moving.port)["rx_packets"]
    assert before >= 50
    hosts = (moving.one, moving.two)
    for source, target in (hosts, hosts[::-1], hosts):
        migrate(target, "prepare", moving.port, ifname=moving.port)
        migrate(source, "switchover", moving.port)
        migrate(target, "activate", moving.port)
        eventually(partial(_has_counted, target, moving.port, before), f"{target.name} goes on counting from {before}")
        assert target.show(moving.port)["rx_packets"] < 2 * before  # its stack may have more to say


def test_a_vm_that_comes_back_at_once_may_do_so_behind_another_device(moving: Moving) -> None:
    moving.go(*STEPS)
    spare = moving.one.unique("v")
    moving.one.switch.ip(*f"link add {spare} up type veth peer name {spare}p".split())
    moving.one.switch.ip("link", "set", f"{spare}p", "up")
    moving.two.client.change("PATCH", "v1", "ports", moving.port, body={"ip": ["10.88.0.1"]})
    migrate(moving.one, "prepare", moving.port, ifname=spare)
    migrate(moving.two, "switchover", moving.port)
    migrate(moving.one, "activate", moving.port)
    port = moving.one.show(moving.port)
    assert (port["ifname"], port["ips"], port["state"]) == (spare, ["10.88.0.1"], "up")
    assert moving.where() == ("host1", None, "bound", 3)


# At the same time


def test_of_two_hosts_that_want_a_vm_one_gets_it(moving: Moving) -> None:
    for number in range(ROUNDS):
        at = moving.history()[-1].owner
        source = next(host for host in moving.fleet.hosts if host.name == at)
        rivals = hosts_but(moving.fleet.hosts, at)
        said = moving.at_once(*((rival, "prepare") for rival in rivals))
        prepared = moving.rest()
        won = next(rival for rival in rivals if rival.name == prepared.next)
        lost = next(rival for rival in rivals if rival is not won)
        assert (said[rivals.index(won)], prepared.phase) == ("", Phase.PREPARED)
        assert f"host {won.name} has prepared to take it from host {at}" in said[rivals.index(lost)]
        with never_up_twice((source, won), moving.port), never_up_twice((source, lost), moving.port):
            said = moving.at_once((source, "switchover"), (lost, "switchover"), (lost, "activate"))
            assert said[0] == ""
            assert all(said[1:])
            said = moving.at_once((won, "activate"), (lost, "activate"), (lost, "prepare"), (lost, "cancel"))
        bound = moving.rest()
        assert (bound.owner, bound.phase) == (won.name, Phase.BOUND) or bound.next == lost.name
        assert said[0] == ""
        if bound.next == lost.name:  # whose preparation came right behind
            migrate(lost, "cancel", moving.port)
            moving.rest()
        assert moving.history()[-1].epoch == 2 + number
    assert_one_owner(moving.history())


@pytest.mark.parametrize("at", NEXT)
@pytest.mark.parametrize("by", [("host1",), ("host2",), ("host1", "host2")], ids=" and ".join)
def test_a_migration_that_is_cancelled_beside_its_next_step_ends_here_or_there(
    moving: Moving, at: Phase, by: tuple[str, ...]
) -> None:
    """Whoever is first is right, and the other one is told so."""
    one, two, _ = hosts = moving.fleet.hosts
    for _ in range(ROUNDS):
        moving.go("prepare", *(("switchover",) if at is Phase.HELD else ()))
        with never_up_twice((one, two), moving.port):
            steps = [(two if step == "activate" else one, step) for step in NEXT[at]]
            asked = [*((host, "cancel") for host in hosts if host.name in by), *steps]
            said = dict(zip(((host.name, step) for host, step in asked), moving.at_once(*asked), strict=True))
            ended = moving.rest()
            cancelled = any(not said[name, "cancel"] for name in by)
            assert (ended.owner, ended.phase) == (("host1", Phase.BOUND) if cancelled else ("host2", Phase.BOUND)), said
            if at is Phase.HELD:
                assert cancelled == bool(said["host2", "activate"]), said
            if not cancelled:
                break
    assert_one_owner(moving.history())


def _has_counted(host: Host, port: str, frames: int) -> bool:
    return int(host.show(port)["rx_packets"]) >= frames
