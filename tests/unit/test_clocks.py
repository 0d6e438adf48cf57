"""Hosts whose clocks differ, and clocks that jump: nothing but what is saved of leases goes by the time of day."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextvars import ContextVar, copy_context
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

import pytest

import vxagent
from support.members import IP7, MAC7, MAC9, Hosts, Member, until
from support.migrating import DRAINING, HOLDING, STANDBY, UP, bring, owner, phase, reaches, states, three
from vxagent.datapath.base import Lease
from vxagent.model.binding import Phase
from vxagent.model.ids import mac_to_int
from vxagent.runtime.errands import Errands
from vxagent.runtime.porter import Porter
from vxagent.store.kv import Range

T = TypeVar("T")

DAY_S = 86_400.0
LEFT_S = 600
ADDRESS = ip_address("10.0.0.77")
SLACK_S = 1.0  # a lease goes along in whole seconds
BY_THE_DAY = {"runtime/loop.py", "runtime/takeoff.py"}  # what they save, and read again, of leases

skew_s: ContextVar[float] = ContextVar("skew_s", default=0.0)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the wall clock of all hosts, from what it should be, by so many seconds."""
    real, jumped = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + jumped[0] + skew_s.get())

    def jump(to_s: float) -> None:
        jumped[0] = to_s

    return jump


async def by_clock(ahead_s: float, work: Coroutine[Any, Any, T]) -> T:
    """Do it, and what it begins, where the wall clock is ahead."""
    context = copy_context()
    context.run(skew_s.set, ahead_s)
    return await asyncio.create_task(work, context=context)


async def leased(host: Member, left_s: float | None = LEFT_S) -> None:
    """vm7 runs there, and has been leased an address."""
    await host.change(lambda draft: draft.set_port("vm7", dhcp_snoop=True))
    give(host, left_s)


def give(host: Member, left_s: float | None) -> None:
    at, port = host.state.handle_of_segment("blue"), host.state.handle_of_port("vm7")
    host.datapath.lease(Lease(segment=at, port=port, address=ADDRESS, mac=mac_to_int(MAC7), left_s=left_s))


def left(host: Member) -> list[float | None]:
    """Of the leases that a host has."""
    return [lease.left_s for lease in host.datapath.leases()]


def sessions(hosts: Hosts) -> dict[str, tuple[int, int]]:
    """Host → its session, and the revision in which it began."""
    found = [hosts.engine.read(Range(f"/vxagent/v1/test/live/{host.name}")).found for host in hosts.all]
    return {kv.key: (kv.lease, kv.create_revision) for several in found for kv in several}


# Two clocks


@pytest.mark.parametrize("ahead_s", [-DAY_S, DAY_S])
@pytest.mark.parametrize("at", [Phase.HELD, Phase.PREPARED], ids=["switched over", "appears"])
async def test_a_lease_lasts_as_long_at_the_next_host_whatever_its_clock_says(at: Phase, ahead_s: float) -> None:
    async with three() as hosts:
        a, b, _ = hosts.all
        await by_clock(ahead_s, b.restart())
        await leased(a)
        await bring(hosts, at)
        await by_clock(ahead_s, b.migrations.activate("vm7"))
        await until(b.datapath.leases)
        (left_s,) = left(b)
        assert left_s is not None
        assert abs(left_s - LEFT_S) < SLACK_S
        b.datapath.now_s += LEFT_S - 10
        assert len(left(b)) == 1
        b.datapath.now_s += 10 + SLACK_S
        assert left(b) == []


async def test_a_lease_without_end_has_none_at_the_next_host() -> None:
    async with three() as hosts:
        a, b, _ = hosts.all
        await by_clock(DAY_S, b.restart())
        await leased(a, None)
        await bring(hosts, Phase.HELD)
        await until(b.datapath.leases)
        assert left(b) == [None]


@pytest.mark.parametrize(("waited_s", "expected"), [(100, [LEFT_S - 100]), (LEFT_S, [])])
async def test_a_lease_is_no_longer_for_having_waited_since_the_preparation(
    waited_s: float, expected: list[float]
) -> None:
    """Of a VM that appears nobody has said since what is left of it."""
    async with three() as hosts:
        a, b, _ = hosts.all
        await leased(a)
        await bring(hosts, Phase.PREPARED)
        now = 0.0
        porter = Porter(b.running._changes, b.membership.cluster, b.datapath, Errands(), clock=lambda: now)
        porter.expect("vm7", b.state.remote.ports["vm7"].revision)
        now += waited_s
        await porter.unpack_leases("vm7")
        assert left(b) == expected


async def test_a_lease_as_an_older_version_leaves_it_is_said_and_holds_nothing_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with three() as hosts:
        a, b, _ = hosts.all
        await leased(a)
        await bring(hosts, Phase.HELD)
        await until(b.datapath.leases)
        b.datapath.given.clear()
        packed = hosts.key("carry/vm7")
        assert packed is not None
        hosts.write("carry/vm7", packed.replace(b'"left_s"', b'"expires"'))
        await b.migrations.activate("vm7")
        assert (owner(hosts), b.port_state("vm7")) == ("hv2", UP)
        await until(lambda: "cannot be read (Object missing required field `left_s`" in caplog.text)
        assert "use one version on both hosts" in caplog.text
        assert left(b) == []


# A clock that jumps


@pytest.mark.parametrize("jump_s", [-DAY_S, DAY_S])
async def test_a_clock_that_jumps_moves_nothing(clock: Callable[[float], None], jump_s: float) -> None:
    """Between any two steps of a migration, and where nothing migrates."""
    async with three() as hosts:
        a, b, c = hosts.all
        await leased(a)
        at_first = sessions(hosts)
        steps: list[tuple[Callable[[], Coroutine[Any, Any, object]], list[Any], str]] = [
            (lambda: asyncio.sleep(0), [UP, None, None], "hv1/tap0"),
            (lambda: bring(hosts, Phase.PREPARED), [UP, STANDBY, None], "hv1/tap0"),
            (lambda: a.migrations.switchover("vm7"), [DRAINING, HOLDING, None], "hv2/tap2"),
            (lambda: b.migrations.activate("vm7"), [None, UP, None], "hv2/tap2"),
        ]
        for number, (step, ports, place) in enumerate(steps):
            clock(0.0 if number % 2 else -jump_s)
            await step()
            await until(lambda ports=ports: states(hosts) == ports)  # type: ignore[misc]  # of a lambda with a default
            at, bindings = phase(hosts), {port: hosts.binding(port) for port in ("vm7", "vm8", "vm9")}
            clock(jump_s)
            await all_looks(hosts)
            assert (phase(hosts), {port: hosts.binding(port) for port in bindings}) == (at, bindings)
            assert states(hosts) == ports
            assert reaches(hosts) == {place}
            assert [host.port_state(port) for host, port in ((a, "vm8"), (c, "vm9"))] == [UP, UP]
            assert not [peer for host in hosts.all for peer in host.state.remote.peers.values() if peer.silent]
            assert [host.asked for host in hosts.all] == [0, 0, 0]  # no host was doubted
            assert sessions(hosts) == at_first
            for host in hosts.all:
                assert all(abs((left_s or 0) - LEFT_S) < SLACK_S for left_s in left(host))
            assert left(b if place == "hv2/tap2" else a) != []
        assert c.neighbours()[IP7] == c.fdb(MAC7) == "vtep/192.0.2.2"
        assert c.fdb(MAC9) == "vm9"
        assert owner(hosts) == "hv2"


@pytest.mark.parametrize("jump_s", [-DAY_S, DAY_S])
async def test_a_lease_is_what_the_kernel_has_of_it_over_a_restart_however_the_clock_has_jumped(
    clock: Callable[[float], None], jump_s: float
) -> None:
    async with three() as hosts:
        a, *_ = hosts.all
        await leased(a)
        await a.running._keep_leases()
        clock(jump_s)
        await a.restart()
        assert left(a) == [LEFT_S]
        (saved,) = a.state.leases["vm7"]
        assert saved.expires is not None
        assert abs(saved.expires - time.time() - LEFT_S) < 60  # as the clock is now: it is saved anew
        a.datapath.now_s += LEFT_S + 1
        await a.restart()
        assert left(a) == []


@pytest.mark.parametrize(("jump_s", "expected_s"), [(-DAY_S, LEFT_S + DAY_S), (DAY_S, None)])
async def test_a_jump_while_the_machine_is_off_is_taken_for_time(
    clock: Callable[[float], None], jump_s: float, expected_s: float | None
) -> None:
    """The kernel's tables are gone, and nothing else tells how long it was off."""
    async with three() as hosts:
        a, *_ = hosts.all
        await leased(a)
        await a.stop()
        a.datapath.destroy()
        clock(jump_s)
        await a.start()
        found = left(a)
        assert len(found) == (expected_s is not None)
        assert all(abs((left_s or 0) - (expected_s or 0)) < 60 for left_s in found)


async def all_looks(hosts: Hosts) -> None:
    """What agents do from time to time is done, and some keepalives go by."""
    for host in hosts.all:
        agent = host.running
        await agent._age()
        await agent._audit()
        await agent._resync()
        await agent._look_at_overlay()
    await asyncio.sleep(10 * hosts.all[0].waits.keepalive_s)


def test_nothing_but_what_is_saved_of_leases_goes_by_the_time_of_day() -> None:
    tree = Path(vxagent.__file__).parent
    agents = [path for path in tree.rglob("*.py") if path.relative_to(tree).parts[0] not in {"lab", "bench"}]
    words = ("time.time", "datetime", "CLOCK_REALTIME")
    found = {str(path.relative_to(tree)) for path in agents if any(word in path.read_text() for word in words)}
    assert found == BY_THE_DAY
