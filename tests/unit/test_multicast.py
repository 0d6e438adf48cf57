"""Groups as the agent shows them: by name, in `segment show` and in metrics."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from support.agents import CountingDatapath
from vxagent.core.effects import PutRow
from vxagent.core.switch import Draft, Switch
from vxagent.core.tables import SegmentFlag, SegmentRow
from vxagent.datapath.base import Group, Multicast
from vxagent.model.port import Mode, Port, Uplink
from vxagent.model.segment import Segment, UnknownUnicast
from vxagent.protocol.answers import GroupView
from vxagent.runtime import views
from vxagent.runtime.metrics import create_registry


@pytest.fixture
def switch() -> Switch:
    """Blue and red are snooped, green is not; trunk vm1 is in all of them, vm0 and uplink eth1 in blue."""
    switch = Switch({})
    draft = switch.draft()
    for name, vlan, snooping in (("blue", 10, True), ("red", None, True), ("green", None, False)):
        draft.add_segment(Segment(name=name, tenant="acme", vlan=vlan, multicast_snooping=snooping))
    draft.attach_port(Port(id="vm0", ifname="tap0", segment="blue"))
    trunk = (("blue", 10), ("red", 20), ("green", 30))
    draft.attach_port(Port(id="vm1", ifname="tap1", mode=Mode.TRUNK, trunk=trunk))
    draft.add_uplink(Uplink(ifname="eth1"))
    switch.commit(draft.plan())
    return switch


@pytest.fixture
def datapath(switch: Switch) -> CountingDatapath:
    """Two ports have joined in blue, one in red and one in green."""
    datapath = CountingDatapath()
    blue, red, green = (switch.state.handle_of_segment(name) for name in ("blue", "red", "green"))
    vm0, vm1, eth1 = (switch.state.numbers.number("port", name) for name in ("vm0", "vm1", "eth1"))
    joined = (
        (blue, vm1, "ff05::1"),
        (blue, eth1, "239.10.1.1"),
        (blue, vm1, "239.9.1.1"),
        (blue, vm0, "239.10.1.1"),
        (red, vm1, "239.8.1.1"),
        (green, vm1, "239.7.1.1"),
    )
    datapath.known = Multicast(
        groups=[Group(segment=s, port=p, group=ip_address(g), expires_s=259.96) for s, p, g in joined],
        routers={(blue, eth1), (blue, vm1), (red, vm1)},
        refused={(blue, vm0): 3, (blue, vm1): 4, (red, vm1): 5},
        queriers={blue: (200.04, 0.0), red: (0.0, 0.0)},
    )
    return datapath


def test_a_segment_is_shown_with_its_groups(switch: Switch, datapath: CountingDatapath) -> None:
    blue = views.segment_detail(switch.state, datapath, "blue")
    assert blue.multicast_snooping
    assert blue.queriers == {"ipv4": 200.0, "ipv6": None}
    assert blue.router_ports == ["eth1", "vm1"]
    assert blue.groups == [
        GroupView(group=group, port=port, expires_s=260.0)
        for group, port in (("239.9.1.1", "vm1"), ("239.10.1.1", "eth1"), ("239.10.1.1", "vm0"), ("ff05::1", "vm1"))
    ]
    assert blue.joins_refused == 7


def test_a_segment_that_is_not_snooped_has_no_groups(switch: Switch, datapath: CountingDatapath) -> None:
    green = views.segment_detail(switch.state, datapath, "green")
    assert (green.multicast_snooping, green.groups, green.router_ports, green.joins_refused) == (False, [], [], 0)
    assert green.queriers == {"ipv4": None, "ipv6": None}


def test_metrics_are_of_snooped_segments(switch: Switch, datapath: CountingDatapath) -> None:
    registry = create_registry(lambda: switch.state, datapath, dict)

    def sample(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, {**labels, "tenant": "acme"})

    assert sample("vxagent_segment_multicast_groups", segment="blue") == 4
    assert sample("vxagent_segment_multicast_groups", segment="red") == 1
    assert sample("vxagent_segment_multicast_groups", segment="green") is None
    assert sample("vxagent_segment_multicast_queriers", segment="blue") == 1
    assert sample("vxagent_segment_multicast_queriers", segment="red") == 0
    assert sample("vxagent_port_multicast_joins_refused_total", segment="blue", port="vm0") == 3
    assert sample("vxagent_port_multicast_joins_refused_total", segment="red", port="vm1") == 5


@pytest.mark.parametrize(
    ("segment", "flags"),
    [
        (Segment(name="blue", tenant="acme", multicast_snooping=True), SegmentFlag.GROUPS),
        (
            Segment(name="blue", tenant="acme", multicast_snooping=True, unknown_unicast=UnknownUnicast.DROP),
            SegmentFlag.GROUPS | SegmentFlag.DROP_UNKNOWN,
        ),
        (Segment(name="blue", tenant="acme"), SegmentFlag(0)),
    ],
)
def test_snooping_is_a_flag_of_the_segment(segment: Segment, flags: SegmentFlag) -> None:
    draft: Draft = Switch({}).draft()
    draft.add_segment(segment)
    rows = [effect.row for effect in draft.plan().effects if isinstance(effect, PutRow)]
    assert [row.flags for row in rows if isinstance(row, SegmentRow)] == [flags]
