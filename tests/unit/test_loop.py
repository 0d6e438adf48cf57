"""The agent on the shipped fakes: without root, without a kernel, without waiting for the clock."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address
from typing import TypeVar

import pytest

from vxagent.core.effects import Attach, Detach
from vxagent.core.state import internal_peer
from vxagent.core.switch import Draft
from vxagent.core.tables import PortRow, Table
from vxagent.datapath.abi import EventType
from vxagent.datapath.base import EVENTS_AT_ONCE, Event, Lease
from vxagent.datapath.fake import FakeDatapath
from vxagent.errors import HostError, Invalid, NotFound, Refused, StoreError
from vxagent.model.device import Device
from vxagent.model.port import Mode, Port, PortState, Uplink
from vxagent.model.segment import Segment
from vxagent.netlink.fake import FakeLinks
from vxagent.runtime.config import Config
from vxagent.runtime.loop import Agent
from vxagent.runtime.periods import PERIODS, Periods
from vxagent.store.fake import FakeStore

T = TypeVar("T")

BLUE = Segment(name="blue", tenant="acme")
CONFIG = Config(host="hv1")
SOON_S = 5.0


def tap(number: int, **fields: object) -> Device:
    return replace(Device(ifname=f"tap{number}", ifindex=100 + number, kind="tun"), **fields)  # type: ignore[arg-type]  # by name


def port(number: int) -> Port:
    return Port(id=f"tap{number}", ifname=f"tap{number}", segment="blue")


OFTEN = Periods(resync_s=0.01, events_s=0.01, ageing_shortest_s=0.01, ageing_longest_s=0.01, retry_s=0.01)


class SlowDatapath(FakeDatapath):
    """Attaches when it is let, and knows how many did so at once."""

    def __init__(self) -> None:
        super().__init__()
        self.let = threading.Event()
        self.let.set()
        self.begun = threading.Event()
        self.attached_order: list[str] = []
        self.detached_order: list[str] = []
        self.aged = 0
        self.readings: list[int] = []
        self.destroyed = 0
        self._alone = threading.Lock()

    def attach(self, effect: Attach) -> None:
        assert self._alone.acquire(blocking=False), "two changes ran at once"
        try:
            self.begun.set()
            assert self.let.wait(SOON_S)
            super().attach(effect)
            self.attached_order.append(effect.ifname)
        finally:
            self._alone.release()

    def detach(self, effect: Detach) -> None:
        super().detach(effect)
        self.detached_order.append(effect.ifname)

    def destroy(self) -> None:
        super().destroy()
        self.destroyed += 1

    def age(self) -> int:
        self.aged += 1
        return super().age()

    def events(self) -> list[Event]:
        taken = super().events()
        self.readings.append(len(taken))
        return taken


class Host:
    """A machine: devices, kernel and disk; agents come and go."""

    def __init__(self, *devices: Device, periods: Periods = PERIODS) -> None:
        self.datapath, self.links, self.store = SlowDatapath(), FakeLinks(devices), FakeStore()
        self.config = CONFIG
        self.periods = periods

    def agent(self) -> Agent:
        return Agent(
            datapath=self.datapath,
            links=self.links,
            store=self.store,
            config=self.config,
            read_config=self.read_config,
            periods=self.periods,
        )

    def read_config(self) -> Config:
        return self.config

    def run(self, work: Callable[[Agent], Awaitable[T]]) -> T:
        """Start an agent, let it work, stop it."""

        async def life() -> T:
            agent = self.agent()
            await agent.start()
            try:
                return await work(agent)
            finally:
                if not agent.ended.is_set():
                    await agent.stop()

        return asyncio.run(life())


async def attach(agent: Agent, *numbers: int) -> None:
    def change(draft: Draft) -> None:
        draft.add_segment(BLUE)
        for number in numbers:
            draft.attach_port(port(number))

    await agent.change(change)


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition that events bring about."""
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline, "did not come true"
        await asyncio.sleep(0.001)


def state_of(agent: Agent, number: int) -> PortState:
    return agent.switch.state.port_state(f"tap{number}")[0]


# Commands


def test_a_command_is_done_when_it_returns() -> None:
    host = Host(tap(0))

    async def work(agent: Agent) -> None:
        assert agent.ready
        await attach(agent, 0)
        assert state_of(agent, 0) is PortState.UP
        assert host.datapath.attached_order == ["tap0"]
        assert not host.links.by_name["tap0"].arp
        assert ("port", "tap0") in host.store.documents

    host.run(work)


def test_a_refused_command_changes_nothing() -> None:
    host = Host(tap(0, master="br0"))

    async def work(agent: Agent) -> None:
        before = agent.switch.state
        with pytest.raises(Refused, match="ip link set dev tap0 nomaster"):
            await attach(agent, 0)
        assert agent.switch.state is before
        assert host.store.documents == {}

    host.run(work)


def test_a_command_that_fails_half_way_changes_nothing() -> None:
    host = Host(tap(0))

    async def work(agent: Agent) -> None:
        host.datapath.missing.add(100)
        with pytest.raises(HostError, match="device tap0 is gone"):
            await attach(agent, 0)
        assert agent.switch.state.ports == {}
        assert host.store.documents == {}
        assert host.links.by_name["tap0"].arp

    host.run(work)


def test_what_a_command_held_is_gone_when_it_has_failed() -> None:
    """Descriptors, say: at once, not when garbage is collected."""
    held: list[weakref.ref[Host]] = []

    def change(_: Draft) -> None:
        something = Host()
        held.append(weakref.ref(something))
        raise HostError("no room")

    async def work(agent: Agent) -> None:
        gc.disable()
        try:
            with suppress(HostError):
                await agent.change(change)
            await asyncio.sleep(0)  # the task that did it ends
            assert held[0]() is None
        finally:
            gc.enable()

    Host().run(work)


def test_commands_run_one_at_a_time_in_the_order_in_which_they_came() -> None:
    host = Host(*(tap(n) for n in range(20)))

    async def work(agent: Agent) -> None:
        await asyncio.gather(*(attach(agent, n) for n in range(20)))
        assert host.datapath.attached_order == [f"tap{n}" for n in range(20)]

    host.run(work)


def test_a_command_whose_caller_goes_away_is_finished() -> None:
    host = Host(tap(0))

    async def work(agent: Agent) -> None:
        host.datapath.let.clear()
        command = asyncio.create_task(attach(agent, 0))
        await asyncio.to_thread(host.datapath.begun.wait)
        command.cancel()
        with pytest.raises(asyncio.CancelledError):
            await command
        host.datapath.let.set()
        await agent.change(lambda draft: None)
        assert state_of(agent, 0) is PortState.UP

    host.run(work)


def test_reading_goes_on_during_a_change() -> None:
    host = Host(tap(0))

    async def work(agent: Agent) -> None:
        host.datapath.let.clear()
        command = asyncio.create_task(attach(agent, 0))
        await asyncio.to_thread(host.datapath.begun.wait)
        assert await agent.read(host.datapath.fdb_count) == 0
        host.datapath.let.set()
        await command

    host.run(work)


def test_a_command_knows_of_devices_that_came_just_before() -> None:
    host = Host()

    async def work(agent: Agent) -> None:
        host.links.put(tap(0))
        await attach(agent, 0)
        assert state_of(agent, 0) is PortState.UP

    host.run(work)


# Devices


def test_a_pending_port_is_attached_when_its_device_comes() -> None:
    host = Host()

    async def work(agent: Agent) -> None:
        await attach(agent, 0)
        assert state_of(agent, 0) is PortState.PENDING
        host.links.put(tap(0))
        await until(lambda: state_of(agent, 0) is PortState.UP)
        host.links.remove("tap0")
        await until(lambda: state_of(agent, 0) is PortState.PENDING)
        assert host.datapath.attached() == {}

    host.run(work)


def test_a_pending_port_does_not_wait_for_a_thousand_other_devices() -> None:
    """A turn for each of them would make it wait a thousand times as long as it does without them."""
    host = Host()

    async def comes_up(agent: Agent) -> float:
        host.links.put(tap(0))
        began = time.monotonic()
        await until(lambda: state_of(agent, 0) is PortState.UP)
        return time.monotonic() - began

    async def work(agent: Agent) -> tuple[float, float]:
        await attach(agent, 0)
        alone = await comes_up(agent)
        host.links.remove("tap0")
        await until(lambda: state_of(agent, 0) is PortState.PENDING)
        for number in range(1, 1001):
            host.links.put(tap(number, up=False))
            host.links.put(tap(number, up=True))
        return alone, await comes_up(agent)

    alone, among_others = host.run(work)
    assert among_others < 200 * alone


def test_a_device_that_went_and_came_back_is_another_one() -> None:
    host = Host(tap(0))

    async def work(agent: Agent) -> None:
        await attach(agent, 0)
        host.links.remove("tap0")
        host.links.put(tap(0))
        await until(lambda: len(host.datapath.attached_order) == 2)
        assert host.datapath.detached_order == ["tap0"]
        assert state_of(agent, 0) is PortState.UP

    host.run(work)


def test_a_renamed_device_leaves_one_port_and_joins_another() -> None:
    host = Host(tap(0))

    async def work(agent: Agent) -> None:
        await attach(agent, 0, 1)
        host.links.rename("tap0", "tap1")
        await until(lambda: state_of(agent, 1) is PortState.UP)
        assert state_of(agent, 0) is PortState.PENDING

    host.run(work)


def test_a_device_that_cannot_be_attached_is_said_once_and_keeps_no_other_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    host = Host()

    async def work(agent: Agent) -> None:
        await attach(agent, 0, 1, 2)
        host.datapath.missing.add(101)
        for number in range(3):
            host.links.put(tap(number))
        await until(lambda: state_of(agent, 2) is PortState.UP)
        for up in (False, True, False):
            host.links.put(replace(host.links.by_name["tap1"], up=up))
            await agent.change(lambda draft: None)
        assert state_of(agent, 0) is PortState.UP
        assert agent.switch.state.port_state("tap1") == (PortState.PENDING, "device tap1 could not be attached")
        assert host.links.by_name["tap1"].arp
        tries = len(host.links.done)
        for _ in range(3):  # nothing goes on by itself
            await agent.change(lambda draft: None)
        assert len(host.links.done) == tries
        host.datapath.missing.clear()
        host.links.put(replace(host.links.by_name["tap1"], mtu=1400))
        await until(lambda: state_of(agent, 1) is PortState.UP)

    with caplog.at_level(logging.ERROR):
        host.run(work)
    assert [record.getMessage() for record in caplog.records] == ["device tap1: device tap1 is gone"]


def test_an_unexpected_error_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    host = Host()

    async def work(agent: Agent) -> None:
        await attach(agent, 0, 1)
        host.datapath.broken["attach"] = ZeroDivisionError("nobody expects that")
        host.links.put(tap(0))
        await until(lambda: "ZeroDivisionError" in caplog.text)
        host.datapath.broken.clear()
        host.links.put(tap(1))
        await until(lambda: state_of(agent, 1) is PortState.UP)

    host.run(work)


def test_devices_are_read_anew_when_events_were_lost() -> None:
    host = Host(tap(0))

    async def work(agent: Agent) -> None:
        await attach(agent, 0, 1)
        del host.links.by_name["tap0"]
        host.links.by_name["tap1"] = tap(1)
        host.links.notify(None)
        await until(lambda: state_of(agent, 1) is PortState.UP)
        assert state_of(agent, 0) is PortState.PENDING

    host.run(work)


def test_a_reading_that_fails_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    host = Host(periods=OFTEN)

    async def work(agent: Agent) -> None:
        await attach(agent, 0)
        host.links.by_name["tap0"] = tap(0)
        host.links.broken = HostError("netlink is broken")
        host.links.notify(None)
        await until(lambda: caplog.text.count("netlink is broken") > 1)
        host.links.broken = None
        await until(lambda: state_of(agent, 0) is PortState.UP)

    host.run(work)


def test_devices_are_read_anew_from_time_to_time() -> None:
    host = Host(periods=OFTEN)

    async def work(agent: Agent) -> None:
        await attach(agent, 0)
        host.links.by_name["tap0"] = tap(0)
        await until(lambda: state_of(agent, 0) is PortState.UP)

    host.run(work)


def test_a_kernel_that_was_torn_is_made_whole() -> None:
    host = Host(tap(0), periods=OFTEN)

    async def work(agent: Agent) -> None:
        await attach(agent, 0)
        rows = host.datapath.rows()
        host.datapath.table.clear()
        agent._changes.executor.torn = True
        await until(lambda: not agent._changes.executor.torn)
        assert host.datapath.rows() == rows

    host.run(work)


# Start and end


def test_a_restart_takes_over_what_runs_and_attaches_nothing_twice() -> None:
    host = Host(tap(0))
    host.run(lambda agent: attach(agent, 0))
    rows = host.datapath.rows()

    async def work(agent: Agent) -> None:
        assert state_of(agent, 0) is PortState.UP

    host.run(work)
    assert host.datapath.rows() == rows
    assert host.datapath.attached_order == ["tap0"]
    assert host.datapath.detached_order == []


def test_a_machine_that_restarted_gets_its_ports_back() -> None:
    host = Host(*(tap(n) for n in range(40)))
    host.run(lambda agent: attach(agent, *range(40)))
    host.datapath.destroy()

    async def work(agent: Agent) -> None:
        assert all(state_of(agent, number) is PortState.UP for number in range(40))

    host.run(work)


def test_a_bad_device_keeps_no_agent_from_starting(caplog: pytest.LogCaptureFixture) -> None:
    host = Host(tap(0), tap(1))
    host.run(lambda agent: attach(agent, 0, 1))
    host.datapath.destroy()
    host.datapath.missing.add(100)

    async def work(agent: Agent) -> None:
        assert state_of(agent, 0) is PortState.PENDING
        assert state_of(agent, 1) is PortState.UP

    host.run(work)
    assert "device tap0 is gone" in caplog.text


def test_an_internal_port_is_made_again_and_a_taken_name_keeps_no_agent_from_starting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    internal = Port(id="vxhost", ifname="vxhost", mode=Mode.INTERNAL, segment="blue")
    host = Host()

    async def make(agent: Agent) -> None:
        await agent.change(lambda draft: (draft.add_segment(BLUE), draft.attach_port(internal)))
        await until(lambda: agent.switch.state.port_state("vxhost")[0] is PortState.UP)

    async def see(agent: Agent) -> PortState:
        return agent.switch.state.port_state("vxhost")[0]

    host.run(make)
    host.datapath.destroy()
    host.links = FakeLinks()
    assert host.run(see) is PortState.UP
    assert internal_peer("vxhost") in host.links.by_name
    host.datapath.destroy()
    host.links = FakeLinks([Device(ifname="vxhost", ifindex=3)])
    assert host.run(see) is PortState.PENDING
    assert "internal port vxhost: a device vxhost is there already" in caplog.text


def test_a_start_that_fails_lets_go_of_everything() -> None:
    host = Host()
    host.store.documents["port", "tap0"] = {"nonsense": 1}
    with pytest.raises(StoreError):
        host.run(lambda agent: agent.read(lambda: None))
    assert host.links.closed
    assert host.store.closed


def test_a_start_that_fails_leaves_no_switch_where_there_was_none() -> None:
    host = Host(tap(0))
    host.run(lambda agent: attach(agent, 0))
    host.datapath.destroy()
    host.datapath.destroyed = 0
    host.datapath.fail_at = 3
    with pytest.raises(HostError):
        host.run(lambda agent: agent.read(lambda: None))
    assert host.datapath.destroyed == 1


def test_a_start_that_fails_leaves_the_switch_that_was_there() -> None:
    host = Host(tap(0))
    host.run(lambda agent: attach(agent, 0))
    rows, attached = host.datapath.rows(), host.datapath.attached()
    host.config = replace(CONFIG, ageing_s=7)
    host.datapath.fail_at = 1
    with pytest.raises(HostError):
        host.run(lambda agent: agent.read(lambda: None))
    assert host.datapath.destroyed == 0
    assert (host.datapath.rows(), host.datapath.attached()) == (rows, attached)


def test_stop_leaves_the_kernel_as_it_is_and_ends_everything() -> None:
    host = Host(tap(0))

    async def work(agent: Agent) -> None:
        await attach(agent, 0)
        before = host.datapath.rows(), host.datapath.attached(), host.links.devices()
        await agent.stop()
        assert (host.datapath.rows(), host.datapath.attached(), host.links.devices()) == before
        assert agent.ended.is_set()
        assert not agent.ready
        with pytest.raises(Refused, match="the agent is ending"):
            await attach(agent, 1)
        with pytest.raises(Refused, match="the agent is ending"):
            await agent.read(host.datapath.fdb_count)
        with pytest.raises(Refused, match="the agent is ending"):
            await agent.stop()

    host.run(work)
    assert host.links.closed
    assert host.store.closed
    assert not host.datapath.opened
    assert threading.active_count() == 1


async def _nothing(_: Agent) -> None:
    """Start, and stop."""


async def _leased(agent: Agent, host: Host) -> None:
    """tap0 has 10.0.0.50 for ten minutes."""
    await agent.change(lambda draft: draft.add_segment(BLUE))
    await agent.change(lambda draft: draft.attach_port(replace(port(0), dhcp_snoop=True)))
    host.datapath.lease(Lease(segment=1, port=1, address=IPv4Address("10.0.0.50"), mac=2, left_s=600))


@pytest.mark.parametrize("end", [Agent.stop, Agent.down])
def test_an_end_saves_the_leases_that_the_data_plane_has(end: Callable[[Agent], Awaitable[None]]) -> None:
    host = Host(tap(0))

    async def work(agent: Agent) -> None:
        await _leased(agent, host)
        await end(agent)

    host.run(work)
    leases = host.store.documents["lease", "tap0"]["leases"]
    assert isinstance(leases, list)
    [kept] = leases
    assert (kept["ip"], kept["segment"]) == ("10.0.0.50", "blue")
    assert abs(kept["expires"] - time.time() - 600) < 60
    host.datapath.given.clear()
    host.datapath.table.clear()
    host.run(_nothing)
    assert [str(lease.address) for lease in host.datapath.leases()] == ["10.0.0.50"]


def test_leases_that_cannot_be_saved_hold_no_end_up(caplog: pytest.LogCaptureFixture) -> None:
    host = Host(tap(0))

    async def work(agent: Agent) -> None:
        await _leased(agent, host)
        host.store.fail_at = 1
        await agent.stop()
        assert agent.ended.is_set()

    host.run(work)
    assert "leases: " in caplog.text


def test_the_sweep_saves_leases() -> None:
    host = Host(tap(0), periods=OFTEN)

    async def work(agent: Agent) -> None:
        await _leased(agent, host)
        await until(lambda: ("lease", "tap0") in host.store.documents)

    host.run(work)


def test_stop_waits_for_the_change_that_runs() -> None:
    host = Host(tap(0))

    async def work(agent: Agent) -> None:
        host.datapath.let.clear()
        command = asyncio.create_task(attach(agent, 0))
        await asyncio.to_thread(host.datapath.begun.wait)
        ending = asyncio.create_task(agent.stop())
        await asyncio.sleep(0)
        assert not ending.done()
        host.datapath.let.set()
        await asyncio.gather(command, ending)
        assert host.datapath.attached() == {1: 100}

    host.run(work)


def test_down_puts_devices_back_and_keeps_what_is_desired() -> None:
    host = Host(tap(0))

    async def take_off(agent: Agent) -> None:
        await attach(agent, 0)
        await agent.down()
        assert agent.taken_off

    host.run(take_off)
    device = host.links.by_name["tap0"]
    assert (device.up, device.arp, device.ipv6) == (False, True, True)
    assert host.datapath.attached() == {}
    assert host.datapath.rows() == {}
    assert ("port", "tap0") in host.store.documents

    async def work(agent: Agent) -> None:
        assert state_of(agent, 0) is PortState.UP

    host.run(work)


def test_down_ends_the_agent_even_when_something_stays() -> None:
    host = Host()

    async def work(agent: Agent) -> None:
        host.datapath.broken["destroy"] = HostError("a pin stays")
        with pytest.raises(HostError, match="a pin stays"):
            await agent.down()
        assert agent.ended.is_set()
        assert not agent.taken_off

    host.run(work)


def test_reload_reads_the_config_and_swaps_the_programs() -> None:
    host = Host(tap(0))

    async def work(agent: Agent) -> None:
        await attach(agent, 0)
        before = host.datapath.reloads
        host.config = replace(CONFIG, ageing_s=7, host="hv2")
        await agent.reload()
        assert host.datapath.reloads == before + 1
        assert (agent.switch.state.ageing_s, agent.switch.state.host) == (7, "hv2")
        assert host.datapath.attached_order == ["tap0"]

    host.run(work)


def test_an_uplink_may_teach_a_part_of_what_the_fdb_has_room_for() -> None:
    host = Host(Device(ifname="eth1", ifindex=21))

    def learns(agent: Agent) -> int:
        row = host.datapath.rows()[Table.PORTS, agent.switch.state.handle_of_uplink("eth1")]
        assert isinstance(row, PortRow)
        return row.max_macs

    async def work(agent: Agent) -> None:
        await agent.change(lambda draft: draft.add_uplink(Uplink(ifname="eth1")))
        assert learns(agent) == 98304
        host.config = replace(CONFIG, fdb_entries=1000)
        await agent.reload()
        assert learns(agent) == 750

    host.run(work)


class Misconfigured(Host):
    """Its config file is wrong, now."""

    def read_config(self) -> Config:
        raise Invalid("ageing_s", "soon", "must be a number")


def test_reload_with_a_bad_config_changes_nothing() -> None:
    host = Misconfigured()

    async def work(agent: Agent) -> None:
        before = host.datapath.reloads
        with pytest.raises(Invalid):
            await agent.reload()
        assert host.datapath.reloads == before
        assert agent.config == CONFIG

    host.run(work)


def test_reload_tries_again_what_could_not_be_attached() -> None:
    host = Host()

    async def work(agent: Agent) -> None:
        await attach(agent, 0)
        host.datapath.missing.add(100)
        host.links.put(tap(0))
        await until(lambda: "could not" in agent.switch.state.port_state("tap0")[1])
        host.datapath.missing.clear()
        await agent.reload()
        assert state_of(agent, 0) is PortState.UP

    host.run(work)


# By the clock


@pytest.mark.parametrize(("ageing_s", "interval"), [(0, 30), (2, 1), (10, 1), (100, 10), (300, 30), (86_400, 30)])
def test_ageing_is_looked_at_often_enough_for_its_time(ageing_s: int, interval: float) -> None:
    assert PERIODS.ageing_s(ageing_s) == interval


def test_what_aged_is_removed() -> None:
    host = Host(periods=OFTEN)

    async def work(agent: Agent) -> None:
        await until(lambda: host.datapath.aged > 1)

    host.run(work)


def test_events_of_the_data_plane_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    host = Host(tap(0), periods=OFTEN)
    event = Event(time_ns=1, type=EventType.LEARN_LIMITED, port=1, other_port=0, segment=1, mac=0x02_00_00_00_00_01)
    line = "port tap0 may learn no more MACs: 02:00:00:00:00:01 of segment blue was not learned"

    async def work(agent: Agent) -> None:
        await attach(agent, 0)
        host.datapath.queue.append(event)
        await until(lambda: line in caplog.text)

    with caplog.at_level(logging.INFO):
        host.run(work)


def test_others_have_a_turn_between_many_events() -> None:
    """They are taken in pieces, and all of them at the next second."""
    host = Host(periods=OFTEN)
    sizes = host.datapath.readings
    flood = [Event(time_ns=0, type=EventType.FDB_FULL, port=1, other_port=0, segment=1, mac=1)] * (
        2 * EVENTS_AT_ONCE + 5
    )

    async def work(agent: Agent) -> None:
        host.datapath.queue += flood
        await until(lambda: sum(sizes) == len(flood))

    host.run(work)
    assert [size for size in sizes if size] == [EVENTS_AT_ONCE, EVENTS_AT_ONCE, 5]


def test_a_clock_work_that_fails_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    host = Host(periods=OFTEN)
    host.datapath.broken["events"] = HostError("the ring is broken")

    async def work(agent: Agent) -> None:
        await until(lambda: caplog.text.count("the ring is broken") > 2)

    host.run(work)


# Counters


def test_what_a_device_lost_counts_from_the_attachment_on() -> None:
    host = Host(tap(0))
    host.links.drops[100] = 5

    async def work(agent: Agent) -> None:
        await attach(agent, 0, 1)
        assert await agent.read(agent.egress_failed) == {"tap0": 0}
        host.links.drops[100] = 8
        assert await agent.read(agent.egress_failed) == {"tap0": 3}

    host.run(work)


def test_what_needs_a_turn_gets_one() -> None:
    host = Host()

    async def work(agent: Agent) -> None:
        assert await agent.act(lambda: threading.current_thread().name) == "changes_0"
        with pytest.raises(NotFound):
            await agent.change(lambda draft: draft.detach_port("absent"))

    host.run(work)
