"""The agent dies after any effect of any command: the next one leaves things as if nothing had happened."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from support.choosing import some_of
from support.commands import COMMANDS, DEVICES, FAR, LOCKED, NEAR, OVERLAY, Command, build
from support.sim import Sim
from vxagent.core.effects import Effect
from vxagent.core.plan import Plan
from vxagent.datapath.base import Lease, Traffic
from vxagent.datapath.fake_forwarding import Frame
from vxagent.model.ids import mac_to_int
from vxagent.runtime.leases import by_port


def make() -> Sim:
    """A switch in use: everything that is not in the desired state is there, too."""
    sim = Sim(*DEVICES, overlay=OVERLAY)
    sim.change(build)
    sim.settle()
    ports = sim.switch.state.names("port")
    for handle, (ifindex, _) in sim.switch.state.attached.items():
        own = mac_to_int(LOCKED) if ports[handle] == "tap0" else 0x020000000100 + handle
        for tags in ((), ((0x8100, 10),), ((0x8100, 20),), ((0x8100, 110),)):
            for src in (own, 0x030000000000):  # the other one is dropped
                sim.datapath.forward(ifindex, Frame(src=src, dst=0xFFFFFFFFFFFF, tags=tags))
    assert sim.datapath.arrive(FAR, 5040, Frame(src=0x020000000200, dst=0xFFFFFFFFFFFF)).copies
    sim.datapath.arrive(NEAR, 5040, Frame(src=0x020000000200, dst=0xFFFFFFFFFFFF))  # dropped
    blue, tap1 = sim.switch.state.handle_of_segment("blue"), sim.switch.state.handle_of_port("tap1")
    sim.datapath.lease(Lease(segment=blue, port=tap1, address=ip_address("10.0.0.50"), mac=0x020000000102, left_s=60))
    for number in (number for (space, _), number in sim.switch.state.numbers.given.items() if space == "counter"):
        sim.datapath.counted[number] = Traffic(tx_packets=number)
    sim.change(lambda draft: draft.leases_seen(by_port(sim.switch.state, sim.datapath.leases(), sim.now)))
    assert sim.datapath.learned
    assert sim.datapath.drop_counts
    return sim


def plan_of(sim: Sim, command: Command) -> Plan:
    """What the command would do."""
    draft = sim.switch.draft()
    command.does(draft)
    return draft.plan()


def done(sim: Sim, command: Command) -> dict[str, object]:
    """How it is after the command, undisturbed."""
    plan = plan_of(sim, command)
    sim.executor.run(plan.effects)
    sim.switch.commit(plan)
    return ended(sim, command)


def ended(sim: Sim, command: Command) -> dict[str, object]:
    """How it is when all that follows from the command by itself has happened; `down` has an end of its own."""
    if command.name == "down":
        sim.take_off()
    else:
        sim.settle()
    return sim.picture()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_whenever_the_agent_dies_the_next_one_ends_where_it_would_have(command: Command) -> None:
    wanted = {False: ended(make(), command), True: done(make(), command)}
    effects = plan_of(make(), command).effects
    assert effects
    for died_after in range(len(effects) + 1):
        sim = make()
        sim.executor.run(effects[:died_after])
        sim.forget()
        assert_same(
            ended(sim, command), wanted[died_after > 0], f"dead after {died_after}: {effects[:died_after][-1:]}"
        )


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_an_agent_that_dies_while_it_mends_that_leaves_it_to_the_next(command: Command) -> None:
    wanted = done(make(), command)
    effects = plan_of(make(), command).effects
    for died_after in {1, len(effects) // 2 or 1}:
        for again_after in some_of(most_to_mend(effects[:died_after])):
            sim = make()
            sim.executor.run(effects[:died_after])
            sim.restart(dies_after=again_after)
            sim.forget()
            when = f"dead after {died_after} and again after {again_after}: {effects[:died_after][-1:]}"
            assert_same(ended(sim, command), wanted, when)


def most_to_mend(effects: tuple[Effect, ...]) -> int:
    """How many effects a start has after these."""
    sim = make()
    sim.executor.run(effects)
    return len(sim.start()[1].effects)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_a_machine_that_dies_in_the_middle_of_a_command_has_it_done_when_it_is_back(command: Command) -> None:
    undisturbed = make()
    done(undisturbed, command)
    wanted = rebooted(undisturbed)
    effects = plan_of(make(), command).effects
    for died_after in some_of(len(effects)):
        sim = make()
        sim.executor.run(effects[:died_after])
        assert_same(rebooted(sim), wanted, f"dead after {died_after}: {effects[:died_after][-1:]}")


def rebooted(sim: Sim) -> dict[str, object]:
    """How it is after the machine was started anew: devices as they are made, nothing in the kernel."""
    sim.links.by_name = {device.ifname: device for device in DEVICES}
    sim.reboot()
    sim.settle()
    return sim.picture()


def assert_same(picture: dict[str, object], wanted: dict[str, object], when: str) -> None:
    """Says what differs."""
    different = {name for name in wanted if picture[name] != wanted[name]}
    assert not different, "\n".join(
        [when, *(f"{name}: {_difference(picture[name], wanted[name])}" for name in sorted(different))]
    )


def _difference(one: object, other: object) -> object:
    if not isinstance(one, dict) or not isinstance(other, dict):
        return f"{one} instead of {other}"
    keys = sorted({k for k in one.keys() | other.keys() if one.get(k) != other.get(k)}, key=str)
    return {key: f"{one.get(key)} instead of {other.get(key)}" for key in keys}
