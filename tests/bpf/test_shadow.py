"""Shadow mode: what a port's guards and limits refuse is counted apart, and goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from support.frames import L3, NA, RA, arp, ethernet, ipv4, ipv6, mac, nd, tcp, udp, vlan
from support.outcome import FORWARDED, Outcome
from support.rows import Row, Way, check, rows
from support.world import BLUE, World
from vxagent.core.tables import FdbFlag, LimitsRow, PortFlag, Table
from vxagent.datapath.abi import DropKind

Prepare = Callable[[World], object]

OWN, FOREIGN, FOREIGN_6 = "10.0.0.1", "10.0.0.2", "2001:db8::2"
STRANGER = mac(77)


def _shadow(world: World, *flags: PortFlag) -> None:
    for flag in (PortFlag.SHADOW, *flags):
        world.set_port(1, flags=world.ports[1].flags | flag)


def _nothing(_: World) -> None:
    """Only the guards that every port has."""


def _macs(world: World) -> None:
    world.set_port(1, flags=world.ports[1].flags | PortFlag.MAC_LOCKED)
    world.state_static(BLUE, mac(1), 1, FdbFlag.LISTED)


def _macs_and_ips(world: World) -> None:
    _macs(world)
    _ips(world)


def _ips(world: World) -> None:
    world.list_ips(1, OWN)


def _another_has_it(world: World) -> None:
    world.state_static(BLUE, STRANGER, 2)


def _rate(world: World) -> None:
    """A bucket of 64 frames that lasts for a minute, all taken."""
    _limit(world, "in_packets")


def _storm(world: World) -> None:
    _limit(world, "unknown")


def _limit(world: World, name: str) -> None:
    world.set_port(1, flags=world.ports[1].flags | PortFlag.LIMITED_IN)
    world.rig.put(Table.LIMITS, 1, LimitsRow(**{name: 1}))
    for _ in range(70):
        world.run(1, ethernet(mac(66), mac(1)))


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A frame to port 2, what is wrong with it, and for whom."""

    frame: bytes
    prepare: Prepare
    reasons: tuple[str, ...]
    segment: int = BLUE


def _frame(inside: L3 | None = None, source: bytes = mac(1)) -> bytes:
    return ethernet(mac(2), source, inside)


FAULTS = {
    "a MAC that it does not list": Fault(frame=_frame(None, STRANGER), prepare=_macs, reasons=("src_mac_denied",)),
    "a MAC that is another's": Fault(
        frame=_frame(None, STRANGER), prepare=_another_has_it, reasons=("src_mac_conflict",)
    ),
    "an IP that it does not list": Fault(
        frame=_frame(ipv4(tcp(), source=FOREIGN)), prepare=_ips, reasons=("src_ip_denied",)
    ),
    "ARP for another": Fault(
        frame=_frame(arp(FOREIGN, FOREIGN, sender_mac=mac(1))), prepare=_ips, reasons=("arp_spoof",)
    ),
    "ND for another": Fault(
        frame=_frame(ipv6(nd(NA, FOREIGN_6), source="fe80::1")), prepare=_ips, reasons=("nd_spoof",)
    ),
    "a DHCP server": Fault(
        frame=_frame(ipv4(udp(bytes(8), source=67))), prepare=_nothing, reasons=("dhcp_server_denied",)
    ),
    "a router": Fault(frame=_frame(ipv6(nd(RA))), prepare=_nothing, reasons=("ra_denied",)),
    "more than its rate": Fault(frame=_frame(), prepare=_rate, reasons=("rate_limited",)),
    "more unknown unicast": Fault(frame=_frame(), prepare=_storm, reasons=("storm_limited",)),
    "several faults": Fault(
        frame=_frame(ipv4(udp(bytes(8), source=67), source=FOREIGN), STRANGER),
        prepare=_macs_and_ips,
        reasons=("src_mac_denied", "src_ip_denied", "dhcp_server_denied"),
    ),
    "a header that only guards mind": Fault(
        frame=_frame(ipv4(tcp(), ihl=4)), prepare=_nothing, reasons=("malformed",), segment=0
    ),
    "a header of which no guard can say more": Fault(
        frame=_frame(ipv4(tcp(), source=FOREIGN, ihl=4)), prepare=_ips, reasons=("malformed",), segment=0
    ),
}


def _run(world: World, fault: Fault, way: Way = Way.WIRE) -> Outcome:
    known = "unknown" if "storm_limited" in fault.reasons else "known"
    if known == "known":
        world.learn(BLUE, mac(2), 2)
    return (world.send if way is Way.WIRE else world.run)(1, fault.frame)


@pytest.mark.parametrize("way", [Way.WIRE, Way.BYTES])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
def test_what_would_be_dropped_goes_on_and_is_counted(world: World, fault: Fault, way: Way) -> None:
    fault.prepare(world)
    before = world.rig.drops(DropKind.SHADOW)
    _shadow(world)
    outcome = _run(world, fault, way)
    assert before == {}
    assert outcome.fate == ("flooded" if "storm_limited" in fault.reasons else FORWARDED)
    assert outcome.sent[2] == (1, len(fault.frame))
    size = len(fault.frame)
    assert world.rig.drops(DropKind.SHADOW) == {(1, fault.segment, reason): (1, size) for reason in fault.reasons}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
def test_in_force_it_is_dropped_for_the_first(world: World, fault: Fault) -> None:
    """The same frames: nothing above passes for want of a guard."""
    fault.prepare(world)
    assert _run(world, fault).fate == fault.reasons[0]
    assert world.rig.drops(DropKind.SHADOW) == {}


@rows(
    *(
        Row(name=name, frame=frame, knows=((BLUE, 2), (BLUE, 1)), prepare=_shadow, fate=fate, where=where)
        for name, frame, fate, where in (
            ("a tag on an access port", ethernet(mac(2), mac(1), None, vlan(10)), "vlan_denied", (1, 0)),
            ("no sender", ethernet(mac(2), bytes(6)), "src_invalid", (1, BLUE)),
            ("to its own port", ethernet(mac(1), mac(1)), "hairpin", (1, BLUE)),
            ("more than the MTU", ethernet(mac(2), mac(1), L3(0x88B5, bytes(1501))), "mtu_exceeded", (1, BLUE)),
            ("to the bridge group", ethernet(bytes.fromhex("0180c2000000"), mac(1)), "link_local", (1, 0)),
        )
    ),
)
def test_what_keeps_segments_apart_is_in_force_all_the_same(world: World, row: Row, way: Way) -> None:
    check(world, row, way)
    assert world.rig.drops(DropKind.SHADOW) == {}


def test_a_source_that_the_locks_refuse_is_learned(world: World) -> None:
    """So that answers to it find their way, as they would without the lock."""
    _macs(world)
    _shadow(world)
    world.run(1, _frame(None, STRANGER))
    assert world.whereabouts(BLUE, STRANGER) == 1


def test_a_source_that_is_anothers_stays_there(world: World) -> None:
    _another_has_it(world)
    _shadow(world)
    world.run(1, _frame(None, STRANGER))
    assert world.whereabouts(BLUE, STRANGER) == 2


def test_a_shadowed_port_gets_what_others_may_not_send(world: World) -> None:
    """The mode is the sender's: it does not open the port for others' frames."""
    _shadow(world)
    world.set_port(2, flags=PortFlag.ISOLATED)
    world.learn(BLUE, mac(1), 1)
    world.list_ips(2, FOREIGN)
    assert world.run(2, ethernet(mac(1), mac(2), ipv4(tcp(), source="10.9.9.9"))).fate == "src_ip_denied"


def test_kinds_of_drops_are_counted_apart(world: World) -> None:
    _ips(world)
    frame = _frame(ipv4(tcp(), source=FOREIGN))
    world.run(1, frame)
    _shadow(world)
    world.run(1, frame)
    world.run(1, frame)
    one = (1, BLUE, "src_ip_denied")
    size = len(frame)
    assert (world.rig.drops()[one], world.rig.drops(DropKind.SHADOW)[one]) == ((1, size), (2, 2 * size))
