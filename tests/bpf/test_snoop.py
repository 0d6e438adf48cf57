"""Step 18: what the messages of IGMP, MLD and PIM leave behind. Who gets a frame because of it: test_groups.py."""

from __future__ import annotations

from typing import Any

import pytest

from support.frames import ethernet, ipv4, mac, raw, vlan
from support.groups import IPV4, IPV6, MEMBERSHIP_S, QUERIER_S, ROUTER, Groups, Listening, Querier, now_ns
from support.multicast import (
    ALL_V2_ROUTERS,
    ALLOW,
    BLOCK,
    IGMP,
    IS_EX,
    IS_IN,
    MLD2_REPORT,
    MLD_REPORT,
    TO_EX,
    TO_IN,
    V1_REPORT,
    V2_REPORT,
    broken,
    data,
    group_mac,
    hello,
    igmp,
    leave,
    mld,
    octets,
    query,
    records,
    report,
    to_group,
)
from support.outcome import FLOODED
from support.rows import Way, enter
from support.world import BLUE, NANOSECONDS, RED, World
from vxagent.core.tables import PortFlag, SegmentFlag

G4, G6, OTHER4, OTHER6 = "239.1.1.1", "ff05::1:3", "239.1.1.2", "ff0e::101"
BOTH = pytest.mark.parametrize("group", [G4, G6])
QUERIES = pytest.mark.parametrize("version", [1, 2, 3, 61, 62])
EACH_WAY = pytest.mark.parametrize("way", [Way.WIRE, Way.BYTES, Way.METADATA])
LEAVE_S = 2
MAX_RECORDS, JOINS, JOINS_UPLINK = 64, 256, 4096  # snoop.h
TICKS_PER_NS = 16  # rate.h
NEAR = 1.5  # seconds that a slow machine may take between a frame and a look at its row


def _other(group: str) -> str:
    return OTHER4 if group == G4 else OTHER6


def _index(version: int) -> int:
    return IPV6 if version >= 6 else IPV4


# -- Joins -------------------------------------------------------------------------------------------------------------

JOINS_OF = {
    "IGMPv1": (G4, report(G4, version=V1_REPORT)),
    "IGMPv2": (G4, report(G4)),
    "MLDv1": (G6, report(G6)),
    "MLDv1 from ::": (G6, mld(MLD_REPORT, bytes(4) + octets(G6), G6, source="::")),
    "MLDv1 behind longer options": (G6, mld(MLD_REPORT, bytes(4) + octets(G6), G6, extensions=((0, 16),))),
    **{
        f"{version} {name}": (group, records((group, kind, sources)))
        for version, group in (("IGMPv3", G4), ("MLDv2", G6))
        for name, kind, sources in (
            ("is to exclude nobody", IS_EX, 0),
            ("is to exclude one", IS_EX, 1),
            ("is to include one", IS_IN, 1),
            ("changes to exclude", TO_EX, 0),
            ("changes to include two", TO_IN, 2),
            ("allows one", ALLOW, 1),
        )
    },
}


@pytest.mark.parametrize("name", JOINS_OF)
@pytest.mark.parametrize("querier", [True, False], ids=["with a querier", "without"])
def test_a_report_makes_a_membership(world: World, name: str, querier: bool) -> None:
    groups = Groups(world, querier=querier)
    group, frame = JOINS_OF[name]
    assert world.send(1, frame).fate == FLOODED
    assert set(groups.members()) == {(BLUE, 1, group)}
    assert groups.members()[BLUE, 1, group] == pytest.approx(MEMBERSHIP_S, abs=NEAR)


@pytest.mark.parametrize("name", JOINS_OF)
def test_a_segment_that_is_not_snooped_notes_nothing(world: World, name: str) -> None:
    groups = Groups(world)
    world.set_segment(BLUE, flags=SegmentFlag(0))
    assert world.send(1, JOINS_OF[name][1]).fate == FLOODED
    assert groups.members() == {}


@BOTH
@EACH_WAY
@pytest.mark.parametrize(("port", "vid", "segment"), [(6, 110, BLUE), (6, 120, RED), (7, 30, RED), (9, 10, BLUE)])
def test_a_tag_says_in_which_segment(world: World, group: str, way: Way, port: int, vid: int, segment: int) -> None:
    groups = Groups(world)
    frame = report(group, vlan(vid, pcp=3), sender=60)
    enter(world, way)(port, frame)
    assert set(groups.members()) == {(segment, port, group)}


@BOTH
def test_a_second_tag_hides_a_report(world: World, group: str) -> None:
    groups = Groups(world)
    assert world.run(9, report(group, vlan(10), vlan(20), sender=50)).fate == FLOODED
    assert groups.members() == {}


def test_one_report_names_several_groups(world: World) -> None:
    groups = Groups(world)
    world.send(1, records((G4, TO_EX), (OTHER4, IS_IN, 3), ("239.1.1.3", ALLOW, 1, 2), ("239.1.1.4", TO_EX)))
    world.send(1, records((G6, TO_EX), (OTHER6, IS_IN, 3), ("ff05::3", ALLOW, 1, 2), ("ff05::4", TO_EX)))
    joined = {G4, OTHER4, "239.1.1.3", "239.1.1.4", G6, OTHER6, "ff05::3", "ff05::4"}
    assert set(groups.members()) == {(BLUE, 1, group) for group in joined}


@BOTH
def test_a_report_keeps_a_membership(world: World, group: str) -> None:
    groups = Groups(world)
    groups.join(1, group, left_s=60)
    groups.join(2, group, left_s=60)
    world.send(1, report(group))
    assert groups.members()[BLUE, 1, group] == pytest.approx(MEMBERSHIP_S, abs=NEAR)
    assert groups.members()[BLUE, 2, group] == pytest.approx(60, abs=NEAR)


@BOTH
def test_a_row_of_an_earlier_place_is_written_anew(world: World, group: str) -> None:
    groups = Groups(world)
    groups.join(1, group, since=7)
    groups.put_listening(1, BLUE, Listening(since=8, settled=groups.listening(1).settled))
    world.send(1, report(group))
    assert set(world.send(2, data(group, sender=2)).frames) == {1, ROUTER}


# -- What makes none ---------------------------------------------------------------------------------------------------


def _shortened(frame: bytes) -> bytes:
    """An IPv4 packet that says of itself that it has no bytes."""
    return frame[:16] + bytes(2) + frame[18:]


NO_JOINS = {
    "a link-local group of IPv4": report("224.0.0.251"),
    "a link-local group of IPv6": report("ff02::fb"),
    "a link-local group in a record": records(("224.0.0.251", TO_EX)),
    "a link-local group in a record of MLDv2": records(("ff02::fb", TO_EX)),
    "no group in a record": records(("10.0.0.1", TO_EX)),
    "no group in a record of MLDv2": records(("2001:db8::1", TO_EX)),
    "a record of nothing allowed": records((G4, ALLOW)),
    "a record that blocks": records((G4, BLOCK, 1)),
    "a record of MLDv2 that blocks": records((G6, BLOCK, 1)),
    "a record of an unknown type": records((G4, 7, 1)),
    "a TTL of 2": igmp(bytes([V2_REPORT, 0, 0, 0]) + octets(G4), G4, ttl=2),
    "a hop limit of 2": mld(MLD_REPORT, bytes(4) + octets(G6), G6, hops=2),
    "a source that is not link-local": mld(MLD_REPORT, bytes(4) + octets(G6), G6, source="2001:db8::1"),
    "no router alert": mld(MLD_REPORT, bytes(4) + octets(G6), G6, extensions=()),
    "another destination": igmp(bytes([V2_REPORT, 0, 0, 0]) + octets(G4), OTHER4),
    "another destination of MLDv1": mld(MLD_REPORT, bytes(4) + octets(G6), OTHER6),
    "seven bytes": igmp((bytes([V2_REPORT, 0, 0, 0]) + octets(G4))[:7], G4),
    "an MLD report of 20 bytes": mld(MLD_REPORT, octets(G6), G6),
    "an unknown type": igmp(bytes([0x7F, 0, 0, 0]) + octets(G4), G4),
    "an unknown type of MLD": mld(200, bytes(4) + octets(G6), G6),
    "another protocol": to_group(G4, ipv4(raw(47, bytes([V2_REPORT, 0, 0, 0]) + octets(G4)), destination=G4, ttl=1)),
    "a fragment": to_group(
        G4, ipv4(raw(IGMP, bytes([V2_REPORT, 0, 0, 0]) + octets(G4)), destination=G4, ttl=1, fragment=0x2000)
    ),
    "unicast": ethernet(
        mac(99), mac(1), ipv4(raw(IGMP, bytes([V2_REPORT, 0, 0, 0]) + octets(G4)), destination=G4, ttl=1)
    ),
    "an MLDv2 report of eight bytes": mld(MLD2_REPORT, bytes(4), ALL_V2_ROUTERS),
    "a number without records": records((G4, TO_EX), count=2),
    "a number without records of MLDv2": records((G6, TO_EX), count=2),
    "a packet that ends in its own header": _shortened(report(G4)),
    "records cut by a byte": records((G4, TO_EX), (OTHER4, IS_IN, 2), cut=1),
    "records of MLDv2 cut by a byte": records((G6, TO_EX), (OTHER6, IS_IN, 2), cut=1),
    "a record of more sources than there are": records((G4, TO_EX), (OTHER4, TO_IN, 2), cut=8),
    "auxiliary data that is not there": records((G4, TO_EX), (OTHER4, TO_EX, 0, 1), cut=4),
    "a length beyond the frame": report(G4)[:-2],
}


@pytest.mark.parametrize("name", NO_JOINS)
def test_no_membership_of(world: World, name: str) -> None:
    groups = Groups(world)
    before = [groups.listening(port) for port in range(1, 11)]
    assert world.send(1, NO_JOINS[name]).fate == FLOODED
    assert groups.members() == {}
    assert [groups.listening(port) for port in range(1, 11)] == before


def test_what_a_port_may_not_send_says_nothing(world: World) -> None:
    groups = Groups(world)
    assert world.send(8, report(G4, sender=77)).fate == "src_mac_denied"
    assert world.send(2, query(2, sender=2)).fate == FLOODED
    world.set_port(2, flags=PortFlag.MAC_LOCKED)
    assert world.send(2, report(G4, sender=2)).fate == "src_mac_denied"
    assert groups.members() == {}


# -- Leaves ------------------------------------------------------------------------------------------------------------

LEAVES = {
    "IGMPv2": (G4, leave(G4)),
    "MLDv1": (G6, leave(G6)),
    "IGMPv3": (G4, records((G4, TO_IN))),
    "IGMPv3, in a current state": (G4, records((G4, IS_IN))),
    "MLDv2": (G6, records((G6, TO_IN))),
}


@pytest.mark.parametrize("name", LEAVES)
def test_who_leaves_leaves_others_the_time_to_say_that_they_stay(world: World, name: str) -> None:
    groups = Groups(world)
    group, frame = LEAVES[name]
    for port in (1, 2):
        groups.join(port, group)
        groups.join(port, _other(group))
    world.send(1, frame)
    left = groups.members()
    assert left[BLUE, 1, group] == pytest.approx(LEAVE_S, abs=NEAR)
    for other in ((1, _other(group)), (2, group), (2, _other(group))):
        assert left[BLUE, *other] == pytest.approx(100, abs=NEAR)
    world.send(1, report(group))
    assert groups.members()[BLUE, 1, group] == pytest.approx(MEMBERSHIP_S, abs=NEAR)


@pytest.mark.parametrize("name", LEAVES)
def test_who_leaves_what_it_never_joined_makes_no_row(world: World, name: str) -> None:
    groups = Groups(world)
    world.send(1, LEAVES[name][1])
    assert groups.members() == {}


@pytest.mark.parametrize("name", LEAVES)
def test_to_leave_once_more_gains_no_time(world: World, name: str) -> None:
    groups = Groups(world)
    group, frame = LEAVES[name]
    groups.join(1, group, left_s=0.5)
    world.send(1, frame)
    assert groups.members()[BLUE, 1, group] < 0.5


def test_of_two_hosts_behind_an_uplink_one_leaves(world: World) -> None:
    """The querier asks for the other one, which answers: the port stays a member."""
    groups = Groups(world)
    for host in (51, 52):
        world.send(10, report(G4, vlan(10), sender=host))
    world.send(10, leave(G4, vlan(10), sender=51))
    assert 10 in world.send(1, data(G4)).frames
    assert 10 in groups.ports(G4)
    world.send(1, query(2, group=G4))
    world.send(10, report(G4, vlan(10), sender=52))
    assert groups.members()[BLUE, 10, G4] == pytest.approx(MEMBERSHIP_S, abs=NEAR)


# -- Queriers and routers ----------------------------------------------------------------------------------------------


@QUERIES
@pytest.mark.parametrize(
    ("port", "tags"), [(1, ()), (9, (vlan(10),)), (6, (vlan(110),))], ids=["access", "uplink", "trunk"]
)
def test_a_general_query_makes_a_querier_and_a_router(
    world: World, version: int, port: int, tags: tuple[bytes, ...]
) -> None:
    groups = Groups(world, querier=False)
    before = now_ns()
    world.send(port, query(version, *tags, sender=50))
    at = _index(version)
    began, until = groups.querier().began[at], groups.querier().until[at]
    assert (began - before) / NANOSECONDS == pytest.approx(0, abs=NEAR)
    assert until - began == QUERIER_S * NANOSECONDS
    assert groups.listening(port).router[at] == until
    assert groups.listening(port).router[1 - at] == groups.querier().until[1 - at] == 0
    assert groups.querier(RED) == Querier()


@QUERIES
def test_another_query_keeps_the_querier(world: World, version: int) -> None:
    groups = Groups(world)
    before, at = groups.querier(), _index(version)
    settled = [groups.listening(port).settled[at] for port in range(1, 11)]
    world.send(9, query(version, vlan(10), sender=50))
    assert groups.querier().began[at] == before.began[at]
    assert groups.querier().until[at] > before.until[at]
    assert [groups.listening(port).settled[at] for port in range(1, 11)] == settled


@QUERIES
def test_a_querier_after_a_pause_begins_anew(world: World, version: int) -> None:
    groups = Groups(world, querier=False)
    groups.know_querier(until_s=-10)
    before, at = groups.querier().began[_index(version)], _index(version)
    world.send(9, query(version, vlan(10), sender=50))
    assert groups.querier().began[at] > before


NO_QUERIES: dict[str, tuple[int, dict[str, Any]]] = {
    "for a group": (2, {"group": G4}),
    "for a group, to all": (3, {"group": G4, "destination": "224.0.0.1"}),
    "for a group of IPv6": (62, {"group": G6}),
    "without a source": (2, {"source": "0.0.0.0"}),
    "without a source of IPv6": (61, {"source": "::"}),
    "from a global address": (62, {"source": "2001:db8::9"}),
    "that is routed": (3, {"ttl": 2}),
    "that is routed by IPv6": (61, {"ttl": 2}),
    "for sources": (3, {"sources": 1}),
    "for sources of IPv6": (62, {"sources": 1}),
    "to another destination": (2, {"destination": "224.0.0.5"}),
    "to another destination of IPv6": (61, {"destination": "ff02::5"}),
}


@pytest.mark.parametrize("name", NO_QUERIES)
def test_no_querier_by_a_query(world: World, name: str) -> None:
    groups = Groups(world, querier=False)
    version, options = NO_QUERIES[name]
    assert world.send(1, query(version, **options)).fate == FLOODED
    assert groups.querier() == Querier()
    assert groups.listening(1) == Listening()


@QUERIES
def test_no_querier_by_a_broken_query(world: World, version: int) -> None:
    groups = Groups(world, querier=False)
    assert world.send(1, broken(query(version))).fate == FLOODED
    assert groups.querier() == Querier()


@QUERIES
def test_no_querier_by_a_query_that_hosts_do_not_hear(world: World, version: int) -> None:
    """Its MAC is that of another group, or a station's."""
    groups = Groups(world, querier=False)
    frame = query(version)
    world.send(1, group_mac(G6 if version >= 6 else G4) + frame[6:])
    world.send(1, mac(99) + frame[6:])
    assert groups.querier() == Querier()


@pytest.mark.parametrize("version", [4, 6])
def test_a_pim_hello_makes_a_router_and_no_querier(world: World, version: int) -> None:
    groups = Groups(world, querier=False)
    before = now_ns()
    world.send(2, hello(version, sender=2))
    at = _index(version)
    assert (groups.listening(2).router[at] - before) / NANOSECONDS == pytest.approx(QUERIER_S, abs=NEAR)
    assert groups.querier() == Querier()


@pytest.mark.parametrize("version", [4, 6])
def test_a_pim_hello_that_is_routed_makes_no_router(world: World, version: int) -> None:
    groups = Groups(world, querier=False)
    world.send(2, hello(version, sender=2, ttl=64))
    assert groups.listening(2) == Listening()


@pytest.mark.parametrize(
    ("version", "code", "seconds"),
    [
        (1, 0, 10),
        (2, 127, 12.7),
        (2, 0x80, 12.8),
        (3, 0x80, 12.8),
        (3, 0xFF, 31 * 2**10 / 10),
        (61, 0x8000, 32.768),
        (61, 0xFFFF, 65.535),
        (62, 0x7FFF, 32.767),
        (62, 0x8000, 32.768),
        (62, 0xFFFF, 8191 * 2**10 / 1000),
    ],
)
def test_hosts_have_as_long_as_the_query_says(world: World, version: int, code: int, seconds: float) -> None:
    groups = Groups(world, querier=False)
    world.send(9, query(version, vlan(10), sender=50, response_ms=code * 100 if version < 6 else code))
    at = _index(version)
    assert (groups.listening(2).settled[at] - groups.querier().began[at]) / NANOSECONDS == pytest.approx(seconds)


@QUERIES
def test_a_query_asks_those_that_it_reaches(world: World, version: int) -> None:
    """Not its own port, not the other uplink, which no frame of an uplink goes to."""
    groups = Groups(world, querier=False)
    world.send(9, query(version, vlan(10), sender=50))
    at = _index(version)
    asked = {port for port in range(1, 11) if groups.listening(port).settled[at]}
    assert asked == {1, 2, 3, 4, 6, 7, 8}
    assert not any(groups.listening(port).settled[1 - at] for port in range(1, 11))
    assert not any(groups.listening(port, RED).settled[at] for port in range(1, 11))


@QUERIES
def test_an_isolated_querier_does_not_ask_isolated_ports(world: World, version: int) -> None:
    """They get every group: nobody will ever say what they have joined."""
    groups = Groups(world, querier=False)
    group = G6 if version >= 6 else G4
    world.send(3, query(version, sender=3, response_ms=100))
    assert groups.listening(4).settled[_index(version)] == 0
    assert 4 in world.send(1, data(group)).frames


@QUERIES
def test_a_new_port_is_asked_by_the_next_query(world: World, version: int) -> None:
    groups = Groups(world)
    at = _index(version)
    groups.put_listening(2, BLUE, Listening(since=now_ns()))
    world.send(9, query(version, vlan(10), sender=50))
    assert groups.listening(2).settled[at] > groups.querier().began[at]


# -- What there is no room for -----------------------------------------------------------------------------------------


def _many(count: int, family: int = 4, first: int = 1) -> list[str]:
    return [f"239.2.{n >> 8}.{n & 255}" if family == 4 else f"ff05::2:{n:x}" for n in range(first, first + count)]


def _unsettled_s(groups: Groups, port: int, at: int) -> float:
    return (groups.listening(port).settled[at] - now_ns()) / NANOSECONDS


@pytest.mark.parametrize("family", [4, 6])
def test_as_many_records_as_are_looked_at(world: World, family: int) -> None:
    groups = Groups(world)
    names = _many(MAX_RECORDS, family)
    world.send(1, records(*((group, TO_EX) for group in names)))
    assert set(groups.members()) == {(BLUE, 1, group) for group in names}
    assert groups.listening(1).refused == 0


@pytest.mark.parametrize("family", [4, 6])
def test_a_port_that_reports_more_records_gets_every_group(world: World, family: int) -> None:
    groups = Groups(world)
    at = IPV4 if family == 4 else IPV6
    world.send(1, records(*((group, TO_EX) for group in _many(MAX_RECORDS + 1, family))))
    assert groups.members() == {}
    assert groups.listening(1).refused == 1
    assert _unsettled_s(groups, 1, at) == pytest.approx(MEMBERSHIP_S, abs=NEAR)
    assert _unsettled_s(groups, 1, 1 - at) < 0
    assert set(world.send(2, data(G4 if family == 4 else G6, sender=2)).frames) == {1, ROUTER}


def _join_many(world: World, port: int, names: list[str], *tags: bytes) -> None:
    for start in range(0, len(names), MAX_RECORDS):
        world.run(port, records(*((group, TO_EX) for group in names[start : start + MAX_RECORDS]), tags=tags))


@pytest.mark.parametrize("family", [4, 6])
def test_a_port_joins_so_many_groups_at_once(world: World, family: int) -> None:
    """The bucket fills while the test runs: a few more may find room."""
    groups = Groups(world)
    at = IPV4 if family == 4 else IPV6
    _join_many(world, 1, _many(JOINS, family))
    assert (len(groups.members()), groups.listening(1).refused) == (JOINS, 0)
    _join_many(world, 1, _many(2 * MAX_RECORDS, family, first=1000))
    refused = groups.listening(1).refused
    assert len(groups.members()) + refused == JOINS + 2 * MAX_RECORDS
    assert refused > MAX_RECORDS
    assert _unsettled_s(groups, 1, at) == pytest.approx(MEMBERSHIP_S, abs=NEAR)
    world.run(2, report(G4, sender=2))
    assert (BLUE, 2, G4) in groups.members()


def test_a_port_that_is_at_its_limit_keeps_what_it_has(world: World) -> None:
    groups = Groups(world)
    full = now_ns() * TICKS_PER_NS + MEMBERSHIP_S * NANOSECONDS * TICKS_PER_NS
    groups.put_listening(1, BLUE, Listening(settled=groups.listening(1).settled, joins=full))
    groups.join(1, G4, left_s=60)
    world.send(1, report(G4))
    world.send(1, report(OTHER4))
    assert set(groups.members()) == {(BLUE, 1, G4)}
    assert groups.members()[BLUE, 1, G4] == pytest.approx(MEMBERSHIP_S, abs=NEAR)
    assert groups.listening(1).refused == 1


def test_an_uplink_may_join_more(world: World) -> None:
    groups = Groups(world)
    _join_many(world, 10, _many(2 * JOINS), vlan(10))
    assert (len(groups.members()), groups.listening(10).refused) == (2 * JOINS, 0)


def test_with_a_full_map_a_port_gets_every_group(world: World) -> None:
    groups = Groups(world)
    groups.join(1, G4, left_s=60)
    for number in range(world.rig.maps["groups"].spec.max_entries - 1):
        groups.join(number // 256, f"239.3.0.{number % 256}", segment=40)
    world.send(1, report(OTHER4))
    assert _unsettled_s(groups, 1, IPV4) == pytest.approx(MEMBERSHIP_S, abs=NEAR)
    assert groups.listening(1).refused == 1
    assert (BLUE, 1, OTHER4) not in groups.members()
    world.send(1, report(G4))
    assert groups.members()[BLUE, 1, G4] == pytest.approx(MEMBERSHIP_S, abs=NEAR)
