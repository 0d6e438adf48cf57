"""Step 0 and the ways over the overlay (`support.overlay` draws them): what leaves how, and what gets in."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from support import frames
from support.dhcp import ACK, dhcp, release
from support.frames import BROADCAST, LINK_LOCAL, arp, ethernet, ipv4, ipv6, mac, payload, tcp, udp, vlan
from support.outcome import FLOODED, FORWARDED, TO_HOST, Outcome
from support.overlay import TTL, UNDERLAY, VNIS, Overlay, address, packets
from support.vxlan import Packet
from support.world import BLUE, RED, World, counter
from vxagent.core.tables import PortFlag, PortMode, Table, tunnel_key
from vxagent.datapath import codec

HERE = {1, 2, 3, 4, 6, 7, 8, 10}
"""Members of blue that are no VTEPs: port 9, the underlay, is none."""


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def overlay(request: pytest.FixtureRequest, world: World) -> Iterator[Overlay]:
    made = Overlay(world, request.param)
    with made.resolved(21, 22):
        yield made


def only(outcome: Outcome) -> Packet:
    """The packet that has left."""
    (packet,) = packets(outcome)
    return packet


# Out


FRAMES = {
    "udp over ipv4": ethernet(mac(21), mac(1), ipv4(udp(b"x" * 40))),
    "tcp over ipv6": ethernet(mac(21), mac(1), ipv6(tcp(b"x" * 40))),
    "arp, unpadded": ethernet(mac(21), mac(1), arp("10.0.0.1", "10.0.0.2", sender_mac=mac(1))),
    "no ip at all": ethernet(mac(21), mac(1)),
    "as large as the MTU": ethernet(mac(21), mac(1), payload(length=1500)),
    "nothing in it": ethernet(mac(21), mac(1), payload(length=0)),
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES.keys())
def test_known_unicast_goes_to_the_vtep_of_its_receiver(overlay: Overlay, frame: bytes) -> None:
    overlay.world.learn(BLUE, mac(21), 21)
    for _ in range(2):  # the second has a flow
        outcome = overlay.world.send(1, frame)
        assert (outcome.fate, outcome.where) == (FORWARDED, (1, BLUE))
        assert outcome.octets == len(frame)
        packet = only(outcome)
        assert packet.frame == frame
        assert (packet.sender, packet.receiver) == (str(address(1, overlay.family)), str(address(21, overlay.family)))
        assert (packet.vni, packet.flags, packet.checksum, packet.ttl) == (5010, 0x08000000, 0, TTL)
        assert packet.source_port >= 49_152
        assert list(outcome.sent) == [21]


def test_a_trunk_s_tag_stays_here(overlay: Overlay) -> None:
    overlay.world.learn(RED, mac(21), 21)
    outcome = overlay.world.send(6, ethernet(mac(21), mac(6), ipv4(udp(b"x")), vlan(120, pcp=5)))
    assert outcome.fate == FORWARDED
    packet = only(outcome)
    assert packet.frame == ethernet(mac(21), mac(6), ipv4(udp(b"x")))
    assert packet.vni == VNIS[RED]


def test_dscp_is_carried_and_ecn_is_not(overlay: Overlay) -> None:
    overlay.world.learn(BLUE, mac(21), 21)
    for l3 in (ipv4(udp(b"x")), ipv6(udp(b"x"))):
        data = bytearray(ethernet(mac(21), mac(1), l3))
        if l3.ethertype == frames.IPV4:
            data[15] = 46 << 2 | 1
            data[24:26] = bytes(2)
            data[24:26] = frames.checksum(bytes(data[14:34]))
        else:
            data[14:16] = (0x6000 | (46 << 2 | 1) << 4).to_bytes(2, "big")
        outcome = overlay.world.send(1, bytes(data))
        assert only(outcome).dscp == 46


def test_a_flow_keeps_its_source_port_and_flows_have_different_ones(overlay: Overlay) -> None:
    overlay.world.learn(BLUE, mac(21), 21)
    seen: dict[int, set[int]] = {}
    for port in range(1024, 1056):
        for size in (1, 100):
            outcome = overlay.world.send(1, ethernet(mac(21), mac(1), ipv4(udp(b"x" * size, source=port))))
            seen.setdefault(port, set()).add(only(outcome).source_port)
    assert all(len(ports) == 1 for ports in seen.values())
    assert len(set.union(*seen.values())) > 24


def test_a_second_tag_never_leaves(overlay: Overlay) -> None:
    overlay.world.learn(BLUE, mac(21), 21)
    outcome = overlay.world.send(6, ethernet(mac(21), mac(6), None, vlan(110), vlan(120)))
    assert outcome.fate == "vlan_denied"
    assert packets(outcome) == []


def test_a_segment_s_mtu_counts_at_the_way_out(overlay: Overlay) -> None:
    overlay.world.learn(BLUE, mac(21), 21)
    overlay.world.set_segment(BLUE, mtu=1400)
    assert overlay.world.send(1, ethernet(mac(21), mac(1), payload(length=1401))).fate == "mtu_exceeded"
    assert overlay.world.send(1, ethernet(mac(21), mac(1), payload(length=1400))).fate == FORWARDED


def test_a_flood_reaches_all_members_here_and_each_vtep_once(overlay: Overlay) -> None:
    for frame in (
        ethernet(BROADCAST, mac(1), arp("10.0.0.1", "10.0.0.2", sender_mac=mac(1))),
        ethernet(mac(77), mac(1), ipv4(udp(b"x" * 600))),
    ):
        outcome = overlay.world.send(1, frame)
        assert outcome.fate == FLOODED
        left = packets(outcome)
        assert sorted(packet.receiver for packet in left) == [str(address(n, overlay.family)) for n in (21, 22)]
        assert {packet.frame for packet in left} == {frame}
        assert {packet.vni for packet in left} == {VNIS[BLUE]}
        assert set(outcome.frames) - {UNDERLAY} == HERE - {1}
        assert outcome.sent.keys() == (HERE - {1}) | {21, 22}


def test_a_flood_goes_to_those_vteps_alone_that_have_the_vni(overlay: Overlay) -> None:
    outcome = overlay.world.send(5, ethernet(BROADCAST, mac(5)))
    assert outcome.fate == FLOODED
    assert only(outcome).receiver == str(address(21, overlay.family))


def test_two_followed_tags_flood_nobody_abroad(overlay: Overlay) -> None:
    outcome = overlay.world.send(6, ethernet(BROADCAST, mac(6), None, vlan(110), vlan(5)))
    assert outcome.fate == FLOODED
    assert packets(outcome) == []


# In


def test_a_frame_from_a_vtep_goes_to_its_receiver(overlay: Overlay) -> None:
    overlay.world.learn(BLUE, mac(1), 1)
    for l3 in (
        ipv4(udp(b"x" * 40)),
        ipv6(tcp(b"y")),
        payload(length=46),
        arp("1.1.1.1", "1.1.1.2", sender_mac=mac(21)),
    ):
        frame = ethernet(mac(1), mac(21), l3)
        for _ in range(2):
            outcome = overlay.world.send(UNDERLAY, overlay.packet(frame))
            assert (outcome.fate, outcome.where) == (FORWARDED, (21, BLUE))
            (arrived,) = outcome.frames[1]
            assert arrived[: len(frame)] == frame
            assert not arrived[len(frame) :].strip(b"\0")  # at most padding
            assert outcome.frames.keys() - {UNDERLAY} == {1}


def test_it_is_tagged_as_its_receiver_wants(overlay: Overlay) -> None:
    overlay.world.learn(RED, mac(6), 6)
    l3 = ipv4(udp(b"x" * 40))
    outcome = overlay.world.send(UNDERLAY, overlay.packet(ethernet(mac(6), mac(21), l3), vni=VNIS[RED]))
    assert outcome.frames[6] == [ethernet(mac(6), mac(21), l3, vlan(120))]
    assert outcome.sent.keys() == {6}


def test_the_sender_is_learned_behind_its_vtep(overlay: Overlay) -> None:
    overlay.world.send(UNDERLAY, overlay.packet(ethernet(BROADCAST, mac(55), ipv4(udp(b"x")))))
    assert overlay.world.whereabouts(BLUE, mac(55)) == 21
    assert overlay.world.send(2, ethernet(mac(55), mac(2), ipv4(udp(b"x")))).sent.keys() == {21}


def test_what_a_vtep_teaches_leaves_room_for_others(overlay: Overlay) -> None:
    """The VM that shows so many MACs is another host's, and has no limit here; its frames go on."""
    overlay.world.set_port(21, max_macs=2)
    for n in range(50, 54):
        frame = ethernet(BROADCAST, mac(n), ipv4(udp(b"x")))
        assert overlay.world.send(UNDERLAY, overlay.packet(frame)).fate == FLOODED
    overlay.world.send(2, ethernet(BROADCAST, mac(54), ipv4(udp(b"x"))))
    found = [overlay.world.whereabouts(BLUE, mac(n)) for n in range(50, 55)]
    assert found == [21, 21, None, None, 2]


def test_a_flood_from_a_vtep_stays_here(overlay: Overlay) -> None:
    frame = ethernet(BROADCAST, mac(21), ipv4(udp(b"x" * 30)))
    outcome = overlay.world.send(UNDERLAY, overlay.packet(frame))
    assert (outcome.fate, outcome.where) == (FLOODED, (21, BLUE))
    assert set(outcome.frames) - {UNDERLAY} == HERE  # port 10, whose uplink is a member: this host bridges
    assert packets(outcome) == []


def test_nothing_goes_from_vtep_to_vtep(overlay: Overlay) -> None:
    overlay.world.learn(BLUE, mac(22), 22)
    outcome = overlay.world.send(UNDERLAY, overlay.packet(ethernet(mac(22), mac(21))))
    assert outcome.fate == "no_destination"
    assert packets(outcome) == []


def test_nothing_turns_round(overlay: Overlay) -> None:
    overlay.world.learn(BLUE, mac(56), 21)
    assert overlay.world.send(UNDERLAY, overlay.packet(ethernet(mac(56), mac(21)))).fate == "hairpin"


def test_a_mac_that_a_port_lists_is_not_learned_from_a_vtep(overlay: Overlay) -> None:
    overlay.world.learn(BLUE, mac(1), 1)
    overlay.world.send(UNDERLAY, overlay.packet(ethernet(mac(1), mac(8))))
    assert overlay.world.whereabouts(BLUE, mac(8)) == 8


def test_what_bridges_goes_both_ways_between_vlan_and_vni(overlay: Overlay) -> None:
    frame = ethernet(BROADCAST, mac(70), ipv4(udp(b"x")))
    outcome = overlay.world.send(10, ethernet(BROADCAST, mac(70), ipv4(udp(b"x")), vlan(10)))
    assert outcome.fate == FLOODED
    assert {(p.receiver, p.frame) for p in packets(outcome)} == {
        (str(address(n, overlay.family)), frame) for n in (21, 22)
    }
    overlay.world.learn(BLUE, mac(70), 10)
    back = ipv4(udp(b"y" * 40))
    outcome = overlay.world.send(UNDERLAY, overlay.packet(ethernet(mac(70), mac(21), back)))
    assert outcome.frames[10] == [ethernet(mac(70), mac(21), back, vlan(10))]
    assert outcome.sent.keys() == {10}


def test_a_stranger_is_denied(overlay: Overlay) -> None:
    outcome = overlay.world.send(UNDERLAY, overlay.packet(ethernet(BROADCAST, mac(66)), sender=99))
    assert (outcome.fate, outcome.where) == ("vtep_denied", (UNDERLAY, BLUE))
    assert overlay.world.entry(BLUE, mac(66)) is None


def test_a_vtep_is_denied_in_a_segment_that_it_has_not(overlay: Overlay) -> None:
    outcome = overlay.world.send(UNDERLAY, overlay.packet(ethernet(BROADCAST, mac(66)), sender=22, vni=VNIS[RED]))
    assert (outcome.fate, outcome.where) == ("vtep_denied", (22, RED))


@pytest.mark.parametrize(
    "how",
    [
        {"vni": 77},
        {"port": 8472},
        {"receiver": 33},
        {"flags": 0},
    ],
    ids=["a VNI of nobody's", "another UDP port", "another receiver", "no valid VNI"],
)
def test_what_is_not_for_us_is_the_host_s(overlay: Overlay, how: dict[str, int]) -> None:
    outcome = overlay.world.send(UNDERLAY, overlay.packet(ethernet(BROADCAST, mac(21)), **how))
    assert (outcome.fate, outcome.where) == (TO_HOST, (UNDERLAY, 0))


def test_a_fragment_is_the_host_s(world: World) -> None:
    overlay = Overlay(world)
    for fragment in (0x2000, 4):
        outcome = world.send(UNDERLAY, overlay.packet(ethernet(BROADCAST, mac(21)), fragment=fragment))
        assert outcome.fate == TO_HOST


def test_all_else_on_the_underlay_is_the_host_s(overlay: Overlay) -> None:
    for frame in (
        ethernet(BROADCAST, mac(21), arp("192.0.2.21", "192.0.2.1", sender_mac=mac(21))),
        ethernet(mac(9), mac(21), ipv4(tcp(b"x"))),
        ethernet(LINK_LOCAL, mac(21)),
        ethernet(mac(9), mac(21), ipv4(udp(b"x")), vlan(77)),
    ):
        assert overlay.world.send(UNDERLAY, frame).fate == TO_HOST


def test_no_other_device_is_the_underlay(overlay: Overlay) -> None:
    """A VM, or another uplink, that sends VXLAN sends a frame like any other."""
    packet = overlay.packet(ethernet(mac(1), mac(21)))
    assert overlay.world.send(10, packet).fate == TO_HOST
    outcome = overlay.world.send(2, packet)
    assert outcome.fate == FLOODED
    assert {left.frame for left in packets(outcome)} == {packet}


@pytest.mark.parametrize("length", range(0, 14, 3))
def test_a_frame_that_is_cut_short_in_its_packet_is_malformed(overlay: Overlay, length: int) -> None:
    frame = ethernet(mac(1), mac(21))[:length]
    outcome = overlay.world.send(UNDERLAY, overlay.packet(frame))
    assert (outcome.fate, outcome.where) == ("malformed", (21, BLUE))


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (ethernet(LINK_LOCAL, mac(21)), "link_local"),
        (ethernet(mac(1), mac(21), None, vlan(20)), "vlan_denied"),
        (ethernet(mac(1), mac(21), None, vlan(20, tpid=frames.S_TAG)), "vlan_denied"),
        (ethernet(mac(1), BROADCAST), "src_invalid"),
        (ethernet(mac(1), bytes(6)), "src_invalid"),
        (ethernet(mac(1), mac(21), payload(length=1501)), "mtu_exceeded"),
    ],
)
def test_the_frame_itself_is_looked_at(overlay: Overlay, frame: bytes, reason: str) -> None:
    overlay.world.learn(BLUE, mac(1), 1)
    assert overlay.world.send(UNDERLAY, overlay.packet(frame)).fate == reason


def test_a_port_that_is_down_gets_nothing(overlay: Overlay) -> None:
    overlay.world.learn(BLUE, mac(1), 1)
    overlay.world.set_port(1, state=PortMode.STANDBY)
    assert overlay.world.send(UNDERLAY, overlay.packet(ethernet(mac(1), mac(21)))).fate == "no_destination"


def test_a_tunnel_element_of_another_address_is_no_vtep(overlay: Overlay) -> None:
    """The element under one address has been reused for another."""
    key = codec.encode_key(Table.TUNNELS, tunnel_key(address(99, overlay.family)))
    value = overlay.rig.maps[Table.TUNNELS].lookup(
        codec.encode_key(Table.TUNNELS, tunnel_key(address(21, overlay.family)))
    )
    overlay.rig.maps[Table.TUNNELS].update(key, value or b"")
    outcome = overlay.world.send(UNDERLAY, overlay.packet(ethernet(BROADCAST, mac(21)), sender=99))
    assert outcome.fate == "vtep_denied"


def test_a_vtep_that_is_gone_gets_no_frame(overlay: Overlay) -> None:
    overlay.world.learn(BLUE, mac(21), 21)
    overlay.rig.maps[Table.VTEPS].update(struct.pack("=I", 21), bytes(24))
    overlay.rig.changed()
    assert overlay.world.send(1, ethernet(mac(21), mac(1))).fate == "no_destination"


def test_leases_are_seen_through_a_tunnel_to_the_server(overlay: Overlay) -> None:
    """A VM that gives its address back says so to a server behind a VTEP."""
    world = overlay.world
    world.snoop(1)
    world.learn(BLUE, mac(1), 1)
    world.learn(BLUE, mac(21), 21)
    ack = ipv4(dhcp(ACK, mac(1), yours="10.0.0.77", seconds=600))
    outcome = world.send(UNDERLAY, overlay.packet(ethernet(mac(1), mac(21), ack)))
    assert outcome.fate == FORWARDED
    assert world.leases(1) == 1
    outcome = world.send(1, ethernet(mac(21), mac(1), ipv4(release(mac(1), "10.0.0.77"), source="10.0.0.77")))
    assert only(outcome).frame[:12] == mac(21) + mac(1)
    assert world.neighbour(BLUE, "10.0.0.77") is None


def test_counters_of_a_vtep(overlay: Overlay) -> None:
    overlay.world.learn(BLUE, mac(21), 21)
    overlay.world.send(1, ethernet(mac(21), mac(1), ipv4(udp(b"x"))))
    row = overlay.rig.traffic(counter(21, BLUE))
    assert row["tx"][0] == 1
    assert PortFlag.VTEP in overlay.world.ports[21].flags
