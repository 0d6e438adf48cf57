"""What the agent shows: snapshots of the switch joined with counters that a test made up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.agents import CountingDatapath
from vxagent.core.effects import Xdp
from vxagent.core.switch import Switch
from vxagent.core.tables import Origin
from vxagent.datapath.abi import DropKind, Reason
from vxagent.datapath.base import Drop, FdbEntry, Learning, Traffic
from vxagent.errors import NotFound
from vxagent.model.device import Device
from vxagent.model.port import Hook, Mode, Port, PortState, Uplink
from vxagent.model.segment import Segment
from vxagent.protocol.answers import MembershipView
from vxagent.runtime import views


def lost() -> dict[str, int]:
    """Frames that devices lost."""
    return {"tap0": 12}


@pytest.fixture
def switch() -> Switch:
    """Segments blue and red; port tap0 in blue, trunk vm1 (blue:10, native red), tap9 without a device; uplink eth1."""
    switch = Switch({})
    draft = switch.draft()
    draft.add_segment(Segment(name="blue", tenant="acme", vlan=10))
    draft.add_segment(Segment(name="red", tenant="acme"))
    draft.attach_port(Port(id="tap0", ifname="tap0", segment="blue", macs=("02:00:00:00:00:01",), ips=("10.0.0.1",)))
    draft.attach_port(Port(id="vm1", ifname="tap1", mode=Mode.TRUNK, trunk=(("blue", 10),), native="red"))
    draft.attach_port(Port(id="tap9", ifname="tap9", segment="red", isolated=True))
    draft.add_uplink(Uplink(ifname="eth1"))
    draft.links_read([Device(ifname=name, ifindex=i) for i, name in enumerate(("tap0", "tap1", "eth1"), 10)])
    switch.commit(draft.plan())
    return switch


@pytest.fixture
def datapath() -> CountingDatapath:
    return CountingDatapath()


def count(switch: Switch, datapath: CountingDatapath, name: str, segment: str | None, traffic: Traffic) -> None:
    """Say what a port or uplink has counted in a segment."""
    datapath.counted[switch.state.counters_of(name)[segment]] = traffic


def drop(switch: Switch, name: str, segment: str | None, reason: Reason, packets: int) -> Drop:
    numbers = switch.state.numbers
    at = numbers.number("segment", segment) if segment else 0
    return Drop(port=numbers.number("port", name), segment=at, reason=reason, packets=packets, bytes=100 * packets)


def test_rx_is_all_verdicts_of_all_segments_and_the_drops(switch: Switch, datapath: CountingDatapath) -> None:
    in_blue = Traffic(packets=(1, 2, 4, 8), bytes=(10, 20, 40, 80), tx_packets=3, tx_bytes=300, copies=9)
    count(switch, datapath, "vm1", "blue", in_blue)
    count(switch, datapath, "vm1", "red", Traffic(packets=(16, 0, 0, 0), bytes=(160, 0, 0, 0), tx_packets=4))
    count(switch, datapath, "vm1", None, Traffic(packets=(0, 0, 0, 32), bytes=(0, 0, 0, 320)))
    datapath.dropped = [
        drop(switch, "vm1", "blue", Reason.MTU_EXCEEDED, 64),
        drop(switch, "vm1", None, Reason.VLAN_DENIED, 128),
        drop(switch, "tap0", "blue", Reason.MALFORMED, 1000),
    ]
    port = next(p for batch in views.port_views(switch.state, datapath, lost) for p in batch if p.id == "vm1")
    assert (port.rx_packets, port.drops) == (255, 192)
    assert port.rx_bytes == 630 + 19200
    assert (port.tx_packets, port.tx_bytes) == (7, 300)


def test_copies_that_a_port_did_not_get_are_none_that_it_brought(switch: Switch, datapath: CountingDatapath) -> None:
    lost_copies = replace(drop(switch, "vm1", "blue", Reason.RATE_LIMITED, 3), kind=DropKind.COPY)
    datapath.dropped = [lost_copies, drop(switch, "vm1", "blue", Reason.RATE_LIMITED, 4)]
    port = views.port_detail(switch.state, datapath, lost, "vm1")
    assert (port.rx_packets, port.drops, port.drops_by_reason) == (4, 4, {"rate_limited": 4})
    assert views.segment_detail(switch.state, datapath, "blue").drops == {"rate_limited": 4}
    shown = views.drop_views(switch.state, datapath, "vm1")
    assert [(view.packets, view.copies) for view in shown] == [(4, False), (3, True)]


def test_what_is_dropped_in_shadow_alone_is_no_drop(switch: Switch, datapath: CountingDatapath) -> None:
    """It has its verdict elsewhere: counted here as well it would be two frames."""
    shadow = replace(drop(switch, "vm1", "blue", Reason.SRC_IP_DENIED, 3), kind=DropKind.SHADOW)
    datapath.dropped = [shadow, drop(switch, "vm1", "blue", Reason.MTU_EXCEEDED, 4)]
    port = views.port_detail(switch.state, datapath, lost, "vm1")
    assert (port.rx_packets, port.drops, port.drops_by_reason) == (4, 4, {"mtu_exceeded": 4})
    assert port.shadow_drops == {"src_ip_denied": 3}
    assert views.segment_detail(switch.state, datapath, "blue").drops == {"mtu_exceeded": 4}
    shown = views.drop_views(switch.state, datapath, "vm1")
    assert [(view.packets, view.copies, view.shadow) for view in shown] == [(4, False, False), (3, False, True)]


def test_a_port_is_shown_as_it_was_asked_for(switch: Switch, datapath: CountingDatapath) -> None:
    tap0, tap9, vm1 = next(views.port_views(switch.state, datapath, lost))
    assert (tap0.id, tap0.macs, tap0.ips, tap0.mode) == ("tap0", ["02:00:00:00:00:01"], ["10.0.0.1"], Mode.ACCESS)
    assert (tap9.state, tap9.isolated, tap9.hook) == (PortState.PENDING, True, "tc")
    assert (vm1.ifname, vm1.egress_failed, tap0.egress_failed) == ("tap1", 0, 12)
    assert vm1.segments == [MembershipView("red", None), MembershipView("blue", 10)]


def test_many_ports_come_in_batches_by_id(datapath: CountingDatapath) -> None:
    switch = Switch({})
    draft = switch.draft()
    draft.add_segment(Segment(name="blue", tenant="acme"))
    for n in range(600):
        draft.attach_port(Port(id=f"p{n:03}", ifname=f"tap{n}", segment="blue"))
    switch.commit(draft.plan())
    batches = list(views.port_views(switch.state, datapath, lost))
    assert [len(batch) for batch in batches] == [256, 256, 88]
    ids = [port.id for batch in batches for port in batch]
    assert ids == sorted(ids)


def test_one_port_is_shown_with_all_that_is_known(switch: Switch, datapath: CountingDatapath) -> None:
    handle = switch.state.handle_of_port("tap0")
    datapath.learning_of[handle] = Learning(entries=1, limited=2, moved=3, full=4, held=5)
    datapath.suppressed[handle] = 6
    count(switch, datapath, "tap0", "blue", Traffic(packets=(5, 6, 7, 8), copies=9))
    datapath.dropped = [
        drop(switch, "tap0", "blue", Reason.SRC_MAC_DENIED, 10),
        drop(switch, "tap0", None, Reason.VLAN_DENIED, 11),
        drop(switch, "tap0", "red", Reason.VLAN_DENIED, 1),
    ]
    port = views.port_detail(switch.state, datapath, lost, "tap0")
    assert (port.learned, port.limited, port.moved, port.full, port.held) == (1, 2, 3, 4, 5)
    assert port.events_suppressed == 6
    assert (port.max_macs, port.learn_rate) == (1024, 1000)
    assert port.verdicts == {"forwarded": 5, "flooded": 6, "replied": 7, "to_host": 8}
    assert port.drops_by_reason == {"src_mac_denied": 10, "vlan_denied": 12}
    assert (port.copies, port.egress_failed, port.drops) == (9, 12, 22)
    assert views.port_detail(switch.state, datapath, lost, "tap9").why == "device tap9 is not there"


def test_a_segment_is_shown_with_its_members_and_sums(switch: Switch, datapath: CountingDatapath) -> None:
    count(switch, datapath, "tap0", "blue", Traffic(packets=(1, 0, 0, 0), tx_packets=2))
    count(switch, datapath, "vm1", "blue", Traffic(packets=(4, 0, 0, 0)))
    count(switch, datapath, "vm1", "red", Traffic(packets=(1000, 0, 0, 0)))
    count(switch, datapath, "eth1", "blue", Traffic(packets=(8, 0, 0, 0)))
    datapath.dropped = [
        drop(switch, "vm1", "blue", Reason.HAIRPIN, 16),
        drop(switch, "vm1", "red", Reason.HAIRPIN, 500),
    ]
    blue = views.segment_detail(switch.state, datapath, "blue")
    assert (blue.ports, blue.uplinks) == (["tap0", "vm1"], ["eth1"])
    assert (blue.rx_packets, blue.tx_packets, blue.drops) == (29, 2, {"hairpin": 16})
    assert views.segment_detail(switch.state, datapath, "red").uplinks == []


def test_segments_list_their_ports_but_not_uplinks(switch: Switch) -> None:
    assert [(s.name, s.ports) for s in views.segment_views(switch.state)] == [
        ("blue", ["tap0", "vm1"]),
        ("red", ["tap9", "vm1"]),
    ]


def test_uplinks_count_what_comes_from_the_fabric(switch: Switch, datapath: CountingDatapath) -> None:
    count(switch, datapath, "eth1", "blue", Traffic(packets=(1, 2, 0, 0), tx_packets=5))
    count(switch, datapath, "eth1", None, Traffic(packets=(0, 0, 0, 4)))
    datapath.suppressed[switch.state.handle_of_uplink("eth1")] = 6
    [eth1] = views.uplink_views(switch.state, datapath)
    assert (eth1.ifname, eth1.rx_packets, eth1.tx_packets, eth1.hook) == ("eth1", 7, 5, "xdp+tc")
    assert eth1.events_suppressed == 6


NICS = {name: Device(ifname=name, ifindex=i) for i, name in enumerate(("tap0", "tap1", "eth1"), 10)}


def hooks(switch: Switch, datapath: CountingDatapath) -> dict[str, tuple[str, str]]:
    """Hook and reason of every port and uplink, as they are shown."""
    shown = {p.id: (p.hook, p.hook_why) for batch in views.port_views(switch.state, datapath, lost) for p in batch}
    for port_id, hook in shown.items():
        port = views.port_detail(switch.state, datapath, lost, port_id)
        assert (port.hook, port.hook_why) == hook
    return shown | {u.ifname: (u.hook, u.hook_why) for u in views.uplink_views(switch.state, datapath)}


def see(switch: Switch, device: Device) -> None:
    draft = switch.draft()
    draft.link_changed(device.ifindex, device)
    switch.commit(draft.plan())


def test_a_hook_is_shown_where_the_program_runs(switch: Switch, datapath: CountingDatapath) -> None:
    assert hooks(switch, datapath) == {
        "tap0": ("xdp+tc", ""),
        "vm1": ("xdp+tc", ""),
        "tap9": ("tc", ""),  # it has no device, so nobody knows
        "eth1": ("xdp+tc", ""),
    }


def test_why_a_program_does_not_run_at_xdp_is_shown(switch: Switch, datapath: CountingDatapath) -> None:
    see(switch, replace(NICS["tap0"], kind="tun", vhost=True))
    see(switch, replace(NICS["eth1"], lro=True))
    draft = switch.draft()
    draft.set_port("vm1", hook=Hook.TC)
    switch.commit(draft.plan())
    shown = hooks(switch, datapath)
    assert shown["tap0"] == ("tc", "a VM with vhost-net, where frames that XDP finishes would overtake others")
    assert shown["eth1"] == ("tc", "it merges frames that it receives; `ethtool -K eth1 lro off`")
    assert shown["vm1"] == ("tc", "asked for by --hook tc")


def test_a_tap_that_only_receives_at_xdp_runs_no_program_there(switch: Switch, datapath: CountingDatapath) -> None:
    see(switch, replace(NICS["tap0"], kind="tun", vhost=True))
    assert switch.state.xdp[switch.state.handle_of_port("tap0")] is Xdp.RECEIVES
    assert hooks(switch, datapath)["tap0"][0] == "tc"


def test_what_a_device_refused_is_shown(switch: Switch, datapath: CountingDatapath) -> None:
    why = "its driver has no native XDP"
    datapath.refused = {switch.state.handle_of_uplink("eth1"): why, switch.state.handle_of_port("tap0"): why}
    shown = hooks(switch, datapath)
    assert shown["eth1"] == shown["tap0"] == ("tc", why)
    assert shown["vm1"] == ("xdp+tc", "")


def test_fdb_entries_are_named(switch: Switch, datapath: CountingDatapath) -> None:
    state = switch.state
    blue, red = state.handle_of_segment("blue"), state.handle_of_segment("red")
    tap0, eth1 = state.handle_of_port("tap0"), state.handle_of_uplink("eth1")
    entries = [
        FdbEntry(segment=blue, mac=0x02000000000A, port=tap0, origin=Origin.STATIC, age_s=None),
        FdbEntry(segment=red, mac=0x02000000000B, port=eth1, origin=Origin.LEARNED, age_s=1.26, held_s=58.72),
        FdbEntry(segment=77, mac=1, port=1, origin=Origin.LEARNED, age_s=0.0),
        FdbEntry(segment=blue, mac=2, port=77, origin=Origin.CLUSTER, age_s=None),
    ]
    datapath.fdb = lambda *, segment=None: (e for e in entries if segment in (None, e.segment))  # type: ignore[method-assign]  # a fault
    found = [entry for batch in views.fdb_views(state, datapath, None) for entry in batch]
    assert [(e.segment, e.mac, e.port, e.origin, e.age_s, e.held_s) for e in found] == [
        ("blue", "02:00:00:00:00:0a", "tap0", "static", None, None),
        ("red", "02:00:00:00:00:0b", "eth1", "learned", 1.3, 58.7),
        ("blue", "00:00:00:00:00:02", None, "cluster", None, None),
    ]
    assert {e.tenant for e in found} == {"acme"}
    assert [len(batch) for batch in views.fdb_views(state, datapath, "red")] == [1]


def test_drops_are_named_and_the_most_come_first(switch: Switch, datapath: CountingDatapath) -> None:
    datapath.dropped = [
        drop(switch, "tap0", "blue", Reason.MALFORMED, 1),
        drop(switch, "eth1", None, Reason.LINK_LOCAL, 0),
        drop(switch, "vm1", None, Reason.VLAN_DENIED, 5),
        Drop(port=0, segment=0, reason=99, packets=2, bytes=3),
    ]
    found = views.drop_views(switch.state, datapath, None)
    assert [(d.port, d.segment, d.reason, d.packets, d.bytes) for d in found] == [
        ("vm1", None, "vlan_denied", 5, 500),
        (None, None, "reason_99", 2, 3),
        ("tap0", "blue", "malformed", 1, 100),
    ]
    assert [d.port for d in views.drop_views(switch.state, datapath, "tap0")] == ["tap0"]
    assert views.drop_views(switch.state, datapath, "eth1") == []


def test_what_is_not_there_is_not_found(switch: Switch, datapath: CountingDatapath) -> None:
    with pytest.raises(NotFound, match="no port nope"):
        views.port_detail(switch.state, datapath, lost, "nope")
    with pytest.raises(NotFound, match="no port nope"):
        views.drop_views(switch.state, datapath, "nope")
    with pytest.raises(NotFound, match="no segment nope"):
        views.segment_detail(switch.state, datapath, "nope")
    with pytest.raises(NotFound, match="no segment nope"):
        list(views.fdb_views(switch.state, datapath, "nope"))
