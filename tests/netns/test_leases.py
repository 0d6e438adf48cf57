"""Ports that are held to what DHCP servers lease to them, with a real server and a real client.

 client         peer        server
┌──────┐      ┌──────┐     ┌───────┐
│ eth0 │      │ eth0 │     │ eth0  │    dnsmasq, both families; on a trusted port, or in the uplink's VLAN
└──┬───┘      └──┬───┘     └──┬────┘
┌──┴─────────────┴────────────┴────┐    the client's port is held to its leases; its VM has no address
│  vN            vN           vN   ├── up0 ── VLAN ── server
└──────────────────────────────────┘
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from support.dhcp import ACK, dhcp
from support.dhcp_hosts import LEASE_S, POOL, POOL_6, DhcpClient, serve_dhcp
from support.frames import ethernet, ipv4
from support.ipv6 import address_6, echoes, speak_ipv6, start_ipv6, wait_for_dad
from support.lan import Lan, running_lan
from vxagent.lab.fabric import Fabric
from vxagent.lab.traffic import send_frames
from vxagent.lab.vm import NIC, Endpoint, VethVm
from vxagent.lab.waiting import wait_until

FOREIGN = {4: "10.0.0.240", 6: "2001:db8::240"}
WIDTH = {4: 24, 6: 64}
FAMILIES = pytest.mark.parametrize("family", [4, 6])

_vids = itertools.count(100)


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    """One switch for the tests of this file."""
    with running_lan() as lan:
        yield lan


@pytest.fixture(scope="module")
def fabric(lan: Lan) -> Fabric:
    """Its uplink."""
    return lan.uplink()


@dataclass
class Place:
    """Who is there.

    Attributes:
        client: its port is held to its leases.
        peer: whom it talks to.
        server: which leases.
    """

    lan: Lan
    client: VethVm
    peer: VethVm
    server: Endpoint

    def ask(self, family: int) -> DhcpClient:
        """The client asks for an address and gets it."""
        dhcp_client = DhcpClient(self.client, self.lan.world.directory(), family)
        assert dhcp_client.ask()
        return dhcp_client

    def reaches(self, family: int, source: str) -> bool:
        """Whether the client gets an answer from its peer when it uses an address."""
        return echoes(self.client, self._peer(family), "-I", source)

    def reaches_nobody(self, family: int, source: str) -> bool:
        """Whether it does not: none of three requests is answered."""
        return not echoes(self.client, self._peer(family), "-I", source, "-c", "3", "-i", "0.1", "-W", "0.3")

    def _peer(self, family: int) -> str:
        return self.peer.address if family == 4 else address_6(self.peer)

    def use(self, family: int, address: str) -> None:
        """The client takes an address that nobody gave it."""
        nodad = ("nodad",) if family == 6 else ()
        self.client.namespace.ip("address", "add", f"{address}/{WIDTH[family]}", "dev", NIC, *nodad)

    def leased(self) -> list[str]:
        """What `port show` says."""
        return [lease["ip"] for lease in self.lan.show(self.client.port)["leases"]]


def _client(lan: Lan, segment: str) -> VethVm:
    vm = lan.veth(lan.unique("v"), None)
    vm.namespace.ip("address", "flush", "dev", NIC)
    lan.attach(vm.port, segment, dhcp_snoop=True)
    start_ipv6(vm)
    wait_for_dad(vm)
    return vm


@pytest.fixture
def place(lan: Lan) -> Place:
    """The server is on a trusted port."""
    segment = lan.new_segment()
    server = lan.veth(lan.unique("v"), segment, trusted=True)
    return _open(lan, segment, server)


@pytest.fixture
def place_with_uplink(lan: Lan, fabric: Fabric) -> Place:
    """The server is in the physical network."""
    vid = next(_vids)
    return _open(lan, lan.new_segment(vlan=vid), lan.host(fabric, vid))


def _open(lan: Lan, segment: str, server: Endpoint) -> Place:
    [peer] = lan.veths(segment, 1)
    for host in (server, peer):
        speak_ipv6(host)
    serve_dhcp(server, lan.world.directory())
    return Place(lan=lan, client=_client(lan, segment), peer=peer, server=server)


@FAMILIES
@pytest.mark.parametrize("behind", ["place", "place_with_uplink"], ids=["a port", "an uplink"])
def test_a_lease_is_what_a_port_may_use(request: pytest.FixtureRequest, behind: str, family: int) -> None:
    """No other address, neither before nor after."""
    place: Place = request.getfixturevalue(behind)
    place.use(family, FOREIGN[family])
    assert place.reaches_nobody(family, FOREIGN[family])
    place.client.namespace.ip("address", "del", f"{FOREIGN[family]}/{WIDTH[family]}", "dev", NIC)

    address = place.ask(family).address()
    assert address.startswith((POOL[0][:8], POOL_6[0][:10]))
    assert place.reaches(family, address)
    [lease] = place.lan.show(place.client.port)["leases"]
    assert (lease["ip"], lease["mac"]) == (address, place.client.mac)
    assert 0 < lease["expires_s"] <= LEASE_S

    place.use(family, FOREIGN[family])
    assert place.reaches_nobody(family, FOREIGN[family])
    assert place.reaches(family, address)
    assert place.lan.drops(place.client.port).keys() <= {"src_ip_denied", "arp_spoof", "nd_spoof"}
    assert place.lan.drops(place.client.port)


@FAMILIES
def test_what_is_released_is_gone(place: Place, family: int) -> None:
    client = place.ask(family)
    address = client.address()
    assert place.leased() == [address]
    client.release()
    wait_until(lambda: place.leased() == [], what="the lease ends")
    place.use(family, address)
    assert place.reaches_nobody(family, address)


def test_leases_come_without_an_agent_and_outlive_it(place: Place) -> None:
    agent = place.lan.agent
    agent.kill()
    addresses = {family: place.ask(family).address() for family in (4, 6)}
    for family, address in addresses.items():
        assert place.reaches(family, address)
        place.use(family, FOREIGN[family])
        assert place.reaches_nobody(family, FOREIGN[family])
    agent.up()
    assert place.leased() == list(addresses.values())
    agent.cli("reload")
    assert place.leased() == list(addresses.values())
    agent.cli("stop")
    agent.up()
    assert place.leased() == list(addresses.values())
    assert all(place.reaches(family, address) for family, address in addresses.items())


@pytest.mark.parametrize("by", ["the agent", "the command alone"])
def test_leases_are_put_back_when_the_switch_starts_anew(place: Place, by: str) -> None:
    """As after a reboot, which takes the kernel's tables as well."""
    addresses = {family: place.ask(family).address() for family in (4, 6)}
    agent = place.lan.agent
    if by == "the command alone":
        agent.kill()
    agent.cli("down")
    agent.up()
    assert place.leased() == list(addresses.values())
    for family, address in addresses.items():
        assert place.reaches(family, address)
        place.use(family, FOREIGN[family])
        assert place.reaches_nobody(family, FOREIGN[family])


def test_a_lease_runs_out(place: Place) -> None:
    """The server's last word is a lease of some seconds, which dnsmasq does not give."""
    address = place.ask(4).address()
    assert place.reaches(4, address)
    client, server = (bytes.fromhex(host.mac.replace(":", "")) for host in (place.client, place.server))
    ack = ipv4(dhcp(ACK, client, yours=address, seconds=2), source=place.server.address, destination=address)
    send_frames(place.server.namespace, NIC, ethernet(client, server, ack))
    wait_until(lambda: place.leased() == [], what="the lease runs out")
    wait_until(
        lambda: place.reaches_nobody(4, address), what="it does so for the programs, whose clock may be a tick behind"
    )


def test_leases_end_where_a_port_is_not_held_to_them(place: Place) -> None:
    address = place.ask(4).address()
    port = place.client.port
    place.lan.agent.cli("port", "set", port, "--no-dhcp-snoop")
    place.use(4, FOREIGN[4])
    assert place.reaches(4, FOREIGN[4])
    place.lan.agent.cli("port", "set", port, "--dhcp-snoop")
    assert place.leased() == []
    assert place.reaches_nobody(4, FOREIGN[4])
    assert place.reaches_nobody(4, address)


def test_a_server_that_is_not_trusted_leases_nothing(place: Place) -> None:
    """Not even where shadow mode lets its messages through."""
    assert isinstance(place.server, VethVm)
    place.lan.agent.cli("port", "set", place.server.port, "--no-trusted", "--enforce", "shadow")
    address = place.ask(4).address()
    assert place.leased() == []
    assert place.reaches_nobody(4, address)


def test_a_port_that_is_plugged_in_anew_has_no_lease(place: Place) -> None:
    address = place.ask(4).address()
    shown = place.lan.show(place.client.port)
    place.lan.agent.cli("port", "detach", place.client.port)
    place.lan.attach(place.client.port, shown["segments"][0]["segment"], dhcp_snoop=True)
    assert place.leased() == []
    assert place.reaches_nobody(4, address)
