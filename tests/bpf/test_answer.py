"""Step 12: who is asked for is answered from what the switch knows, on the port that asks."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from ipaddress import IPv6Address, ip_address
from typing import Any

from support import asking
from support.asking import group_of, hop_limit, mac_of
from support.frames import (
    BROADCAST,
    DESTINATION,
    FRAGMENT,
    HOP_BY_HOP,
    ICMPV6,
    L3,
    L4,
    NA,
    NS,
    RS,
    UDP,
    arp,
    checksum,
    ethernet,
    ipv4,
    ipv6,
    link_layer,
    mac,
    nd,
    udp,
    vlan,
)
from support.outcome import FLOODED, FORWARDED, REPLIED
from support.place import Place
from support.rows import Row, Way, check, rows
from support.world import BLUE, RED, World, blue
from vxagent.core.effects import DeleteRow, PutRow
from vxagent.core.tables import (
    FdbFlag,
    NeighbourOrigin,
    NeighbourRow,
    PortFlag,
    PortMode,
    SegmentFlag,
    Table,
    neighbour_key,
)
from vxagent.datapath import abi, codec
from vxagent.lab.pump import NEEDS_CSUM, VNET_HDR

Prepare = Callable[[World], object]

ASKER, ASKED, UNKNOWN = "10.0.0.1", "10.0.0.2", "10.0.0.99"
ASKER_6, ASKED_6, UNKNOWN_6 = "2001:db8::1", "2001:db8::ab:cdef", "2001:db8::99"

NONCE = bytes([14, 1, 1, 2, 3, 4, 5, 6])  # RFC 3971, 5.3.2


def _named(world: World) -> None:
    """VM 2 is named for what is asked for."""
    world.name(2, ASKED, ASKED_6)


def request(target: str = ASKED, sender: str = ASKER, *, vm: int = 1) -> L3:
    """An ARP request of a VM."""
    return arp(sender, target, sender_mac=mac(vm))


def reply(asked: str = ASKED, asker: str = ASKER, *, vm: int = 1, owner: int = 2) -> L3:
    """The answer to it."""
    return arp(asked, asker, operation=2, sender_mac=mac(owner), target_mac=mac(vm))


def solicitation(target: str = ASKED_6, *options: bytes, **changes: Any) -> L3:
    """A neighbour solicitation of VM 1; see `asking.solicitation`."""
    return asking.solicitation(target, *options, **{"source": ASKER_6, **changes})


def advertisement(target: str = ASKED_6, asker: str = ASKER_6, *, owner: int = 2) -> L3:
    """The answer to it."""
    return asking.advertisement(target, asker, mac(owner))


def asks(inside: L3, *tags: bytes, vm: int = 1) -> bytes:
    """The frame with which a VM asks everybody, or the group."""
    to = BROADCAST if inside.ethertype == 0x0806 else mac_of(str(IPv6Address(inside.data[24:40])))
    return ethernet(to, mac(vm), inside, *tags)


def _answered(
    name: str,
    question: bytes,
    answer: bytes,
    prepare: Prepare = _named,
    *,
    port: int = 1,
    segment: int = BLUE,
    ways: tuple[Way, ...] = tuple(Way),
) -> Row:
    return Row(
        name=name,
        frame=question,
        port=port,
        segment=segment,
        prepare=prepare,
        fate=REPLIED,
        out={port: answer},
        ways=ways,
    )


def _copies(frame: bytes, *ports: int) -> dict[int, bytes]:
    return {port: frame[:12] + vlan(vid) + frame[12:] if vid else frame for port, vid in blue(*ports).items()}


def _asked_of_all(name: str, question: bytes, prepare: Prepare = _named, *, but: int = 0) -> Row:
    """Flooded as ever; `but`: a port that gets no copy."""
    everybody = (port for port in (2, 3, 4, 6, 7, 8, 9, 10) if port != but)
    return Row(name=name, frame=question, prepare=prepare, fate=FLOODED, out=_copies(question, *everybody))


ARP_ANSWER = ethernet(mac(1), mac(2), reply())
ND_ANSWER = ethernet(mac(1), mac(2), advertisement())


def padded(inside: L3) -> L3:
    """To the 60 bytes of the shortest frame, with something."""
    return L3(inside.ethertype, inside.data.ljust(46, b"."))


def _first_word(inside: L3, word: bytes) -> L3:
    """Another version, traffic class and flow label."""
    return L3(inside.ethertype, word + inside.data[4:])


@rows(
    _answered("ARP", asks(request()), ARP_ANSWER),
    _answered("ARP with padding", asks(padded(request())), ethernet(mac(1), mac(2), padded(reply()))),
    _answered("ND, asker unknown", asks(solicitation()), ND_ANSWER),
    _answered("ND", asks(solicitation(ASKED_6, link_layer(1, mac(1)))), ND_ANSWER),
    _answered("ND with a nonce", asks(solicitation(ASKED_6, NONCE)), ND_ANSWER),
    _answered("ND with both", asks(solicitation(ASKED_6, link_layer(1, mac(1)), NONCE)), ND_ANSWER),
    _answered("ND with a long option", asks(solicitation(ASKED_6, bytes([14, 2]).ljust(16, b"n"))), ND_ANSWER),
    _answered(
        "ND with bytes behind it",
        ethernet(mac_of(group_of(ASKED_6)), mac(1), L3(0x86DD, solicitation().data + b"behind")),
        ND_ANSWER,
    ),
    _answered(
        "ND from a link-local address",
        asks(solicitation(source="fe80::1")),
        ethernet(mac(1), mac(2), advertisement(asker="fe80::1")),
    ),
    _answered("ND with a traffic class and a flow", asks(_first_word(solicitation(), b"\x6e\x01\x23\x45")), ND_ANSWER),
    _answered(
        "a target of all ones",
        asks(solicitation("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff")),
        ethernet(mac(1), mac(2), advertisement("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff")),
        lambda world: world.name(2, "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
    ),
    _answered("a lease", asks(request()), ARP_ANSWER, lambda world: world.name(2, ASKED, leased_for_s=60)),
    _answered(
        "with the MAC that is named, whatever the FDB says",
        asks(request()),
        ethernet(mac(1), mac(77), reply(owner=77)),
        lambda world: world.name(2, ASKED, address=mac(77)),
    ),
    _answered(
        "for a trunk port",
        asks(request()),
        ethernet(mac(1), mac(6), reply(owner=6)),
        lambda world: world.name(6, ASKED),
    ),
    _answered(
        "for a VM beyond an uplink",
        asks(request()),
        ethernet(mac(1), mac(9), reply(owner=9)),
        lambda world: world.name(9, ASKED),
    ),
)
def test_who_is_named_is_answered_for(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


PRIORITY = 5


def _named_in_both(world: World) -> None:
    """The same address is VM 2's in blue and VM 5's in red."""
    world.name(2, ASKED)
    world.name(5, ASKED, segment=RED)


@rows(
    *(
        _answered(f"{family} in a trunk's VLAN", question(vlan(110)), answer(vlan(110)), port=6)
        for family, question, answer in (
            ("ARP", partial(asks, request(vm=6), vm=6), partial(ethernet, mac(6), mac(2), reply(vm=6))),
            ("ND", partial(asks, solicitation(), vm=6), partial(ethernet, mac(6), mac(2), advertisement())),
        )
    ),
    _answered(
        "with the priority and DEI of the question",
        asks(solicitation(), vlan(110, pcp=PRIORITY, dei=1), vm=6),
        ethernet(mac(6), mac(2), advertisement(), vlan(110, pcp=PRIORITY, dei=1)),
        port=6,
    ),
    _answered(
        "in a trunk's native segment",
        asks(request(vm=7), vm=7),
        ethernet(mac(7), mac(2), reply(vm=7)),
        port=7,
    ),
    _answered(
        "VID 0 is no tag",
        asks(request(), vlan(0, pcp=PRIORITY)),
        ARP_ANSWER,
    ),
    _answered("VID 0, ND", asks(solicitation(), vlan(0)), ND_ANSWER),
    _answered(
        "in the segment of the question",
        asks(request(vm=6), vlan(120), vm=6),
        ethernet(mac(6), mac(5), reply(vm=6, owner=5), vlan(120)),
        _named_in_both,
        port=6,
        segment=RED,
    ),
)
def test_the_answer_has_the_tag_of_the_question(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


def _elsewhere(world: World) -> None:
    """Named in another segment; in this one somebody else is."""
    world.name(5, ASKED, ASKED_6, segment=RED)
    world.name(2, UNKNOWN)


def _reused(world: World) -> None:
    world.name(5, ASKED, ASKED_6, segment=RED, key_segment=BLUE)
    world.name(2, UNKNOWN)


def _not_flagged(world: World) -> None:
    _named(world)
    world.set_segment(BLUE, flags=SegmentFlag(0))


def _owner(**changes: object) -> Prepare:
    def prepare(world: World) -> None:
        _named(world)
        world.set_port(2, **changes)

    return prepare


def _owner_moved(world: World) -> None:
    """The row is still there."""
    _named(world)
    world.leave(2, BLUE)


@rows(
    *(
        _asked_of_all(f"{family}: {name}", question, prepare, but=but)
        for family, question in (("ARP", asks(request())), ("ND", asks(solicitation())))
        for name, prepare, but in (
            ("nobody is named", lambda world: world.name(2, UNKNOWN, UNKNOWN_6), 0),
            ("named in another segment", _elsewhere, 0),
            ("a row reused for another segment", _reused, 0),
            ("the segment has no neighbours", _not_flagged, 0),
            ("the asker's own address", lambda world: world.name(1, ASKED, ASKED_6), 0),
            ("a lease that has run out", lambda world: world.name(2, ASKED, ASKED_6, leased_for_s=-1), 0),
            ("the owner is down", _owner(state=PortMode.DOWN), 2),
            ("the owner is in standby", _owner(state=PortMode.STANDBY), 2),
            ("the owner moves away", _owner(state=PortMode.DRAINING), 2),
            ("the owner has no device", _owner(ifindex=0), 2),
            ("the owner is in the segment no more", _owner_moved, 2),
            ("the owner's port is there no more", _owner(handle=0), 2),
        )
    ),
)
def test_who_cannot_be_answered_for_is_asked_with_all_others(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


@rows(
    _answered("a holding owner", asks(request()), ARP_ANSWER, _owner(state=PortMode.HOLDING)),
    _answered("one isolated asker", asks(request(vm=3), vm=3), ethernet(mac(3), mac(2), reply(vm=3)), port=3),
    _answered(
        "an isolated owner",
        asks(request()),
        ethernet(mac(1), mac(3), reply(owner=3)),
        lambda world: world.name(3, ASKED),
    ),
    Row(
        name="not between two isolated ports",
        frame=asks(request(vm=3), vm=3),
        port=3,
        prepare=lambda world: world.name(4, ASKED),
        fate=FLOODED,
        out=_copies(asks(request(vm=3), vm=3), 1, 2, 6, 7, 8, 9, 10),
    ),
)
def test_who_may_get_the_askers_frames_is_answered_for(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


def _arp_with(at: int, value: bytes) -> bytes:
    """A request with other bytes from there on."""
    data = request().data
    return asks(L3(0x0806, data[:at] + value + data[at + len(value) :]))


@rows(
    *(
        _asked_of_all(name, frame)
        for name, frame in (
            ("gratuitous", asks(request(ASKED, ASKED))),
            ("a probe", asks(request(sender="0.0.0.0"))),
            ("a reply", asks(arp(ASKER, ASKED, operation=2, sender_mac=mac(1)))),
            ("a reverse request", asks(arp(ASKER, ASKED, operation=3, sender_mac=mac(1)))),
            ("of another sender", asks(arp(ASKER, ASKED, sender_mac=mac(77)))),
            ("to a group", ethernet(mac_of("ff02::1"), mac(1), request())),
            ("of other hardware", _arp_with(0, b"\0\6")),
            ("of another protocol", _arp_with(2, b"\x86\xdd")),
            ("with longer MACs", _arp_with(4, b"\x08")),
            ("with longer addresses", _arp_with(5, b"\x10")),
            ("that ends early", asks(L3(0x0806, request().data[:27]))),
            ("in IPv4", ethernet(BROADCAST, mac(1), L3(0x0800, ipv4(udp()).data))),
            ("of an unknown address", asks(request(UNKNOWN))),
            ("of no address", asks(request("0.0.0.0"))),
        )
    )
)
def test_what_is_no_arp_question_goes_to_all(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


def _code(message: L4) -> L4:
    return replace(message, data=message.data[:1] + b"\1" + message.data[2:])


def _kind(message: L4, kind: int) -> L4:
    return replace(message, data=bytes([kind]) + message.data[1:])


def _spoil(inside: L3) -> L3:
    """With a checksum that is wrong by one."""
    data = bytearray(inside.data)
    data[43] ^= 1
    return L3(inside.ethertype, bytes(data))


def _next_header(inside: L3, protocol: int) -> L3:
    """All else as it was, also the checksum."""
    return L3(inside.ethertype, inside.data[:6] + bytes([protocol]) + inside.data[7:])


MULTICAST_TARGET = "ff02::ab:cdef"
MESSAGE = nd(NS, ASKED_6)


@rows(
    *(
        _asked_of_all(name, ethernet(mac_of(group_of(ASKED_6)), mac(1), inside))
        for name, inside in (
            ("DAD", solicitation(source="::")),
            ("of an unknown address", solicitation(UNKNOWN_6)),
            ("an advertisement", solicitation(message=_kind(MESSAGE, NA))),
            ("another type", solicitation(message=nd(RS))),
            ("no ICMPv6", _next_header(solicitation(), UDP)),
            ("routed", hop_limit(solicitation(), 254)),
            ("a code", solicitation(message=_code(MESSAGE))),
            ("a wrong checksum", _spoil(solicitation(ASKED_6, link_layer(1, mac(1))))),
            ("to all nodes", solicitation(destination="ff02::1")),
            ("to the group of another address", solicitation(destination=group_of(UNKNOWN_6))),
            ("to the address itself", solicitation(destination=ASKED_6)),
            ("to another scope's group", solicitation(destination="ff05::1:ffab:cdef")),
            ("to a group of another kind", solicitation(destination="ff02::2:ffab:cdef")),
            ("to a group of a longer prefix", solicitation(destination="ff02:0:1::1:ffab:cdef")),
            ("from a group", solicitation(source="ff02::1")),
            ("of another sender", solicitation(ASKED_6, link_layer(1, mac(77)))),
            ("of another sender, second", solicitation(ASKED_6, NONCE, link_layer(1, mac(77)))),
            ("an option without a length", solicitation(ASKED_6, bytes([14, 0]).ljust(8))),
            ("an option that runs on", solicitation(ASKED_6, bytes([14, 2]).ljust(8))),
            ("a second one that does", solicitation(ASKED_6, NONCE, bytes([14, 2]).ljust(8))),
            ("a second one without a length", solicitation(ASKED_6, NONCE, bytes([14, 0]).ljust(8))),
            ("an odd end", solicitation(ASKED_6, NONCE, b"1234")),
            ("three options", solicitation(ASKED_6, NONCE, NONCE, NONCE)),
            ("too short", solicitation(message=replace(MESSAGE, data=MESSAGE.data[:20]))),
            ("cut off", L3(0x86DD, solicitation().data[:-1])),
            ("an option cut off", L3(0x86DD, solicitation(ASKED_6, NONCE).data[:-1])),
            ("of a group", solicitation(MULTICAST_TARGET)),
            ("another version", _first_word(solicitation(), b"\x40\0\0\0")),
            *(
                (f"behind header {header}", hop_limit(ipv6(MESSAGE, destination=group_of(ASKED_6), extensions=(e,))))
                for header, e in (
                    (HOP_BY_HOP, (HOP_BY_HOP, 8)),
                    (FRAGMENT, (FRAGMENT, 8)),
                    (DESTINATION, (DESTINATION, 8)),
                )
            ),
        )
    )
)
def test_what_is_no_nd_question_goes_to_all(world: World, row: Row, way: Way) -> None:
    world.name(2, MULTICAST_TARGET, "::")
    check(world, row, way)


BEHIND_A_TAG = ethernet(BROADCAST, mac(6), request(vm=6), vlan(110), vlan(7))


@rows(
    Row(
        name="a second tag",
        port=6,
        frame=BEHIND_A_TAG,
        prepare=_named,
        fate=FLOODED,
        out={uplink: ethernet(BROADCAST, mac(6), request(vm=6), vlan(10), vlan(7)) for uplink in (9, 10)},
    ),
    Row(
        name="from an uplink",
        port=9,
        frame=asks(request(vm=50), vlan(10), vm=50),
        prepare=_named,
        fate=FLOODED,
        out=_copies(asks(request(vm=50), vm=50), 1, 2, 3, 4, 6, 7, 8),
    ),
    Row(
        name="to one station",
        frame=ethernet(mac(4), mac(1), request()),
        knows=((BLUE, 4),),
        prepare=_named,
        fate=FORWARDED,
        out={4: ethernet(mac(4), mac(1), request())},
    ),
    Row(
        name="to one station, ND",
        frame=ethernet(mac(4), mac(1), solicitation()),
        knows=((BLUE, 4),),
        prepare=_named,
        fate=FORWARDED,
        out={4: ethernet(mac(4), mac(1), solicitation())},
    ),
)
def test_only_a_port_that_asks_everybody_in_its_segment_is_answered(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


def _then(*prepares: Prepare) -> Prepare:
    def prepare(world: World) -> None:
        for each in prepares:
            each(world)

    return prepare


def _dropped(name: str, question: bytes, prepare: Prepare, fate: str) -> Row:
    return Row(name=name, frame=question, prepare=prepare, fate=fate)


def _locked(world: World) -> None:
    world.set_port(1, flags=PortFlag.MAC_LOCKED)
    world.state_static(BLUE, mac(1), 1, FdbFlag.LISTED)
    world.list_ips(1, ASKER, ASKER_6)


def _standby(world: World) -> None:
    world.set_port(1, state=PortMode.STANDBY)


@rows(
    _dropped("a spoofed sender", asks(request(sender="10.0.0.77")), _then(_named, _locked), "arp_spoof"),
    _dropped("a spoofed source", asks(solicitation(source="2001:db8::77")), _then(_named, _locked), "src_ip_denied"),
    _dropped(
        "a spoofed option",
        asks(solicitation(ASKED_6, link_layer(1, mac(77)))),
        _then(_named, _locked),
        "nd_spoof",
    ),
    _dropped("a standby asker", asks(request()), _then(_named, _standby), "standby"),
    _answered("a locked asker, ARP", asks(request()), ARP_ANSWER, _then(_named, _locked)),
    _answered("a locked asker, ND", asks(solicitation()), ND_ANSWER, _then(_named, _locked)),
    _answered(
        "a trusted asker, whom nobody inspects",
        asks(solicitation()),
        ND_ANSWER,
        _then(_named, lambda world: world.set_port(1, flags=PortFlag.TRUSTED)),
    ),
)
def test_guards_come_before_answers(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


def test_an_answered_frame_teaches_nothing(world: World) -> None:
    _named(world)
    assert world.run(1, asks(request())).fate == REPLIED
    assert world.entry(BLUE, mac(1)) is None
    assert world.run(1, asks(request(UNKNOWN))).fate == FLOODED
    assert world.whereabouts(BLUE, mac(1)) == 1


ICMPV6_AT, CHECKSUM_AT = 14 + 40, 2


def test_a_question_whose_checksum_is_not_made_yet_goes_to_all(world: World) -> None:
    """The asker's NIC would make it. Of an answer to such a frame the kernel would spoil the checksum."""
    _named(world)
    complete = asks(solicitation())
    pseudo = IPv6Address(ASKER_6).packed + IPv6Address(group_of(ASKED_6)).packed + struct.pack("!II", 24, ICMPV6)
    at = ICMPV6_AT + CHECKSUM_AT
    partial = complete[:at] + bytes(0xFF - octet for octet in checksum(pseudo)) + complete[at + 2 :]
    outcome = world.send(1, partial, VNET_HDR.pack(NEEDS_CSUM, 0, 0, 0, ICMPV6_AT, CHECKSUM_AT))
    assert outcome.fate == FLOODED
    assert outcome.frames[2] == [complete]


def test_a_frame_that_stands_for_several_is_no_question(world: World) -> None:
    _named(world)
    assert world.run(1, asks(padded(request())), gso_size=20).fate == FLOODED


def test_a_hundred_unknown_addresses_go_to_all_and_leave_no_trace(world: World) -> None:
    _named(world)
    before = list(world.rig.maps["neighbours"].batches())
    for number in range(100):
        assert world.run(1, asks(request(f"10.0.1.{number}"))).fate == FLOODED
    assert [batch.count for batch in world.rig.maps["neighbours"].batches()] == [batch.count for batch in before]


# --- leases beside what the agent writes ----------------------------------------------------------


def _row(handle: int) -> tuple[int, NeighbourRow]:
    address = ip_address(ASKED)
    row = NeighbourRow(
        port=handle,
        segment=BLUE,
        family=4,
        origin=NeighbourOrigin.LISTED,
        octets=address.packed.ljust(16, b"\0"),
        mac=handle,
    )
    return neighbour_key(BLUE, address), row


def test_leases_are_no_rows_of_the_agents_and_stay_when_those_go(place: Place) -> None:
    datapath = place.opened()
    key, row = _row(3)
    lease = abi.NEIGHBOUR.pack(port=4, segment=BLUE, family=4, origin=NeighbourOrigin.LEASED, octets=row.octets, mac=9)
    datapath.put(PutRow(table=Table.NEIGHBOURS, key=key, row=row))
    assert datapath.rows()[Table.NEIGHBOURS, key] == row
    there = place.map("neighbours")
    there.update(codec.encode_key(Table.NEIGHBOURS, key), lease)
    assert (Table.NEIGHBOURS, key) not in datapath.rows()
    datapath.delete(DeleteRow(table=Table.NEIGHBOURS, key=key, old=row))
    assert there.lookup(codec.encode_key(Table.NEIGHBOURS, key)) == lease
    datapath.put(PutRow(table=Table.NEIGHBOURS, key=key, row=row))
    datapath.delete(DeleteRow(table=Table.NEIGHBOURS, key=key, old=row))
    assert there.lookup(codec.encode_key(Table.NEIGHBOURS, key)) is None
