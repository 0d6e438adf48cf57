"""Whom an answer to ARP and ND names: what follows from the addresses that ports list.

tap1 asks, in the segment blue; nobody but the switch may answer it.
"""

from __future__ import annotations

from ipaddress import ip_address
from operator import methodcaller

import pytest

from support.sim import Sim
from vxagent.core.tables import NeighbourRow, RowKey, SegmentFlag, SegmentRow, Table
from vxagent.datapath.abi import Verdict
from vxagent.datapath.fake_forwarding import Frame
from vxagent.model.device import Device
from vxagent.model.port import Enforce, Mode, Port
from vxagent.model.segment import Segment

DEVICES = {f"tap{n}": n for n in range(1, 5)}
ASKER = 0x020000000001
MACS = tuple(f"02:00:00:00:00:0{n}" for n in range(2, 6))
ADDRESS, ADDRESS_6 = "10.0.0.2", "2001:db8::2"


def port(name: str, **fields: object) -> Port:
    base: dict[str, object] = {"segment": "blue", "ifname": name, **fields}
    return Port(id=name, **base)  # type: ignore[arg-type]  # a test's shorthand


@pytest.fixture
def sim() -> Sim:
    """tap1 is in blue and lists nothing."""
    sim = Sim(*(Device(ifname=name, ifindex=n, kind="tun") for name, n in DEVICES.items()))
    for name in ("blue", "red"):
        sim.change(methodcaller("add_segment", Segment(name=name, tenant="acme")))
    sim.change(methodcaller("attach_port", port("tap1")))
    return sim


def attach(sim: Sim, name: str, **fields: object) -> None:
    sim.change(methodcaller("attach_port", port(name, **fields)))


def answered(sim: Sim, address: str = ADDRESS) -> bool:
    """Whether the switch answers tap1."""
    frame = Frame(src=ASKER, dst=0xFFFFFFFFFFFF, asks_for=ip_address(address))
    outcome = sim.datapath.forward(DEVICES["tap1"], frame)
    if outcome.verdict is Verdict.REPLIED:
        assert outcome.copies == {(DEVICES["tap1"], 0)}
    return outcome.verdict is Verdict.REPLIED


def rows(sim: Sim) -> dict[RowKey, NeighbourRow]:
    return {key: row for key, row in sim.datapath.rows().items() if isinstance(row, NeighbourRow)}


def named(sim: Sim) -> dict[str, int]:
    """Address → the MAC that is named for it, in whatever segment."""
    return {str(ip_address(row.octets[: 4 if row.family == 4 else 16])): row.mac for row in rows(sim).values()}


def flagged(sim: Sim, segment: str = "blue") -> bool:
    """Whether frames of a segment are looked at for questions."""
    row = sim.datapath.rows()[Table.SEGMENTS, sim.switch.state.handle_of_segment(segment)]
    assert isinstance(row, SegmentRow)
    return SegmentFlag.NEIGHBOURS in row.flags


def test_an_address_that_one_port_lists_is_answered(sim: Sim) -> None:
    attach(sim, "tap2", macs=MACS[:1], ips=(ADDRESS, ADDRESS_6))
    assert named(sim) == {ADDRESS: 0x020000000002, ADDRESS_6: 0x020000000002}
    assert answered(sim, ADDRESS)
    assert answered(sim, ADDRESS_6)
    assert not answered(sim, "10.0.0.3")


@pytest.mark.parametrize(
    "fields",
    [
        {"ips": (ADDRESS,)},
        {"macs": MACS[:2], "ips": (ADDRESS,)},
        {"macs": MACS[:1], "ips": ("10.0.0.0/24",)},
        {"macs": MACS[:1]},
        {"macs": MACS[:1], "ips": (ADDRESS,), "mode": Mode.TRUNK, "segment": None, "trunk": (("blue", 10),)},
        {"macs": MACS[:1], "ips": (ADDRESS,), "segment": "red"},
    ],
    ids=["no MAC", "two MACs", "a prefix", "no address", "a trunk", "another segment"],
)
def test_a_port_that_does_not_say_who_has_the_address_is_not_named(sim: Sim, fields: dict[str, object]) -> None:
    attach(sim, "tap2", **fields)
    assert not answered(sim)
    assert not flagged(sim)


def test_an_internal_port_is_named_if_it_lists(sim: Sim) -> None:
    attach(sim, "host0", mode=Mode.INTERNAL, macs=MACS[:1], ips=(ADDRESS,))
    assert named(sim) == {ADDRESS: 0x020000000002}


def test_what_a_port_in_shadow_lists_is_on_trial(sim: Sim) -> None:
    attach(sim, "tap2", macs=MACS[:1], ips=(ADDRESS,), enforce=Enforce.SHADOW)
    assert not answered(sim)
    sim.change(methodcaller("set_port", "tap2", enforce=Enforce.ON))
    assert answered(sim)
    sim.change(methodcaller("set_port", "tap2", enforce=Enforce.SHADOW))
    assert not answered(sim)


def test_a_router_says_itself_that_it_is_one(sim: Sim) -> None:
    ips = ("fe80::1", "169.254.169.254", ADDRESS_6)
    attach(sim, "tap2", macs=MACS[:1], ips=ips, trusted=True)
    assert set(named(sim)) == {"169.254.169.254", ADDRESS_6}
    sim.change(methodcaller("set_port", "tap2", trusted=False))
    assert set(named(sim)) == set(ips)


@pytest.mark.parametrize(
    "other",
    [
        {"macs": MACS[1:2]},
        {},
        {"mode": Mode.TRUNK, "segment": None, "trunk": (("blue", 10),), "native": "red"},
    ],
    ids=["an access port", "without a MAC", "a trunk"],
)
def test_of_an_address_that_two_ports_list_nobody_is_named_until_one_is_left(
    sim: Sim, other: dict[str, object]
) -> None:
    attach(sim, "tap2", macs=MACS[:1], ips=(ADDRESS, ADDRESS_6))
    attach(sim, "tap3", ips=(ADDRESS,), **other)
    assert not answered(sim)
    assert answered(sim, ADDRESS_6)
    sim.change(methodcaller("detach_port", "tap3"))
    assert answered(sim)


def test_of_three_that_list_an_address_the_last_one_is_named(sim: Sim) -> None:
    for at, name in enumerate(("tap2", "tap3", "tap4")):
        attach(sim, name, macs=MACS[at : at + 1], ips=(ADDRESS,))
    sim.change(methodcaller("set_port", "tap2", ips=()))
    assert named(sim) == {}
    sim.change(methodcaller("set_port", "tap3", segment="red"))
    assert sorted(row.mac for row in rows(sim).values()) == [0x020000000003, 0x020000000004]
    assert answered(sim)


def test_the_same_address_in_two_segments_is_answered_in_each(sim: Sim) -> None:
    attach(sim, "tap2", macs=MACS[:1], ips=(ADDRESS,))
    attach(sim, "tap3", segment="red", macs=MACS[:1], ips=(ADDRESS,))
    assert answered(sim)
    assert sorted(row.segment for row in rows(sim).values()) == sorted(
        sim.switch.state.handle_of_segment(name) for name in ("blue", "red")
    )


def test_what_is_set_changes_the_answer(sim: Sim) -> None:
    attach(sim, "tap2", macs=MACS[:1], ips=(ADDRESS,))
    sim.change(methodcaller("set_port", "tap2", ips=("10.0.0.9",)))
    assert named(sim) == {"10.0.0.9": 0x020000000002}
    sim.change(methodcaller("set_port", "tap2", macs=MACS[3:]))
    assert named(sim) == {"10.0.0.9": 0x020000000005}
    sim.change(methodcaller("set_port", "tap2", segment="red"))
    assert not answered(sim, "10.0.0.9")


def test_a_segment_where_nobody_is_named_is_not_looked_into(sim: Sim) -> None:
    assert not flagged(sim)
    attach(sim, "tap2", macs=MACS[:1], ips=(ADDRESS,))
    assert flagged(sim)
    assert not flagged(sim, "red")
    sim.change(methodcaller("set_port", "tap2", segment="red"))
    assert (flagged(sim), flagged(sim, "red")) == (False, True)
    sim.change(methodcaller("detach_port", "tap2"))
    assert not flagged(sim, "red")


def test_nobody_is_answered_for_whose_device_is_not_there(sim: Sim) -> None:
    attach(sim, "tap2", macs=MACS[:1], ips=(ADDRESS,))
    sim.unplug("tap2")
    assert not answered(sim)
    sim.plug(Device(ifname="tap2", ifindex=DEVICES["tap2"], kind="tun"))
    assert answered(sim)


def test_isolated_ports_are_not_answered_for_each_other(sim: Sim) -> None:
    attach(sim, "tap2", macs=MACS[:1], ips=(ADDRESS,), isolated=True)
    assert answered(sim)
    sim.change(methodcaller("set_port", "tap1", isolated=True))
    assert not answered(sim)


def test_the_owner_itself_is_not_answered(sim: Sim) -> None:
    sim.change(methodcaller("set_port", "tap1", macs=("02:00:00:00:00:01",), ips=(ADDRESS,)))
    assert flagged(sim)
    assert not answered(sim)


def test_a_restart_finds_the_same_answers(sim: Sim) -> None:
    attach(sim, "tap2", macs=MACS[:1], ips=(ADDRESS, ADDRESS_6))
    before = sim.datapath.rows()
    for again in (sim.restart, sim.reboot):
        again()
        assert sim.datapath.rows() == before
    assert answered(sim)
