"""VTEPs as they are asked for: static entries, refusals, MTUs, documents, and what is wrong about an overlay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from support.overlay_sim import (
    BLUE,
    ETH1,
    ETH2,
    FURTHER,
    HIGHER,
    LOWER,
    OVERLAY,
    OWN,
    REMOTE,
    REMOTE_MAC,
    TAP0,
    A,
    broadcast,
    make,
    reconfigure,
)
from support.sim import Sim
from vxagent.core.document import Contents, export
from vxagent.core.overlay import troubles
from vxagent.core.remote import Remote
from vxagent.core.switch import Draft
from vxagent.datapath.abi import Verdict
from vxagent.datapath.fake_forwarding import Frame
from vxagent.errors import Conflict, NotFound, Refused
from vxagent.model.device import Device
from vxagent.model.fdb import StaticEntry
from vxagent.model.port import Mode, Port
from vxagent.model.segment import FITTING_MTU, Segment
from vxagent.model.vtep import Overlay, Vtep


@pytest.fixture
def sim() -> Sim:
    """This host bridges blue."""
    return make()


# --- static entries ------------------------------------------------------------------------------


def test_a_static_entry_at_a_vtep(sim: Sim) -> None:
    sim.change(lambda d: d.add_fdb(StaticEntry(segment="blue", mac=REMOTE_MAC, vtep=FURTHER)))
    assert sim.datapath.forward(TAP0.ifindex, Frame(src=A, dst=REMOTE)).tunnelled == {(FURTHER, 5010)}


def test_a_static_entry_at_a_vtep_waits_for_the_overlay() -> None:
    sim = make(overlay=None)
    sim.change(lambda d: d.add_fdb(StaticEntry(segment="blue", mac=REMOTE_MAC, vtep=FURTHER)))
    assert sim.datapath.forward(TAP0.ifindex, Frame(src=A, dst=REMOTE)).verdict is Verdict.FLOODED
    reconfigure(sim, OVERLAY)
    assert sim.datapath.forward(TAP0.ifindex, Frame(src=A, dst=REMOTE)).tunnelled == {(FURTHER, 5010)}
    reconfigure(sim, None)
    assert sim.datapath.forward(TAP0.ifindex, Frame(src=A, dst=REMOTE)).verdict is Verdict.FLOODED


def test_a_static_entry_at_an_uplink_counts_while_its_segment_is_there(sim: Sim) -> None:
    sim.change(lambda d: d.add_fdb(StaticEntry(segment="blue", mac=REMOTE_MAC, port="eth2")))
    assert sim.datapath.forward(TAP0.ifindex, Frame(src=A, dst=REMOTE)).copies == {(ETH2.ifindex, 10)}
    sim.change(lambda d: d.add_vtep(Vtep(address=LOWER, vnis=(5010,))))
    assert len(sim.datapath.forward(TAP0.ifindex, Frame(src=A, dst=REMOTE)).tunnelled) == 3
    sim.change(lambda d: d.set_port("tap1", isolated=True))  # other commands are not refused for it
    with pytest.raises(Conflict, match="port eth2 is not in segment blue"):
        sim.change(lambda d: d.add_fdb(StaticEntry(segment="blue", mac="02:00:00:00:00:98", port="eth2")))
    sim.change(lambda d: d.delete_vtep(LOWER))
    assert sim.datapath.forward(TAP0.ifindex, Frame(src=A, dst=REMOTE)).copies == {(ETH2.ifindex, 10)}


@pytest.mark.parametrize(
    ("segment", "vtep", "error", "message"),
    [
        ("blue", "192.0.2.77", NotFound, "no vtep 192.0.2.77, which entry .* asks for"),
        ("red", HIGHER, Conflict, "segment red has no VNI"),
        ("teal", HIGHER, Conflict, f"VTEP {HIGHER} does not have VNI 5020 of segment teal"),
        ("nope", HIGHER, NotFound, "no segment nope"),
    ],
)
def test_a_static_entry_names_a_vtep_that_has_the_vni(
    sim: Sim, segment: str, vtep: str, error: type[Exception], message: str
) -> None:
    sim.change(lambda d: d.add_segment(Segment(name="teal", tenant="acme", vni=5020, mtu=1450)))
    with pytest.raises(error, match=message):
        sim.switch.draft().add_fdb(StaticEntry(segment=segment, mac=REMOTE_MAC, vtep=vtep))


@pytest.mark.parametrize(
    "command",
    [lambda d: d.set_vtep(FURTHER, vnis=(5020,)), lambda d: d.set_segment("blue", vni=None)],
    ids=["the VTEP loses the VNI", "the segment has none any more"],
)
def test_what_a_static_entry_stands_on_does_not_go_from_under_it(sim: Sim, command: Callable[[Draft], object]) -> None:
    sim.change(lambda d: d.add_fdb(StaticEntry(segment="blue", mac=REMOTE_MAC, vtep=FURTHER)))
    with pytest.raises(Conflict, match=REMOTE_MAC):
        command(sim.switch.draft())


def test_a_mac_is_static_at_one_place(sim: Sim) -> None:
    sim.change(lambda d: d.set_port("tap0", macs=(REMOTE_MAC,)))
    with pytest.raises(Conflict, match=f"cannot be on port VTEP {FURTHER} by `fdb add` too"):
        sim.switch.draft().add_fdb(StaticEntry(segment="blue", mac=REMOTE_MAC, vtep=FURTHER))


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (lambda d: d.add_vtep(Vtep(address=OWN)), f"{OWN} is this host's own VTEP"),
        (lambda d: d.add_vtep(Vtep(address="2001:db8::1")), "2001:db8::1 is IPv6, this host's overlay IPv4"),
        (lambda d: d.add_vtep(Vtep(address=HIGHER)), "is there already and differs; use `vxagent vtep set`"),
        (lambda d: d.set_vtep("192.0.2.77", vnis=()), "no vtep 192.0.2.77; see `vxagent vtep list`"),
        (lambda d: d.delete_vtep("192.0.2.77"), "no vtep 192.0.2.77"),
        (lambda d: d.attach_port(Port(id="vm", ifname="eth1", segment="red")), "eth1 is the underlay of the overlay"),
        (lambda d: d.attach_port(Port(id="vm", ifname="eth1", mode=Mode.INTERNAL, segment="red")), "is the underlay"),
        (lambda d: d.set_segment("blue", mtu=1451), "MTU 1451 of segment blue is more than the 1450 .* use --mtu 1450"),
        (
            lambda d: d.set_segment("red", vni=5020),
            "MTU 1500 of segment red is more than the 1450 that a tunnel on eth1",
        ),
        (lambda d: d.add_segment(Segment(name="x", tenant="t", vni=7, mtu=1500)), "MTU 1500 of segment x is more than"),
        (lambda d: d.apply(Contents(segments=(replace(BLUE, mtu=9000),))), "MTU 9000 of segment blue is more than"),
    ],
)
def test_a_command_is_refused_and_changes_nothing(sim: Sim, command: Callable[[Draft], object], message: str) -> None:
    before = sim.picture()
    with pytest.raises(Refused, match=message):
        sim.change(command)
    assert sim.picture() == before


def test_stating_what_is_stated_changes_nothing(sim: Sim) -> None:
    assert sim.change(lambda d: d.add_vtep(Vtep(address=FURTHER, vnis=(5020, 5010)))) is False


# --- MTU -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overlay", "underlay", "vni", "mtu"),
    [
        (OVERLAY, ETH1, 7, 1450),
        (OVERLAY, replace(ETH1, mtu=9000), 7, 8950),
        (Overlay(vtep="2001:db8::b", device="eth1"), ETH1, 7, 1430),
        (OVERLAY, ETH1, None, 1500),
        (None, ETH1, 7, 1500),
        (Overlay(vtep=OWN, device="eth9"), ETH1, 7, 1450),  # the device is not there yet
    ],
)
def test_a_segment_has_the_mtu_that_fits(overlay: Overlay | None, underlay: Device, vni: int | None, mtu: int) -> None:
    sim = Sim(underlay, overlay=overlay)
    sim.change(lambda d: d.add_segment(Segment(name="x", tenant="t", vni=vni, mtu=FITTING_MTU)))
    assert sim.switch.state.segments["x"].mtu == mtu
    assert sim.change(lambda d: d.add_segment(Segment(name="x", tenant="t", vni=vni, mtu=FITTING_MTU))) is False


def test_a_document_without_an_mtu_asks_for_what_fits(sim: Sim) -> None:
    contents = Contents(segments=(replace(BLUE, mtu=FITTING_MTU),))
    assert sim.change(lambda d: d.apply(contents)) == []
    sim.plug(replace(ETH1, mtu=1600))
    [change] = sim.change(lambda d: d.apply(contents))
    assert change.what == ("mtu 1450 -> 1550",)


def test_what_else_is_set_of_a_segment_that_is_too_large_is_not_refused(sim: Sim) -> None:
    sim.plug(replace(ETH1, mtu=1400))
    sim.change(lambda d: d.set_segment("blue", multicast_snooping=True))
    sim.change(lambda d: d.set_segment("blue", mtu=FITTING_MTU))
    assert sim.switch.state.segments["blue"].mtu == 1350


# --- troubles ------------------------------------------------------------------------------------


def said(sim: Sim) -> list[tuple[str, str, bool]]:
    return [(trouble.what, trouble.mend, trouble.lost) for trouble in troubles(sim.switch.state)]


def test_an_overlay_in_order_has_no_trouble(sim: Sim) -> None:
    assert said(sim) == []
    assert said(make(overlay=None)) == []


def test_a_segment_that_is_too_large_is_named_with_what_mends_it(sim: Sim) -> None:
    sim.plug(replace(ETH1, mtu=1400))
    [(what, mend, lost)] = said(sim)
    assert what.startswith("segment blue has MTU 1450, the overlay room for 1350 bytes on device eth1")
    assert mend == "`vxagent segment set blue --mtu 1350`, or `ip link set dev eth1 mtu 1500`"
    assert not lost


def test_a_vlan_whose_vms_migrate_by_too_small_a_tunnel_is_named(sim: Sim) -> None:
    assert said(sim) == []  # nobody migrates where there is no cluster
    sim.switch.state.remote = Remote(on=True)
    [(what, mend, lost)] = said(sim)
    assert what.startswith("segment red has MTU 1500, a tunnel on device eth1 room for 1450 bytes")
    assert (mend, lost) == ("`ip link set dev eth1 mtu 1550`", False)


@pytest.mark.parametrize(
    ("holder", "what", "lost"),
    [
        ((), f"the host does not have the address {OWN} of its VTEP on device eth1: no other host reaches it", True),
        (
            (OWN,),
            f"the address {OWN} of the host's VTEP is on device eth2, not on eth1, on which VXLAN comes in",
            False,
        ),
    ],
)
def test_an_address_that_is_not_on_the_device_is_named(holder: tuple[str, ...], what: str, lost: bool) -> None:
    sim = make(underlay=replace(ETH1, addresses=("192.0.2.1",)))
    sim.plug(replace(sim.links.by_name["eth2"], addresses=holder))
    [found] = said(sim)
    assert (found[0], found[2]) == (what, lost)
    assert f"`ip address add {OWN}/24 dev eth1`" in found[1]


def test_vteps_that_no_tunnel_goes_to_are_named() -> None:
    sim = make(overlay=None)
    reconfigure(sim, Overlay(vtep=HIGHER, device="eth1"))
    assert (f"VTEP {HIGHER} is this host's own VTEP", f"`vxagent vtep del {HIGHER}`", False) in said(sim)
    assert broadcast(sim).tunnelled == {(FURTHER, 5010)}


# --- documents -----------------------------------------------------------------------------------


def test_vteps_are_part_of_the_document(sim: Sim) -> None:
    exported = export(sim.switch.state)
    assert [vtep.address for vtep in exported.vteps] == [HIGHER, FURTHER]
    again = make(overlay=None)
    assert again.change(lambda d: d.apply(exported, prune=True)) == []


def test_an_apply_takes_back_the_vteps_that_it_made(sim: Sim) -> None:
    made = Contents(
        segments=(BLUE,),
        vteps=(Vtep(address=LOWER, vnis=(5010,)),),
        fdb=(StaticEntry(segment="blue", mac=REMOTE_MAC, vtep=LOWER),),
    )
    changes = sim.change(lambda d: d.apply(made))
    assert [(c.action, c.kind, c.name) for c in changes] == [
        ("add", "vtep", LOWER),
        ("add", "fdb", f"{REMOTE_MAC} in blue"),
    ]
    with pytest.raises(NotFound, match=f"no vtep {LOWER}"):
        sim.change(lambda d: d.apply(replace(made, vteps=())))
    changes = sim.change(lambda d: d.apply(replace(made, vteps=(Vtep(address=LOWER, vnis=(5010, 5020)),))))
    assert [change.what for change in changes] == [("vnis 5010 -> 5010,5020",)]
    sim.change(lambda d: d.apply(Contents()))
    assert list(sim.switch.state.vteps) == [HIGHER, FURTHER]
    assert sim.switch.state.fdb == {}
