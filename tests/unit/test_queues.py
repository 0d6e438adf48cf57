"""A tap keeps more frames while it waits for a VM that migrates: once, and until it is let go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from operator import methodcaller

import pytest

from support.migrating import HOLDING, STANDBY, UP, bring, three
from support.sim import Sim
from vxagent.core.audit import Sight, examine
from vxagent.core.effects import Attach, Effect, Save, SetQueue, inverse
from vxagent.core.queues import WAITING_FRAMES
from vxagent.core.remote import Remote
from vxagent.core.switch import Draft
from vxagent.model.binding import Phase, Projection
from vxagent.model.device import Device
from vxagent.model.port import Port
from vxagent.model.segment import Segment

TAP = Device(ifname="tap0", ifindex=7, kind="tun", txqueuelen=500)
OTHER = Device(ifname="tap1", ifindex=8, kind="tun")
LONGER = SetQueue(ifindex=7, ifname="tap0", frames=WAITING_FRAMES, old=500)
BACK = SetQueue(ifindex=7, ifname="tap0", frames=500, old=WAITING_FRAMES)


def host(*devices: Device) -> Sim:
    """One with a segment and with these devices, of which nothing is used yet."""
    sim = Sim(*devices)
    sim.change(lambda draft: draft.add_segment(Segment(name="blue", tenant="acme", vlan=10)))
    sim.links.done.clear()
    return sim


def says(draft: Draft, phase: Phase, *, owner: str = "hv2") -> None:
    """The cluster does, of a port that is here, or to come here."""
    coming = "hv1" if phase is not Phase.BOUND else None
    told = Projection(segment="blue", port="vm7", owner=owner, next=coming, phase=phase)
    draft.cluster_says(Remote(on=True, told={("blue", "vm7"): told}))


def prepare(draft: Draft, *, phase: Phase = Phase.PREPARED) -> None:
    says(draft, phase)
    draft.attach_port(Port(id="vm7", ifname="tap0", segment="blue", macs=("02:00:00:00:00:07",)))


def another(draft: Draft) -> None:
    """A port of a VM that stays."""
    draft.attach_port(Port(id="vm8", ifname="tap1", segment="blue"))


def activate(draft: Draft) -> None:
    says(draft, Phase.BOUND, owner="hv1")


def queues(effects: list[Effect]) -> list[Effect]:
    """Those that set one."""
    return [effect for effect in effects if isinstance(effect, SetQueue)]


def length(sim: Sim) -> int:
    return sim.links.by_name["tap0"].txqueuelen


def drifted(sim: Sim) -> list[str]:
    """The devices that are not as they should be."""
    return [drift.name for drift in examine(sim.switch.state, Sight())]


@pytest.mark.parametrize("phase", [Phase.PREPARED, Phase.SWITCHED, Phase.HELD])
def test_a_tap_that_waits_keeps_more_before_anything_can_come(phase: Phase) -> None:
    sim = host(TAP)
    draft = sim.switch.draft()
    prepare(draft, phase=phase)
    effects = draft.plan().effects
    (at,) = (number for number, effect in enumerate(effects) if effect == LONGER)
    assert isinstance(effects[0], Save)
    assert at < next(number for number, effect in enumerate(effects) if isinstance(effect, Attach))
    assert inverse(LONGER) == BACK


def test_it_is_made_longer_once_and_put_back_when_it_is_let_go() -> None:
    sim = host(TAP)
    sim.change(prepare)
    sim.sync()
    for phase in (Phase.SWITCHED, Phase.HELD):
        sim.change(lambda draft, phase=phase: says(draft, phase))  # type: ignore[misc]  # of a lambda with a default
    sim.restart()
    sim.change(activate)
    sim.sync()
    sim.restart()
    assert queues(sim.links.done) == [LONGER]
    sim.change(methodcaller("detach_port", "vm7"))
    assert queues(sim.links.done) == [LONGER, BACK]
    assert sim.links.by_name["tap0"] == replace(TAP, up=False)
    assert ("before", "tap0") not in sim.store.load()


@pytest.mark.parametrize("alone", [False, True], ids=["by the agent", "without an agent"])
def test_down_puts_it_back(alone: bool) -> None:
    sim = host(TAP)
    sim.change(prepare)
    if alone:
        sim.take_off()
    else:
        sim.change(lambda draft: draft.take_off())
    assert length(sim) == 500


def test_a_tap_that_appears_later_gets_it_too() -> None:
    sim = host()
    sim.change(prepare)
    sim.plug(TAP)
    assert queues(sim.links.done) == [LONGER]
    sim.unplug("tap0")
    sim.plug(replace(TAP, ifindex=8))  # another one of the same name
    assert queues(sim.links.done) == [LONGER, replace(LONGER, ifindex=8)]


@pytest.mark.parametrize(
    "device",
    [
        replace(TAP, kind="veth"),
        replace(TAP, kind=""),
        replace(TAP, txqueuelen=WAITING_FRAMES),
        replace(TAP, txqueuelen=131_072),
    ],
    ids=["veth", "hardware", "as long", "longer"],
)
def test_what_keeps_nothing_or_enough_is_left_alone(device: Device) -> None:
    sim = host(device)
    sim.change(prepare)
    sim.change(methodcaller("detach_port", "vm7"))
    assert queues(sim.links.done) == []


def test_a_port_that_waits_for_nobody_keeps_its_queue() -> None:
    sim = host(TAP)
    sim.change(lambda draft: draft.attach_port(Port(id="vm7", ifname="tap0", segment="blue")))
    sim.change(activate)
    sim.restart()
    assert queues(sim.links.done) == []


@pytest.mark.parametrize("wanted", [300, 500, 100_000])
def test_who_wants_another_queue_meanwhile_has_it(wanted: int) -> None:
    sim = host(TAP)
    sim.change(prepare)
    sim.plug(replace(sim.links.by_name["tap0"], txqueuelen=wanted))
    assert drifted(sim) == []
    sim.change(lambda draft: says(draft, Phase.HELD))
    sim.restart()
    assert length(sim) == wanted
    sim.change(methodcaller("detach_port", "vm7"))
    assert length(sim) == wanted
    assert queues(sim.links.done) == [LONGER]


def test_a_queue_of_none_comes_back() -> None:
    sim = host(replace(TAP, txqueuelen=0))
    sim.change(prepare)
    sim.restart()
    assert length(sim) == WAITING_FRAMES
    sim.change(methodcaller("detach_port", "vm7"))
    assert length(sim) == 0


def test_a_machine_that_was_started_anew_lengthens_it_anew() -> None:
    sim = host(TAP)
    sim.change(prepare)
    sim.links.by_name = {"tap0": TAP}
    sim.reboot()
    assert length(sim) == WAITING_FRAMES
    sim.change(methodcaller("detach_port", "vm7"))
    assert length(sim) == 500


@pytest.mark.parametrize(
    ("before", "does", "after"),
    [
        ((), prepare, WAITING_FRAMES),
        ((prepare,), methodcaller("detach_port", "vm7"), 500),
        ((prepare, activate), methodcaller("take_off"), 500),
    ],
    ids=["prepare", "detach", "down"],
)
def test_whenever_the_agent_dies_the_queue_is_as_it_should_be_and_comes_back(
    before: tuple[Callable[[Draft], None], ...], does: Callable[[Draft], None], after: int
) -> None:
    def made() -> tuple[Sim, tuple[Effect, ...]]:
        sim = host(TAP, OTHER)
        for change in (another, *before):
            sim.change(change)
        draft = sim.switch.draft()
        does(draft)
        return sim, draft.plan().effects

    _, effects = made()
    for died_after in range(1, len(effects) + 1):
        sim, effects = made()
        sim.executor.run(effects[:died_after])
        if after == WAITING_FRAMES or ("port", "vm7") not in sim.store.load():
            sim.forget()
            assert length(sim) == after, effects[died_after - 1]
        sim.take_off()
        assert length(sim) == 500, effects[died_after - 1]


async def test_the_host_where_a_vm_was_puts_it_back_the_one_where_it_is_keeps_it() -> None:
    async with three() as hosts:
        a, b, _ = hosts.all
        await bring(hosts, Phase.PREPARED)
        assert (b.port_state("vm7"), b.links.by_name["tap2"].txqueuelen) == (STANDBY, WAITING_FRAMES)
        await a.migrations.switchover("vm7")
        assert b.port_state("vm7") is HOLDING
        await b.migrations.activate("vm7")
        await hosts.packed("vm7")
        assert b.port_state("vm7") is UP
        assert [host.links.by_name[name].txqueuelen for host, name in ((a, "tap0"), (b, "tap2"))] == [
            1000,
            WAITING_FRAMES,
        ]
        await b.restart()
        assert b.links.by_name["tap2"].txqueuelen == WAITING_FRAMES
        await b.detach("vm7")
        assert b.links.by_name["tap2"].txqueuelen == 1000


async def test_a_migration_that_is_cancelled_puts_it_back() -> None:
    async with three() as hosts:
        _, b, _ = hosts.all
        await bring(hosts, Phase.HELD)
        await b.migrations.cancel("vm7")
        assert b.port_state("vm7") is None
        assert b.links.by_name["tap2"].txqueuelen == 1000
