"""What migrations cost, as the host says that VMs come to; support/migrating.py draws the hosts."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from support.members import QUICK, Member, until
from support.migrating import STANDBY, UP, bring, heard, states, three
from vxagent.datapath.base import Traffic
from vxagent.model.binding import Phase
from vxagent.runtime.luggage import pack


async def test_a_blackout_is_as_long_as_the_frames_are_at_neither_host() -> None:
    """From before the engine is told, at the host that the VM leaves, until the port is up at the other one."""
    async with three(waits=replace(QUICK, drain_s=0.1)) as hosts:
        a, b, _ = hosts.all
        await bring(hosts, Phase.PREPARED)
        began = time.monotonic()
        await a.migrations.switchover("vm7")
        await asyncio.sleep(0.1)
        await b.migrations.activate("vm7")
        await until(lambda: blackouts(b))
        assert 0.2 <= blackouts(b)[0] <= time.monotonic() - began
        assert blackouts(a) == []


async def test_one_that_was_cancelled_has_no_part_in_the_next_one() -> None:
    async with three() as hosts:
        a, b, _ = hosts.all
        await bring(hosts, Phase.HELD)
        await asyncio.sleep(0.1)
        await a.migrations.cancel("vm7")
        await heard(hosts, Phase.BOUND)
        await until(lambda: b.port_state("vm7") is None)
        await bring(hosts, Phase.PREPARED)
        began = time.monotonic()
        await a.migrations.switchover("vm7")
        await b.migrations.activate("vm7")
        await until(lambda: blackouts(b))
        assert blackouts(b)[0] <= time.monotonic() - began


async def test_it_is_said_to_be_longer_where_the_other_host_has_not_said(caplog: pytest.LogCaptureFixture) -> None:
    async with three() as hosts:
        a, b, _ = hosts.all
        await bring(hosts, Phase.HELD)
        hosts.write("carry/vm7", pack("hv1", a.state.ports["vm7"]))
        with caplog.at_level("INFO"):
            await b.migrations.activate("vm7")
            await until(lambda: blackouts(b))
        assert "port vm7 runs here; its VM had no frames for at least" in caplog.text


async def test_of_a_vm_that_nobody_has_switched_over_it_begins_with_its_announcement() -> None:
    async with three() as hosts:
        _, b, _ = hosts.all
        await bring(hosts, Phase.PREPARED)
        b.announce("vm7")
        announced = time.monotonic()
        await until(lambda: blackouts(b))
        assert states(hosts)[1] is UP
        assert 0 < blackouts(b)[0] <= time.monotonic() - announced


async def test_what_another_agent_has_waited_for_has_no_figure() -> None:
    async with three() as hosts:
        _, b, _ = hosts.all
        await bring(hosts, Phase.HELD)
        await b.restart()
        await b.migrations.activate("vm7")
        await until(lambda: b.state.remote.ports["vm7"].owner == "hv2")
        await until(lambda: not b.migrations._errands._tasks)
        assert blackouts(b) == []


@pytest.mark.parametrize("by", [0, 1], ids=["its host", "the next one"])
async def test_frames_that_waited_for_a_vm_that_stays_are_counted(by: int, caplog: pytest.LogCaptureFixture) -> None:
    async with three() as hosts:
        _, b, _ = hosts.all
        await bring(hosts, Phase.HELD)
        b.datapath.counted[b.state.counters_of("vm7")["blue"]] = Traffic(tx_packets=17, tx_bytes=17 * 60)
        await hosts.all[by].migrations.cancel("vm7")
        await until(lambda: states(hosts) == [UP, None, None])
        assert lost(b) == 17
        assert "port vm7 stays where it was; 17 frames that waited for its VM here are lost" in caplog.text


async def test_where_nothing_waited_nothing_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    async with three() as hosts:
        a, b, _ = hosts.all
        await bring(hosts, Phase.PREPARED)
        assert b.port_state("vm7") is STANDBY
        await a.migrations.cancel("vm7")
        await until(lambda: states(hosts) == [UP, None, None])
        assert lost(b) == 0
        assert "are lost" not in caplog.text


def blackouts(host: Member) -> list[float]:
    """The sum of all, in seconds, as if it were of one."""
    found = samples(host)
    count, total = (found[f"vxagent_migration_blackout_seconds_{name}"] for name in ("count", "sum"))
    assert count in {0, 1}
    return [total] if count else []


def lost(host: Member) -> float:
    """Frames that waited for VMs that stayed away."""
    return samples(host)["vxagent_migration_lost_packets_total"]


def samples(host: Member) -> dict[str, float]:
    """All that it measures, but for the histogram's buckets, which have one name."""
    return {sample.name: sample.value for metric in host.migrations.figures.collect() for sample in metric.samples}
