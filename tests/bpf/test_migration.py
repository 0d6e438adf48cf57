"""A VM that migrates, as the data plane of both hosts sees it: VM 1, between here and the host of VTEP 21.

leaving   its port drains: all that is for it goes to VTEP 21, marked, from whomever it comes
arriving  its port is in standby, then holds: what is marked is for it, then all is
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from support.frames import (
    ARP,
    BROADCAST,
    L3,
    arp,
    ethernet,
    icmpv6,
    ipv4,
    ipv6,
    link_layer,
    mac,
    nd,
    payload,
    udp,
    vlan,
)
from support.outcome import FLOODED, FORWARDED
from support.overlay import MARK, UNDERLAY, VNIS, Overlay, address, packets
from support.world import BLUE, RED, World, counter, number
from vxagent.core.tables import (
    AWAITING_SLOT,
    LEAVING_SLOT,
    FdbFlag,
    FdbRow,
    MembershipRow,
    Origin,
    PortFlag,
    PortMode,
    SegmentFlag,
    Table,
    fdb_key,
    slot_key,
)
from vxagent.datapath.abi import DropKind, EventType
from vxagent.datapath.opened import read_event
from vxagent.datapath.ring import RingReader

VM = mac(1)
VALID = 0x08000000
COPY = 0x00400000  # beside the mark: of a flood, for the port of a token
TOKEN = 0x1234
COPIED = VALID | MARK | COPY | TOKEN


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def overlay(request: pytest.FixtureRequest, world: World) -> Overlay:
    made = Overlay(world, request.param)
    world.set_port(1, flags=PortFlag.MAC_LOCKED)
    return made


def place(overlay: Overlay, state: PortMode, *, via: int = 0, redirect: bool = False) -> None:
    """VM 1's port is in that state, and its frames go there."""
    world = overlay.world
    flags = FdbFlag.LISTED | (FdbFlag.REDIRECT if redirect else FdbFlag(0))
    row = FdbRow(port=1, segment=BLUE, origin=Origin.STATIC, flags=flags, via=via)
    world.rig.put(Table.FDB, fdb_key(BLUE, number(VM)), row)
    world.set_port(1, state=state)
    world.set_segment(BLUE, flags=SegmentFlag.MOVING if redirect else SegmentFlag(0))


def between_by_vlan(overlay: Overlay) -> Overlay:
    """The segment has no VNI of its own."""
    overlay.world.set_segment(BLUE, flags=overlay.world.segments[BLUE].flags | SegmentFlag.BY_VLAN)
    return overlay


@pytest.fixture
def leaving(overlay: Overlay) -> Overlay:
    place(overlay, PortMode.DRAINING, via=21, redirect=True)
    return overlay


@pytest.fixture
def copied(leaving: Overlay) -> Overlay:
    """And what is flooded follows it, for the port at VTEP 21 does not hold yet."""
    row = MembershipRow(port=1, segment=BLUE, vid=0, slot=LEAVING_SLOT, counter=counter(1, BLUE), via=21, token=TOKEN)
    leaving.rig.put(Table.SLOTS, slot_key(BLUE, LEAVING_SLOT), row)
    leaving.world.set_segment(BLUE, flags=leaving.world.segments[BLUE].flags | SegmentFlag.LEAVING)
    return leaving


def await_copies(overlay: Overlay, vid: int = 0) -> Overlay:
    """VM 1's port gets them by its token."""
    slot = AWAITING_SLOT | TOKEN
    row = MembershipRow(port=1, segment=BLUE, vid=vid, slot=slot, counter=counter(1, BLUE))
    overlay.rig.put(Table.SLOTS, slot_key(BLUE, slot), row)
    overlay.rig.changed()
    return overlay


@pytest.fixture
def standby(overlay: Overlay) -> Overlay:
    place(overlay, PortMode.STANDBY, via=21)
    return overlay


@pytest.fixture
def holding(overlay: Overlay) -> Overlay:
    place(overlay, PortMode.HOLDING)
    return overlay


def data(destination: bytes, source: bytes, *tags: bytes) -> bytes:
    return ethernet(destination, source, ipv4(udp(b"x" * 40)), *tags)


# It leaves


@pytest.mark.parametrize(("port", "tags"), [(2, ()), (6, (vlan(110),)), (10, (vlan(10),))])
def test_what_is_for_it_follows_it_marked(leaving: Overlay, port: int, tags: tuple[bytes, ...]) -> None:
    with leaving.resolved(21, 22):
        for _ in range(2):
            outcome = leaving.world.send(port, data(VM, mac(port), *tags))
            (packet,) = packets(outcome)
            assert outcome.fate == FORWARDED
            assert (packet.receiver, packet.flags) == (str(address(21, leaving.family)), VALID | MARK)
            assert packet.frame == data(VM, mac(port))


@pytest.mark.parametrize("sender", [21, 22])
def test_a_packet_for_it_is_passed_on_as_it_is(leaving: Overlay, sender: int) -> None:
    with leaving.resolved(21, 22):
        frame = data(VM, mac(sender))
        outcome = leaving.world.send(UNDERLAY, leaving.packet(frame, sender=sender))
        (packet,) = packets(outcome)
        assert (outcome.fate, outcome.where, list(outcome.sent)) == (FORWARDED, (sender, BLUE), [21])
        assert (packet.sender, packet.receiver) == (str(address(1, leaving.family)), str(address(21, leaving.family)))
        assert (packet.flags, packet.vni, packet.frame) == (VALID | MARK, VNIS[BLUE], frame)
        assert packet.source_port == 50_000


def test_nothing_is_redirected_twice(leaving: Overlay) -> None:
    outcome = leaving.world.send(UNDERLAY, leaving.packet(data(VM, mac(22)), sender=22, flags=VALID | MARK))
    assert (outcome.fate, outcome.where) == ("loop", (22, BLUE))


def test_other_frames_are_not_passed_on(leaving: Overlay) -> None:
    leaving.world.learn(BLUE, mac(2), 2)
    outcome = leaving.world.send(UNDERLAY, leaving.packet(data(mac(2), mac(22)), sender=22))
    assert outcome.frames[2] == [data(mac(2), mac(22))]


def test_a_vtep_that_is_not_known_cannot_have_it_passed_on(leaving: Overlay) -> None:
    assert leaving.world.send(UNDERLAY, leaving.packet(data(VM, mac(9)), sender=99)).fate == "vtep_denied"


def test_its_last_frames_still_reach_who_is_here(leaving: Overlay) -> None:
    leaving.world.learn(BLUE, mac(2), 2)
    assert leaving.world.send(1, data(mac(2), VM)).frames == {2: [data(mac(2), VM)]}


@pytest.mark.parametrize("receiver", [mac(70), mac(71), BROADCAST], ids=["known", "unknown", "broadcast"])
def test_its_last_frames_for_the_fabric_leave_by_the_other_host(leaving: Overlay, receiver: bytes) -> None:
    """From here they would teach the fabric that it is here. Who is here hears of it what everybody does."""
    between_by_vlan(leaving).world.learn(BLUE, mac(70), 10)
    with leaving.resolved(21, 22):
        outcome = leaving.world.send(1, data(receiver, VM))
        (packet,) = packets(outcome)
        assert outcome.fate == FORWARDED
        assert (packet.receiver, packet.flags) == (str(address(21, leaving.family)), VALID | MARK)
        assert (packet.frame, list(outcome.sent)) == (data(receiver, VM), [21])


def test_the_fabric_hears_it_from_a_host_that_bridges_to_the_end(leaving: Overlay) -> None:
    """It finds the VM behind this host, whatever host that is on."""
    leaving.world.learn(BLUE, mac(70), 10)
    assert list(leaving.world.send(1, data(mac(70), VM)).sent) == [10]


def test_its_last_frames_for_other_hosts_go_there(leaving: Overlay) -> None:
    leaving.world.learn(BLUE, mac(72), 22)
    with leaving.resolved(21, 22):
        (packet,) = packets(leaving.world.send(1, data(mac(72), VM)))
        assert (packet.receiver, packet.flags) == (str(address(22, leaving.family)), VALID)


def test_its_last_broadcast_reaches_everybody(leaving: Overlay) -> None:
    with leaving.resolved(21, 22):
        outcome = leaving.world.send(1, data(BROADCAST, VM))
        assert outcome.fate == FLOODED
        assert outcome.sent.keys() == {2, 3, 4, 6, 7, 8, 10, 21, 22}


def test_what_all_others_send_goes_by_the_vlan(overlay: Overlay) -> None:
    between_by_vlan(overlay)
    with overlay.resolved(21, 22):
        assert overlay.world.send(2, data(BROADCAST, mac(2))).sent.keys() == {1, 3, 4, 6, 7, 8, 10}


def test_a_port_that_drains_gets_nothing(leaving: Overlay) -> None:
    with leaving.resolved(21, 22):
        assert 1 not in leaving.world.send(2, data(BROADCAST, mac(2))).frames


# What is flooded follows it, until the other port holds


def copies_of(overlay: Overlay, port: int, frame: bytes) -> list[tuple[str, int]]:
    """To whom a frame leaves by the underlay, and with which flags, in order."""
    with overlay.resolved(21, 22):
        outcome = overlay.world.send(port, frame)
    assert outcome.fate == FLOODED
    assert 1 not in outcome.frames
    return [(packet.receiver, packet.flags) for packet in packets(outcome)]


@pytest.mark.parametrize("receiver", [mac(71), BROADCAST], ids=["unknown", "broadcast"])
def test_what_is_flooded_goes_to_the_other_host_once_more_for_the_port_alone(copied: Overlay, receiver: bytes) -> None:
    far = [str(address(number, copied.family)) for number in (21, 22)]
    frame = data(receiver, mac(2))
    with copied.resolved(21, 22):
        outcome = copied.world.send(2, frame)
    sent = packets(outcome)
    assert [(one.receiver, one.flags) for one in sent] == [(far[0], VALID), (far[1], VALID), (far[0], COPIED)]
    assert {one.frame for one in sent} == {frame}
    assert {one.vni for one in sent} == {VNIS[BLUE]}
    assert {port: count for port, (count, _) in outcome.sent.items()} == dict.fromkeys((3, 4, 6, 7, 8, 10, 22), 1) | {
        21: 2
    }


@pytest.mark.parametrize("by_vlan", [False, True], ids=["by VNI", "by VLAN"])
def test_so_does_what_the_fabric_and_other_hosts_flood(copied: Overlay, by_vlan: bool) -> None:
    """Which nothing else does: split horizon."""
    if by_vlan:
        between_by_vlan(copied)
    once = [(str(address(21, copied.family)), COPIED)]
    for sender in (21, 22):
        frame = copied.packet(data(BROADCAST, mac(sender)), sender=sender)
        assert copies_of(copied, UNDERLAY, frame) == once
    tagged = data(BROADCAST, mac(70), vlan(10))
    assert copies_of(copied, 10, tagged)[-1:] == once
    assert len(copies_of(copied, 10, tagged)) == (1 if by_vlan else 3)
    assert copies_of(copied, 2, data(BROADCAST, mac(2)))[-1:] == once


def test_what_it_says_itself_does_not_come_after_it(copied: Overlay) -> None:
    for port, frame in (
        (1, data(BROADCAST, VM)),
        (10, data(BROADCAST, VM, vlan(10))),
        (UNDERLAY, copied.packet(data(BROADCAST, VM), sender=22)),
    ):
        assert all(flags == VALID for _, flags in copies_of(copied, port, frame))


def test_a_port_that_does_not_drain_yet_hears_it_here(copied: Overlay) -> None:
    copied.world.set_port(1, state=PortMode.UP)
    with copied.resolved(21, 22):
        outcome = copied.world.send(2, data(BROADCAST, mac(2)))
    assert outcome.frames[1] == [data(BROADCAST, mac(2))]
    assert [packet.flags for packet in packets(outcome)] == [VALID, VALID]


def test_isolated_ports_stay_apart_when_one_leaves(copied: Overlay) -> None:
    for port in (1, 2):
        copied.world.set_port(port, flags=copied.world.ports[port].flags | PortFlag.ISOLATED)
    assert [flags for _, flags in copies_of(copied, 2, data(BROADCAST, mac(2)))] == [VALID, VALID]
    assert copies_of(copied, 7, data(BROADCAST, mac(7)))[-1][1] == COPIED


def test_what_a_segment_does_not_flood_does_not_follow(copied: Overlay) -> None:
    copied.world.set_segment(BLUE, flags=copied.world.segments[BLUE].flags | SegmentFlag.DROP_UNKNOWN)
    assert copied.world.send(2, data(mac(71), mac(2))).fate == "unknown_unicast"


def test_a_copy_that_has_no_way_is_lost_and_counted(copied: Overlay) -> None:
    copied.leave(21, BLUE)
    with copied.resolved(22):
        outcome = copied.world.send(2, data(BROADCAST, mac(2)))
    assert COPIED not in [packet.flags for packet in packets(outcome)]
    assert set(copied.rig.drops(DropKind.COPY)) == {(1, BLUE, "no_destination")}


@pytest.mark.parametrize("receiver", [mac(71), mac(2), BROADCAST], ids=["unknown", "known here", "broadcast"])
def test_a_copy_is_for_the_port_in_standby_alone(standby: Overlay, receiver: bytes) -> None:
    await_copies(standby).world.learn(BLUE, mac(2), 2)
    frame = data(receiver, mac(72))
    outcome = standby.world.send(UNDERLAY, standby.packet(frame, flags=COPIED))
    assert (outcome.fate, outcome.where, outcome.frames) == (FORWARDED, (21, BLUE), {1: [frame]})
    assert standby.world.whereabouts(BLUE, mac(72)) is None


def test_a_copy_gets_the_tag_of_a_trunk(standby: Overlay) -> None:
    await_copies(standby, vid=110)
    outcome = standby.world.send(UNDERLAY, standby.packet(data(BROADCAST, mac(72)), flags=COPIED))
    assert outcome.frames == {1: [data(BROADCAST, mac(72), vlan(110))]}


@pytest.mark.parametrize("state", [PortMode.HOLDING, PortMode.UP, PortMode.DRAINING, PortMode.DOWN])
def test_a_port_that_hears_for_itself_gets_no_copy(overlay: Overlay, state: PortMode) -> None:
    """That is no loss: it is counted as flooded, to nobody."""
    place(overlay, state)
    outcome = await_copies(overlay).world.send(UNDERLAY, overlay.packet(data(BROADCAST, mac(72)), flags=COPIED))
    assert (outcome.fate, outcome.where, outcome.frames) == (FLOODED, (21, BLUE), {})


def test_a_copy_reaches_nobody_of_another_token_or_segment(standby: Overlay) -> None:
    await_copies(standby)
    for flags, vni in ((COPIED ^ 1, VNIS[BLUE]), (COPIED, VNIS[RED])):
        outcome = standby.world.send(UNDERLAY, standby.packet(data(BROADCAST, mac(72)), flags=flags, vni=vni))
        assert (outcome.fate, outcome.frames) == (FLOODED, {})
    stranger = standby.packet(data(BROADCAST, mac(72)), sender=99, flags=COPIED)
    assert standby.world.send(UNDERLAY, stranger).fate == "vtep_denied"


# It is awaited


def test_what_is_for_it_still_goes_to_where_it_is(standby: Overlay) -> None:
    with standby.resolved(21, 22):
        for _ in range(2):
            outcome = standby.world.send(2, data(VM, mac(2)))
            (packet,) = packets(outcome)
            assert (packet.receiver, packet.flags) == (str(address(21, standby.family)), VALID)


def test_a_port_in_standby_takes_what_its_vm_has_missed_and_nothing_else(standby: Overlay) -> None:
    frame = data(VM, mac(22))
    assert standby.world.send(UNDERLAY, standby.packet(frame, sender=22)).fate == "no_destination"
    outcome = standby.world.send(UNDERLAY, standby.packet(frame, sender=21, flags=VALID | MARK))
    assert (outcome.fate, outcome.frames[1]) == (FORWARDED, [frame])
    assert 1 not in standby.world.send(UNDERLAY, standby.packet(data(BROADCAST, mac(22)), sender=22)).frames


@pytest.mark.parametrize("state", [PortMode.STANDBY, PortMode.HOLDING])
def test_a_port_that_waits_says_nothing(overlay: Overlay, state: PortMode) -> None:
    place(overlay, state, via=21 if state is PortMode.STANDBY else 0)
    assert overlay.world.send(1, data(mac(2), VM)).fate == "standby"
    assert overlay.world.send(1, data(BROADCAST, VM)).fate == "standby"


def test_a_port_that_holds_takes_all(holding: Overlay) -> None:
    frame = data(VM, mac(22))
    assert holding.world.send(UNDERLAY, holding.packet(frame, sender=22)).frames[1] == [frame]
    assert holding.world.send(UNDERLAY, holding.packet(frame, sender=22, flags=VALID | MARK)).frames[1] == [frame]
    assert holding.world.send(2, data(VM, mac(2))).frames == {1: [data(VM, mac(2))]}


@pytest.mark.parametrize("state", [PortMode.STANDBY, PortMode.HOLDING, PortMode.UP])
@pytest.mark.parametrize("receiver", [mac(71), BROADCAST], ids=["unknown", "broadcast"])
def test_what_it_still_says_elsewhere_is_said_here_to_the_fabric(
    overlay: Overlay, state: PortMode, receiver: bytes
) -> None:
    """And to all who are here but itself."""
    place(overlay, state, via=21 if state is PortMode.STANDBY else 0)
    between_by_vlan(overlay)
    frame = data(receiver, VM)
    with overlay.resolved(21, 22):
        outcome = overlay.world.send(UNDERLAY, overlay.packet(frame, sender=21, flags=VALID | MARK))
    assert outcome.fate == FLOODED
    assert outcome.sent.keys() == {2, 3, 4, 6, 7, 8, 10}
    assert outcome.frames[2] == [frame]
    assert overlay.world.whereabouts(BLUE, VM) == 1


def test_a_vm_does_not_hear_what_it_has_just_said_elsewhere(holding: Overlay) -> None:
    outcome = holding.world.send(UNDERLAY, holding.packet(data(BROADCAST, VM), sender=21))
    assert outcome.sent.keys() == {2, 3, 4, 6, 7, 8, 10}
    outcome = holding.world.send(10, data(BROADCAST, VM, vlan(10)))
    assert 2 in outcome.frames
    assert 1 not in outcome.frames


@pytest.mark.parametrize("where", [10, 22, None], ids=["fabric", "VTEP", "nobody knows where"])
def test_what_has_made_a_detour_does_not_tell_where_its_sender_is(holding: Overlay, where: int | None) -> None:
    if where is not None:
        holding.world.learn(BLUE, mac(72), where)
    for destination in (VM, BROADCAST):
        holding.world.send(UNDERLAY, holding.packet(data(destination, mac(72)), sender=21, flags=VALID | MARK))
        assert holding.world.whereabouts(BLUE, mac(72)) == where


def test_the_fabric_brings_frames_of_it_from_where_it_is(standby: Overlay) -> None:
    standby.world.learn(BLUE, mac(2), 2)
    assert standby.world.send(10, data(mac(2), VM, vlan(10))).frames == {2: [data(mac(2), VM)]}
    assert standby.world.send(UNDERLAY, standby.packet(data(mac(2), VM))).frames[2] == [data(mac(2), VM)]
    assert standby.world.whereabouts(BLUE, VM) == 1


def _rarp() -> L3:
    """RFC 903, as hypervisors send it: who has my own address?"""
    return L3(0x8035, struct.pack("!HHBBH", 1, 0x0800, 6, 4, 3) + (VM + bytes(4)) * 2 + bytes(18))


ANNOUNCEMENTS: dict[str, Callable[[], bytes]] = {
    "rarp": lambda: ethernet(BROADCAST, VM, _rarp()),
    "gratuitous arp request": lambda: ethernet(BROADCAST, VM, arp("10.0.0.1", "10.0.0.1", sender_mac=VM)),
    "gratuitous arp reply": lambda: ethernet(BROADCAST, VM, arp("10.0.0.1", "10.0.0.1", operation=2, sender_mac=VM)),
    "unsolicited na": lambda: ethernet(
        bytes.fromhex("333300000001"),
        VM,
        ipv6(nd(136, "2001:db8::1", link_layer(2, VM)), source="2001:db8::1", destination="ff02::1", hops=255),
    ),
}


@pytest.mark.parametrize("frame", ANNOUNCEMENTS.values(), ids=ANNOUNCEMENTS.keys())
def test_its_announcement_is_heard(holding: Overlay, ring: RingReader, frame: Callable[[], bytes]) -> None:
    """A port that holds comes up by it, and it is the first frame that goes on."""
    with holding.resolved(21, 22):
        outcome = holding.world.send(1, frame())
        assert outcome.fate == FLOODED
        assert {packet.frame for packet in packets(outcome)} == {frame()}
        assert 10 in outcome.frames
        (event,) = map(read_event, ring.read())
        assert (event.type, event.port, event.segment, event.mac) == (EventType.ANNOUNCED, 1, BLUE, number(VM))
        assert holding.world.send(1, data(BROADCAST, VM)).fate == FLOODED


@pytest.mark.parametrize("frame", ANNOUNCEMENTS.values(), ids=ANNOUNCEMENTS.keys())
def test_in_standby_the_agent_is_told(standby: Overlay, ring: RingReader, frame: Callable[[], bytes]) -> None:
    assert standby.world.send(1, frame()).fate == "standby"
    (event,) = map(read_event, ring.read())
    assert (event.type, event.port) == (EventType.ANNOUNCED, 1)
    assert standby.world.send(1, data(BROADCAST, VM)).fate == "standby"


@pytest.mark.parametrize(
    "frame",
    [
        ethernet(BROADCAST, mac(77), _rarp()),
        ethernet(BROADCAST, VM, arp("10.0.0.1", "10.0.0.2", sender_mac=VM)),
        ethernet(mac(2), VM, arp("10.0.0.1", "10.0.0.1", sender_mac=VM)),
        ethernet(BROADCAST, VM, L3(ARP, bytes(20))),
        ethernet(bytes.fromhex("333300000001"), VM, ipv6(icmpv6(128), destination="ff02::1")),
        ethernet(BROADCAST, VM, payload()),
    ],
    ids=["another MAC", "a question", "to one", "cut short", "a ping", "anything"],
)
def test_nothing_else_is_an_announcement(holding: Overlay, ring: RingReader, frame: bytes) -> None:
    assert holding.world.send(1, frame).fate in ("standby", "malformed")
    assert ring.read() == []
