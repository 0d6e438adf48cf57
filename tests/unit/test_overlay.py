"""The overlay: which frames go to which VTEP, who bridges, and what the underlay device is spared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from support.overlay_sim import (
    ALL,
    ETH1,
    ETH2,
    FURTHER,
    HIGHER,
    LOWER,
    OVERLAY,
    OWN,
    REMOTE,
    REMOTE_MAC,
    TAGGED,
    TAP0,
    TAP1,
    TAP2,
    A,
    B,
    broadcast,
    build,
    effects_of,
    handle,
    make,
    reconfigure,
)
from support.sim import Sim
from vxagent.core.document import Contents
from vxagent.core.effects import Attach, ClearCounters, Detach, FlushFdb, SetDevice, SetXdp, inverse
from vxagent.core.switch import Draft
from vxagent.core.tables import (
    VTEP_SLOT,
    OverlayRow,
    PortFlag,
    PortRow,
    Row,
    SegmentRow,
    Table,
    VniRow,
    VtepRow,
)
from vxagent.datapath.abi import Reason, Verdict
from vxagent.datapath.fake_forwarding import Frame, Outcome
from vxagent.errors import NotFound, Refused
from vxagent.model.device import Device
from vxagent.model.fdb import StaticEntry
from vxagent.model.ids import FDB_ENTRIES, MAX_VTEPS
from vxagent.model.port import Port, PortState, Uplink
from vxagent.model.segment import Segment
from vxagent.model.vtep import Overlay, Vtep


@pytest.fixture
def sim() -> Sim:
    """This host bridges blue."""
    return make()


@pytest.fixture
def bridged(sim: Sim) -> Sim:
    """Another host bridges it."""
    sim.change(lambda d: d.add_vtep(Vtep(address=LOWER, vnis=(5010,))))
    return sim


def row(sim: Sim, table: Table, key: int) -> Row | None:
    return sim.datapath.table.get((table, key))


# --- frames --------------------------------------------------------------------------------------


def test_a_broadcast_goes_to_every_vtep_that_has_the_vni(bridged: Sim) -> None:
    assert broadcast(bridged) == Outcome(
        verdict=Verdict.FLOODED,
        copies=frozenset({(TAP1.ifindex, 0)}),
        tunnelled=frozenset({(LOWER, 5010), (HIGHER, 5010), (FURTHER, 5010)}),
    )


def test_a_vtep_without_the_vni_gets_nothing(sim: Sim) -> None:
    sim.change(lambda d: d.set_vtep(FURTHER, vnis=(5020,)))
    assert broadcast(sim).tunnelled == {(HIGHER, 5010)}


def test_a_segment_without_a_vni_stays_on_its_vlan(sim: Sim) -> None:
    assert broadcast(sim, TAP2) == Outcome(verdict=Verdict.FLOODED, copies=frozenset({(ETH2.ifindex, 20)}))


def test_without_an_overlay_a_segment_with_a_vni_is_on_its_vlan() -> None:
    sim = make(overlay=None)
    assert broadcast(sim) == Outcome(verdict=Verdict.FLOODED, copies=frozenset({(TAP1.ifindex, 0), (ETH2.ifindex, 10)}))
    assert not [key for table, key in sim.datapath.table if table in (Table.TUNNELS, Table.VNIS, Table.OVERLAY)]


def test_what_comes_from_a_vtep_goes_to_local_ports_and_is_learned_there(bridged: Sim) -> None:
    came = bridged.datapath.arrive(HIGHER, 5010, Frame(src=REMOTE, dst=ALL))
    assert came == Outcome(verdict=Verdict.FLOODED, copies=frozenset({(TAP0.ifindex, 0), (TAP1.ifindex, 0)}))
    back = bridged.datapath.forward(TAP0.ifindex, Frame(src=A, dst=REMOTE))
    assert back == Outcome(verdict=Verdict.FORWARDED, tunnelled=frozenset({(HIGHER, 5010)}))


def test_between_vteps_nothing_is_passed_on(bridged: Sim) -> None:
    bridged.datapath.arrive(HIGHER, 5010, Frame(src=REMOTE, dst=ALL))
    passed = bridged.datapath.arrive(LOWER, 5010, Frame(src=B, dst=REMOTE))
    assert passed == Outcome(verdict=Verdict.DROPPED, reason=Reason.NO_DESTINATION)


@pytest.mark.parametrize(
    ("sender", "vni", "reason"),
    [
        ("192.0.2.77", 5010, Reason.VTEP_DENIED),
        (HIGHER, 5010, Reason.NONE),
        (OWN, 5010, Reason.VTEP_DENIED),
    ],
)
def test_only_vteps_that_were_stated_get_a_frame_in(sim: Sim, sender: str, vni: int, reason: Reason) -> None:
    assert sim.datapath.arrive(sender, vni, Frame(src=REMOTE, dst=ALL)).reason is reason


def test_a_vtep_gets_a_frame_into_no_vni_that_it_does_not_have(sim: Sim) -> None:
    sim.change(lambda d: d.set_vtep(FURTHER, vnis=(5020,)))
    assert sim.datapath.arrive(FURTHER, 5010, Frame(src=REMOTE, dst=ALL)).reason is Reason.VTEP_DENIED


def test_strangers_count_at_the_underlay_device(sim: Sim) -> None:
    sim.datapath.arrive("192.0.2.77", 5010, Frame(src=REMOTE, dst=ALL))
    at = (handle(sim, "underlay/eth1"), sim.switch.state.handle_of_segment("blue"), Reason.VTEP_DENIED)
    assert sim.datapath.drop_counts == {at: 1}


def test_a_vni_that_no_segment_has_is_the_hosts_and_so_is_all_else_on_the_underlay(sim: Sim) -> None:
    assert sim.datapath.arrive(FURTHER, 5020, Frame(src=REMOTE, dst=ALL)).verdict is Verdict.TO_HOST
    assert broadcast(sim, ETH1).verdict is Verdict.TO_HOST
    assert broadcast(sim, ETH1, TAGGED).verdict is Verdict.TO_HOST


def test_a_segment_may_come_after_its_vtep(sim: Sim) -> None:
    sim.change(lambda d: d.add_segment(Segment(name="teal", tenant="acme", vni=5020, mtu=1450)))
    sim.change(lambda d: d.set_port("tap2", segment="teal"))
    assert broadcast(sim, TAP2).tunnelled == {(FURTHER, 5020)}


def test_an_overlay_over_ipv6() -> None:
    sim = make(overlay=None, underlay=replace(ETH1, addresses=("2001:db8::b",)))
    sim.change(lambda d: d.add_vtep(Vtep(address="2001:db8::c", vnis=(5010,))))
    reconfigure(sim, Overlay(vtep="2001:db8::b", device="eth1"))
    assert broadcast(sim).tunnelled == {("2001:db8::c", 5010)}
    assert sim.datapath.arrive("2001:db8::c", 5010, Frame(src=REMOTE, dst=ALL)).verdict is Verdict.FLOODED
    octets = bytes.fromhex("20010db8" + "0" * 23 + "c")
    at = handle(sim, "vtep/2001:db8::c")
    assert row(sim, Table.VTEPS, at) == VtepRow(port=at, family=6, octets=octets)


# --- who bridges ---------------------------------------------------------------------------------


def test_the_host_with_the_lowest_address_has_the_segment_on_both(sim: Sim) -> None:
    assert sim.switch.state.bridges("blue")
    assert broadcast(sim).copies == {(TAP1.ifindex, 0), (ETH2.ifindex, 10)}
    from_vlan = broadcast(sim, ETH2, TAGGED)
    assert from_vlan.tunnelled == {(HIGHER, 5010), (FURTHER, 5010)}
    from_vni = sim.datapath.arrive(HIGHER, 5010, Frame(src=REMOTE, dst=ALL))
    assert (ETH2.ifindex, 10) in from_vni.copies
    assert from_vni.tunnelled == frozenset()


def test_any_other_host_has_it_on_the_overlay_alone(bridged: Sim) -> None:
    assert not bridged.switch.state.bridges("blue")
    assert broadcast(bridged).copies == {(TAP1.ifindex, 0)}
    assert broadcast(bridged, ETH2, TAGGED).verdict is Verdict.TO_HOST


def test_addresses_are_compared_as_numbers() -> None:
    own = "192.0.2.9"
    assert own > HIGHER > FURTHER  # as text
    assert make(Overlay(vtep=own, device="eth1")).switch.state.bridges("blue")


def test_a_lower_vtep_without_the_vni_does_not_bridge(sim: Sim) -> None:
    sim.change(lambda d: d.add_vtep(Vtep(address=LOWER, vnis=(5020,))))
    assert sim.switch.state.bridges("blue")


def test_a_segment_is_bridged_where_it_has_both(sim: Sim) -> None:
    assert not sim.switch.state.bridges("red")
    sim.change(lambda d: d.set_segment("blue", vlan=None))
    assert not sim.switch.state.bridges("blue")
    assert broadcast(sim).copies == {(TAP1.ifindex, 0)}


def test_what_was_learned_on_the_vlan_is_forgotten_when_another_host_bridges(sim: Sim) -> None:
    sim.datapath.forward(ETH2.ifindex, Frame(src=REMOTE, dst=ALL, tags=TAGGED))
    assert sim.datapath.forward(TAP0.ifindex, Frame(src=A, dst=REMOTE)).copies == {(ETH2.ifindex, 10)}
    sim.change(lambda d: d.add_vtep(Vtep(address=LOWER, vnis=(5010,))))
    assert sim.datapath.forward(TAP0.ifindex, Frame(src=A, dst=REMOTE)).verdict is Verdict.FLOODED


# --- rows ----------------------------------------------------------------------------------------


def test_the_rows_of_an_overlay(sim: Sim) -> None:
    blue, underlay, vtep = (
        sim.switch.state.handle_of_segment("blue"),
        handle(sim, "underlay/eth1"),
        handle(sim, "vtep/" + HIGHER),
    )
    own, other = bytes((192, 0, 2, 11)) + bytes(12), bytes((192, 0, 2, 12)) + bytes(12)
    assert row(sim, Table.OVERLAY, 0) == OverlayRow(ifindex=21, port=underlay, family=4, octets=own, ttl=64)
    assert row(sim, Table.VNIS, 5010) == VniRow(vni=5010, segment=blue)
    there = VtepRow(port=vtep, family=4, octets=other)
    assert row(sim, Table.VTEPS, vtep) == there
    assert row(sim, Table.TUNNELS, int.from_bytes(other, "big")) == there
    port = row(sim, Table.PORTS, vtep)
    assert isinstance(port, PortRow)
    assert (port.ifindex, port.flags, port.segment) == (21, PortFlag.UPLINK | PortFlag.VTEP, 0)
    assert port.max_macs == FDB_ENTRIES // 4
    at = row(sim, Table.PORTS, underlay)
    assert isinstance(at, PortRow)
    assert (at.ifindex, at.flags, at.segment) == (21, PortFlag.UPLINK, 0)
    assert isinstance(segment := row(sim, Table.SEGMENTS, blue), SegmentRow)
    assert (segment.slots, segment.vteps) == (3, 2)
    assert {key & 0xFFFF for table, key in sim.datapath.table if table is Table.SLOTS and key >> 16 == blue} == {
        0, 1, 2, VTEP_SLOT, VTEP_SLOT + 1
    }  # fmt: skip


def test_an_underlay_that_is_an_uplink_has_one_handle(sim: Sim) -> None:
    sim.change(lambda d: d.add_uplink(Uplink(ifname="eth1")))
    sim.settle()
    overlay = row(sim, Table.OVERLAY, 0)
    assert isinstance(overlay, OverlayRow)
    assert (overlay.port, handle(sim, "underlay/eth1")) == (handle(sim, "eth1"), 0)
    assert sim.links.by_name["eth1"].promisc
    assert sim.datapath.arrive(HIGHER, 5010, Frame(src=REMOTE, dst=ALL)).verdict is Verdict.FLOODED
    assert (ETH1.ifindex, 20) in broadcast(sim, TAP2).copies
    sim.change(lambda d: d.delete_uplink("eth1"))
    sim.settle()
    assert replace(sim.links.by_name["eth1"], rxvlan=True) == ETH1
    assert sim.datapath.arrive(HIGHER, 5010, Frame(src=REMOTE, dst=ALL)).verdict is Verdict.FLOODED


def test_the_program_stays_where_it_is_while_the_underlay_becomes_an_uplink_and_is_one_no_longer(sim: Sim) -> None:
    was = handle(sim, "underlay/eth1")
    for command in (lambda d: d.add_uplink(Uplink(ifname="eth1")), lambda d: d.delete_uplink("eth1")):
        assert not [effect for effect in effects_of(sim, command) if isinstance(effect, Attach | Detach)]
        sim.change(command)
        sim.settle()
        assert handle(sim, sim.switch.state.underlay) == was


def test_an_uplink_that_becomes_the_underlay_gets_its_second_program_and_loses_it() -> None:
    sim = make(overlay=None)
    reconfigure(sim, Overlay(vtep=OWN, device="eth2"))
    assert sim.datapath.programs_out == {handle(sim, "eth2")}
    assert broadcast(sim).tunnelled == {(HIGHER, 5010), (FURTHER, 5010)}
    reconfigure(sim, None)
    assert sim.datapath.programs_out == set()
    assert sim.links.by_name["eth2"].promisc


def test_a_change_that_fails_leaves_the_program_of_an_uplink_where_it_is() -> None:
    sim = make(overlay=None)
    effects = effects_of(sim, lambda d: d.overlay_read(Overlay(vtep=OWN, device="eth2")))
    [again] = [effect for effect in effects if isinstance(effect, Attach)]
    assert again == Attach(handle=handle(sim, "eth2"), ifindex=ETH2.ifindex, ifname="eth2", again=True)
    assert inverse(again) is None


def test_a_segment_takes_so_many_vteps() -> None:
    sim = make()

    def state_many(draft: Draft) -> None:
        for n in range(MAX_VTEPS - 2):
            draft.add_vtep(Vtep(address=f"198.51.{n >> 8}.{n & 255}", vnis=(5010,)))

    sim.change(state_many)
    assert len(broadcast(sim).tunnelled) == MAX_VTEPS
    with pytest.raises(Refused, match="segment blue has 512 VTEPs already"):
        sim.change(lambda d: d.add_vtep(Vtep(address="198.51.100.1", vnis=(5010,))))


@pytest.mark.parametrize(
    ("command", "everywhere"),
    [(lambda d: d.delete_vtep(HIGHER), True), (lambda d: d.set_vtep(HIGHER, vnis=()), False)],
    ids=["a VTEP goes", "a VNI of it goes"],
)
def test_what_a_vtep_has_told_goes_with_it(sim: Sim, command: Callable[[Draft], object], everywhere: bool) -> None:
    vtep, blue = handle(sim, "vtep/" + HIGHER), sim.switch.state.handle_of_segment("blue")
    counter = sim.switch.state.counters_of("vtep/" + HIGHER)["blue"]
    sim.datapath.arrive(HIGHER, 5010, Frame(src=REMOTE, dst=ALL))
    effects = effects_of(sim, command)
    assert FlushFdb(port=vtep, segment=None if everywhere else blue) in effects
    assert ClearCounters(port=vtep, segment=blue, counters=(counter,)) in effects
    sim.change(command)
    assert sim.datapath.learned == {}


def test_a_vtep_that_goes_leaves_nothing(sim: Sim) -> None:
    before = sim.picture()
    sim.change(lambda d: d.add_vtep(Vtep(address="192.0.2.77", vnis=(5010,))))
    sim.change(lambda d: d.add_fdb(StaticEntry(segment="blue", mac=REMOTE_MAC, vtep="192.0.2.77")))
    assert sim.picture() != before
    sim.change(lambda d: d.delete_vtep("192.0.2.77"))
    assert sim.picture() == before


# --- the underlay device -------------------------------------------------------------------------


def test_the_underlay_stays_as_it_was(sim: Sim) -> None:
    assert sim.links.by_name["eth1"] == ETH1
    assert sim.datapath.attached()[handle(sim, "underlay/eth1")] == ETH1.ifindex
    assert handle(sim, "underlay/eth1") not in sim.datapath.xdp()
    reconfigure(sim, None)
    assert sim.links.by_name["eth1"] == ETH1
    assert ETH1.ifindex not in sim.datapath.attached().values()


@pytest.mark.parametrize("without_agent", [False, True])
def test_down_lets_go_of_the_underlay_and_leaves_it_up(sim: Sim, without_agent: bool) -> None:
    at = handle(sim, "underlay/eth1")
    assert Detach(handle=at, ifindex=21, ifname="eth1") in effects_of(sim, lambda d: d.take_off())
    sim.take_off() if without_agent else sim.change(lambda d: d.take_off())
    assert sim.links.by_name["eth1"] == ETH1
    assert sim.datapath.attached() == {}


def test_taking_the_underlay_is_one_attach_and_nothing_else() -> None:
    sim = make(overlay=None)
    effects = effects_of(sim, lambda d: d.overlay_read(OVERLAY))
    touched = [e for e in effects if isinstance(e, Attach | Detach | SetDevice | SetXdp)]
    assert [(type(e), e.ifname) for e in touched] == [(Attach, "eth1")]


def test_an_underlay_that_comes_later_is_taken_then() -> None:
    sim = Sim(TAP0, TAP1, TAP2, ETH2, overlay=OVERLAY)
    sim.change(build)
    assert sim.switch.state.overlay_state() == (PortState.PENDING, "device eth1 is not there")
    assert broadcast(sim).tunnelled == frozenset()
    assert sim.datapath.arrive(HIGHER, 5010, Frame(src=REMOTE, dst=ALL)).verdict is Verdict.TO_HOST
    sim.plug(ETH1)
    assert sim.switch.state.overlay_state() == (PortState.UP, "")
    assert broadcast(sim).tunnelled == {(HIGHER, 5010), (FURTHER, 5010)}


def test_an_underlay_that_goes_and_comes_as_another_device(sim: Sim) -> None:
    before = sim.picture()
    sim.unplug("eth1")
    assert sim.switch.state.overlay_state()[0] is PortState.PENDING
    assert broadcast(sim).tunnelled == frozenset()
    sim.plug(replace(ETH1, ifindex=77))
    assert len(broadcast(sim).tunnelled) == 2
    sim.datapath.learned.clear()
    assert sim.picture() == before


def test_an_underlay_that_is_renamed_is_let_go(sim: Sim) -> None:
    sim.links.rename("eth1", "eth9")
    sim.settle()
    assert sim.switch.state.overlay_state() == (PortState.PENDING, "device eth1 is not there")
    assert ETH1.ifindex not in sim.datapath.attached().values()
    assert sim.links.by_name["eth9"] == replace(ETH1, ifname="eth9")
    sim.links.rename("eth9", "eth1")
    sim.settle()
    assert sim.switch.state.overlay_state() == (PortState.UP, "")


@pytest.mark.parametrize(
    ("underlay", "state", "why"),
    [
        (replace(ETH1, up=False), PortState.DOWN, "device eth1 is down; `ip link set dev eth1 up`"),
        (replace(ETH1, master="bond0"), PortState.PENDING, "device eth1 is enslaved to bond0; name bond0 in [overlay]"),
        (replace(ETH1, kind="bridge"), PortState.UP, ""),
    ],
)
def test_why_the_overlay_is_not_up(underlay: Device, state: PortState, why: str) -> None:
    assert make(underlay=underlay).switch.state.overlay_state() == (state, why)


def test_nobody_asks_for_the_state_of_an_overlay_that_is_not() -> None:
    with pytest.raises(NotFound):
        Sim().switch.state.overlay_state()


# --- what is configured anew ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "overlay",
    [
        None,
        Overlay(vtep=OWN, device="eth1", ttl=9),
        Overlay(vtep=OWN, device="eth2"),
        Overlay(vtep="192.0.2.2", device="eth1"),
        Overlay(vtep=HIGHER, device="eth1"),
        Overlay(vtep="2001:db8::b", device="eth1"),
    ],
    ids=["none", "its TTL", "another device", "another address", "an address that was another's", "another family"],
)
def test_another_overlay_is_as_if_it_had_always_been(overlay: Overlay | None) -> None:
    changed, wanted = make(), make(overlay=None)
    reconfigure(wanted, overlay)
    reconfigure(changed, overlay)
    named, other = changed.picture(), wanted.picture()
    for picture in (named, other):  # numbers that were given in another order
        for key in ("rows", "programs", "programs out", "saved", "xdp"):
            picture.pop(key)
    assert named == other
    assert broadcast(changed) == broadcast(wanted)
    assert set(changed.store.load()) == set(wanted.store.load())
    reconfigure(changed, OVERLAY)
    assert broadcast(changed) == broadcast(make())


@pytest.mark.parametrize(
    "command",
    [
        lambda d: d.detach_port("tap2"),
        lambda d: d.apply(Contents(ports=(Port(id="tap2", ifname="tap7", segment="red"),))),
    ],
    ids=["it is detached", "it moves to another device"],
)
def test_a_port_that_has_the_underlay_keeps_it_until_it_goes(command: Callable[[Draft], object]) -> None:
    sim = make(overlay=None)
    reconfigure(sim, Overlay(vtep=OWN, device="tap2"))
    assert sim.switch.state.overlay_state() == (
        PortState.PENDING, "device tap2 is port tap2; `vxagent port detach tap2`"
    )  # fmt: skip
    sim.change(command)
    assert sim.switch.state.overlay_state()[0] is PortState.DOWN  # as the port left it
    assert sim.datapath.attached()[handle(sim, "underlay/tap2")] == TAP2.ifindex
    assert sim.links.by_name["tap2"] == replace(TAP2, up=False)


@pytest.mark.parametrize("overlay", [None, Overlay(vtep="192.0.2.2", device="eth2")], ids=["none", "another"])
def test_an_agent_that_dies_while_the_overlay_changes_leaves_it_to_the_next(overlay: Overlay | None) -> None:
    wanted = make()
    reconfigure(wanted, overlay)
    sim = make()
    sim.overlay = overlay
    _, plan = sim.start()
    for died_after in range(len(plan.effects) + 1):
        sim = make()
        sim.overlay = overlay
        sim.restart(dies_after=died_after)
        sim.forget()
        sim.settle()
        assert sim.picture() == wanted.picture(), died_after


@pytest.mark.parametrize("there", [True, False], ids=["the underlay is there", "it is not"])
def test_a_restart_changes_nothing(sim: Sim, there: bool) -> None:
    if not there:
        sim.unplug("eth1")
    before = sim.picture()
    _, plan = sim.start()
    assert plan.effects == ()
    sim.restart()
    assert sim.picture() == before
