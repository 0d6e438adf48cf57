"""Step 18 where multicast follows IGMP and MLD: who gets a frame for a group.

Blue and red of `support.world` are snooped; unless a test says otherwise a querier is behind uplink 9, all ports were
asked and have answered. What messages are made of these memberships: test_snoop.py.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import pytest

from support.frames import BROADCAST, L3, NS, arp, ethernet, ipv4, ipv6, mac, nd, raw, udp, vlan
from support.groups import ROUTER, Groups, Listening, now_ns
from support.multicast import IGMP, data, group_mac, igmp, octets, query, report, to_group
from support.outcome import FLOODED, TC_ACT_SHOT
from support.rows import Row, Way, check, rows
from support.world import BLUE, NANOSECONDS, RED, World, blue
from vxagent.core.tables import LimitsRow, PortFlag, SegmentFlag, Table
from vxagent.datapath import abi
from vxagent.datapath.abi import Prog
from vxagent.model.ids import MAX_MEMBERS

TICKS_PER_NS, TICKS_PER_S = 16, 16 * NANOSECONDS  # rate.h

G4, G6 = "239.1.1.1", "ff05::1:3"
SOLICITED = "ff02::1:ff00:2"
BOTH = pytest.mark.parametrize("group", [G4, G6])
EVERYBODY = (2, 3, 4, 6, 7, 8, 9, 10)


def _copies(frame: bytes, vids: dict[int, int]) -> dict[int, bytes]:
    """Port → an untagged frame as that port gets it."""
    return {port: frame[:12] + vlan(vid) + frame[12:] if vid else frame for port, vid in vids.items()}


def _joined(*ports: int, group: str = "", segment: int = BLUE) -> Callable[[World], None]:
    def prepare(world: World) -> None:
        groups = Groups(world)
        for port in ports:
            for of in (group,) if group else (G4, G6):
                groups.join(port, of, segment=segment)

    return prepare


def _row(
    name: str,
    frame: bytes,
    *takers: int,
    prepare: Callable[[World], object] = Groups,
    ways: tuple[Way, ...] = tuple(Way),
) -> Row:
    return Row(name=name, frame=frame, prepare=prepare, fate=FLOODED, out=_copies(frame, blue(*takers)), ways=ways)


@rows(
    *(_row(f"members and the router of {g}", data(g), 2, 6, ROUTER, prepare=_joined(2, 6)) for g in (G4, G6)),
    *(_row(f"a group that nobody joined, {g}", data(g), ROUTER) for g in (G4, G6)),
    *(_row(f"a group joined by its sender alone, {g}", data(g), ROUTER, prepare=_joined(1)) for g in (G4, G6)),
    *(
        _row(f"a group joined in another segment, {g}", data(g), ROUTER, prepare=_joined(7, 6, segment=RED))
        for g in (G4, G6)
    ),
    _row("another group", data("239.1.1.2"), ROUTER, prepare=_joined(2, 6)),
    _row("another group with the same MAC", data("238.129.1.1"), ROUTER, prepare=_joined(2)),
    _row("a member that lists MACs", data(G4), 8, ROUTER, prepare=_joined(8)),
    Row(
        name="from a trunk, tagged",
        port=6,
        frame=data(G4, vlan(110), sender=6),
        prepare=_joined(1, 2, 7),
        fate=FLOODED,
        out=_copies(data(G4, sender=6), blue(1, 2, 7, ROUTER)),
    ),
    Row(
        name="the same group in the trunk's other segment",
        port=6,
        frame=data(G4, vlan(120), sender=6),
        segment=RED,
        prepare=_joined(1, 2, 7),
        fate=FLOODED,
        out=_copies(data(G4, sender=6), {ROUTER: 20}),
    ),
    Row(
        name="joined in the trunk's other segment",
        port=6,
        frame=data(G4, vlan(120), sender=6),
        segment=RED,
        prepare=_joined(7, 10, segment=RED),
        fate=FLOODED,
        out=_copies(data(G4, sender=6), {7: 30, ROUTER: 20, 10: 20}),
    ),
    Row(
        name="from an uplink to its members",
        port=9,
        frame=data(G4, vlan(10), sender=50),
        prepare=_joined(2, 10),
        fate=FLOODED,
        out=_copies(data(G4, sender=50), blue(2)),
    ),
    Row(
        name="from an isolated port",
        port=3,
        frame=data(G6, sender=3),
        prepare=_joined(2, 4),
        fate=FLOODED,
        out=_copies(data(G6, sender=3), blue(2, ROUTER)),
    ),
    Row(
        name="with a priority tag",
        frame=data(G4, vlan(0, pcp=5)),
        prepare=_joined(2, 6),
        fate=FLOODED,
        out={2: data(G4), 6: data(G4, vlan(110, pcp=5)), 9: data(G4, vlan(10, pcp=5))},
    ),
)
def test_a_group_goes_to_its_members_and_to_routers(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


def _to(address: bytes, inside: L3) -> bytes:
    return ethernet(address, mac(1), inside)


def _trusting(world: World) -> None:
    """Of trusted ports nothing of IP is looked at before."""
    Groups(world)
    world.set_port(1, flags=PortFlag.TRUSTED)


@rows(
    _row("broadcast", ethernet(BROADCAST, mac(1)), *EVERYBODY),
    _row("an ARP request", ethernet(BROADCAST, mac(1), arp("10.0.0.1", "10.0.0.2", sender_mac=mac(1))), *EVERYBODY),
    _row("unknown unicast", ethernet(mac(99), mac(1)), *EVERYBODY),
    _row("unknown unicast with a group in it", _to(mac(99), ipv4(udp(), destination=G4)), *EVERYBODY),
    _row("multicast that is no IP", ethernet(group_mac(G4), mac(1)), *EVERYBODY),
    _row("another protocol's multicast", ethernet(bytes.fromhex("0180c2000021"), mac(1)), *EVERYBODY),
    *(_row(f"link-local {g}", data(g), *EVERYBODY) for g in ("224.0.0.251", "ff02::fb", "ff01::1", "ff32::1")),
    *(_row(f"all systems, {g}", data(g), *EVERYBODY) for g in ("224.0.0.1", "ff02::1")),
    _row(
        "a solicited-node NS",
        to_group(SOLICITED, ipv6(nd(NS, "2001:db8::2"), destination=SOLICITED)),
        *EVERYBODY,
    ),
    _row("a group's MAC and a unicast IPv4 address", _to(group_mac(G4), ipv4(udp())), *EVERYBODY),
    _row("a group's MAC and a unicast IPv6 address", _to(group_mac(G6), ipv6(udp())), *EVERYBODY),
    _row("IPv4 to a MAC of IPv6", _to(group_mac(G6), ipv4(udp(), destination=G4)), *EVERYBODY),
    *(
        _row(f"of a trusted port, {name}", frame, *EVERYBODY, prepare=_trusting, ways=(Way.WIRE,))
        for name, frame in {
            "an IPv4 header that runs past the end": data(G4)[:30],
            "an IPv6 header that runs past the end": data(G6)[:50],
            "an IPv4 header of four words": _to(group_mac(G4), ipv4(udp(), destination=G4, ihl=4)),
        }.items()
    ),
)
def test_everybody_gets(world: World, row: Row, way: Way) -> None:
    check(world, row, way)


def _takers(world: World, frame: bytes, port: int = 1) -> set[int]:
    outcome = world.send(port, frame)
    assert outcome.fate == FLOODED
    return set(outcome.frames)


# -- What is not known for certain -------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("until_s", [-0.1, -60], ids=["just now", "long ago"])
def test_without_a_querier_everybody_gets_a_group(world: World, group: str, until_s: float) -> None:
    groups = Groups(world, querier=False)
    groups.know_querier(until_s=until_s)
    groups.join(2, group)
    assert _takers(world, data(group)) == set(EVERYBODY)


def test_a_querier_of_one_family_says_nothing_of_the_other(world: World) -> None:
    Groups(world, querier=False)
    world.run(9, query(2, vlan(10), sender=50, response_ms=100))
    assert _takers(world, data(G6)) == set(EVERYBODY)


def test_a_querier_of_one_segment_says_nothing_of_another(world: World) -> None:
    Groups(world, querier=False)
    world.run(9, query(2, vlan(20), sender=50, response_ms=100))
    assert _takers(world, data(G4)) == set(EVERYBODY)


@BOTH
def test_a_membership_that_has_run_out_is_none(world: World, group: str) -> None:
    groups = Groups(world)
    groups.join(2, group, left_s=-0.1)
    groups.join(6, group, left_s=60)
    assert _takers(world, data(group)) == {6, ROUTER}


@BOTH
def test_a_router_that_has_not_been_heard_for_long_is_none(world: World, group: str) -> None:
    groups = Groups(world)
    began, heard = groups.querier().began[0], now_ns() - NANOSECONDS // 10
    groups.put_listening(ROUTER, BLUE, Listening(router=(heard, heard), settled=(began, began)))
    assert _takers(world, data(group)) == set()


@BOTH
@pytest.mark.parametrize("settled", ["never asked", "asked by an earlier querier", "has still time to answer"])
def test_a_port_that_has_not_answered_gets_every_group(world: World, group: str, settled: str) -> None:
    groups = Groups(world)
    began = groups.querier().began[0]
    at = {"never asked": 0, "asked by an earlier querier": began - 1}.get(settled, now_ns() + 60 * NANOSECONDS)
    groups.put_listening(2, BLUE, Listening(settled=(at, at)))
    assert _takers(world, data(group)) == {2, ROUTER}


@BOTH
def test_a_port_inherits_nothing(world: World, group: str) -> None:
    """The numbers of a place that is gone are used again; rows of it may still be there."""
    groups = Groups(world)
    began = groups.querier().began[0]
    groups.join(2, group, since=7)
    groups.put_listening(2, BLUE, Listening(since=8, settled=(began, began)))
    groups.join(6, group, since=9)
    groups.put_listening(6, BLUE, Listening(since=9, settled=(began, began)))
    assert _takers(world, data(group)) == {6, ROUTER}


def test_segments_that_are_not_snooped_take_no_part(world: World) -> None:
    Groups(world)
    world.set_segment(BLUE, flags=SegmentFlag(0))
    assert _takers(world, data(G4)) == set(EVERYBODY)


# -- Messages ----------------------------------------------------------------------------------------------------------


@rows(
    *(_row(f"a report for {g}", report(g), ROUTER, prepare=_joined(2, 6)) for g in (G4, G6)),
    _row("a report of IGMPv1", report(G4, version=0x12), ROUTER, prepare=_joined(2)),
    *(_row(f"a query for {g}", query(v, group=g), *EVERYBODY) for v, g in ((2, G4), (3, G4), (61, G6), (62, G6))),
    *(_row(f"a general query, {v}", query(v), *EVERYBODY) for v in (1, 2, 3, 61, 62)),
    _row("a report that is routed", igmp(b"\x16\0\0\0" + octets(G4), G4, ttl=2), 2, ROUTER, prepare=_joined(2)),
    _row("a report for another group", igmp(b"\x16\0\0\0" + octets("239.9.9.9"), G4), 2, ROUTER, prepare=_joined(2)),
    _row(
        "a fragment of IGMP",
        to_group(G4, ipv4(raw(IGMP, bytes(8)), destination=G4, fragment=0x2000, ttl=1)),
        2,
        ROUTER,
        prepare=_joined(2),
    ),
)
def test_reports_go_to_routers_alone(world: World, row: Row, way: Way) -> None:
    """A host that hears of another member would keep its own report to itself."""
    check(world, row, way)


@BOTH
def test_a_report_goes_to_no_port_that_has_not_answered(world: World, group: str) -> None:
    groups = Groups(world)
    groups.put_listening(2, BLUE, Listening())
    assert _takers(world, report(group)) == {ROUTER}


@BOTH
def test_without_a_querier_reports_go_to_everybody(world: World, group: str) -> None:
    Groups(world, querier=False)
    assert _takers(world, report(group)) == set(EVERYBODY)


# -- Several chunks, missing programs ----------------------------------------------------------------------------------


@BOTH
def test_all_chunks_of_a_full_segment_follow_the_same_group(world: World, group: str) -> None:
    groups = Groups(world)
    for port in EVERYBODY:
        world.leave(port, BLUE)
        world.join(port, BLUE, blue(port)[port], MAX_MEMBERS - 1 if port == 8 else 200 * port)
    groups.join(2, group)
    groups.join(8, group)
    assert _takers(world, data(group)) == {2, 8, ROUTER}


@pytest.fixture
def without(world: World) -> Iterator[Callable[[Prog], object]]:
    """Takes programs out of the tail-call table until the test ends."""
    progs = world.rig.generation.progs
    programs = {Prog.FLOOD: "vx_flood", Prog.SNOOP: "vx_snoop"}
    yield lambda prog: progs.delete(struct.pack("=I", prog))
    for prog, name in programs.items():
        progs.update(struct.pack("=I", prog), struct.pack("=I", world.rig.program(name).fd))


def test_without_its_program_everybody_gets_a_group(world: World, without: Callable[[Prog], object]) -> None:
    Groups(world)
    without(Prog.SNOOP)
    assert _takers(world, data(G4)) == set(EVERYBODY)


def test_without_the_flood_program_a_group_is_dropped_and_counted(
    world: World, without: Callable[[Prog], object]
) -> None:
    Groups(world)
    without(Prog.FLOOD)
    outcome = world.run(1, data(G4))
    assert (outcome.fate, outcome.where, outcome.action) == ("no_destination", (1, BLUE), TC_ACT_SHOT)
    assert outcome.octets == len(data(G4))


@BOTH
def test_a_copy_that_a_rate_refuses_is_counted_for_members_alone(world: World, group: str) -> None:
    groups = Groups(world)
    groups.join(2, group)
    owed = now_ns() * TICKS_PER_NS + TICKS_PER_S
    for port in (2, 3):
        world.set_port(port, flags=PortFlag.LIMITED_OUT)
        world.rig.put(Table.LIMITS, port, LimitsRow(out_packets=64))
        world.rig.maps["buckets"].update(struct.pack("=I", port), abi.BUCKETS.pack(out_packets=owed))
    assert _takers(world, data(group)) == {ROUTER}
    assert set(world.rig.drops(abi.DropKind.COPY)) == {(2, BLUE, "rate_limited")}
