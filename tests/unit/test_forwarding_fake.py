"""The fake data path where a VM migrates: the rows of tests/bpf/test_migration.py, on the fake.

leaving   its port drains: all that is for it goes to HIGHER, marked, from whomever it comes
arriving  its port is in standby, then holds: what is marked is for it, then all is
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.overlay_sim import ALL, ETH2, FURTHER, HIGHER, TAGGED, TAP0, TAP1, A, handle, make
from support.sim import Sim
from vxagent.core.migration import token_of
from vxagent.core.remote import Peer, Remote
from vxagent.core.tables import (
    AWAITING_SLOT,
    LEAVING_SLOT,
    FdbFlag,
    FdbRow,
    MembershipRow,
    Origin,
    PortMode,
    PortRow,
    SegmentFlag,
    SegmentRow,
    Table,
    fdb_key,
    slot_key,
)
from vxagent.datapath.abi import Reason, Verdict
from vxagent.datapath.fake_forwarding import Frame, Outcome
from vxagent.model.binding import Phase, Projection
from vxagent.model.device import Device
from vxagent.model.ids import MAX_LEAVING, int_to_mac
from vxagent.model.port import Port

VM, NEAR, FABRIC = A, 0x020000000002, 0x020000000055
BLUE_VNI = 5010


def place(state: PortMode, *, via: str | None = None, redirect: bool = False) -> Sim:
    """The VM is behind tap0, whose port is in that state; its frames go to the VTEP `via`."""
    sim = make()
    table = sim.datapath.table
    segment = sim.switch.state.handle_of_segment("blue")
    port, beyond = handle(sim, "tap0"), handle(sim, f"vtep/{via}") if via is not None else 0
    flags = FdbFlag.LISTED | (FdbFlag.REDIRECT if redirect else FdbFlag(0))
    table[Table.FDB, fdb_key(segment, VM)] = FdbRow(
        port=port, segment=segment, origin=Origin.STATIC, flags=flags, via=beyond
    )
    row, of = table[Table.PORTS, port], table[Table.SEGMENTS, segment]
    assert isinstance(row, PortRow)
    assert isinstance(of, SegmentRow)
    table[Table.PORTS, port] = replace(row, state=state)
    table[Table.SEGMENTS, segment] = replace(of, flags=SegmentFlag.MOVING if redirect else SegmentFlag(0))
    say(sim, TAP1.ifindex, NEAR, ALL)
    sim.datapath.forward(ETH2.ifindex, Frame(src=FABRIC, dst=ALL, tags=TAGGED))
    return sim


def leaving() -> Sim:
    return place(PortMode.DRAINING, via=HIGHER, redirect=True)


def by_vlan(sim: Sim) -> Sim:
    """The segment has no VNI of its own."""
    segment = sim.switch.state.handle_of_segment("blue")
    row = sim.datapath.table[Table.SEGMENTS, segment]
    assert isinstance(row, SegmentRow)
    sim.datapath.table[Table.SEGMENTS, segment] = replace(row, flags=row.flags | SegmentFlag.BY_VLAN)
    return sim


def say(sim: Sim, ifindex: int, src: int, dst: int) -> Outcome:
    return sim.datapath.forward(ifindex, Frame(src=src, dst=dst))


def tunnelled(vtep: str, *, marked: bool) -> Outcome:
    return Outcome(verdict=Verdict.FORWARDED, tunnelled=frozenset({(vtep, BLUE_VNI)}), marked=marked)


def delivered(ifindex: int, vid: int = 0) -> Outcome:
    return Outcome(verdict=Verdict.FORWARDED, copies=frozenset({(ifindex, vid)}))


def dropped(reason: Reason) -> Outcome:
    return Outcome(verdict=Verdict.DROPPED, reason=reason)


def test_what_is_for_a_vm_that_leaves_follows_it_marked_whoever_sends_it() -> None:
    sim = leaving()
    assert say(sim, TAP1.ifindex, NEAR, VM) == tunnelled(HIGHER, marked=True)
    assert sim.datapath.forward(ETH2.ifindex, Frame(src=FABRIC, dst=VM, tags=TAGGED)) == tunnelled(HIGHER, marked=True)
    for sender in (HIGHER, FURTHER):
        assert sim.datapath.arrive(sender, BLUE_VNI, Frame(src=0x02AA, dst=VM)) == tunnelled(HIGHER, marked=True)


def test_nothing_is_redirected_twice() -> None:
    outcome = leaving().datapath.arrive(FURTHER, BLUE_VNI, Frame(src=0x02AA, dst=VM), marked=True)
    assert outcome == dropped(Reason.LOOP)


def test_the_last_frames_of_a_vm_that_leaves_reach_everybody() -> None:
    sim = leaving()
    assert say(sim, TAP0.ifindex, VM, NEAR) == delivered(TAP1.ifindex)
    assert say(sim, TAP0.ifindex, VM, FABRIC) == delivered(ETH2.ifindex, 10)
    everybody = say(sim, TAP0.ifindex, VM, ALL)
    assert everybody.copies == {(TAP1.ifindex, 0), (ETH2.ifindex, 10)}
    assert len(everybody.tunnelled) == 2


def test_where_the_segment_is_a_vlan_the_fabric_hears_of_it_by_the_other_host_and_all_by_the_fabric() -> None:
    sim = by_vlan(leaving())
    assert say(sim, TAP0.ifindex, VM, NEAR) == delivered(TAP1.ifindex)
    for receiver in (FABRIC, 0x02AA, ALL):
        assert say(sim, TAP0.ifindex, VM, receiver) == tunnelled(HIGHER, marked=True)
    assert say(sim, TAP1.ifindex, NEAR, ALL) == Outcome(verdict=Verdict.FLOODED, copies=frozenset({(ETH2.ifindex, 10)}))


@pytest.mark.parametrize("state", [PortMode.STANDBY, PortMode.HOLDING, PortMode.UP])
def test_the_other_host_tells_the_fabric_and_all_who_are_there_but_the_vm_itself(state: PortMode) -> None:
    sim = by_vlan(place(state, via=HIGHER if state is PortMode.STANDBY else None))
    everybody = sim.datapath.arrive(HIGHER, BLUE_VNI, Frame(src=VM, dst=ALL), marked=True)
    assert everybody.copies == {(TAP1.ifindex, 0), (ETH2.ifindex, 10)}
    assert not everybody.tunnelled


def test_what_is_flooded_follows_a_vm_that_leaves_whoever_sends_it_but_itself() -> None:
    sim = leaving()
    segment, port = sim.switch.state.handle_of_segment("blue"), handle(sim, "tap0")
    row = sim.datapath.table[Table.SEGMENTS, segment]
    assert isinstance(row, SegmentRow)
    sim.datapath.table[Table.SEGMENTS, segment] = replace(row, flags=row.flags | SegmentFlag.LEAVING)
    sim.datapath.table[Table.SLOTS, slot_key(segment, LEAVING_SLOT)] = MembershipRow(
        port=port, segment=segment, vid=0, slot=LEAVING_SLOT, counter=1, via=handle(sim, f"vtep/{HIGHER}"), token=7
    )
    copy = {(HIGHER, BLUE_VNI, 7)}
    assert say(sim, TAP1.ifindex, NEAR, ALL).followed == copy
    assert sim.datapath.forward(ETH2.ifindex, Frame(src=FABRIC, dst=ALL, tags=TAGGED)).followed == copy
    assert sim.datapath.arrive(HIGHER, BLUE_VNI, Frame(src=0x02AA, dst=ALL)).followed == copy
    assert not say(sim, TAP0.ifindex, VM, ALL).followed
    assert not sim.datapath.forward(ETH2.ifindex, Frame(src=VM, dst=ALL, tags=TAGGED)).followed


def test_a_copy_is_for_the_port_in_standby_alone_and_for_none_that_holds() -> None:
    for state, wanted in (
        (PortMode.STANDBY, delivered(TAP0.ifindex)),
        (PortMode.HOLDING, Outcome(verdict=Verdict.FLOODED)),
    ):
        sim = place(state)
        segment, slot = sim.switch.state.handle_of_segment("blue"), AWAITING_SLOT | 7
        sim.datapath.table[Table.SLOTS, slot_key(segment, slot)] = MembershipRow(
            port=handle(sim, "tap0"), segment=segment, vid=0, slot=slot, counter=1
        )
        frame = Frame(src=0x02AA, dst=ALL)
        assert sim.datapath.arrive(HIGHER, BLUE_VNI, frame, marked=True, token=7) == wanted
        assert sim.datapath.arrive(HIGHER, BLUE_VNI, frame, marked=True, token=8) == Outcome(verdict=Verdict.FLOODED)


def test_a_port_that_drains_gets_nothing() -> None:
    assert say(leaving(), TAP1.ifindex, NEAR, ALL).copies == {(ETH2.ifindex, 10)}


def test_what_is_for_a_vm_that_is_awaited_goes_to_where_it_is() -> None:
    assert say(place(PortMode.STANDBY, via=HIGHER), TAP1.ifindex, NEAR, VM) == tunnelled(HIGHER, marked=False)


def test_a_port_in_standby_takes_what_its_vm_has_missed_and_nothing_else() -> None:
    sim = place(PortMode.STANDBY, via=HIGHER)
    frame = Frame(src=0x02AA, dst=VM)
    assert sim.datapath.arrive(FURTHER, BLUE_VNI, frame) == dropped(Reason.NO_DESTINATION)
    assert sim.datapath.arrive(HIGHER, BLUE_VNI, frame, marked=True) == delivered(TAP0.ifindex)
    everybody = sim.datapath.arrive(HIGHER, BLUE_VNI, replace(frame, dst=ALL))
    assert everybody.copies == {(TAP1.ifindex, 0), (ETH2.ifindex, 10)}


@pytest.mark.parametrize("state", [PortMode.STANDBY, PortMode.HOLDING])
def test_a_port_that_waits_says_nothing(state: PortMode) -> None:
    sim = place(state, via=HIGHER if state is PortMode.STANDBY else None)
    assert say(sim, TAP0.ifindex, VM, ALL) == dropped(Reason.STANDBY)


def test_a_port_that_holds_takes_all() -> None:
    sim = place(PortMode.HOLDING)
    for marked in (False, True):
        got = sim.datapath.arrive(FURTHER, BLUE_VNI, Frame(src=0x02AA, dst=VM), marked=marked)
        assert got == delivered(TAP0.ifindex)
    assert say(sim, TAP1.ifindex, NEAR, VM) == delivered(TAP0.ifindex)


@pytest.mark.parametrize("state", [PortMode.STANDBY, PortMode.HOLDING, PortMode.DRAINING])
def test_the_fabric_brings_frames_of_a_vm_that_migrates(state: PortMode) -> None:
    sim = place(state, via=HIGHER if state is not PortMode.HOLDING else None)
    assert sim.datapath.forward(ETH2.ifindex, Frame(src=VM, dst=NEAR, tags=TAGGED)) == delivered(TAP1.ifindex)
    still = place(PortMode.UP)
    conflict = still.datapath.forward(ETH2.ifindex, Frame(src=VM, dst=NEAR, tags=TAGGED))
    assert conflict == dropped(Reason.SRC_MAC_CONFLICT)


def test_of_more_vms_that_leave_at_once_than_there_are_slots_some_miss_floods_and_nothing_else() -> None:
    names = [f"vm{n}" for n in range(MAX_LEAVING + 6)]
    peer = Peer(vtep="192.0.2.50", segments=frozenset({"blue"}))

    def leave(*ports: str) -> Remote:
        there = (Projection(segment="blue", port=p, owner="hv1", next="hv2", phase=Phase.SWITCHED) for p in ports)
        return Remote(on=True, peers={"hv2": peer}, told={("blue", told.port): told for told in there})

    sim = make()
    for number, name in enumerate(names):
        port = Port(id=name, ifname=name, segment="blue", macs=(int_to_mac(VM + 0x100 + number),))
        sim.change(lambda draft, port=port: draft.attach_port(port))  # type: ignore[misc]  # bound
        sim.plug(Device(ifname=name, ifindex=100 + number, kind="tun"))
    sim.change(lambda draft: draft.cluster_says(leave(*names)))
    say(sim, TAP1.ifindex, NEAR, ALL)
    flooded = say(sim, TAP0.ifindex, FABRIC, ALL)
    assert flooded.copies == {(TAP1.ifindex, 0)}
    assert len(flooded.followed) == MAX_LEAVING
    for number, _ in enumerate(names):
        assert say(sim, TAP1.ifindex, NEAR, VM + 0x100 + number) == Outcome(
            verdict=Verdict.FORWARDED, tunnelled=frozenset({(peer.vtep, BLUE_VNI)}), marked=True
        )
    sim.change(lambda draft: draft.cluster_says(leave(*names[-MAX_LEAVING:])))
    assert {token for *_, token in say(sim, TAP0.ifindex, FABRIC, ALL).followed} == {
        token_of(name) for name in names[-MAX_LEAVING:]
    }
