"""Ports of a dead host that another one takes: vm7 and vm8 are on hv1, hv2 takes them, hv3 looks on."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import pytest

from support.members import BLUE, MAC7, MAC8, RED, Hosts, Member, until
from support.migrating import LEASED, UP, VTEP2, bring, lease_to_vm7, three
from vxagent.errors import ClusterAmbiguous, ClusterAway, Conflict, HostError, Invalid, NotFound
from vxagent.model.binding import Phase
from vxagent.model.port import Mode, PortState, Uplink
from vxagent.protocol.requests import HostEvacuate
from vxagent.runtime.cluster_api import evacuate_host
from vxagent.runtime.membership import Connection
from vxagent.store.fake_kv import Lost
from vxagent.store.under_session import ASKED


async def evacuate(by: Member, host: str = "hv1", **ifnames: str) -> list[str]:
    """`host evacuate`, and the ports that it takes."""
    return (await evacuate_host(by.running, HostEvacuate(ifnames=ifnames), host=host)).ports


def owner(hosts: Hosts, port: str) -> str:
    binding = hosts.binding(port)
    assert binding is not None
    return binding.owner


async def die(hosts: Hosts) -> None:
    """hv1 does, and hv2 knows."""
    a, b, _ = hosts.all
    await a.stop()
    hosts.lose_session(a)
    await until(lambda: "hv1" not in b.membership.live)


async def test_the_ports_of_a_dead_host_are_taken() -> None:
    async with three() as hosts:
        a, b, c = hosts.all
        await a.stop()
        hosts.lose_session(a)
        await until(lambda: "hv1" not in b.membership.live)
        assert await evacuate(b) == ["vm7", "vm8"]
        await until(lambda: c.fdb(MAC7) == VTEP2)
        assert (b.port_state("vm7"), b.port_state("vm8")) == (UP, UP)
        await a.start()
        await until(lambda: a.port_state("vm7") is None and a.port_state("vm8") is None)


async def test_a_port_that_was_taken_goes_on_as_it_is_here() -> None:
    """Its VM begins anew: what it was leased, and the dead host had once packed, is old."""
    async with three() as hosts:
        a, b, c = hosts.all
        await lease_to_vm7(a)
        await c.migrations.prepare("vm7", "tap3")
        await hosts.packed("vm7")
        assert LEASED.encode() in (hosts.key("carry/vm7") or b"")
        await c.migrations.cancel("vm7")
        await until(lambda: b.state.remote.ports["vm7"].phase is Phase.BOUND)
        await die(hosts)
        await evacuate(b, vm7="tap3")
        left = hosts.key("carry/vm7") or b""
        assert b'"host":"hv2"' in left
        assert b'"ifname":"tap3"' in left
        assert LEASED.encode() not in left
        assert not b.datapath.leases()


@pytest.mark.parametrize(
    ("host", "error", "message"),
    [("hv1", Conflict, "host hv1 is alive; migrate its ports instead"), ("hv9", NotFound, "no host hv9")],
)
async def test_who_lives_or_was_never_there_is_not_evacuated(host: str, error: type[Exception], message: str) -> None:
    async with three() as hosts:
        _, b, _ = hosts.all
        keys = dict(hosts.engine.keys)
        with pytest.raises(error, match=message):
            await evacuate(b, host)
        assert hosts.engine.keys == keys
        assert b.port_state("vm7") is None


async def test_an_evacuation_that_cannot_take_all_takes_none() -> None:
    async with three(BLUE, RED) as hosts:
        a, b, _ = hosts.all
        await a.attach("vm5", "tap2", segment="red", macs=("02:00:00:00:00:05",))
        await a.stop()
        hosts.lose_session(a)
        await b.change(lambda draft: draft.delete_segment("red"))
        keys = dict(hosts.engine.keys)
        with pytest.raises(Conflict, match="host hv2 does not have segment red, which port vm5 is in"):
            await evacuate(b)
        assert hosts.engine.keys == keys
        assert [b.port_state(port) for port in ("vm5", "vm7", "vm8")] == [None, None, None]


async def test_a_port_that_was_on_its_way_is_taken_by_who_waited_for_it() -> None:
    async with three() as hosts:
        a, b, _ = hosts.all
        await bring(hosts, Phase.HELD)
        await a.stop()
        hosts.lose_session(a)
        await b.change(lambda draft: None)
        assert await evacuate(b) == ["vm7", "vm8"]
        assert (b.port_state("vm7"), b.state.ports["vm7"].ifname) == (UP, "tap2")


# Devices


async def test_a_device_that_is_in_use_here_is_named_with_the_option_that_names_another() -> None:
    async with three() as hosts:
        _, b, _ = hosts.all
        await b.attach("vm5", "tap1")
        await die(hosts)
        keys = dict(hosts.engine.keys)
        refusal = (
            "port vm8 cannot have device tap1 on host hv2: it is port vm5's; "
            "name another one: `vxagent host evacuate hv1 --ifname vm8=IFNAME`"
        )
        with pytest.raises(Conflict) as raised:
            await evacuate(b)
        assert str(raised.value) == refusal
        assert hosts.engine.keys == keys
        assert [b.port_state(port) for port in ("vm7", "vm8")] == [None, None]
        assert await evacuate(b, vm8="tap3") == ["vm7", "vm8"]
        assert {port.id: port.ifname for port in b.state.ports.values()} == {
            "vm5": "tap1",
            "vm7": "tap0",
            "vm8": "tap3",
        }
        assert (b.port_state("vm7"), b.port_state("vm8")) == (UP, UP)


@pytest.mark.parametrize(
    ("ifname", "error", "message"),
    [
        ("tap0", Conflict, "port vm8 cannot have device tap0 on host hv2: it is port vm7's"),
        ("eth1", Conflict, "port vm8 cannot have device eth1 on host hv2: it is the underlay of the overlay"),
        ("eth2", Conflict, "port vm8 cannot have device eth2 on host hv2: it is an uplink"),
        ("lo", Conflict, "port vm8 cannot have device lo on host hv2: lo is the host's own"),
        ("no/name", Invalid, "no/name"),
    ],
)
async def test_a_device_that_cannot_be_a_ports_is_refused_before_any_is_taken(
    ifname: str, error: type[Exception], message: str
) -> None:
    async with three() as hosts:
        _, b, _ = hosts.all
        await b.change(lambda draft: draft.add_uplink(Uplink(ifname="eth2")))
        b.links.by_name["lo"] = replace(b.links.by_name["tap3"], ifname="lo", ifindex=1)
        await die(hosts)
        await b.running.reload()
        keys = dict(hosts.engine.keys)
        with pytest.raises(error, match=message):
            await evacuate(b, vm8=ifname)
        assert hosts.engine.keys == keys
        assert not b.state.ports


async def test_a_port_that_the_dead_host_does_not_have_is_refused_before_any_is_taken() -> None:
    async with three() as hosts:
        _, b, _ = hosts.all
        await die(hosts)
        for port in ("vm9", "vm6"):  # hv3's, and nobody's
            with pytest.raises(
                NotFound, match=f"no binding {port}, which --ifname for host hv1 asks for; see `vxagent b"
            ):
                await evacuate(b, **{port: "tap3"})
        assert not b.state.ports


# Failures on the way


async def test_who_asks_again_goes_on_where_it_failed() -> None:
    async with three() as hosts:
        _, b, c = hosts.all
        await die(hosts)

        async def go_away() -> None:
            b.away = True

        b.kv.before = go_away  # and takes what is asked for now
        with pytest.raises(ClusterAway, match=r"1 of 2 ports of host hv1 are here now, the others not: .*ask again"):
            await evacuate(b, vm7="tap3")
        assert (b.port_state("vm7"), b.port_state("vm8")) == (UP, None)
        assert [owner(hosts, port) for port in ("vm7", "vm8")] == ["hv2", "hv1"]
        await until(lambda: b.membership.connection is Connection.DISCONNECTED)
        b.away = False
        await b.connected()
        with pytest.raises(Conflict, match="port vm7 is here already, with device tap3; leave out --ifname vm7=tap2"):
            await evacuate(b, vm7="tap2")
        assert await evacuate(b, vm7="tap3") == ["vm8"]
        assert (b.port_state("vm7"), b.port_state("vm8")) == (UP, UP)
        await until(lambda: c.fdb(MAC8) == VTEP2)


@pytest.mark.parametrize("done", [True, False])
async def test_what_is_not_known_to_be_done_is_done_when_it_is_asked_for_again(done: bool) -> None:
    async with three() as hosts:
        _, b, _ = hosts.all
        await die(hosts)
        b.kv.losing = deque([None, None, Lost.AFTER if done else Lost.BEFORE, *[Lost.BEFORE] * (ASKED - 1)])
        with pytest.raises(ClusterAmbiguous, match="1 of 2 ports of host hv1 are here now"):
            await evacuate(b)
        await until(lambda: b.port_state("vm8") is (UP if done else PortState.DRAINING))
        assert await evacuate(b) == ([] if done else ["vm8"])
        assert (owner(hosts, "vm8"), b.port_state("vm8")) == ("hv2", UP)


async def test_a_port_that_this_host_cannot_make_stays_the_dead_hosts() -> None:
    async with three() as hosts:
        _, b, _ = hosts.all
        await die(hosts)
        keys = dict(hosts.engine.keys)
        b.datapath.fail_at = 1
        with pytest.raises(HostError):
            await evacuate(b)
        assert hosts.engine.keys == keys
        assert not b.state.ports
        assert await evacuate(b) == ["vm7", "vm8"]


async def test_an_agent_that_dies_before_the_engine_has_done_it_lets_go_of_the_port() -> None:
    """What it has made already drains, and is not its own."""
    async with three() as hosts:
        _, b, c = hosts.all
        await die(hosts)
        b.kv.losing = deque([Lost.BEFORE] * ASKED)
        with pytest.raises(ClusterAmbiguous):
            await evacuate(b)
        assert b.port_state("vm7") is PortState.DRAINING
        await b.restart()
        await until(lambda: b.port_state("vm7") is None)
        assert await evacuate(c, vm7="tap2") == ["vm7", "vm8"]


# What nobody else can have


async def test_internal_ports_and_those_that_nothing_is_left_of_stay_and_are_named() -> None:
    async with three() as hosts:
        a, b, _ = hosts.all
        await a.attach("mgmt0", "mgmt0", mode=Mode.INTERNAL)
        await die(hosts)
        hosts.engine.keys.pop("/vxagent/v1/test/carry/vm8")
        taken = await evacuate_host(b.running, HostEvacuate(), host="hv1")
        assert (taken.ports, taken.left) == (["vm7"], ["mgmt0", "vm8"])
        assert b.port_state("mgmt0") is None
