"""The veth pair of an internal port follows its MAC and the MTU of its segment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from operator import methodcaller

import pytest

from support.sim import Sim
from vxagent.core.effects import MakeInternal
from vxagent.core.state import internal_peer
from vxagent.core.switch import Draft
from vxagent.errors import HostError
from vxagent.model.port import Mode, Port
from vxagent.model.segment import Segment

MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")
PEER = internal_peer("host0")
CHANGES = [
    methodcaller("set_port", "host0", macs=MACS[1:]),
    methodcaller("set_port", "host0", segment="large"),
    methodcaller("set_segment", "blue", mtu=9000),
]


@pytest.fixture
def sim() -> Sim:
    """The host in segment blue, by device host0 with a listed MAC; segment large has another MTU."""
    sim = Sim()
    sim.change(lambda draft: draft.add_segment(Segment(name="blue", tenant="acme")))
    sim.change(lambda draft: draft.add_segment(Segment(name="large", tenant="acme", mtu=9000)))
    port = Port(id="host0", ifname="host0", mode=Mode.INTERNAL, segment="blue", macs=MACS[:1])
    sim.change(lambda draft: draft.attach_port(port))
    sim.sync()
    return sim


def shown(sim: Sim) -> tuple[str, int, int]:
    """The MAC and MTU of host0, the MTU of its switch side."""
    host, peer = sim.links.by_name["host0"], sim.links.by_name[PEER]
    return host.mac, host.mtu, peer.mtu


def made(sim: Sim) -> int:
    """How often a pair was made or changed."""
    return sum(isinstance(effect, MakeInternal) for effect in sim.links.done)


def test_a_new_mac_reaches_the_device(sim: Sim) -> None:
    sim.change(CHANGES[0])
    assert shown(sim) == (MACS[1], 1500, 1500)


@pytest.mark.parametrize("change", CHANGES[1:])
def test_a_new_mtu_reaches_both_ends(sim: Sim, change: Callable[[Draft], None]) -> None:
    sim.change(change)
    assert shown(sim) == (MACS[0], 9000, 9000)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_fails_gives_the_pair_back_what_it_had(sim: Sim, change: Callable[[Draft], None]) -> None:
    before = shown(sim)
    sim.datapath.fail_at = 1
    with pytest.raises(HostError, match="told to fail"):
        sim.change(change)
    assert shown(sim) == before


def test_a_pair_that_is_unchanged_is_not_touched(sim: Sim) -> None:
    sim.change(methodcaller("set_port", "host0", ips=("10.0.0.1",)))
    sim.change(methodcaller("set_segment", "large", mtu=1400))
    sim.restart()
    assert made(sim) == 1


def test_a_restart_changes_a_pair_that_is_not_as_it_should_be(sim: Sim) -> None:
    for ifname in ("host0", PEER):
        sim.links.put(replace(sim.links.by_name[ifname], mtu=1400, mac=MACS[1]))
    sim.restart()
    assert shown(sim) == (MACS[0], 1500, 1500)


def test_a_restart_leaves_any_listed_mac_and_one_where_none_is_listed(sim: Sim) -> None:
    for macs in (MACS, ()):
        sim.change(methodcaller("set_port", "host0", macs=macs))
        sim.links.put(replace(sim.links.by_name["host0"], mac=MACS[1]))
        before = made(sim)
        sim.restart()
        assert (shown(sim)[0], made(sim)) == (MACS[1], before)


def test_a_pair_whose_device_is_gone_is_not_made_by_a_change(sim: Sim) -> None:
    sim.unplug("host0")
    sim.unplug(PEER)
    sim.change(CHANGES[0])
    assert made(sim) == 1
