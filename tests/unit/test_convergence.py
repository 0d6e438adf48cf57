"""Whatever happens in whatever order: the tables are those that a restart makes from the desired state."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from operator import methodcaller

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from support.sim import Sim
from vxagent.core.effects import Xdp
from vxagent.core.hooks import choose
from vxagent.core.numbers import UNDERLAY
from vxagent.core.tables import Table
from vxagent.datapath.abi import Reason, Verdict
from vxagent.datapath.fake_forwarding import Frame, Outcome
from vxagent.errors import HostError, Refused, VxagentError
from vxagent.model.device import Device
from vxagent.model.fdb import StaticEntry
from vxagent.model.port import Hook, Mode, Port, Uplink
from vxagent.model.segment import Segment, UnknownUnicast
from vxagent.model.vtep import Overlay, Vtep

SEGMENTS = {"blue": "acme", "red": "acme", "evil": "mallory"}
DEVICES = {name: n for n, name in enumerate(("tap0", "tap1", "tap2", "tap3", "eth1", "eth2", "eth3"), start=10)}


def new_device(ifname: str, ifindex: int) -> Device:
    """A tap, or a NIC that takes VLAN tags out of frames."""
    hardware = ifname.startswith("eth")
    return Device(ifname=ifname, ifindex=ifindex, kind="" if hardware else "tun", rxvlan=hardware)


MACS = [f"02:00:00:00:00:0{n}" for n in range(1, 4)]

segments = st.sampled_from(sorted(SEGMENTS))
taps = st.sampled_from([name for name in DEVICES if name.startswith("tap")])
nics = st.sampled_from([name for name in DEVICES if name.startswith("eth")])
macs = st.lists(st.sampled_from(MACS), max_size=2, unique=True).map(tuple)
ips = st.lists(st.sampled_from(("10.0.0.1", "10.1.0.0/16", "2001:db8::1")), max_size=2, unique=True).map(tuple)
vlans = st.none() | st.integers(10, 12)
vnis = st.none() | st.integers(5010, 5011)
addresses = st.sampled_from(("192.0.2.1", "192.0.2.9", "192.0.2.12", "2001:db8::c"))
several_vnis = st.lists(st.integers(5010, 5012), max_size=2, unique=True).map(tuple)
overlays = st.none() | st.builds(Overlay, vtep=addresses, device=st.sampled_from(("eth1", "eth2", "eth3", "tap3")))
mtus = st.sampled_from((1400, 1500, 9000))


@st.composite
def ports(draw: st.DrawFn) -> Port:
    ifname = draw(taps)
    base = Port(
        id=ifname,
        ifname=ifname,
        segment="blue",
        macs=draw(macs),
        ips=draw(ips),
        isolated=draw(st.booleans()),
        hook=draw(st.sampled_from((Hook.AUTO, Hook.TC))),
    )
    if draw(st.booleans()):
        return replace(base, segment=draw(segments))
    names = draw(st.lists(segments, min_size=1, max_size=3, unique=True))
    native = names.pop() if len(names) > 1 and draw(st.booleans()) else None
    trunk = tuple((name, 100 + n) for n, name in enumerate(names))
    return replace(base, mode=Mode.TRUNK, segment=None, trunk=trunk, native=native)


class Convergence(RuleBasedStateMachine):
    """Commands, link events, restarts, reboots and failures, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.sim = Sim(*(new_device(name, n) for name, n in DEVICES.items()))
        self.next_ifindex = 100

    @initialize(first=st.lists(ports(), max_size=3, unique_by=lambda port: port.id))
    def begin(self, first: list[Port]) -> None:
        """Most commands need a segment, many a port: start with some."""
        for number, name in enumerate(sorted(SEGMENTS), start=10):
            self.add_segment(name, number, drop=False)
        self.add_uplink("eth1", Hook.AUTO)
        for port in first:
            self.attach(port)

    def attempt(self, make: object) -> None:
        """A command may be refused; then nothing has changed."""
        before = self.snapshot()
        try:
            self.sim.change(make)  # type: ignore[arg-type]  # a lambda over Draft
        except Refused:
            assert self.snapshot() == before
        self.sim.sync()

    def snapshot(self) -> tuple[object, ...]:
        datapath = self.sim.datapath
        return datapath.rows(), datapath.attached(), datapath.xdp(), self.sim.store.load()

    @rule(name=segments, vlan=vlans, drop=st.booleans())
    def add_segment(self, name: str, vlan: int | None, drop: bool) -> None:
        policy = UnknownUnicast.DROP if drop else UnknownUnicast.FLOOD
        segment = Segment(name=name, tenant=SEGMENTS[name], vlan=vlan, unknown_unicast=policy)
        self.attempt(lambda d: d.add_segment(segment))

    @rule(name=segments, vlan=vlans, vni=vnis, mtu=mtus)
    def set_segment(self, name: str, vlan: int | None, vni: int | None, mtu: int) -> None:
        self.attempt(lambda d: d.set_segment(name, vlan=vlan, vni=vni, mtu=mtu))

    @rule(address=addresses, of=several_vnis)
    def add_vtep(self, address: str, of: tuple[int, ...]) -> None:
        self.attempt(lambda d: d.add_vtep(Vtep(address=address, vnis=of)))

    @rule(address=addresses, of=several_vnis)
    def set_vtep(self, address: str, of: tuple[int, ...]) -> None:
        self.attempt(lambda d: d.set_vtep(address, vnis=of))

    @rule(address=addresses)
    def delete_vtep(self, address: str) -> None:
        self.attempt(lambda d: d.delete_vtep(address))

    @rule(overlay=overlays)
    def the_config_changes(self, overlay: Overlay | None) -> None:
        """Whatever it says, the agent starts."""
        self.sim.overlay = overlay
        self.sim.restart()
        self.sim.settle()

    @rule(name=segments)
    def delete_segment(self, name: str) -> None:
        self.attempt(lambda d: d.delete_segment(name))

    @rule(port=ports())
    def attach(self, port: Port) -> None:
        self.attempt(lambda d: d.attach_port(port))

    @rule(port=ports())
    def set_port(self, port: Port) -> None:
        self.attempt(
            lambda d: d.set_port(
                port.id,
                mode=port.mode,
                segment=port.segment,
                trunk=port.trunk,
                native=port.native,
                macs=port.macs,
                ips=port.ips,
                hook=port.hook,
            )
        )

    @rule(ifname=taps)
    def detach(self, ifname: str) -> None:
        self.attempt(lambda d: d.detach_port(ifname))

    @rule(ifname=nics, hook=st.sampled_from(Hook))
    def add_uplink(self, ifname: str, hook: Hook) -> None:
        self.attempt(lambda d: d.add_uplink(Uplink(ifname=ifname, hook=hook)))

    @rule(ifname=nics)
    def delete_uplink(self, ifname: str) -> None:
        self.attempt(lambda d: d.delete_uplink(ifname))

    @rule(segment=segments, mac=st.sampled_from(MACS), port=taps | nics)
    def add_fdb(self, segment: str, mac: str, port: str) -> None:
        self.attempt(lambda d: d.add_fdb(StaticEntry(segment=segment, mac=mac, port=port)))

    @rule(segment=segments, mac=st.sampled_from(MACS), vtep=addresses)
    def add_fdb_at_vtep(self, segment: str, mac: str, vtep: str) -> None:
        self.attempt(lambda d: d.add_fdb(StaticEntry(segment=segment, mac=mac, vtep=vtep)))

    @rule(segment=segments, mac=st.sampled_from(MACS))
    def delete_fdb(self, segment: str, mac: str) -> None:
        self.attempt(lambda d: d.delete_fdb(segment, mac))

    @rule(ifname=taps | nics)
    def device_goes_or_comes(self, ifname: str) -> None:
        if any(d.ifname == ifname for d in self.sim.links.devices()):
            self.sim.unplug(ifname)
        else:
            self.next_ifindex += 1
            self.sim.plug(new_device(ifname, self.next_ifindex))

    @rule(ifname=taps, master=st.sampled_from(["", "br0"]))
    def device_is_enslaved_or_freed(self, ifname: str, master: str) -> None:
        for device in self.sim.links.devices():
            if device.ifname == ifname:
                self.sim.plug(replace(device, master=master))

    @rule(ifname=taps, carrier=st.booleans(), vhost=st.booleans(), mtu=mtus)
    def a_vm_comes_or_goes(self, ifname: str, carrier: bool, vhost: bool, mtu: int) -> None:
        for device in self.sim.links.devices():
            if device.ifname == ifname:
                self.sim.plug(replace(device, carrier=carrier, vhost=vhost, mtu=mtu))

    @rule(ifname=nics, lro=st.booleans(), rxvlan=st.booleans(), fixed=st.booleans())
    def somebody_sets_offloads(self, ifname: str, lro: bool, rxvlan: bool, fixed: bool) -> None:
        for device in self.sim.links.devices():
            if device.ifname == ifname:
                self.sim.plug(replace(device, lro=lro, rxvlan=rxvlan, rxvlan_fixed=fixed))

    @rule(port=ports(), at=st.integers(1, 9))
    def an_effect_fails(self, port: Port, at: int) -> None:
        before = self.snapshot()
        self.sim.datapath.fail_at = at
        try:
            self.sim.change(lambda d: d.attach_port(port))
        except HostError:
            assert self.snapshot() == before
        except VxagentError:
            pass
        self.sim.datapath.fail_at = 0
        self.sim.sync()

    @rule()
    def the_agent_restarts(self) -> None:
        before = self.snapshot()
        self.sim.restart()
        assert self.snapshot() == before

    @precondition(lambda self: not any(device.master for device in self.sim.links.devices()))
    @rule()
    def the_machine_restarts(self) -> None:
        """A device enslaved after its attach stays attached, but would not be attached anew."""
        rows = self.sim.datapath.rows()
        self.sim.reboot()
        assert self.sim.datapath.rows() == rows
        self.sim.sync()

    @invariant()
    def the_agent_knows_what_the_kernel_holds(self) -> None:
        assert self.sim.datapath.rows() == self.sim.switch.state.rows
        attached = {handle: ifindex for handle, (ifindex, _) in self.sim.switch.state.attached.items()}
        assert self.sim.datapath.attached() == attached
        assert self.sim.datapath.xdp() == self.sim.switch.state.xdp

    @invariant()
    def xdp_does_what_is_chosen_where_a_program_runs_and_nothing_elsewhere(self) -> None:
        state = self.sim.switch.state
        names = state.names("port")
        there = {d.ifname: d for d in self.sim.links.devices()}
        chosen = {handle: choose(state, names[handle], there[name]).xdp for handle, (_, name) in state.attached.items()}
        assert self.sim.datapath.xdp() == {handle: xdp for handle, xdp in chosen.items() if xdp}

    @invariant()
    def attached_devices_are_quiet_and_up(self) -> None:
        """But for the underlay, which is the host's."""
        state = self.sim.switch.state
        names = state.names("port")
        there = {d.ifname: d for d in self.sim.links.devices()}
        for handle, (_, ifname) in state.attached.items():
            device = there[ifname]
            if names[handle].startswith(UNDERLAY):
                assert not device.promisc
                assert device.arp
                continue
            assert device.up
            assert device.promisc if names[handle] in state.uplinks else not (device.arp or device.ipv6)
            sends = Xdp.SENDS in state.xdp.get(handle, Xdp.NONE)
            assert not (sends and (device.rxvlan or device.lro or device.vhost))

    @invariant()
    def no_broadcast_leaves_its_tenant(self) -> None:
        state, datapath = self.sim.switch.state, self.sim.datapath
        tenant_of = {name: segment.tenant for name, segment in state.segments.items()}
        port_at = {ifindex: state.names("port")[handle] for handle, (ifindex, _) in state.attached.items()}
        learned = dict(datapath.learned)
        for ifindex, name in port_at.items():
            for tags in ((), *(((0x8100, vid),) for _, vid in state.memberships(name) if vid)):
                outcome = datapath.forward(ifindex, Frame(src=0x020000000009, dst=0xFFFFFFFFFFFF, tags=tags))
                vid = tags[0][1] if tags else 0
                tenants = {tenant_of[s] for s, v in state.memberships(name) if v == vid}
                for to, out in outcome.copies:
                    there = {tenant_of[s] for s, v in state.memberships(port_at[to]) if v == out}
                    assert there & tenants
                for vtep, vni in outcome.tunnelled:
                    assert vni in state.vteps[vtep].vnis
                    assert {segment.tenant for segment in state.segments.values() if segment.vni == vni} & tenants
        datapath.learned = learned


TestConvergence = Convergence.TestCase
TestConvergence.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


@pytest.fixture
def sim() -> Sim:
    """tap0 (locked to a MAC), tap1 in blue; tap2 in evil; an uplink with blue as VLAN 10."""
    sim = Sim(*(new_device(name, n) for name, n in DEVICES.items()))
    sim.change(lambda d: d.add_segment(Segment(name="blue", tenant="acme", vlan=10)))
    sim.change(lambda d: d.add_segment(Segment(name="evil", tenant="mallory")))
    sim.change(lambda d: d.attach_port(Port(id="tap0", ifname="tap0", segment="blue", macs=(MACS[0],))))
    sim.change(lambda d: d.attach_port(Port(id="tap1", ifname="tap1", segment="blue")))
    sim.change(lambda d: d.attach_port(Port(id="tap2", ifname="tap2", segment="evil")))
    sim.change(lambda d: d.add_uplink(Uplink(ifname="eth1")))
    return sim


def test_unicast_to_a_listed_mac_goes_to_its_port_alone(sim: Sim) -> None:
    outcome = sim.datapath.forward(DEVICES["tap1"], Frame(src=0x020000000002, dst=0x020000000001))
    assert outcome == Outcome(verdict=Verdict.FORWARDED, copies=frozenset({(DEVICES["tap0"], 0)}))


def test_a_broadcast_leaves_on_the_uplink_with_the_segments_vlan(sim: Sim) -> None:
    outcome = sim.datapath.forward(DEVICES["tap1"], Frame(src=0x020000000002, dst=0xFFFFFFFFFFFF))
    assert outcome.copies == {(DEVICES["tap0"], 0), (DEVICES["eth1"], 10)}


def test_a_mac_that_the_port_does_not_list_is_denied(sim: Sim) -> None:
    outcome = sim.datapath.forward(DEVICES["tap0"], Frame(src=0x020000000002, dst=0xFFFFFFFFFFFF))
    assert outcome.reason is Reason.SRC_MAC_DENIED


@pytest.mark.parametrize(
    ("ip", "denied"),
    [
        ("10.0.0.1", False),
        ("10.0.0.2", True),
        ("10.1.255.255", False),
        ("10.2.0.0", True),
        ("2001:db8::1:2", False),
        ("2001:db8:0:1::", True),
        ("0.0.0.0", False),
        ("::", False),
        ("fe80::2", False),
    ],
)
def test_a_port_that_lists_ips_goes_by_no_other(sim: Sim, ip: str, denied: bool) -> None:
    sim.change(lambda d: d.set_port("tap1", ips=("10.0.0.1", "10.1.0.0/16", "2001:db8::/64")))
    frame = Frame(src=0x020000000002, dst=0x020000000001, ip=ip_address(ip))
    outcome = sim.datapath.forward(DEVICES["tap1"], frame)
    assert (outcome.reason is Reason.SRC_IP_DENIED) == denied
    sim.change(lambda d: d.set_port("tap1", ips=()))
    assert sim.datapath.forward(DEVICES["tap1"], frame).verdict is Verdict.FORWARDED
    assert not [key for table, key in sim.datapath.rows() if table in (Table.ADDRESSES, Table.PREFIXES)]


def test_a_moved_port_takes_nothing_of_its_old_segment(sim: Sim) -> None:
    sim.datapath.forward(DEVICES["tap1"], Frame(src=0x020000000002, dst=0xFFFFFFFFFFFF))
    sim.change(lambda d: d.set_port("tap1", segment="evil"))
    tag = ((0x8100, 10),)
    outcome = sim.datapath.forward(DEVICES["eth1"], Frame(src=0x020000000005, dst=0x020000000002, tags=tag))
    assert outcome.copies == {(DEVICES["tap0"], 0)}


def test_rows_are_gone_when_all_is_deleted(sim: Sim) -> None:
    for ifname in ("tap0", "tap1", "tap2"):
        sim.change(methodcaller("detach_port", ifname))
    sim.change(methodcaller("delete_uplink", "eth1"))
    for name in ("blue", "evil"):
        sim.change(methodcaller("delete_segment", name))
    assert set(sim.datapath.rows()) == {(Table.SETTINGS, 0)}
    assert sim.store.load() == {}


def test_down_gives_the_devices_back_as_they_were(sim: Sim) -> None:
    sim.sync()
    sim.change(lambda d: d.take_off())
    there = {d.ifname: d for d in sim.links.devices()}
    assert sim.datapath.attached() == {}
    assert sim.datapath.xdp() == {}
    assert not there["tap0"].up
    assert there["tap0"].arp
    assert there["tap0"].ipv6
    assert there["eth1"].up
    assert not there["eth1"].promisc
    assert there["eth1"].rxvlan
