"""XDP in front of tc: what it finishes ends as it would at tc, what it does not it passes up untouched and uncounted.

All rows of the other files run through it as well (`Way.XDP`); here are the frames that it is for, and those that look
like them. `finished` runs the program alone, so a frame that tc would have to finish counts as not finished.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

import pytest

from support import frames
from support.frames import BROADCAST, LINK_LOCAL, ethernet, ipv4, ipv6, mac, payload, raw, tcp, udp, vlan
from support.outcome import FORWARDED, Outcome
from support.rows import Row, Way, check, rows
from support.wires import NO_OFFLOAD
from support.world import AGEING_S, BLUE, NANOSECONDS, RED, UPLINKS, World, number
from vxagent.core.tables import FdbFlag, LimitsRow, PortFlag, PortMode, SegmentFlag, Table
from vxagent.lab.pump import NEEDS_CSUM, VNET_HDR

XDP_DROP, XDP_PASS, XDP_REDIRECT = 1, 2, 4  # <linux/bpf.h>
FRAGMENT, MF = 1, 0x2000
SECOND_NS = 1_000_000_000

UDP4, UDP6 = ipv4(udp(bytes(18))), ipv6(udp(bytes(18)))
TCP4, TCP6 = ipv4(tcp(bytes(100))), ipv6(tcp(bytes(100)))
LARGE = ipv4(udp(bytes(range(256)) * 5 + bytes(range(192))))  # 1,500 bytes of L3
PLAIN = {
    "UDP": UDP4,
    "UDP, IPv6": UDP6,
    "TCP": TCP4,
    "TCP, IPv6": TCP6,
    "TCP without data": ipv4(tcp()),
    "TCP with options": ipv4(tcp(bytes(9), options=bytes(12))),
    "UDP that a packet would fit in": ipv4(udp(bytes(range(28)))),
    "UDP of an odd length": ipv4(udp(bytes(range(255)))),
    "UDP as large as it gets": LARGE,
    "UDP, IPv6, of every chunk": ipv6(udp(bytes(range(256)) * 4 + bytes(range(251)))),
}


def left_to_the_nic(inside: frames.L3) -> frames.L3:
    """The packet with the sum of its pseudo-header where its checksum will be."""
    version = 4 if inside.ethertype == frames.IPV4 else 6
    at = 20 if version == 4 else 40
    protocol = inside.data[9 if version == 4 else 6]
    addresses = inside.data[12:20] if version == 4 else inside.data[8:40]
    pseudo = addresses + struct.pack("!HH", protocol, len(inside.data) - at)
    field = at + (16 if protocol == frames.TCP else 6)
    sum_of = frames.complement(frames.checksum(pseudo))
    return frames.L3(inside.ethertype, inside.data[:field] + sum_of + inside.data[field + 2 :])


def header_for(frame: bytes, inside: frames.L3, gso_size: int = 0) -> bytes:
    """The virtio_net_hdr of a VM that leaves the checksum, and maybe the segmentation of TCP, to its NIC."""
    version = 4 if inside.ethertype == frames.IPV4 else 6
    l4 = len(frame) - len(inside.data) + (20 if version == 4 else 40)
    is_tcp = inside.data[9 if version == 4 else 6] == frames.TCP
    kind = {4: 1, 6: 4}[version] if gso_size else 0  # VIRTIO_NET_HDR_GSO_TCPV4, _TCPV6
    length = l4 + 4 * (frame[l4 + 12] >> 4) if gso_size else 0
    return VNET_HDR.pack(NEEDS_CSUM, kind, length, gso_size, l4, 16 if is_tcp else 6)


def know(world: World) -> None:
    """Stations 1 and 2 are known."""
    for station in (1, 2):
        world.learn(BLUE, mac(station), station)


def finished(world: World, frame: bytes, port: int = 1) -> int:
    """What XDP alone does of a frame, where it may send to every port; nothing is sent."""
    receivers = world.ports.keys() - set(UPLINKS)
    with world.wires.reached(world.rig.maps["xdp_devices"], receivers), world.wires.inside():
        run = world.rig.xdp(frame, world.ports[port].ifindex)
    if run.verdict == XDP_PASS:
        assert run.data == frame
    return run.verdict


# --- what it finishes --------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", PLAIN.values(), ids=PLAIN)
@pytest.mark.parametrize("tagged", [False, True], ids=["untagged", "tagged"])
def test_finishes_plain_frames_of_known_stations(world: World, inside: frames.L3, tagged: bool) -> None:
    know(world)
    world.learn(BLUE, mac(6), 6)
    sender, tags = (6, (vlan(110, pcp=5),)) if tagged else (1, ())
    assert finished(world, ethernet(mac(2), mac(sender), inside, *tags), sender) == XDP_REDIRECT


@rows(
    Row(
        name="from access to access",
        frame=ethernet(mac(2), mac(1), UDP4),
        knows=((BLUE, 1), (BLUE, 2)),
        fate=FORWARDED,
        out={2: ethernet(mac(2), mac(1), UDP4)},
    ),
    Row(
        name="from access to a trunk",
        frame=ethernet(mac(6), mac(1), UDP6),
        knows=((BLUE, 1), (BLUE, 6)),
        fate=FORWARDED,
        out={6: ethernet(mac(6), mac(1), UDP6, vlan(110))},
    ),
    Row(
        name="from a trunk to access",
        port=6,
        frame=ethernet(mac(1), mac(6), TCP4, vlan(110, pcp=3)),
        knows=((BLUE, 1), (BLUE, 6)),
        fate=FORWARDED,
        out={1: ethernet(mac(1), mac(6), TCP4)},
    ),
    Row(
        name="from a trunk to a trunk, its priority kept",
        port=6,
        frame=ethernet(mac(7), mac(6), TCP6, vlan(120, pcp=3, dei=1)),
        knows=((RED, 6), (RED, 7)),
        segment=RED,
        fate=FORWARDED,
        out={7: ethernet(mac(7), mac(6), TCP6, vlan(30, pcp=3, dei=1))},
    ),
    Row(
        name="from an uplink to access",
        port=9,
        frame=ethernet(mac(2), mac(9), LARGE, vlan(10)),
        knows=((BLUE, 2), (BLUE, 9)),
        fate=FORWARDED,
        out={2: ethernet(mac(2), mac(9), LARGE)},
    ),
    Row(
        name="to an uplink, where tc goes on",
        frame=ethernet(mac(9), mac(1), UDP4),
        knows=((BLUE, 1), (BLUE, 9)),
        fate=FORWARDED,
        out={9: ethernet(mac(9), mac(1), UDP4, vlan(10))},
    ),
)
def test_what_is_finished_ends_as_at_tc(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


@pytest.mark.parametrize("length", [3_000, 3_400, 3_500, 8_000])
@pytest.mark.parametrize(("sender", "receiver"), [(1, 2), (6, 1), (1, 6)], ids=["plain", "tag off", "tag on"])
def test_jumbo_frames_arrive_whole(world: World, length: int, sender: int, receiver: int) -> None:
    """Those that do not fit in a page the tap's driver gives to the program as an skb."""
    for station in (sender, receiver):
        world.learn(BLUE, mac(station), station)
    world.set_segment(BLUE, mtu=9000)
    inside = ipv4(tcp(bytes(range(250)) * (length // 250)))
    tag = {6: (vlan(110),)}
    frame = ethernet(mac(receiver), mac(sender), inside, *tag.get(sender, ()))
    wanted = ethernet(mac(receiver), mac(sender), inside, *tag.get(receiver, ()))
    outcome = world.send_at_xdp(sender, frame)
    assert (outcome.fate, outcome.frames) == (FORWARDED, {receiver: [wanted]})


def test_a_busy_station_is_refreshed(world: World) -> None:
    know(world)
    world.learn(BLUE, mac(1), 1, age_s=30)
    assert finished(world, ethernet(mac(2), mac(1), UDP4)) == XDP_REDIRECT
    entry = world.entry(BLUE, mac(1))
    assert entry is not None
    assert time.monotonic_ns() - entry["seen_ns"] < 5 * NANOSECONDS


def test_counts_as_tc_does(world: World) -> None:
    know(world)
    frame = ethernet(mac(2), mac(1), UDP4)
    at_tc, at_xdp = world.send(1, frame), world.send_at_xdp(1, frame)
    assert at_tc == at_xdp


# --- checksums ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", PLAIN.values(), ids=PLAIN)
@pytest.mark.parametrize("tagged", [False, True], ids=["untagged", "tagged"])
def test_a_checksum_left_to_the_nic_is_finished_whoever_sends_it(world: World, inside: frames.L3, tagged: bool) -> None:
    know(world)
    world.learn(BLUE, mac(6), 6)
    sender, tags = (6, (vlan(110),)) if tagged else (1, ())
    frame = ethernet(mac(2), mac(sender), left_to_the_nic(inside), *tags)
    assert finished(world, frame, sender) == XDP_PASS
    outcome = world.send_at_xdp(sender, frame, header_for(frame, inside))
    assert outcome.frames == {2: [ethernet(mac(2), mac(sender), inside)]}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("size", [8, 100, 536, 700, 1399])
def test_a_frame_of_several_small_segments_is_not_taken_for_one(world: World, version: int, size: int) -> None:
    """Shorter than the MTU, it has nothing that tells it from a plain one but its unfinished checksum."""
    know(world)
    body = bytes(range(200)) * 7
    inside = (ipv4 if version == 4 else ipv6)(tcp(body))
    frame = ethernet(mac(2), mac(1), left_to_the_nic(inside))
    outcome = world.send_at_xdp(1, frame, header_for(frame, inside, gso_size=size))
    arrived = outcome.frames[2]
    headers = len(frame) - len(body)
    assert len(arrived) == -(-len(body) // size)
    assert b"".join(segment[headers:] for segment in arrived) == body
    assert all(_is_right(segment, version) for segment in arrived)


def _is_right(frame: bytes, version: int) -> bool:
    """The TCP checksum of a frame is."""
    inside = frame[14:]
    at = 20 if version == 4 else 40
    addresses = inside[12:20] if version == 4 else inside[8:40]
    pseudo = addresses + struct.pack("!HH", frames.TCP, len(inside) - at)
    return frames.checksum(pseudo + inside[at:]) == bytes(2)


@pytest.mark.parametrize("outer", ["none", "finished over what is left"])
@pytest.mark.parametrize("port", [4789, 6081, 33333])
def test_a_checksum_left_inside_a_tunnel_is_finished(world: World, port: int, outer: str) -> None:
    """VXLAN, Geneve, and one at any port: the outer checksum is none, or stands for what the NIC will make of it."""
    know(world)
    within = ethernet(mac(21), mac(22), ipv4(tcp(bytes(range(64)))))
    inner = left_to_the_nic(frames.L3(frames.IPV4, within[14:]))
    tunnelled = ipv4(udp(bytes(8) + within, destination=port))
    unfinished = ipv4(udp(bytes(8) + within[:14] + inner.data, destination=port))
    check_at = 20 + 6
    checksum = bytes(2) if outer == "none" else tunnelled.data[check_at : check_at + 2]
    data = unfinished.data[:check_at] + checksum + unfinished.data[check_at + 2 :]
    frame = ethernet(mac(2), mac(1), frames.L3(frames.IPV4, data))
    l4 = 14 + 20 + 8 + 8 + 14 + 20
    outcome = world.send_at_xdp(1, frame, VNET_HDR.pack(NEEDS_CSUM, 0, 0, 0, l4, 16))
    wanted = tunnelled.data[:check_at] + checksum + tunnelled.data[check_at + 2 :]
    assert outcome.frames == {2: [ethernet(mac(2), mac(1), frames.L3(frames.IPV4, wanted))]}


def test_a_tunnel_whose_checksums_are_finished_is_plain(world: World) -> None:
    know(world)
    within = ethernet(mac(21), mac(22), ipv4(tcp(bytes(range(64)))))
    assert finished(world, ethernet(mac(2), mac(1), ipv4(udp(bytes(8) + within, destination=4789)))) == XDP_REDIRECT


# --- what it leaves to tc ----------------------------------------------------------------------------

Prepare = Callable[[World], object]


def _set(**changes: object) -> Prepare:
    return lambda world: world.set_port(1, **changes)


def _not_learned(world: World) -> None:
    world.rig.maps["fdb"].delete(struct.pack("=Q", BLUE << 48 | number(mac(1))))


def _unknown(world: World) -> None:
    world.rig.maps["fdb"].delete(struct.pack("=Q", BLUE << 48 | number(mac(2))))


def _limited_in_shadow(world: World) -> None:
    world.set_port(1, flags=PortFlag.LIMITED_IN | PortFlag.SHADOW)


@pytest.mark.parametrize(
    ("what", "frame"),
    [
        ("a broadcast", ethernet(BROADCAST, mac(1), UDP4)),
        ("a group", ethernet(frames.MULTICAST, mac(1), UDP4)),
        ("a link-local group", ethernet(LINK_LOCAL, mac(1), UDP4)),
        ("itself", ethernet(mac(1), mac(1), UDP4)),
        ("a source that is a group", ethernet(mac(2), frames.MULTICAST, UDP4)),
        ("a tag on an access port", ethernet(mac(2), mac(1), UDP4, vlan(10))),
        ("a priority tag", ethernet(mac(2), mac(1), UDP4, vlan(0))),
        ("another TPID", ethernet(mac(2), mac(1), UDP4, vlan(10, tpid=frames.S_TAG))),
        ("not IP", ethernet(mac(2), mac(1), payload())),
        ("ARP", ethernet(mac(2), mac(1), frames.arp("10.0.0.1", "10.0.0.2", sender_mac=mac(1)))),
        ("IPv4 with options", ethernet(mac(2), mac(1), ipv4(udp(bytes(18)), options=bytes(4)))),
        ("a first fragment", ethernet(mac(2), mac(1), ipv4(udp(bytes(18)), fragment=MF))),
        ("a later fragment", ethernet(mac(2), mac(1), ipv4(udp(bytes(18)), fragment=FRAGMENT))),
        ("another L4", ethernet(mac(2), mac(1), ipv4(raw(47, bytes(30))))),
        ("SCTP, whose CRC may be left to the NIC", ethernet(mac(2), mac(1), ipv4(raw(frames.SCTP, bytes(30))))),
        ("DHCP", ethernet(mac(2), mac(1), ipv4(udp(bytes(18), source=68, destination=67)))),
        ("DHCPv6", ethernet(mac(2), mac(1), ipv6(udp(bytes(18), source=546, destination=547)))),
        ("a DHCP server", ethernet(mac(2), mac(1), ipv4(udp(bytes(18), source=67, destination=68)))),
        ("a DHCPv6 server", ethernet(mac(2), mac(1), ipv6(udp(bytes(18), source=547, destination=9)))),
        ("a wrong checksum", ethernet(mac(2), mac(1), ipv4(udp(bytes(range(1, 60)))))[:-1] + b"\xff"),
        ("more than the MTU", ethernet(mac(2), mac(1), ipv4(udp(bytes(1473))))),
        ("IP that ends too early", ethernet(mac(2), mac(1), TCP4)[:-1]),
        ("half of a header", ethernet(mac(2), mac(1), UDP4)[:30]),
        ("half of an IPv6 header", ethernet(mac(2), mac(1), UDP6)[:50]),
    ],
)
def test_passes_up_without_a_trace(world: World, what: str, frame: bytes) -> None:
    know(world)
    before, entry = world.counts(), world.entry(BLUE, mac(1))
    assert finished(world, frame) == XDP_PASS, what
    assert (world.counts(), world.entry(BLUE, mac(1))) == (before, entry)


@pytest.mark.parametrize(
    "prepare",
    [
        _not_learned,
        _unknown,
        lambda world: world.learn(BLUE, mac(1), 3),
        lambda world: world.learn(BLUE, mac(2), 2, age_s=AGEING_S + 1),
        lambda world: world.state_static(BLUE, mac(1), 3),
        lambda world: world.set_port(2, state=PortMode.DRAINING),
        lambda world: world.set_port(2, ifindex=0),
        lambda world: world.leave(2, BLUE),
        lambda world: world.set_segment(BLUE, mtu=40),
        lambda world: world.list_ips(1, "10.0.0.9"),
        lambda world: world.snoop(1),
        _set(state=PortMode.STANDBY),
        _set(flags=PortFlag.MAC_LOCKED),
        _limited_in_shadow,
        lambda world: [world.set_port(port, flags=PortFlag.ISOLATED) for port in (1, 2)],
        lambda world: world.rig.maps["devices"].delete(struct.pack("=I", world.ports[1].ifindex)),
    ],
    ids=[
        *("not learned", "unknown", "learned elsewhere", "aged out", "static elsewhere", "draining", "no device"),
        *("no member", "a small MTU", "another IP", "no lease", "standby", "another MAC", "limited in shadow"),
        *("isolated", "no port"),
    ],
)
def test_leaves_to_tc_what_is_not_all_in_order(world: World, prepare: Prepare) -> None:
    know(world)
    frame = ethernet(mac(2), mac(1), UDP4)
    assert finished(world, frame) == XDP_REDIRECT
    prepare(world)
    world.rig.changed()
    before = world.counts()
    assert finished(world, frame) == XDP_PASS
    assert world.counts() == before


def test_without_a_way_out_nothing_is_charged_learned_or_counted(world: World) -> None:
    know(world)
    world.learn(BLUE, mac(1), 1, age_s=30)
    world.rig.put(Table.LIMITS, 1, LimitsRow(in_packets=10))
    world.set_port(1, flags=PortFlag.LIMITED_IN)
    before, entry = world.counts(), world.entry(BLUE, mac(1))
    with world.wires.inside():
        assert world.rig.xdp(ethernet(mac(2), mac(1), UDP4), world.ports[1].ifindex).verdict == XDP_PASS
    assert (world.counts(), world.entry(BLUE, mac(1))) == (before, entry)
    assert world.rig.maps["buckets"].lookup(struct.pack("=I", 1)) == bytes(64)


# --- locks and rates ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ip", ["10.0.0.1", "10.0.0.0/24", "2001:db8::1", "2001:db8::/64"])
def test_a_locked_port_is_as_fast(world: World, ip: str) -> None:
    know(world)
    world.state_static(BLUE, mac(1), 1, FdbFlag.LISTED)
    world.set_port(1, flags=PortFlag.MAC_LOCKED)
    world.list_ips(1, "192.0.2.1", "2001:db8:1::1", ip)
    frame = ethernet(mac(2), mac(1), UDP6 if ":" in ip else UDP4)
    assert finished(world, frame) == XDP_REDIRECT
    assert finished(world, ethernet(mac(2), mac(1), ipv4(udp(bytes(18)), source="10.0.9.1"))) == XDP_PASS


def test_a_leased_address_is_as_fast(world: World) -> None:
    know(world)
    world.snoop(1)
    world.name(1, "10.0.0.1", leased_for_s=60)
    assert finished(world, ethernet(mac(2), mac(1), UDP4)) == XDP_REDIRECT


def test_a_segment_with_leases_is_as_fast(world: World) -> None:
    know(world)
    world.set_segment(BLUE, flags=SegmentFlag.LEASES | SegmentFlag.NEIGHBOURS | SegmentFlag.GROUPS)
    assert finished(world, ethernet(mac(2), mac(1), UDP4)) == XDP_REDIRECT


def _burst(world: World, port: int, count: int) -> list[Outcome]:
    return [world.send_at_xdp(port, ethernet(mac(2), mac(1), UDP4), NO_OFFLOAD) for _ in range(count)]


@pytest.mark.parametrize("limit", ["in", "out"])
def test_rates_hold_and_their_drops_are_counted(world: World, limit: str) -> None:
    know(world)
    port, flag = (1, PortFlag.LIMITED_IN) if limit == "in" else (2, PortFlag.LIMITED_OUT)
    world.rig.put(Table.LIMITS, port, LimitsRow(**{f"{limit}_packets": 1}))
    world.set_port(port, flags=flag)
    fates = [outcome.fate for outcome in _burst(world, 1, 80)]
    assert fates[:64] == [FORWARDED] * 64  # VX_BURST_PACKETS
    assert set(fates[66:]) == {"rate_limited"}
    assert finished(world, ethernet(mac(2), mac(1), UDP4)) == XDP_DROP


@pytest.mark.parametrize(("limit", "refreshed"), [("in", False), ("out", True)])
def test_of_what_a_rate_drops_the_sender_is_seen_as_at_tc(world: World, limit: str, refreshed: bool) -> None:
    """Step 11 comes before learning, step 15 behind."""
    know(world)
    world.learn(BLUE, mac(1), 1, age_s=30)
    port, flag = (1, PortFlag.LIMITED_IN) if limit == "in" else (2, PortFlag.LIMITED_OUT)
    world.rig.put(Table.LIMITS, port, LimitsRow(**{f"{limit}_packets": 1}))
    full = 16 * (time.monotonic_ns() + 100 * SECOND_NS)
    row = [full if name == f"{limit}_packets" else 0 for name in ("in_bits", "in_packets", "out_bits", "out_packets")]
    world.rig.maps["buckets"].update(struct.pack("=I", port), struct.pack("=8Q", *row, 0, 0, 0, 0))
    world.set_port(port, flags=flag)
    assert finished(world, ethernet(mac(2), mac(1), UDP4)) == XDP_DROP
    entry = world.entry(BLUE, mac(1))
    assert entry is not None
    assert (time.monotonic_ns() - entry["seen_ns"] < 5 * NANOSECONDS) == refreshed
