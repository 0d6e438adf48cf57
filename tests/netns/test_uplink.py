"""Uplinks: segments as VLANs of a physical network, and everything else for the host as before.

   a              b                    hosts in VLANs and an untagged one, 192.0.2.2
┌──────┐       ┌──────┐            ┌──────────────┐          ┌──────────────┐
│ eth0 │       │ eth0 │            │ fabric       │          │ other fabric │
└──┬───┘       └──┬───┘            └──────┬───────┘          └──────┬───────┘
┌──┴──────────────┴────┐                 up0                       up1
│ vN             tN    ├──────────────────┴────────────────────────┘
└──────────────────────┘   switch: one for all tests of this file; up0 has the host's address 192.0.2.1
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from support.hearing import frame, hear, ports_of, vlan, who_hears
from support.lan import AMOUNT, Lan, assert_connected, running_lan
from vxagent.lab.fabric import TRUNK, Fabric
from vxagent.lab.frames import BROADCAST, EXPERIMENTAL, IPV4, LLDP, LLDP_MAC, Frame
from vxagent.lab.namespaces import CommandFailed
from vxagent.lab.ping import Pinger, ping
from vxagent.lab.sniffer import Sniffer
from vxagent.lab.traffic import bulk_tcp, send_frames
from vxagent.lab.vm import NIC, Endpoint
from vxagent.lab.waiting import wait_until

HOST_ADDRESS, NEIGHBOUR_ADDRESS = "192.0.2.1", "192.0.2.2"
UNUSED_VID = 4000
Tags = tuple[tuple[int, int], ...]

S_TAG = 0x88A8
PCP_5 = 5 << 13
OUTSIDER = "02:00:00:0f:00:01"  # somebody in the physical network

vids = itertools.count(100)
outsiders = itertools.count(1)


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    """One switch for the tests of this file."""
    with running_lan() as lan:
        yield lan


@pytest.fixture(scope="module")
def fabric(lan: Lan) -> Fabric:
    """The physical network behind up0, on which the host has an address."""
    fabric = lan.uplink("up0")
    lan.switch.ip("address", "add", f"{HOST_ADDRESS}/24", "dev", "up0")
    return fabric


@pytest.fixture(scope="module")
def other(lan: Lan) -> Fabric:
    """The one behind up1."""
    return lan.uplink("up1")


@pytest.fixture(scope="module")
def neighbour(fabric: Fabric) -> Endpoint:
    """A host that speaks untagged, with the switch's own host."""
    return fabric.host(None, mac="02:00:00:0e:00:01", address=NEIGHBOUR_ADDRESS)


@pytest.fixture
def vid() -> int:
    """A VID of its own."""
    return next(vids)


@pytest.fixture
def blue(lan: Lan, vid: int) -> str:
    """A segment of its own with that VID."""
    return lan.new_segment(vlan=vid)


@pytest.fixture
def outsider() -> str:
    """The MAC of somebody in the physical network."""
    return f"02:00:00:0f:01:{next(outsiders):02x}"


def promiscuous(lan: Lan, ifname: str) -> bool:
    return int(lan.device(ifname)["promiscuity"]) > 0


# --- 3, 16, 18: segments as VLANs -----------------------------------------------------------------


def test_a_segment_leaves_with_its_vid_and_comes_in_by_it(
    lan: Lan, fabric: Fabric, blue: str, vid: int, outsider: str
) -> None:
    a, b = lan.veths(blue, 2)
    [flooded] = hear(lan, a, frame(BROADCAST, a.mac), fabric)
    assert [copy.tags for copy in flooded] == [vlan(vid)]
    arrived = hear(lan, fabric, frame(a.mac, outsider, tags=vlan(vid)), a, b)
    assert [[copy.tags for copy in copies] for copies in arrived] == [[()], []]
    [forwarded] = hear(lan, a, frame(outsider, a.mac), fabric)
    assert [copy.tags for copy in forwarded] == [vlan(vid)]


@pytest.mark.parametrize("kind", ["veth", "tap"])
def test_bulk_tcp_flows_both_ways_through_an_uplink(lan: Lan, fabric: Fabric, blue: str, vid: int, kind: str) -> None:
    vm = lan.veth(lan.unique("v"), blue) if kind == "veth" else lan.tap(lan.unique("t"), blue)
    host = lan.host(fabric, vid)
    with fabric.sniff() as wire:
        assert_connected(vm, host)
        of_vm = wire.frames(lambda arrived: arrived.source == vm.mac)  # the host speaks there, too
        assert {arrived.vid for arrived in of_vm} == {vid}
        assert any(arrived.gso_size > 0 for arrived in of_vm)
    with Sniffer(vm.namespace, NIC) as at_vm:
        assert bulk_tcp(host.namespace, vm.namespace, vm.address, amount=AMOUNT).received == AMOUNT
        assert at_vm.frames(lambda arrived: arrived.gso_size > 0 and not arrived.tags)


def _speaks_ip(arrived: Frame) -> bool:
    return arrived.ethertype == IPV4


def test_vlans_of_tenants_with_the_same_macs_and_addresses_do_not_meet(lan: Lan, fabric: Fabric) -> None:
    same = {"mac": "02:00:00:00:dd:01", "address": "10.9.0.1"}, {"mac": "02:00:00:00:dd:02", "address": "10.9.0.2"}
    pairs = []
    for tenant in ("acme", "evil"):
        vid = next(vids)
        segment = lan.new_segment(tenant=tenant, vlan=vid)
        pairs.append((lan.veth(lan.unique("v"), segment, **same[0]), lan.host(fabric, vid, **same[1])))
    for (vm, host), (silent_vm, silent_host) in itertools.permutations(pairs):
        with Sniffer(silent_vm.namespace, NIC) as at_vm, Sniffer(silent_host.namespace, NIC) as at_host:
            assert_connected(vm, host)
            heard = at_vm.frames(_speaks_ip) + at_host.frames(_speaks_ip)  # they ask for each other's MAC at times
            assert heard == []
            assert who_hears(lan, vm, frame(BROADCAST, vm.mac), silent_vm) == []


def test_a_segment_without_a_vlan_stays_on_the_host(lan: Lan, fabric: Fabric, other: Fabric) -> None:
    a, b = lan.veths(lan.new_segment(), 2)
    assert who_hears(lan, a, frame(BROADCAST, a.mac), b, fabric, other) == ports_of(b)


def test_a_vlan_is_given_and_taken_live(lan: Lan, fabric: Fabric, vid: int, outsider: str) -> None:
    segment = lan.new_segment()
    [a] = lan.veths(segment, 1)
    lan.agent.cli("segment", "set", segment, "--vlan", str(vid))
    assert [copy.tags for copy in hear(lan, a, frame(BROADCAST, a.mac), fabric)[0]] == [vlan(vid)]
    assert who_hears(lan, fabric, frame(BROADCAST, outsider, tags=vlan(vid)), a) == ports_of(a)
    lan.agent.cli("segment", "set", segment, "--no-vlan")
    assert who_hears(lan, a, frame(BROADCAST, a.mac), fabric) == []
    assert who_hears(lan, fabric, frame(BROADCAST, outsider, tags=vlan(vid)), a) == []


def test_the_priority_passes_an_uplink(lan: Lan, fabric: Fabric, vid: int, outsider: str) -> None:
    trunk = lan.world.fabric(lan.switch, lan.unique("k"))
    segment = lan.new_segment(vlan=vid)
    lan.attach(trunk.uplink, trunk=[f"{segment}:7"])
    out = hear(lan, trunk, frame(BROADCAST, "02:00:00:0f:02:01", tags=vlan(7 | PCP_5)), fabric)
    back = hear(lan, fabric, frame(BROADCAST, outsider, tags=vlan(vid | PCP_5)), trunk)
    assert [copy.tags for copy in out[0] + back[0]] == [vlan(vid | PCP_5), vlan(7 | PCP_5)]


def test_a_second_tag_does_not_come_out_of_an_uplink_vlan(
    lan: Lan, fabric: Fabric, blue: str, vid: int, outsider: str
) -> None:
    [a] = lan.veths(blue, 1)
    [victim] = lan.veths(lan.new_segment(vlan=(inner := next(vids))), 1)
    for destination in (BROADCAST, a.mac, victim.mac):
        sent = frame(destination, outsider, tags=vlan(vid, inner))
        assert who_hears(lan, fabric, sent, a, victim) == []
    [out] = hear(lan, a, frame(BROADCAST, a.mac, tags=vlan(0, inner)), fabric)
    assert [copy.tags for copy in out] == [vlan(vid, inner)]


def test_an_isolated_port_reaches_the_physical_network(lan: Lan, fabric: Fabric, blue: str, vid: int) -> None:
    vm = lan.veth(lan.unique("v"), blue, isolated=True)
    assert_connected(vm, lan.host(fabric, vid))


# --- 2, 3: what is the host's ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("destination", "tags", "ethertype"),
    [
        (BROADCAST, (), EXPERIMENTAL),
        (BROADCAST, vlan(UNUSED_VID), EXPERIMENTAL),
        (BROADCAST, vlan(PCP_5), EXPERIMENTAL),
        (BROADCAST, ((S_TAG, UNUSED_VID),), EXPERIMENTAL),
        (LLDP_MAC, (), LLDP),
        ("01:80:c2:00:00:02", (), 0x8809),  # IEEE 802.3ad: LACP
    ],
    ids=["untagged", "unused VID", "priority tag", "802.1ad", "LLDP", "LACP"],
)
def test_what_no_segment_uses_reaches_the_host_and_no_vm(
    lan: Lan, fabric: Fabric, other: Fabric, blue: str, outsider: str, destination: str, tags: Tags, ethertype: int
) -> None:
    [a] = lan.veths(blue, 1)
    sent = frame(destination, outsider, tags=tags, ethertype=ethertype)
    with Sniffer(lan.switch, "up0", ethertype=ethertype) as host:
        assert who_hears(lan, fabric, sent, a, other) == []
        assert len(host.frames(lambda arrived: arrived.data[-46:] == sent[-46:])) == 1


def test_an_802_1ad_vid_is_not_taken_for_a_segments(
    lan: Lan, fabric: Fabric, blue: str, vid: int, outsider: str
) -> None:
    [a] = lan.veths(blue, 1)
    sent = frame(BROADCAST, outsider, tags=((S_TAG, vid),))
    with Sniffer(lan.switch, "up0", ethertype=EXPERIMENTAL) as host:
        assert who_hears(lan, fabric, sent, a) == []
        assert len(host.frames(lambda arrived: arrived.data[-46:] == sent[-46:])) == 1


def test_a_segments_frames_do_not_reach_the_host(lan: Lan, fabric: Fabric, blue: str, vid: int, outsider: str) -> None:
    [a] = lan.veths(blue, 1)
    sent = frame(BROADCAST, outsider, tags=vlan(vid))
    with Sniffer(lan.switch, "up0", ethertype=EXPERIMENTAL) as host:
        assert who_hears(lan, fabric, sent, a) == ports_of(a)
        assert host.frames() == []


def test_the_host_keeps_talking_through_its_uplink(lan: Lan, fabric: Fabric, neighbour: Endpoint) -> None:
    assert ping(neighbour.namespace, HOST_ADDRESS).lost == []
    assert ping(lan.switch, NEIGHBOUR_ADDRESS).lost == []
    assert bulk_tcp(neighbour.namespace, lan.switch, HOST_ADDRESS, amount=AMOUNT).received == AMOUNT
    assert bulk_tcp(lan.switch, neighbour.namespace, NEIGHBOUR_ADDRESS, amount=AMOUNT).received == AMOUNT


def test_a_vm_does_not_reach_the_host_on_its_uplink(lan: Lan, fabric: Fabric, blue: str) -> None:
    vm = lan.veth(lan.unique("v"), blue, address="192.0.2.7")
    assert ping(vm.namespace, HOST_ADDRESS, count=2, patience=0.2).received == 0
    up0 = lan.device("up0")["address"]
    with Sniffer(lan.switch, "up0", ethertype=EXPERIMENTAL) as host:
        assert who_hears(lan, vm, frame(up0, vm.mac), fabric) == ports_of(fabric)  # unknown: it floods
        assert host.frames() == []


# --- 16, 18: uplink to uplink ---------------------------------------------------------------------


def test_a_flood_reaches_every_uplink_from_a_vm_and_none_from_an_uplink(
    lan: Lan, fabric: Fabric, other: Fabric, blue: str, vid: int, outsider: str
) -> None:
    a, b = lan.veths(blue, 2)
    assert who_hears(lan, a, frame(BROADCAST, a.mac), b, fabric, other) == ports_of(b, fabric, other)
    for destination in (BROADCAST, "02:00:00:0f:ff:ff"):
        sent = frame(destination, outsider, tags=vlan(vid))
        assert who_hears(lan, fabric, sent, a, b, fabric, other) == ports_of(a, b)


def test_a_known_destination_behind_another_uplink_is_not_served(
    lan: Lan, fabric: Fabric, other: Fabric, blue: str, vid: int, outsider: str
) -> None:
    [a] = lan.veths(blue, 1)
    who_hears(lan, other, frame(BROADCAST, outsider, tags=vlan(vid)))
    before = lan.drops("up0").get("no_destination", 0)
    sent = frame(outsider, "02:00:00:0f:03:01", tags=vlan(vid))
    assert who_hears(lan, fabric, sent, a, other) == []
    assert lan.drops("up0")["no_destination"] == before + 1
    assert who_hears(lan, a, frame(outsider, a.mac), fabric, other) == ports_of(other)


# --- 6: addresses of local VMs --------------------------------------------------------------------


def test_a_static_mac_of_a_local_port_is_not_believed_from_outside(
    lan: Lan, fabric: Fabric, blue: str, vid: int
) -> None:
    victim = lan.veth(lan.unique("v"), None)
    lan.attach(victim.port, blue, mac=[victim.mac])
    [peer] = lan.veths(blue, 1)
    before = lan.drops("up0").get("src_mac_conflict", 0)
    for destination in (BROADCAST, peer.mac):
        assert who_hears(lan, fabric, frame(destination, victim.mac, tags=vlan(vid)), victim, peer) == []
    assert lan.drops("up0")["src_mac_conflict"] == before + 2
    assert who_hears(lan, peer, frame(victim.mac, peer.mac), victim, fabric) == ports_of(victim)


def test_a_learned_mac_may_move_to_the_physical_network(lan: Lan, fabric: Fabric, blue: str, vid: int) -> None:
    a, b = lan.veths(blue, 2)
    who_hears(lan, a, frame(BROADCAST, a.mac))
    assert who_hears(lan, fabric, frame(BROADCAST, a.mac, tags=vlan(vid)), b) == ports_of(b)
    assert who_hears(lan, b, frame(a.mac, b.mac), a, fabric) == ports_of(fabric)


def test_a_static_entry_may_point_to_an_uplink(
    lan: Lan, fabric: Fabric, other: Fabric, blue: str, outsider: str
) -> None:
    [a] = lan.veths(blue, 1)
    lan.agent.cli("fdb", "add", outsider, "--segment", blue, "--port", "up1")
    assert who_hears(lan, a, frame(outsider, a.mac), fabric, other) == ports_of(other)


# --- the device ------------------------------------------------------------------------------------


def test_an_uplink_is_given_back_as_it_was(lan: Lan, vid: int) -> None:
    fabric = lan.world.fabric(lan.switch, "up2")
    lan.switch.ip("address", "add", "198.51.100.1/24", "dev", "up2")
    neighbour = fabric.host(None, mac="02:00:00:0e:00:02", address="198.51.100.2")
    [a] = lan.veths(lan.new_segment(vlan=vid), 1)
    assert ping(neighbour.namespace, "198.51.100.1").lost == []
    pings = Pinger(neighbour.namespace, "198.51.100.1", interval=0.005).start()
    lan.agent.cli("uplink", "add", "up2")
    assert promiscuous(lan, "up2")
    assert who_hears(lan, fabric, frame(BROADCAST, OUTSIDER, tags=vlan(vid)), a) == ports_of(a)
    lan.agent.cli("uplink", "del", "up2")
    assert pings.stop().lost == []
    assert not promiscuous(lan, "up2")
    assert "up2" in lan.switch.devices()
    with Sniffer(lan.switch, "up2", ethertype=EXPERIMENTAL) as host, Sniffer(a.namespace, NIC) as at_a:
        sent = frame(BROADCAST, OUTSIDER, tags=vlan(vid))
        send_frames(fabric.namespace, TRUNK, sent)
        host.wait_for(lambda arrived: arrived.data[-46:] == sent[-46:])
        assert at_a.frames() == []
    assert who_hears(lan, a, frame(BROADCAST, a.mac), fabric) == []


def test_an_uplink_whose_device_vanishes_comes_back_with_it(lan: Lan, vid: int) -> None:
    segment = lan.new_segment(vlan=vid)
    [a] = lan.veths(segment, 1)
    lan.agent.cli("uplink", "add", "up3")
    assert lan.client.get("v1", "uplinks")[-1]["state"] == "pending"
    for _ in range(2):
        fabric = lan.world.fabric(lan.switch, lan.unique("x"))
        lan.switch.ip("link", "set", fabric.uplink, "down")
        lan.switch.ip("link", "set", fabric.uplink, "name", "up3")
        fabric.uplink = "up3"
        wait_until(lambda: lan.client.get("v1", "uplinks")[-1]["state"] == "up", what="up3 is attached")
        assert who_hears(lan, a, frame(BROADCAST, a.mac), fabric) == ports_of(fabric)
        lan.switch.ip("link", "delete", "up3")
        wait_until(lambda: lan.client.get("v1", "uplinks")[-1]["state"] == "pending", what="up3 is pending")
    lan.agent.cli("uplink", "del", "up3")


def test_an_enslaved_uplink_is_refused_with_the_command_that_frees_it(lan: Lan) -> None:
    lan.switch.ip("link", "add", "br-x", "type", "bridge")
    lan.switch.ip("link", "add", "slave", "master", "br-x", "type", "veth", "peer", "name", "slave-peer")
    with pytest.raises(CommandFailed, match="slave is enslaved to br-x; free it with `ip link set dev slave nomaster`"):
        lan.agent.cli("uplink", "add", "slave")
    lan.switch.ip("link", "set", "dev", "slave", "nomaster")
    lan.agent.cli("uplink", "add", "slave")
    lan.agent.cli("uplink", "del", "slave")


def test_a_vid_with_a_vlan_device_is_refused(lan: Lan, fabric: Fabric, vid: int) -> None:
    probe = lan.switch.run(
        *("ip", "link", "add", "link", "up0", "name", "up0.v", "type", "vlan", "id", str(vid)), check=False
    )
    if probe.returncode != 0:
        pytest.skip(f"no VLAN devices here: {probe.stderr.strip()}")
    with pytest.raises(CommandFailed, match=f"VLAN {vid} of uplink up0 belongs to the host's device up0.v"):
        lan.agent.cli("segment", "add", "taken", "--tenant", "acme", "--vlan", str(vid))
