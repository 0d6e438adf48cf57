"""Segments whose multicast follows IGMP and MLD.

   a: sends       b: may join     c: never joins    q: queries
┌──────┐       ┌──────┐        ┌──────┐         ┌──────┐    VMs on veths, whose kernels speak IGMP and MLD;
│ eth0 │       │ eth0 │        │ eth0 │         │ eth0 │    each test has a segment of its own
└──┬───┘       └──┬───┘        └──┬───┘         └──┬───┘
┌──┴──────────────┴───────────────┴────────────────┴───┐
│  vN             vN              vN               vN  │
└──────────────────────────────────────────────────────┘
"""

from __future__ import annotations

import itertools
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from support.frames import BROADCAST, ethernet, ipv4, ipv6, payload, udp, vlan
from support.hearing import Party, listening, place_of
from support.ipv6 import address_6, speak_ipv6
from support.lan import AMOUNT, Lan, running_lan
from support.multicast import family, group_mac, octets, query
from vxagent.datapath import abi
from vxagent.datapath.bpf_map import Map
from vxagent.datapath.maps import DEFAULT_SIZES, declare
from vxagent.lab.fabric import Fabric
from vxagent.lab.namespaces import Namespace
from vxagent.lab.ping import ping
from vxagent.lab.traffic import bulk_tcp, send_frames
from vxagent.lab.vm import NIC, Endpoint, VethVm
from vxagent.lab.waiting import wait_until

G4, G6 = "239.1.1.1", "ff05::1:3"
BOTH = pytest.mark.parametrize("group", [G4, G6], ids=["IPv4", "IPv6"])
PORT = 5000
SOURCE_MAC = bytes.fromhex("02fe00000001")
MCAST_JOIN_SOURCE_GROUP = 46  # <linux/in.h>

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    """One switch for the tests of this file."""
    with running_lan() as lan:
        yield lan


@dataclass(frozen=True)
class Four:
    """The VMs of the drawing, in a segment that is snooped."""

    lan: Lan
    segment: str
    a: VethVm
    b: VethVm
    c: VethVm
    q: VethVm

    def ask(self, group: str, *, version: int = 0) -> None:
        """q sends a general query of the group's family; all ports have answered it, and what they joined is known."""
        version = version or (3 if family(group) == 4 else 62)
        send_frames(self.q.namespace, NIC, query(version, response_ms=100))
        wait_until(lambda: self.hears(group) == self.expected(group), what=f"multicast follows the members of {group}")

    def hears(self, group: str) -> set[str]:
        """The ports of those that get a frame for the group from a."""
        return who_gets(group, self.a, self.b, self.c, self.q)

    def expected(self, group: str) -> set[str]:
        """Members as the switch knows them, and the querier."""
        return self.members(group) | {self.q.port}

    def members(self, group: str) -> set[str]:
        """Ports that are shown as members."""
        return {row["port"] for row in self.shown()["groups"] if row["group"] == group}

    def await_takers(self, group: str, *vms: VethVm, within: float = 15.0) -> None:
        """Until these VMs and the querier, and nobody else, get a frame for the group."""
        takers = {vm.port for vm in (*vms, self.q)}
        wait_until(lambda: self.hears(group) == takers, within=within, what=f"{group} goes to {takers} alone")

    def shown(self) -> dict[str, Any]:
        """`segment show`."""
        shown: dict[str, Any] = self.lan.client.get("v1", "segments", self.segment)
        return shown

    def wait_member(self, vm: VethVm, group: str) -> None:
        """Until the switch knows of a membership."""
        wait_until(lambda: vm.port in self.members(group), what=f"{vm.port} is a member of {group}")


@pytest.fixture
def four(lan: Lan) -> Four:
    return make_four(lan)


def make_four(lan: Lan, **options: Any) -> Four:
    """The VMs speak IPv6, too."""
    segment = lan.new_segment(multicast_snooping=True, **options)
    vms = lan.veths(segment, 4)
    for vm in vms:
        speak_quickly(vm)
    return Four(lan, segment, *vms)


def speak_quickly(vm: Endpoint) -> None:
    """IPv6 without DAD, which would take a second."""
    vm.namespace.sysctl(f"net/ipv6/conf/{NIC}/dad_transmits", 0)
    speak_ipv6(vm)


def who_gets(group: str, sender: Party, *ears: Party, tags: tuple[bytes, ...] = ()) -> set[str]:
    """The ports of those of the ears at which a frame for a group arrives; works without the agent.

    A broadcast follows it on the same way: where that has arrived, nothing else will.
    """
    text = f"frame {next(_numbers)} ".encode()
    inside = ipv4(udp(text), destination=group) if family(group) == 4 else ipv6(udp(text), destination=group)
    last = ethernet(BROADCAST, SOURCE_MAC, payload(b"last " + text), *tags)
    origin = place_of(sender)
    places = [place_of(ear) for ear in ears]
    with listening(*places) as sniffers:
        send_frames(origin.namespace, origin.ifname, ethernet(group_mac(group), SOURCE_MAC, inside, *tags), last)
        for sniffer in sniffers:
            sniffer.wait_for(lambda arrived: b"last " + text in arrived.data)
        arrived = {place.port: sniffer.frames() for place, sniffer in zip(places, sniffers, strict=True)}
    return {port for port, frames in arrived.items() if any(inside.data in frame.data for frame in frames)}


@contextmanager
def joined(vm: Endpoint, group: str, *, source: str = "") -> Iterator[socket.socket]:
    """A socket that receives what is sent to a group, of one source only if that is given."""
    v4 = family(group) == 4
    with vm.namespace.entered():
        receiver = socket.socket(socket.AF_INET if v4 else socket.AF_INET6, socket.SOCK_DGRAM)
        index = socket.if_nametoindex(NIC)
    with receiver:
        receiver.settimeout(5)
        if not v4:
            receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        receiver.bind(("", PORT))
        level = socket.IPPROTO_IP if v4 else socket.IPPROTO_IPV6
        if source:
            request = struct.pack("=I4x", index) + _sockaddr_storage(group) + _sockaddr_storage(source)
            receiver.setsockopt(level, MCAST_JOIN_SOURCE_GROUP, request)
        elif v4:
            receiver.setsockopt(level, socket.IP_ADD_MEMBERSHIP, struct.pack("=4s4xi", octets(group), index))
        else:
            receiver.setsockopt(level, socket.IPV6_JOIN_GROUP, octets(group) + struct.pack("=I", index))
        yield receiver


def _sockaddr_storage(address: str) -> bytes:
    packed = octets(address)
    if len(packed) == 4:
        return struct.pack("=HH4s", socket.AF_INET, 0, packed).ljust(128, b"\0")
    return struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, packed, 0).ljust(128, b"\0")


def say(vm: Endpoint, group: str, text: bytes) -> None:
    """A real socket of a VM sends to a group."""
    v4 = family(group) == 4
    with vm.namespace.entered(), socket.socket(socket.AF_INET if v4 else socket.AF_INET6, socket.SOCK_DGRAM) as sender:
        index = socket.if_nametoindex(NIC)
        if v4:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=8xi", index))
        else:
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        sender.sendto(text, (group, PORT))


def force_version(namespace: Namespace, version: int) -> None:
    """1, 2, 3 of IGMP; 61, 62 of MLD."""
    if version < 6:
        namespace.sysctl(f"net/ipv4/conf/{NIC}/force_igmp_version", version)
    else:
        namespace.sysctl(f"net/ipv6/conf/{NIC}/force_mld_version", version - 60)


# --- members and others ---------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2, 3, 61, 62])
def test_who_joins_gets_a_group_and_nobody_else(four: Four, version: int) -> None:
    group = G4 if version < 6 else G6
    force_version(four.b.namespace, version)
    four.ask(group, version=version)
    assert four.hears(group) == {four.q.port}
    with joined(four.b, group) as receiver:
        four.wait_member(four.b, group)
        assert four.hears(group) == {four.b.port, four.q.port}
        say(four.a, group, b"to all members")
        assert receiver.recv(100) == b"to all members"
        four.ask(group, version=version)
        assert four.members(group) == {four.b.port}
    if version != 1:  # which knows no leaves
        four.await_takers(group)


@BOTH
def test_who_joins_one_source_gets_the_group(four: Four, group: str) -> None:
    """Its leave only blocks that source; whether others behind the port want another one is not known."""
    four.ask(group)
    source = four.a.address if family(group) == 4 else address_6(four.a)
    with joined(four.b, group, source=source) as receiver:
        four.wait_member(four.b, group)
        assert four.hears(group) == {four.b.port, four.q.port}
        say(four.a, group, b"of this source")
        assert receiver.recv(100) == b"of this source"


@BOTH
def test_without_a_querier_everybody_gets_a_group(four: Four, group: str) -> None:
    everybody = {vm.port for vm in (four.b, four.c, four.q)}
    assert four.hears(group) == everybody
    with joined(four.b, group):
        four.wait_member(four.b, group)
        assert four.hears(group) == everybody
    assert four.shown()["queriers"] == {"ipv4": None, "ipv6": None}


@BOTH
def test_when_the_querier_is_gone_everybody_gets_a_group(four: Four, group: str) -> None:
    """Its 255 seconds are taken from it by hand."""
    four.ask(group)
    handle = four.lan.client.get("v1", "segments", four.segment)
    assert handle["queriers"]["ipv4" if family(group) == 4 else "ipv6"] > 200
    pins = four.lan.agent.run_dir / "bpf"
    path = next(pin for pin in pins.rglob("queriers"))
    opened = Map.open(path, declare(DEFAULT_SIZES)["queriers"])
    assert opened is not None
    with opened:
        for batch in opened.batches():
            for at in range(batch.count):
                began4, began6, *_ = abi.QUERIERS.struct.unpack(batch.value(at))
                if began4 or began6:
                    opened.update(struct.pack("=I", at), abi.QUERIERS.struct.pack(began4, began6, 1, 1))
    assert four.hears(group) == {vm.port for vm in (four.b, four.c, four.q)}


def test_a_linux_bridge_is_querier_enough(four: Four) -> None:
    """The querier of a real bridge, behind q, with addresses of its own."""
    q = four.q.namespace
    options = "mcast_query_use_ifaddr 1 mcast_query_response_interval 50"
    startup = "mcast_startup_query_interval 100 mcast_startup_query_count 60"  # in 1/100 s; until it has addresses
    q.ip("address", "flush", "dev", NIC)
    q.ip(*f"link add br0 type bridge {options} {startup}".split())
    q.ip("address", "add", "10.0.0.200/24", "dev", "br0")
    q.sysctl("net/ipv6/conf/br0/disable_ipv6", 0)
    q.ip("link", "set", NIC, "master", "br0")
    q.ip("link", "set", "br0", "up")
    with joined(four.b, G4) as receiver4, joined(four.b, G6) as receiver6:
        q.ip("link", "set", "br0", "type", "bridge", "mcast_querier", "1")
        wait_until(lambda: None not in four.shown()["queriers"].values(), within=60, what="both queriers are known")
        for group, receiver in ((G4, receiver4), (G6, receiver6)):
            four.await_takers(group, four.b, within=30)
            say(four.a, group, b"by a bridge")
            assert receiver.recv(100) == b"by a bridge"


# --- the rest of the network ----------------------------------------------------------------------


def test_ipv6_hosts_talk_under_snooping(four: Four) -> None:
    """ND asks by solicited-node groups, which nobody has to join in the switch's eyes."""
    four.ask(G4)
    four.ask(G6)
    for one, other in ((four.a, four.b), (four.b, four.c)):
        assert one.namespace.run("ping", "-n", "-c", "2", "-W", "2", address_6(other)).returncode == 0
        assert bulk_tcp(one.namespace, other.namespace, address_6(other), amount=AMOUNT).received == AMOUNT
        assert ping(one.namespace, other.address).lost == []


@BOTH
def test_a_member_and_a_querier_behind_an_uplink(lan: Lan, group: str) -> None:
    vid = 100 + next(_numbers)
    fabric: Fabric = lan.world.fabric(lan.switch, lan.unique("up"))
    lan.agent.cli("uplink", "add", fabric.uplink)
    segment = lan.new_segment(vlan=vid, multicast_snooping=True)
    other = lan.new_segment(vlan=vid + 1000, multicast_snooping=True)
    a, c = lan.veths(segment, 2)
    host = lan.host(fabric, vid)
    for endpoint in (a, c, host):
        speak_quickly(endpoint)
    asks = query(3 if group == G4 else 62, vlan(vid), response_ms=100)

    def members() -> list[str]:
        return [row["port"] for row in lan.client.get("v1", "segments", segment)["groups"] if row["group"] == group]

    send_frames(fabric.namespace, place_of(fabric).ifname, asks)
    wait_until(lambda: who_gets(group, a, c, fabric) == {fabric.uplink}, what="multicast follows members")
    with joined(c, group) as receiver:
        wait_until(lambda: members() == [c.port], what="c is a member")
        assert who_gets(group, fabric, a, c, tags=(vlan(vid),)) == {c.port}
        say(host, group, b"from outside")
        assert receiver.recv(100) == b"from outside"
    with joined(host, group) as receiver:
        wait_until(lambda: fabric.uplink in members(), what="the uplink is a member")
        say(a, group, b"to the outside")
        assert receiver.recv(100) == b"to the outside"
    shown = lan.client.get("v1", "segments", other)
    assert (shown["groups"], shown["router_ports"]) == ([], [])
    lan.agent.cli("uplink", "del", fabric.uplink)


# --- the agent ------------------------------------------------------------------------------------


def test_groups_go_on_while_the_agent_is_dead(four: Four) -> None:
    lan = four.lan
    four.ask(G4)
    four.ask(G6)
    lan.agent.kill()
    try:
        for group in (G4, G6):
            assert four.hears(group) == {four.q.port}
            with joined(four.b, group) as receiver:
                four.await_takers(group, four.b)
                say(four.a, group, b"without an agent")
                assert receiver.recv(100) == b"without an agent"
            four.await_takers(group)
    finally:
        lan.agent.up()
    assert four.hears(G4) == four.hears(G6) == {four.q.port}


@BOTH
@pytest.mark.parametrize("how", ["reload", "restart"])
def test_memberships_outlive_programs_and_agents(four: Four, group: str, how: str) -> None:
    four.ask(group)
    with joined(four.b, group):
        four.wait_member(four.b, group)
        if how == "reload":
            four.lan.agent.cli("reload")
        else:
            four.lan.agent.cli("stop")
            four.lan.agent.up()
        assert four.members(group) == {four.b.port}
        assert four.hears(group) == {four.b.port, four.q.port}


@BOTH
def test_a_port_that_is_plugged_in_anew_inherits_nothing(four: Four, group: str) -> None:
    four.ask(group)
    with joined(four.b, group):
        four.wait_member(four.b, group)
        four.lan.agent.cli("port", "detach", four.b.port)
    four.lan.agent.cli("port", "attach", four.b.port, "--segment", four.segment)
    assert four.b.port not in four.members(group)
    assert four.hears(group) == {four.b.port, four.q.port}  # nobody has asked it yet
    four.ask(group)
    assert four.hears(group) == {four.q.port}


@BOTH
def test_snooping_is_set_live(four: Four, group: str) -> None:
    everybody = {vm.port for vm in (four.b, four.c, four.q)}
    four.ask(group)
    assert four.hears(group) == {four.q.port}
    four.lan.agent.cli("segment", "set", four.segment, "--no-multicast-snooping")
    assert four.hears(group) == everybody
    four.lan.agent.cli("segment", "set", four.segment, "--multicast-snooping")
    assert four.hears(group) == everybody  # what was joined in the meantime is not known
    four.ask(group)
    assert four.hears(group) == {four.q.port}
    assert four.q.port in four.shown()["router_ports"]
