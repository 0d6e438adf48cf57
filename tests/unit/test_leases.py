"""Leases: what a port that is held to them may use, and when they end with it.

tap1 is in blue and held to its leases; DHCP has given it 10.0.0.50. A lease is the data plane's: here the fake's.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from operator import methodcaller

import pytest

from support.sim import Sim
from vxagent.core.document import Contents
from vxagent.core.switch import Draft
from vxagent.core.tables import SegmentFlag, SegmentRow, Table
from vxagent.datapath.abi import Reason
from vxagent.datapath.base import Lease
from vxagent.datapath.fake_forwarding import Frame
from vxagent.model.device import Device
from vxagent.model.port import Mode, Port
from vxagent.model.segment import Segment
from vxagent.runtime.leases import by_port
from vxagent.runtime.views import port_detail

MAC = 0x020000000001
ADDRESS, ADDRESS_6, OTHER = "10.0.0.50", "2001:db8::50", "10.0.0.51"


@pytest.fixture
def sim() -> Sim:
    sim = Sim(*(Device(ifname=f"tap{n}", ifindex=n, kind="tun") for n in (1, 2)))
    for name in ("blue", "red"):
        sim.change(methodcaller("add_segment", Segment(name=name, tenant="acme")))
    sim.change(methodcaller("attach_port", Port(id="tap1", ifname="tap1", segment="blue", dhcp_snoop=True)))
    give(sim, ADDRESS)
    return sim


def give(sim: Sim, address: str, *, segment: str = "blue", seconds: float | None = 600) -> None:
    state = sim.switch.state
    at, port = state.handle_of_segment(segment), state.handle_of_port("tap1")
    sim.datapath.lease(Lease(segment=at, port=port, address=ip_address(address), mac=MAC, left_s=seconds))


def may_use(sim: Sim, address: str, *, mac: int = MAC) -> bool:
    frame = Frame(src=mac, dst=0xFFFFFFFFFFFF, ip=ip_address(address))
    return sim.datapath.forward(1, frame).reason is not Reason.SRC_IP_DENIED


def flags(sim: Sim, segment: str = "blue") -> SegmentFlag:
    row = sim.datapath.rows()[Table.SEGMENTS, sim.switch.state.handle_of_segment(segment)]
    assert isinstance(row, SegmentRow)
    return row.flags


def held(sim: Sim) -> list[IPv4Address | IPv6Address]:
    return [lease.address for lease in sim.datapath.leases()]


def test_a_leased_address_is_the_ports_and_no_other(sim: Sim) -> None:
    assert may_use(sim, ADDRESS)
    assert may_use(sim, "0.0.0.0")
    assert not may_use(sim, OTHER)
    assert not may_use(sim, ADDRESS, mac=MAC + 1)


def test_what_it_lists_is_its_own_too(sim: Sim) -> None:
    sim.change(methodcaller("set_port", "tap1", ips=(OTHER,)))
    assert may_use(sim, ADDRESS)
    assert may_use(sim, OTHER)
    assert not may_use(sim, "10.0.0.52")


def test_a_segment_is_looked_at_while_a_port_in_it_is_held_to_its_leases(sim: Sim) -> None:
    both = SegmentFlag.LEASES | SegmentFlag.NEIGHBOURS
    assert flags(sim) == both
    assert flags(sim, "red") == SegmentFlag(0)
    sim.change(methodcaller("set_port", "tap1", segment="red"))
    assert (flags(sim), flags(sim, "red")) == (SegmentFlag(0), both)
    sim.change(methodcaller("set_port", "tap1", dhcp_snoop=False))
    assert flags(sim, "red") == SegmentFlag(0)
    sim.change(methodcaller("set_port", "tap1", dhcp_snoop=True))
    assert flags(sim, "red") == both
    sim.change(methodcaller("detach_port", "tap1"))
    assert flags(sim, "red") == SegmentFlag(0)


def test_of_a_trunk_all_segments_are(sim: Sim) -> None:
    sim.change(
        methodcaller(
            "attach_port",
            Port(id="tap2", ifname="tap2", mode=Mode.TRUNK, trunk=(("red", 7),), native="blue", dhcp_snoop=True),
        )
    )
    assert SegmentFlag.LEASES in flags(sim, "red")


def test_leases_end_with_the_port(sim: Sim) -> None:
    """The next one may get its number."""
    sim.change(methodcaller("detach_port", "tap1"))
    sim.change(methodcaller("attach_port", Port(id="tap2", ifname="tap2", segment="blue", dhcp_snoop=True)))
    assert held(sim) == []


def test_leases_end_where_the_port_is_not_held_to_them(sim: Sim) -> None:
    for on in (False, True):
        sim.change(methodcaller("set_port", "tap1", dhcp_snoop=on))
    assert held(sim) == []


def test_leases_end_in_a_segment_that_the_port_leaves(sim: Sim) -> None:
    sim.change(methodcaller("set_port", "tap1", trunk=(("blue", 7), ("red", 8))))
    give(sim, ADDRESS_6, segment="red")
    sim.change(methodcaller("set_port", "tap1", trunk=(("red", 8),)))
    assert held(sim) == [ip_address(ADDRESS_6)]


@pytest.mark.parametrize("change", [{"ips": (OTHER,)}, {"trusted": True}, {"max_macs": 5}])
def test_other_changes_end_none(sim: Sim, change: dict[str, object]) -> None:
    sim.change(methodcaller("set_port", "tap1", **change))
    sim.restart()
    assert held(sim) == [ip_address(ADDRESS)]


def test_a_lease_runs_out(sim: Sim) -> None:
    sim.datapath.now_s += 601
    assert not may_use(sim, ADDRESS)
    assert held(sim) == []


# --- over a time without the kernel's tables ------------------------------------------------------


def keep(sim: Sim) -> None:
    """The agent looks at the leases, as it does from time to time."""
    seen = by_port(sim.switch.state, sim.datapath.leases(), sim.now)
    sim.change(lambda draft: draft.leases_seen(seen))


def pass_by(sim: Sim, seconds: float) -> None:
    sim.now += seconds
    sim.datapath.now_s += seconds


def test_what_was_kept_is_there_after_a_reboot(sim: Sim) -> None:
    give(sim, ADDRESS_6, seconds=None)
    keep(sim)
    pass_by(sim, 100)
    sim.reboot()
    assert may_use(sim, ADDRESS)
    assert {str(lease.address): lease.left_s for lease in sim.datapath.leases()} == {ADDRESS: 500, ADDRESS_6: None}


def test_what_has_run_out_by_then_is_not(sim: Sim) -> None:
    keep(sim)
    pass_by(sim, 600)
    sim.reboot()
    assert sim.datapath.given == {}


def test_while_the_kernel_has_leases_it_knows_best(sim: Sim) -> None:
    """One that was given back since is not put back."""
    keep(sim)
    sim.datapath.given.clear()
    sim.restart()
    assert held(sim) == []
    keep(sim)
    sim.reboot()
    assert held(sim) == []


@pytest.mark.parametrize(
    "change",
    [
        methodcaller("detach_port", "tap1"),
        methodcaller("set_port", "tap1", dhcp_snoop=False),
        methodcaller("apply", Contents(segments=(Segment(name="blue", tenant="acme"),)), prune=True),
    ],
)
def test_of_a_port_that_is_held_to_none_none_is_kept(sim: Sim, change: Callable[[Draft], object]) -> None:
    keep(sim)
    assert ("lease", "tap1") in sim.store.documents
    sim.change(change)
    assert ("lease", "tap1") not in sim.store.documents
    sim.reboot()
    assert held(sim) == []


def test_none_is_put_back_where_the_port_is_no_more(sim: Sim) -> None:
    keep(sim)
    sim.change(methodcaller("set_port", "tap1", segment="red"))
    sim.reboot()
    assert sim.datapath.given == {}


def test_a_lease_is_saved_when_it_changes_and_not_else(sim: Sim) -> None:
    keep(sim)
    saves = sim.store.saves
    for seconds in (0.4, 0.4, 100):
        pass_by(sim, seconds)
        keep(sim)
    assert sim.store.saves == saves
    give(sim, ADDRESS, seconds=600)
    keep(sim)
    assert sim.store.saves == saves + 1


def test_a_port_shows_its_leases(sim: Sim) -> None:
    give(sim, ADDRESS_6, seconds=None)
    give(sim, OTHER, seconds=60)
    shown = port_detail(sim.switch.state, sim.datapath, dict, "tap1")
    mac = "02:00:00:00:00:01"
    assert [(lease.ip, lease.mac, lease.segment, lease.expires_s) for lease in shown.leases] == [
        (ADDRESS, mac, "blue", 600.0),
        (OTHER, mac, "blue", 60.0),
        (ADDRESS_6, mac, "blue", None),
    ]
    assert shown.leases_refused == 0
