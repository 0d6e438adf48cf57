"""XDP in front of tc: when the plan has it begin and end, and what a restart makes of what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from operator import methodcaller

import pytest

from support.sim import Sim
from vxagent.core.effects import Attach, Detach, Effect, SetDevice, SetXdp, Xdp, inverse
from vxagent.core.switch import Draft
from vxagent.datapath.base import Datapath
from vxagent.errors import HostError
from vxagent.model.device import Device
from vxagent.model.port import Hook, Mode, Port, Uplink
from vxagent.model.segment import Segment
from vxagent.netlink.base import Links
from vxagent.runtime.executor import Executor
from vxagent.store.base import Store

BOTH = Xdp.SENDS | Xdp.RECEIVES
TAP = Device(ifname="tap0", ifindex=7, kind="tun")
ETH = Device(ifname="eth1", ifindex=3)
VETH = Device(ifname="veth0", ifindex=8, kind="veth")


class NotingExecutor(Executor):
    """Remembers what it was to do."""

    def __init__(self, datapath: Datapath, links: Links, store: Store) -> None:
        super().__init__(datapath, links, store)
        self.told: list[Effect] = []

    def run(self, effects: Iterable[Effect]) -> None:
        effects = list(effects)
        self.told += effects
        super().run(effects)


class Host(Sim):
    """A Sim with a segment blue that knows what it did to devices and hooks since it was asked last."""

    def __init__(self, *devices: Device) -> None:
        super().__init__(*devices)
        self.executor: NotingExecutor = NotingExecutor(self.datapath, self.links, self.store)
        self.change(lambda d: d.add_segment(Segment(name="blue", tenant="acme", vlan=10)))

    def done(self) -> list[Effect]:
        """Effects at devices and hooks, in order."""
        done, self.executor.told = self.executor.told, []
        return [effect for effect in done if isinstance(effect, (Attach, Detach, SetDevice, SetXdp))]

    def did(self, make: Callable[[Draft], object]) -> list[Effect]:
        """Those of this change."""
        self.done()
        self.change(make)
        return self.done()

    def seen(self, device: Device) -> list[Effect]:
        """Those that follow when the device is seen like this."""
        self.done()
        self.plug(device)
        return self.done()

    def attach(self, device: Device = TAP, **fields: object) -> int:
        """Make it a port; return its handle."""
        port = Port(id=device.ifname, ifname=device.ifname, segment="blue", **fields)  # type: ignore[arg-type]  # by name
        self.change(lambda d: d.attach_port(port))
        return self.switch.state.handle_of_port(device.ifname)

    def add_uplink(self, device: Device = ETH, hook: Hook = Hook.AUTO) -> int:
        """Make it an uplink; return its handle."""
        self.change(lambda d: d.add_uplink(Uplink(ifname=device.ifname, hook=hook)))
        return self.switch.state.handle_of_uplink(device.ifname)

    def there(self, ifname: str) -> Device:
        """The device as it is."""
        return self.links.by_name[ifname]


def set_xdp(handle: int, device: Device, xdp: Xdp, old: Xdp) -> SetXdp:
    return SetXdp(handle=handle, ifindex=device.ifindex, ifname=device.ifname, xdp=xdp, old=old)


def kinds(effects: list[Effect]) -> list[type]:
    return [type(effect) for effect in effects]


# Beginning and end


def test_xdp_begins_when_the_program_runs_at_tc_and_the_device_is_up() -> None:
    host = Host(replace(TAP, up=False))
    handle = host.attach()
    assert host.done() == [
        SetDevice(ifindex=7, ifname="tap0", arp=False, ipv6=False, undo=(None, True, True, None, None)),
        Attach(handle=handle, ifindex=7, ifname="tap0"),
        SetDevice(ifindex=7, ifname="tap0", up=True, undo=(False, None, None, None, None)),
        set_xdp(handle, TAP, BOTH, Xdp.NONE),
    ]
    assert host.switch.state.xdp == host.datapath.xdp() == {handle: BOTH}


def test_xdp_ends_before_the_device_goes_down_and_the_program_goes() -> None:
    """XDP elsewhere would send to a device that is down, and nobody would count what is lost; tc counts it."""
    host = Host(TAP)
    handle = host.attach()
    off, down, detach, back = host.did(methodcaller("detach_port", "tap0"))
    assert off == set_xdp(handle, TAP, Xdp.NONE, BOTH)
    assert down == SetDevice(ifindex=7, ifname="tap0", up=False, undo=(True, None, None, None, None))
    assert detach == Detach(handle=handle, ifindex=7, ifname="tap0")
    assert kinds([back]) == [SetDevice]
    assert host.switch.state.xdp == host.datapath.xdp() == {}


def test_detaching_undoes_attaching_in_reverse() -> None:
    host = Host(replace(TAP, up=False))
    host.attach()
    attach = [inverse(effect) for effect in reversed(host.done()[1:])]
    assert kinds(host.did(methodcaller("detach_port", "tap0")))[:3] == [type(effect) for effect in attach]


@pytest.mark.parametrize("xdp", [Xdp.NONE, Xdp.SENDS, Xdp.RECEIVES])
def test_what_xdp_did_before_is_what_the_inverse_has_it_do(xdp: Xdp) -> None:
    effect = set_xdp(1, TAP, xdp, BOTH)
    back = inverse(effect)
    assert back == set_xdp(1, TAP, BOTH, xdp)
    assert inverse(back) == effect


def test_a_device_where_xdp_does_nothing_gets_no_effect() -> None:
    host = Host(VETH)
    host.attach(VETH)
    assert SetXdp not in kinds(host.done())
    assert SetXdp not in kinds(host.did(methodcaller("detach_port", "veth0")))


def test_an_internal_port_is_without_xdp() -> None:
    host = Host()
    host.change(lambda d: d.attach_port(Port(id="host0", ifname="host0", mode=Mode.INTERNAL, segment="blue")))
    host.sync()
    done = kinds(host.done())
    assert Attach in done
    assert SetXdp not in done


def test_a_device_that_vanishes_ends_xdp_before_its_program() -> None:
    host = Host(TAP)
    handle = host.attach()
    host.done()
    host.unplug("tap0")
    assert host.done() == [
        set_xdp(handle, TAP, Xdp.NONE, BOTH),
        Detach(handle=handle, ifindex=7, ifname="tap0"),
    ]


def test_a_device_that_comes_back_with_another_number_begins_anew() -> None:
    host = Host(TAP)
    handle = host.attach()
    other = replace(TAP, ifindex=70)
    done = host.seen(other)
    assert [e for e in done if not isinstance(e, SetDevice)] == [
        set_xdp(handle, TAP, Xdp.NONE, BOTH),
        Detach(handle=handle, ifindex=7, ifname="tap0"),
        Attach(handle=handle, ifindex=70, ifname="tap0"),
        set_xdp(handle, other, BOTH, Xdp.NONE),
    ]


def test_down_ends_xdp_everywhere() -> None:
    host = Host(TAP, ETH)
    port, uplink = host.attach(), host.add_uplink()
    done = host.did(lambda d: d.take_off())
    assert [e for e in done if isinstance(e, SetXdp)] == [
        set_xdp(port, TAP, Xdp.NONE, BOTH),
        set_xdp(uplink, ETH, Xdp.NONE, Xdp.SENDS),
    ]
    assert max(i for i, e in enumerate(done) if isinstance(e, SetXdp)) < kinds(done).index(Detach)
    assert host.datapath.xdp() == {}


# Changes while it runs


def test_another_hook_is_one_effect_while_the_program_runs_on() -> None:
    host = Host(TAP)
    handle = host.attach()
    assert host.did(methodcaller("set_port", "tap0", hook=Hook.TC)) == [set_xdp(handle, TAP, Xdp.RECEIVES, BOTH)]
    assert host.did(methodcaller("set_port", "tap0", hook=Hook.AUTO)) == [set_xdp(handle, TAP, BOTH, Xdp.RECEIVES)]


def test_a_tap_whose_vm_goes_receives_nothing_until_it_is_back() -> None:
    host = Host(TAP)
    handle = host.attach()
    there = host.there("tap0")
    assert host.seen(replace(there, carrier=False)) == [set_xdp(handle, TAP, Xdp.SENDS, BOTH)]
    assert host.seen(there) == [set_xdp(handle, TAP, BOTH, Xdp.SENDS)]


def test_a_tap_that_somebody_sets_down_receives_nothing_until_it_is_up() -> None:
    host = Host(TAP)
    handle = host.attach()
    there = host.there("tap0")
    assert host.seen(replace(there, up=False)) == [set_xdp(handle, TAP, Xdp.SENDS, BOTH)]
    assert host.seen(there) == [set_xdp(handle, TAP, BOTH, Xdp.SENDS)]


def test_a_tap_that_turns_out_to_be_of_vhost_sends_nothing_any_more() -> None:
    host = Host(TAP)
    handle = host.attach()
    there = host.there("tap0")
    assert host.seen(replace(there, vhost=True)) == [set_xdp(handle, TAP, Xdp.RECEIVES, BOTH)]
    assert host.seen(there) == [set_xdp(handle, TAP, BOTH, Xdp.RECEIVES)]


def test_a_device_whose_mtu_falls_below_its_segments_receives_nothing() -> None:
    host = Host(TAP)
    handle = host.attach()
    assert host.seen(replace(host.there("tap0"), mtu=1400)) == [set_xdp(handle, TAP, Xdp.SENDS, BOTH)]


def test_a_segment_whose_mtu_grows_beyond_the_devices_has_them_receive_nothing() -> None:
    host = Host(TAP)
    handle = host.attach()
    assert host.did(methodcaller("set_segment", "blue", mtu=9000)) == [set_xdp(handle, TAP, Xdp.SENDS, BOTH)]
    assert host.did(methodcaller("set_segment", "blue", mtu=1500)) == [set_xdp(handle, TAP, BOTH, Xdp.SENDS)]


def test_a_port_that_moves_to_a_segment_of_larger_frames_receives_nothing() -> None:
    host = Host(TAP)
    handle = host.attach()
    host.change(lambda d: d.add_segment(Segment(name="jumbo", tenant="acme", mtu=9000)))
    assert host.did(methodcaller("set_port", "tap0", segment="jumbo")) == [set_xdp(handle, TAP, Xdp.SENDS, BOTH)]


def test_an_event_that_changes_nothing_for_xdp_has_no_effect() -> None:
    host = Host(TAP)
    host.attach()
    assert host.seen(replace(host.there("tap0"), master="br0")) == []


def test_an_effect_that_fails_leaves_xdp_as_it_was() -> None:
    host = Host(TAP)
    handle = host.attach()
    host.links.fail_at = 1
    with pytest.raises(HostError, match="told to fail"):
        host.change(methodcaller("detach_port", "tap0"))
    assert host.switch.state.xdp == host.datapath.xdp() == {handle: BOTH}


# Hardware


def test_an_uplink_leaves_vlan_tags_in_before_xdp_begins_and_takes_them_out_again_in_the_end() -> None:
    host = Host(replace(ETH, rxvlan=True))
    handle = host.add_uplink()
    assert host.done() == [
        Attach(handle=handle, ifindex=3, ifname="eth1"),
        SetDevice(ifindex=3, ifname="eth1", up=True, promisc=True, undo=(True, None, None, False, None)),
        SetDevice(ifindex=3, ifname="eth1", rxvlan=False, undo=(None, None, None, None, True)),
        set_xdp(handle, ETH, Xdp.SENDS, Xdp.NONE),
    ]
    assert not host.there("eth1").rxvlan
    host.restart()
    host.sync()
    done = host.did(methodcaller("delete_uplink", "eth1"))
    assert done[:2] == [
        set_xdp(handle, ETH, Xdp.NONE, Xdp.SENDS),
        Detach(handle=handle, ifindex=3, ifname="eth1"),
    ]
    assert host.there("eth1") == replace(ETH, rxvlan=True)


def test_an_uplink_that_left_vlan_tags_in_before_does_so_afterwards() -> None:
    host = Host(ETH)
    host.add_uplink()
    done = [*host.done(), *host.did(methodcaller("delete_uplink", "eth1"))]
    assert [effect.rxvlan for effect in done if isinstance(effect, SetDevice)] == [None, None]
    assert host.there("eth1") == ETH


def test_what_somebody_else_turned_on_again_stays_on() -> None:
    host = Host(replace(ETH, rxvlan=True))
    handle = host.add_uplink()
    host.sync()
    assert host.seen(replace(host.there("eth1"), rxvlan=True)) == [set_xdp(handle, ETH, Xdp.NONE, Xdp.SENDS)]
    done = host.did(methodcaller("delete_uplink", "eth1"))
    assert [effect.rxvlan for effect in done if isinstance(effect, SetDevice)] == [None]
    assert host.there("eth1").rxvlan


def test_an_uplink_whose_driver_always_takes_vlan_tags_out_is_left_to_tc() -> None:
    host = Host(replace(ETH, rxvlan=True, rxvlan_fixed=True))
    host.add_uplink()
    done = host.done()
    assert SetXdp not in kinds(done)
    assert [effect.rxvlan for effect in done if isinstance(effect, SetDevice)] == [None]
    assert host.datapath.xdp() == {}


def test_an_uplink_with_hook_tc_is_left_to_tc() -> None:
    host = Host(ETH)
    host.add_uplink(hook=Hook.TC)
    assert SetXdp not in kinds(host.done())


# Restart


def test_a_restart_that_finds_all_as_it_was_does_nothing() -> None:
    host = Host(TAP, replace(ETH, rxvlan=True), VETH)
    host.attach()
    host.attach(VETH)
    host.add_uplink()
    host.sync()
    host.done()
    host.restart()
    assert host.done() == []


def test_a_restart_has_xdp_do_what_the_kernel_lost() -> None:
    host = Host(TAP)
    handle = host.attach()
    host.datapath.xdp_roles.clear()
    host.done()
    host.restart()
    assert host.done() == [set_xdp(handle, TAP, BOTH, Xdp.NONE)]


def test_a_restart_sees_what_came_of_a_tap_meanwhile() -> None:
    host = Host(TAP)
    handle = host.attach()
    host.links.put(replace(host.there("tap0"), vhost=True, carrier=False))
    host.done()
    host.restart()
    assert host.done() == [set_xdp(handle, TAP, Xdp.NONE, BOTH)]


def test_what_is_left_of_xdp_for_no_port_is_taken_off() -> None:
    host = Host(TAP)
    host.datapath.programs[9], host.datapath.xdp_roles[9] = 7, BOTH
    host.done()
    host.restart()
    assert host.done() == [
        set_xdp(9, TAP, Xdp.NONE, BOTH),
        Detach(handle=9, ifindex=7, ifname="tap0"),
    ]
    assert host.switch.state.xdp == host.datapath.xdp() == {}


def test_what_is_left_of_xdp_without_a_program_at_tc_is_taken_off() -> None:
    host = Host(TAP)
    host.datapath.xdp_roles.update({8: Xdp.SENDS, 9: Xdp.RECEIVES})
    host.done()
    host.restart()
    nowhere = Device(ifname="", ifindex=0)
    assert host.done() == [
        set_xdp(8, nowhere, Xdp.NONE, Xdp.SENDS),
        set_xdp(9, nowhere, Xdp.NONE, Xdp.RECEIVES),
    ]
    assert host.switch.state.xdp == host.datapath.xdp() == {}


def test_a_port_of_which_xdp_alone_is_left_begins_anew() -> None:
    host = Host(TAP)
    handle = host.attach()
    host.datapath.programs.clear()
    host.done()
    host.restart()
    nowhere = Device(ifname="", ifindex=0)
    assert [e for e in host.done() if not isinstance(e, SetDevice)] == [
        set_xdp(handle, nowhere, Xdp.NONE, BOTH),
        Attach(handle=handle, ifindex=7, ifname="tap0"),
        set_xdp(handle, TAP, BOTH, Xdp.NONE),
    ]


def test_what_is_left_of_a_device_that_is_gone_is_taken_off() -> None:
    host = Host(TAP)
    handle = host.attach()
    host.links.remove("tap0")
    host.datapath.programs[handle] = 0
    host.done()
    host.restart()
    nowhere = Device(ifname="", ifindex=0)
    assert host.done() == [
        set_xdp(handle, nowhere, Xdp.NONE, BOTH),
        Detach(handle=handle, ifindex=0, ifname=""),
    ]
    assert host.switch.state.xdp == host.datapath.xdp() == {}
