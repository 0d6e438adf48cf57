"""What comes along with a VM that migrates, and what it says itself."""

from __future__ import annotations

import logging
from dataclasses import replace
from ipaddress import ip_address

import pytest

from support.members import MAC7, Hosts, Member, until
from support.migrating import HOLDING, SHORT, UP, bring, knows, lease_to_vm7, owner, reaches, three, way
from vxagent.datapath.abi import Reason
from vxagent.datapath.base import Drop, Lease, Traffic
from vxagent.errors import WrongPhase
from vxagent.model.binding import Phase
from vxagent.model.ids import mac_to_int
from vxagent.model.port import PortState

# What comes along


@pytest.mark.parametrize("host", [0, 1], ids=["owner", "next"])
async def test_a_port_that_migrates_stays_as_it_is(host: int) -> None:
    """What the next host has of it was read when it prepared to take it."""
    async with three() as hosts:
        await bring(hosts, Phase.PREPARED)
        with pytest.raises(WrongPhase, match="cannot change port vm7: its VM migrates from host hv1 to host hv2"):
            await hosts.all[host].change(lambda draft: draft.set_port("vm7", isolated=True))


async def test_the_port_comes_as_it_was_asked_for() -> None:
    async with three() as hosts:
        a, b, _ = hosts.all
        await a.change(lambda draft: draft.set_port("vm7", isolated=True, max_macs=7, storm_broadcast=100))
        wanted = a.state.ports["vm7"]
        await b.migrations.prepare("vm7", "tap2")
        assert b.state.ports["vm7"] == replace(wanted, ifname="tap2")
        await a.migrations.switchover("vm7")
        await b.migrations.activate("vm7")
        await b.change(lambda draft: draft.set_port("vm7", trusted=True))
        await until(lambda: a.port_state("vm7") is None)
        await a.migrations.prepare("vm7", "tap0")
        assert a.state.ports["vm7"] == replace(wanted, trusted=True)


@pytest.mark.parametrize("phase", [Phase.HELD, Phase.PREPARED], ids=["switched over", "appears"])
async def test_leases_and_counters_come_along(phase: Phase) -> None:
    async with three() as hosts:
        a, b, _ = hosts.all
        await a.change(lambda draft: draft.set_port("vm7", dhcp_snoop=True))
        handle, at = a.state.handle_of_port("vm7"), a.state.handle_of_segment("blue")
        address, mac = ip_address("10.0.0.77"), mac_to_int(MAC7)
        a.datapath.lease(Lease(segment=at, port=handle, address=address, mac=mac, left_s=600))
        a.datapath.counted[a.state.counters_of("vm7")["blue"]] = Traffic(packets=(5, 0, 0, 0), bytes=(500, 0, 0, 0))
        a.datapath.dropped = [Drop(port=handle, segment=at, reason=Reason.HAIRPIN, packets=3, bytes=180)]
        await bring(hosts, phase)
        if phase is Phase.PREPARED:
            await b.migrations.activate("vm7")
        await until(b.datapath.leases)
        (lease,) = b.datapath.leases()
        assert (lease.port, lease.address, lease.mac) == (b.state.handle_of_port("vm7"), address, mac)
        assert lease.left_s is not None
        assert abs(lease.left_s - 600) < 60
        await b.migrations.activate("vm7")
        here = b.state.handle_of_port("vm7"), b.state.handle_of_segment("blue"), int(Reason.HAIRPIN)
        await until(lambda: b.datapath.drop_counts.get(here))
        assert b.datapath.drop_counts[here] == 3
        traffic = b.datapath.counted[b.state.counters_of("vm7")["blue"]]
        assert (traffic.packets[0], traffic.bytes[0]) == (5, 500)


@pytest.mark.parametrize("activated", [False, True], ids=["holds", "activated without the engine"])
@pytest.mark.parametrize("restarts", [False, True], ids=["goes on", "restarts"])
async def test_leases_come_later_where_the_engine_is_away_just_then(activated: bool, restarts: bool) -> None:
    """The port is held to them: without, its VM could say nothing by IP until they have run out."""
    async with three(waits=SHORT) as hosts:
        a, b, _ = hosts.all
        await a.change(lambda draft: draft.set_port("vm7", dhcp_snoop=True))
        handle, at = a.state.handle_of_port("vm7"), a.state.handle_of_segment("blue")
        address, mac = ip_address("10.0.0.77"), mac_to_int(MAC7)
        a.datapath.lease(Lease(segment=at, port=handle, address=address, mac=mac, left_s=600))
        await bring(hosts, Phase.PREPARED)

        async def goes() -> None:
            b.away = True

        b.kv.before = goes  # as it says that it holds
        await a.migrations.switchover("vm7")
        await until(lambda: b.away)
        if activated:
            await until(lambda: knows(b) != ("hv1", Phase.PREPARED))
            await b.migrations.activate("vm7")
        if restarts:
            await b.stop()
            await b.start()
        assert not b.datapath.leases()
        b.away = False
        await until(b.datapath.leases)
        (lease,) = b.datapath.leases()
        assert (lease.port, lease.address, lease.mac) == (b.state.handle_of_port("vm7"), address, mac)
        await until(lambda: knows(b) == (("hv2", Phase.BOUND) if activated else ("hv1", Phase.HELD)))


async def counted_and_leased(hosts: Hosts) -> None:
    """vm7 has five frames and a lease, on hv1."""
    (a, *_) = hosts.all
    await lease_to_vm7(a)
    a.datapath.counted[a.state.counters_of("vm7")["blue"]] = Traffic(packets=(5, 0, 0, 0), bytes=(500, 0, 0, 0))


def frames(host: Member) -> int:
    """That vm7 is said to have sent."""
    traffic = host.datapath.counted.get(host.state.counters_of("vm7")["blue"])
    return traffic.packets[0] if traffic else 0


async def test_an_agent_unpacks_what_the_one_before_it_did_not() -> None:
    """That died as it had told the engine that the VM runs here."""
    async with three() as hosts:
        _, b, _ = hosts.all
        await counted_and_leased(hosts)
        await bring(hosts, Phase.HELD)
        await until(b.datapath.leases)
        await b.membership.cluster.activate("vm7")
        await b.stop()
        b.datapath.given.clear()
        for _ in range(2):
            await b.start()
            await until(lambda: b'"host":"hv2"' in (hosts.key("carry/vm7") or b""))
            await b.stop()
            (lease,) = b.datapath.leases()
            assert lease.mac == mac_to_int(MAC7)
            assert frames(b) == 5


@pytest.mark.parametrize("restarts", [False, True], ids=["cut off", "restarts"])
async def test_what_is_packed_stays_so_when_its_host_comes_back(restarts: bool) -> None:
    """Nobody may switch it over: its VM may just appear at the next host."""
    async with three() as hosts:
        a, b, _ = hosts.all
        await counted_and_leased(hosts)
        await bring(hosts, Phase.PREPARED)
        await hosts.packed("vm7")
        if restarts:
            await a.restart()
        else:
            session = a.membership.cluster.session
            hosts.lose_session(a)
            await until(lambda: a.membership.cluster.session not in (None, session))
            await a.connected()
        await b.migrations.activate("vm7")
        await until(b.datapath.leases)
        await until(lambda: frames(b) == 5)


async def test_leases_come_along_each_time() -> None:
    """Those of the last time went with the port."""
    async with three() as hosts:
        a, b, _ = hosts.all
        await lease_to_vm7(a)
        for _ in range(2):
            await bring(hosts, Phase.HELD)
            await until(b.datapath.leases)
            await a.migrations.cancel("vm7")
            await until(lambda: b.port_state("vm7") is None)
            assert not b.datapath.leases()
        await bring(hosts, Phase.HELD)
        await until(b.datapath.leases)


async def test_what_a_port_is_changed_to_while_it_is_prepared_comes_along() -> None:
    """Its host has not been told yet that it migrates."""
    async with three() as hosts:
        a, b, _ = hosts.all

        async def changes() -> None:
            await a.change(lambda draft: draft.set_port("vm7", isolated=True))

        b.kv.before = changes
        await b.migrations.prepare("vm7", "tap2")
        assert b.state.ports["vm7"].isolated


async def test_a_vm_that_leaves_again_at_once_takes_along_what_it_has_brought() -> None:
    """It is unpacked after the activation, and packed for the next host once that is done."""
    async with three() as hosts:
        a, b, c = hosts.all
        a.datapath.counted[a.state.counters_of("vm7")["blue"]] = Traffic(packets=(5, 0, 0, 0), bytes=(500, 0, 0, 0))
        await bring(hosts, Phase.HELD)
        await b.migrations.activate("vm7")
        await c.migrations.prepare("vm7", "tap2")
        await until(lambda: b.state.remote.ports["vm7"].next == "hv3")
        await b.migrations.switchover("vm7")
        await c.migrations.activate("vm7")
        at = c.state.counters_of("vm7")["blue"]
        await until(lambda: at in c.datapath.counted)
        assert c.datapath.counted[at].packets[0] == 5


async def test_what_cannot_be_brought_along_holds_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    async with three() as hosts:
        _, b, _ = hosts.all
        await bring(hosts, Phase.HELD)
        hosts.write("carry/vm7", b"no JSON")
        await b.migrations.activate("vm7")
        assert (owner(hosts), b.port_state("vm7")) == ("hv2", UP)
        await until(lambda: "what the cluster carries of port vm7 cannot be read" in caplog.text)


# A VM that announces itself


async def test_a_vm_that_announces_itself_activates_its_port() -> None:
    async with three() as hosts:
        _, b, _ = hosts.all
        await bring(hosts, Phase.HELD)
        b.announce("vm7")
        await until(lambda: owner(hosts) == "hv2" and b.port_state("vm7") is UP)


async def test_a_vm_that_announces_itself_before_the_switchover_activates_its_port_too() -> None:
    async with three() as hosts:
        a, b, _ = hosts.all
        await bring(hosts, Phase.PREPARED)
        b.announce("vm7")
        await until(lambda: owner(hosts) == "hv2" and b.port_state("vm7") is UP)
        await until(lambda: a.port_state("vm7") is None)
        assert reaches(hosts) == {"hv2/tap2"}


async def test_what_is_sent_to_a_vm_before_its_host_knows_that_it_owns_it_is_held() -> None:
    """Others hear of it first."""
    async with three() as hosts:
        _, b, _ = hosts.all
        await bring(hosts, Phase.PREPARED)
        seen: list[tuple[PortState | None, str | None]] = []

        async def look() -> None:
            seen.append((b.port_state("vm7"), way(b)[0]))
            b.kv.before = look  # this may have been a change that is late

        b.kv.before = look
        await b.migrations.activate("vm7")
        b.kv.before = None
        assert (HOLDING, None) in seen
        assert b.port_state("vm7") is UP


async def test_what_a_vm_announces_when_it_is_where_it_is_to_be_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with three() as hosts:
        a, _, _ = hosts.all
        keys = dict(hosts.engine.keys)
        a.announce("vm8")
        await until(lambda: not a.datapath.queue)
        await a.change(lambda draft: None)
        assert hosts.engine.keys == keys
        said = [record for record in caplog.records if "vm8" in record.getMessage()]
        assert not [record for record in said if record.levelno > logging.INFO]
