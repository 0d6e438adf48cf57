"""Commands and events: what they refuse, and in which order their effects come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from operator import methodcaller

import pytest

from vxagent.core.document import Contents, export
from vxagent.core.effects import Attach, Detach, Finish, PutRow, Save, SetDevice, SetXdp, inverse
from vxagent.core.plan import Plan
from vxagent.core.switch import Draft, Switch
from vxagent.core.tables import Table
from vxagent.errors import Conflict, Invalid, NotFound, Refused
from vxagent.model.device import Device
from vxagent.model.fdb import StaticEntry
from vxagent.model.port import Hook, Mode, Port, PortState, Uplink
from vxagent.model.segment import Segment, UnknownUnicast

BLUE = Segment(name="blue", tenant="acme", vlan=10)
RED = Segment(name="red", tenant="acme", vlan=20)
OTHER = Segment(name="other", tenant="evil")
MAC = "02:00:00:00:00:01"
TAP0 = Device(ifname="tap0", ifindex=7, kind="tun")
ETH1 = Device(ifname="eth1", ifindex=3)


def port(port_id: str = "tap0", **fields: object) -> Port:
    base: dict[str, object] = {"ifname": port_id, "segment": "blue", **fields}
    return Port(id=port_id, **base)  # type: ignore[arg-type]  # a test's shorthand


def commit(switch: Switch, draft: Draft) -> Plan:
    plan = draft.plan()
    switch.commit(plan)
    return plan


@pytest.fixture
def switch() -> Switch:
    """Segments blue and red of acme, other of evil; tap0 and eth1 are there; nothing is attached."""
    switch = Switch({})
    draft = switch.draft()
    for segment in (BLUE, RED, OTHER):
        draft.add_segment(segment)
    draft.links_read([TAP0, ETH1])
    commit(switch, draft)
    return switch


def test_adding_a_segment_that_is_there_unchanged_does_nothing(switch: Switch) -> None:
    draft = switch.draft()
    assert draft.add_segment(BLUE) is False
    assert draft.plan().effects == ()


def test_adding_a_segment_that_differs_is_refused(switch: Switch) -> None:
    with pytest.raises(Conflict, match="blue is there already and differs; use `vxagent segment set`"):
        switch.draft().add_segment(replace(BLUE, mtu=9000))


def test_a_vlan_given_to_another_segment_is_refused_by_name(switch: Switch) -> None:
    with pytest.raises(Conflict, match="vlan 10 is given to segment blue already"):
        switch.draft().add_segment(Segment(name="green", tenant="acme", vlan=10))


def test_a_segment_in_use_is_not_deleted(switch: Switch) -> None:
    draft = switch.draft()
    draft.attach_port(port())
    commit(switch, draft)
    with pytest.raises(Conflict, match="in use by port tap0"):
        switch.draft().delete_segment("blue")


def test_a_segment_with_a_static_entry_is_not_deleted(switch: Switch) -> None:
    draft = switch.draft()
    draft.add_uplink(Uplink(ifname="eth1"))
    draft.add_fdb(StaticEntry(segment="blue", mac=MAC, port="eth1"))
    commit(switch, draft)
    with pytest.raises(Conflict, match=f"static entry {MAC}"):
        switch.draft().delete_segment("blue")


@pytest.mark.parametrize(
    "delete",
    [
        methodcaller("delete_segment", "nope"),
        methodcaller("detach_port", "nope"),
        methodcaller("delete_uplink", "nope"),
        methodcaller("delete_fdb", "blue", MAC),
    ],
    ids=["segment", "port", "uplink", "fdb"],
)
def test_deleting_what_is_absent_is_refused(switch: Switch, delete: Callable[[Draft], object]) -> None:
    with pytest.raises(NotFound):
        delete(switch.draft())


def test_a_port_in_an_unknown_segment_is_refused(switch: Switch) -> None:
    with pytest.raises(NotFound, match="no segment nope"):
        switch.draft().attach_port(port(segment="nope"))


def test_a_trunk_across_tenants_is_refused(switch: Switch) -> None:
    with pytest.raises(Conflict, match=r"tenants acme .* and evil"):
        switch.draft().attach_port(port(mode=Mode.TRUNK, segment=None, trunk=(("blue", 10), ("other", 11))))


def test_a_segment_whose_trunk_would_cross_tenants_keeps_its_tenant(switch: Switch) -> None:
    draft = switch.draft()
    draft.attach_port(port(mode=Mode.TRUNK, segment=None, trunk=(("blue", 10), ("red", 11))))
    commit(switch, draft)
    with pytest.raises(Conflict, match="tenants"):
        switch.draft().set_segment("red", tenant="evil")


def test_a_port_id_used_twice_is_refused(switch: Switch) -> None:
    draft = switch.draft()
    draft.attach_port(port())
    with pytest.raises(Conflict, match="port tap0 is there already and differs"):
        draft.attach_port(port(ifname="tap1"))


def test_a_device_used_twice_is_refused(switch: Switch) -> None:
    draft = switch.draft()
    draft.attach_port(port())
    with pytest.raises(Conflict, match="device tap0 is port tap0 already"):
        draft.attach_port(port("again", ifname="tap0"))


def test_a_port_named_like_an_uplink_is_refused(switch: Switch) -> None:
    draft = switch.draft()
    draft.add_uplink(Uplink(ifname="eth1"))
    with pytest.raises(Conflict, match="name of an uplink"):
        draft.attach_port(port("eth1", ifname="tap0"))


@pytest.mark.parametrize(
    "claim",
    [
        methodcaller("attach_port", port("tap1", macs=(MAC,))),
        methodcaller("add_fdb", StaticEntry(segment="blue", mac=MAC, port="tap0")),
    ],
    ids=["port", "entry"],
)
def test_a_mac_static_in_the_segment_already_is_refused(switch: Switch, claim: Callable[[Draft], object]) -> None:
    draft = switch.draft()
    draft.attach_port(port(macs=(MAC,)))
    with pytest.raises(Conflict, match=f"MAC {MAC} is static in segment blue already, on port tap0"):
        claim(draft)


def test_the_same_mac_in_two_segments_is_taken(switch: Switch) -> None:
    draft = switch.draft()
    draft.attach_port(port(macs=(MAC,)))
    assert draft.attach_port(port("tap1", segment="other", macs=(MAC,)))


def test_a_static_entry_for_a_port_outside_the_segment_is_refused(switch: Switch) -> None:
    draft = switch.draft()
    draft.attach_port(port())
    with pytest.raises(Conflict, match="port tap0 is not in segment red"):
        draft.add_fdb(StaticEntry(segment="red", mac=MAC, port="tap0"))


def test_a_static_entry_that_names_an_unknown_vtep_is_refused(switch: Switch) -> None:
    with pytest.raises(NotFound, match=r"no vtep 192.0.2.1, which entry .* asks for; see `vxagent vtep list`"):
        switch.draft().add_fdb(StaticEntry(segment="blue", mac=MAC, vtep="192.0.2.1"))


def test_a_device_enslaved_to_a_bridge_is_refused_with_the_command_that_frees_it(switch: Switch) -> None:
    draft = switch.draft()
    draft.links_read([replace(TAP0, master="br0")])
    with pytest.raises(Refused, match="enslaved to br0; free it with `ip link set dev tap0 nomaster`"):
        draft.attach_port(port())


def test_a_device_with_an_address_of_the_host_is_refused(switch: Switch) -> None:
    draft = switch.draft()
    draft.links_read([replace(TAP0, addresses=("192.0.2.1/24",))])
    with pytest.raises(Refused, match=r"192\.0\.2\.1/24.*`ip address flush dev tap0`"):
        draft.attach_port(port())


def test_loopback_is_refused(switch: Switch) -> None:
    draft = switch.draft()
    draft.links_read([Device(ifname="lo", ifindex=1)])
    with pytest.raises(Refused, match="host's own"):
        draft.attach_port(port("lo"))
    with pytest.raises(Refused, match="lo is the host's own; name a NIC instead"):
        draft.add_uplink(Uplink(ifname="lo"))


def test_a_bridge_is_refused(switch: Switch) -> None:
    draft = switch.draft()
    draft.links_read([Device(ifname="br0", ifindex=9, kind="bridge")])
    with pytest.raises(Refused, match="br0 is a bridge; take the tap or veth that is enslaved to it"):
        draft.attach_port(port("br0"))
    with pytest.raises(Refused, match="br0 is a bridge; take the NIC that is enslaved to it"):
        draft.add_uplink(Uplink(ifname="br0"))


def test_a_bond_is_taken_as_an_uplink(switch: Switch) -> None:
    draft = switch.draft()
    draft.links_read([Device(ifname="bond0", ifindex=9, kind="bond")])
    assert draft.add_uplink(Uplink(ifname="bond0")) is True
    assert commit(switch, draft).state.uplink_state("bond0")[0] is PortState.UP


@pytest.mark.parametrize("first", ["segment", "uplink"])
def test_a_vid_that_has_a_vlan_device_on_the_uplink_is_refused(switch: Switch, first: str) -> None:
    vlan30 = Device(ifname="eth1.30", ifindex=9, kind="vlan", lower=3, vid=30)
    green = Segment(name="green", tenant="acme", vlan=30)
    draft = switch.draft()
    draft.links_read([TAP0, ETH1, vlan30])
    steps = [methodcaller("add_segment", green), methodcaller("add_uplink", Uplink(ifname="eth1"))]
    one, two = steps if first == "segment" else reversed(steps)
    one(draft)
    with pytest.raises(Conflict, match=r"VLAN 30 of uplink eth1 belongs to the host's device eth1\.30"):
        two(draft)


@pytest.mark.parametrize("device", [ETH1, replace(ETH1, lro=True), replace(ETH1, kind="veth"), None])
def test_an_uplink_at_xdp_is_taken_whatever_its_device_can(switch: Switch, device: Device | None) -> None:
    draft = switch.draft()
    draft.links_read([TAP0] if device is None else [TAP0, device])
    assert draft.add_uplink(Uplink(ifname="eth1", hook=Hook.XDP)) is True
    state = commit(switch, draft).state
    assert state.uplinks["eth1"].hook is Hook.XDP
    assert state.uplink_state("eth1")[0] is (PortState.PENDING if device is None else PortState.UP)


def test_an_ageing_time_out_of_range_is_refused(switch: Switch) -> None:
    with pytest.raises(Invalid, match="ageing_s"):
        switch.draft().set_ageing(-1)


def test_a_refused_draft_leaves_the_switch_as_it_was(switch: Switch) -> None:
    before = switch.state.copy()
    draft = switch.draft()
    draft.attach_port(port(macs=(MAC,)))
    with pytest.raises(Conflict):
        draft.attach_port(port("tap1", macs=(MAC,)))
    assert export(switch.state) == export(before)
    assert switch.state.rows == before.rows


def test_attach_saves_quiets_fills_attaches_and_sets_up_in_this_order(switch: Switch) -> None:
    draft = switch.draft()
    draft.attach_port(port(macs=(MAC,)))
    effects = draft.plan().effects
    kinds = [type(e) for e in effects]
    assert kinds[0] is Save
    assert effects[1] == SetDevice(ifindex=7, ifname="tap0", arp=False, ipv6=False, undo=(None, True, True, None, None))
    rows = [i for i, kind in enumerate(kinds) if kind is PutRow]
    at = kinds.index(Attach)
    assert rows
    assert max(rows) < at
    assert effects[at + 1] == SetDevice(ifindex=7, ifname="tap0", up=True, undo=(True, None, None, None, None))
    assert kinds[at + 2 :] == [SetXdp, Finish]


def test_detach_sets_the_device_down_before_the_program_goes_and_restores_it_after(switch: Switch) -> None:
    draft = switch.draft()
    draft.attach_port(port())
    commit(switch, draft)
    draft = switch.draft()
    draft.links_read([replace(TAP0, arp=False, ipv6=False), ETH1])
    draft.detach_port("tap0")
    effects = list(draft.plan().effects)
    down = next(i for i, e in enumerate(effects) if isinstance(e, SetDevice) and e.up is False)
    off = next(i for i, e in enumerate(effects) if isinstance(e, Detach))
    back = next(i for i, e in enumerate(effects) if isinstance(e, SetDevice) and e.arp is True and e.ipv6 is True)
    assert down < off < back


def test_detaching_gives_all_numbers_and_rows_back(switch: Switch) -> None:
    before = switch.state
    draft = switch.draft()
    draft.attach_port(port(mode=Mode.TRUNK, segment=None, trunk=(("blue", 10),), native="red", macs=(MAC,)))
    commit(switch, draft)
    draft = switch.draft()
    draft.detach_port("tap0")
    commit(switch, draft)
    assert switch.state.rows == before.rows
    assert switch.state.numbers.given == before.numbers.given
    assert switch.state.before == before.before


def test_static_entries_of_a_port_go_with_it(switch: Switch) -> None:
    draft = switch.draft()
    draft.attach_port(port())
    draft.add_fdb(StaticEntry(segment="blue", mac=MAC, port="tap0"))
    commit(switch, draft)
    draft = switch.draft()
    draft.detach_port("tap0")
    assert draft.state.fdb == {}
    commit(switch, draft)
    assert not [key for key in switch.state.rows if key[0] is Table.FDB]


def test_a_port_without_its_device_is_pending_and_says_why(switch: Switch) -> None:
    draft = switch.draft()
    draft.attach_port(port("tap9"))
    plan = commit(switch, draft)
    assert not [e for e in plan.effects if isinstance(e, Attach)]
    assert switch.state.port_state("tap9") == (PortState.PENDING, "device tap9 is not there")


def test_a_device_that_appears_is_attached(switch: Switch) -> None:
    draft = switch.draft()
    draft.attach_port(port("tap9"))
    commit(switch, draft)
    draft = switch.draft()
    draft.link_changed(99, Device(ifname="tap9", ifindex=99, kind="tun"))
    plan = commit(switch, draft)
    assert [e.ifindex for e in plan.effects if isinstance(e, Attach)] == [99]
    assert switch.state.port_state("tap9") == (PortState.UP, "")


def test_a_device_that_vanishes_makes_its_port_pending(switch: Switch) -> None:
    draft = switch.draft()
    draft.attach_port(port())
    commit(switch, draft)
    draft = switch.draft()
    draft.link_changed(7, None)
    plan = commit(switch, draft)
    assert [type(e) for e in plan.effects if isinstance(e, (Detach, SetDevice))] == [Detach]
    assert switch.state.port_state("tap0")[0] is PortState.PENDING


def test_a_device_enslaved_after_the_attach_stays_attached(switch: Switch) -> None:
    draft = switch.draft()
    draft.attach_port(port())
    commit(switch, draft)
    draft = switch.draft()
    draft.link_changed(7, replace(TAP0, master="br0"))
    assert not [e for e in draft.plan().effects if isinstance(e, Detach)]


def test_a_segment_with_a_vlan_joins_every_uplink(switch: Switch) -> None:
    draft = switch.draft()
    draft.add_uplink(Uplink(ifname="eth1"))
    commit(switch, draft)
    assert switch.state.memberships("eth1") == (("blue", 10), ("red", 20))
    draft = switch.draft()
    draft.set_segment("red", vlan=None)
    commit(switch, draft)
    handle = switch.state.handle_of_uplink("eth1")
    assert {key for table, key in switch.state.rows if table is Table.VIDS} == {handle << 16 | 10}


def test_set_changes_the_row_in_place(switch: Switch) -> None:
    draft = switch.draft()
    draft.attach_port(port())
    commit(switch, draft)
    draft = switch.draft()
    draft.set_port("tap0", isolated=True)
    rows = [e for e in draft.plan().effects if isinstance(e, PutRow)]
    assert [e.table for e in rows] == [Table.PORTS]
    assert rows[0].old is not None


def test_an_access_port_becomes_a_trunk_and_back(switch: Switch) -> None:
    draft = switch.draft()
    draft.attach_port(port())
    draft.set_port("tap0", trunk=(("blue", 10),), native="red")
    assert draft.state.ports["tap0"].mode is Mode.TRUNK
    draft.set_port("tap0", segment="red")
    assert draft.state.ports["tap0"] == port(segment="red")


def test_every_effect_has_an_inverse_that_is_undone_by_its_own(switch: Switch) -> None:
    draft = switch.draft()
    draft.attach_port(port(macs=(MAC,)))
    draft.add_uplink(Uplink(ifname="eth1"))
    *effects, last = draft.plan().effects
    assert last == Finish()  # there is nothing to be undone after it
    for effect in effects:
        back = inverse(effect)
        assert back is not None
        if not isinstance(effect, Save):
            assert inverse(back) == effect


def contents(**fields: object) -> Contents:
    base: dict[str, object] = {"segments": (BLUE, RED, OTHER), **fields}
    return Contents(**base)  # type: ignore[arg-type]  # a test's shorthand


def test_apply_adds_sets_and_reports(switch: Switch) -> None:
    draft = switch.draft()
    doc = contents(segments=(replace(BLUE, mtu=9000), RED, OTHER), ports=(port(),))
    changes = draft.apply(doc)
    assert [(c.action, c.kind, c.name, c.what) for c in changes] == [
        ("set", "segment", "blue", ("mtu 1500 -> 9000",)),
        ("add", "port", "tap0", ()),
    ]


def test_a_second_unchanged_apply_does_nothing(switch: Switch) -> None:
    doc = contents(ports=(port(),), uplinks=(Uplink(ifname="eth1"),))
    draft = switch.draft()
    draft.apply(doc)
    commit(switch, draft)
    draft = switch.draft()
    assert draft.apply(doc) == []
    assert draft.plan().effects == ()


def test_apply_removes_only_what_an_apply_made(switch: Switch) -> None:
    draft = switch.draft()
    draft.attach_port(port())
    draft.apply(contents(ports=(port("tap1"),)))
    commit(switch, draft)
    draft = switch.draft()
    assert [(c.action, c.name) for c in draft.apply(contents())] == [("delete", "tap1")]
    assert set(draft.state.ports) == {"tap0"}


def test_apply_with_prune_removes_the_rest_too(switch: Switch) -> None:
    draft = switch.draft()
    draft.attach_port(port())
    commit(switch, draft)
    draft = switch.draft()
    assert {(c.action, c.name) for c in draft.apply(Contents(), prune=True)} == {
        ("delete", "tap0"),
        ("delete", "blue"),
        ("delete", "red"),
        ("delete", "other"),
    }
    assert not draft.state.segments


def test_apply_may_swap_two_vlans(switch: Switch) -> None:
    draft = switch.draft()
    draft.apply(contents(segments=(replace(BLUE, vlan=20), replace(RED, vlan=10), OTHER)))
    assert draft.state.segments["blue"].vlan == 20


def test_apply_that_removes_a_segment_in_use_is_refused(switch: Switch) -> None:
    draft = switch.draft()
    draft.apply(contents(segments=(Segment(name="green", tenant="acme"),)))
    draft.attach_port(port(segment="green"))
    commit(switch, draft)
    with pytest.raises(Conflict, match="segment green is in use by port tap0"):
        switch.draft().apply(contents())


def test_an_object_twice_in_a_document_is_refused(switch: Switch) -> None:
    with pytest.raises(Invalid, match="stands in the document twice"):
        switch.draft().apply(contents(segments=(BLUE, BLUE)))


def test_one_wrong_entry_of_a_thousand_changes_nothing(switch: Switch) -> None:
    ports = tuple(port(f"tap{n}") for n in range(1000))
    before = switch.state
    with pytest.raises(NotFound, match="no segment nope, which port tap999 asks for"):
        switch.draft().apply(contents(ports=(*ports[:-1], replace(ports[-1], segment="nope"))))
    assert switch.state is before
    assert not before.ports


def test_export_gives_what_apply_takes_back_unchanged(switch: Switch) -> None:
    draft = switch.draft()
    draft.attach_port(port(macs=(MAC,)))
    draft.add_uplink(Uplink(ifname="eth1"))
    draft.set_segment("red", unknown_unicast=UnknownUnicast.DROP)
    commit(switch, draft)
    assert switch.draft().apply(export(switch.state)) == []
