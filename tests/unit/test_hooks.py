"""Where a port's frames are looked at: what keeps XDP off a device, and who takes frames from it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vxagent.core.effects import Xdp
from vxagent.core.hooks import Choice, choose
from vxagent.core.state import State
from vxagent.model.device import Device
from vxagent.model.port import Hook, Mode, Port, Uplink
from vxagent.model.segment import Segment

TAP = Device(ifname="tap0", ifindex=7, kind="tun")
ETH = Device(ifname="eth1", ifindex=3)
BOTH = Xdp.SENDS | Xdp.RECEIVES


def chosen(device: Device, *, hook: Hook = Hook.AUTO, mtu: int = 1500) -> Choice:
    """For a port on this device."""
    blue = Segment(name="blue", tenant="acme", mtu=mtu)
    port = Port(id="p0", ifname=device.ifname, segment="blue", hook=hook)
    return choose(State(segments={"blue": blue}, ports={"p0": port}), "p0", device)


def chosen_for_uplink(device: Device, *, hook: Hook = Hook.AUTO) -> Choice:
    """For an uplink on this device."""
    return choose(State(uplinks={device.ifname: Uplink(ifname=device.ifname, hook=hook)}), device.ifname, device)


def test_a_tap_sends_and_receives() -> None:
    assert chosen(TAP) == Choice(xdp=BOTH, why="")


def test_hardware_sends_and_receives_nothing() -> None:
    assert chosen(ETH) == Choice(xdp=Xdp.SENDS, why="")


@pytest.mark.parametrize("hook", [Hook.AUTO, Hook.XDP])
def test_an_uplink_sends_and_never_receives(hook: Hook) -> None:
    assert chosen_for_uplink(ETH, hook=hook) == Choice(xdp=Xdp.SENDS, why="")
    assert chosen_for_uplink(TAP, hook=hook) == Choice(xdp=Xdp.SENDS, why="")


@pytest.mark.parametrize(
    ("device", "why"),
    [
        (replace(TAP, kind="veth"), "a device of kind veth: tc is the faster hook there"),
        (replace(TAP, kind="vlan"), "a device of kind vlan: tc is the faster hook there"),
        (replace(TAP, queues=2), "a tap of several queues, of which XDP and tc choose differently"),
        (replace(TAP, vhost=True), "a VM with vhost-net, where frames that XDP finishes would overtake others"),
        (
            replace(TAP, unseen=True),
            "perhaps a VM with vhost-net: who holds the tap the agent cannot see; give it CAP_SYS_PTRACE and "
            "CAP_DAC_READ_SEARCH",
        ),
        (replace(ETH, lro=True), "it merges frames that it receives; `ethtool -K eth1 lro off`"),
        (replace(ETH, rxvlan=True), "its driver takes VLAN tags out of frames and cannot be told not to (rxvlan)"),
    ],
    ids=["veth", "vlan", "queues", "vhost", "unseen", "lro", "rxvlan"],
)
def test_what_keeps_xdp_off_a_device_is_said(device: Device, why: str) -> None:
    for choice in (chosen(device), chosen_for_uplink(device), chosen_for_uplink(device, hook=Hook.XDP)):
        assert Xdp.SENDS not in choice.xdp
        assert choice.why == why


def test_hardware_of_several_queues_sends() -> None:
    assert chosen(replace(ETH, queues=8)) == chosen_for_uplink(replace(ETH, queues=8)) == chosen(ETH)


def test_hook_tc_keeps_xdp_off_whatever_the_device() -> None:
    for device in (TAP, ETH, replace(ETH, lro=True)):
        for choice in (chosen(device, hook=Hook.TC), chosen_for_uplink(device, hook=Hook.TC)):
            assert Xdp.SENDS not in choice.xdp
            assert choice.why == "asked for by --hook tc"


@pytest.mark.parametrize(
    ("device", "hook"), [(TAP, Hook.TC), (replace(TAP, vhost=True), Hook.AUTO)], ids=["tc", "vhost"]
)
def test_a_tap_that_does_not_send_receives_all_the_same(device: Device, hook: Hook) -> None:
    assert chosen(device, hook=hook).xdp is Xdp.RECEIVES


@pytest.mark.parametrize(
    "device",
    [
        replace(TAP, kind="veth"),
        replace(TAP, kind=""),
        replace(TAP, queues=2),
        replace(TAP, up=False),
        replace(TAP, carrier=False),
        replace(TAP, mtu=1499),
    ],
    ids=["veth", "hardware", "queues", "down", "no carrier", "mtu"],
)
def test_where_a_frame_could_get_lost_unseen_nothing_is_received(device: Device) -> None:
    assert Xdp.RECEIVES not in chosen(device).xdp


@pytest.mark.parametrize("change", [{"up": False}, {"carrier": False}, {"mtu": 1499}])
def test_a_tap_that_does_not_receive_sends_all_the_same(change: dict[str, int]) -> None:
    assert chosen(replace(TAP, **change)) == Choice(xdp=Xdp.SENDS, why="")  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize(("mtu", "xdp"), [(1500, BOTH), (1501, Xdp.SENDS)])
def test_a_tap_receives_where_it_takes_what_its_segment_may_have(mtu: int, xdp: Xdp) -> None:
    assert chosen(TAP, mtu=mtu).xdp == xdp


@pytest.mark.parametrize("jumbo", ["native", "tagged", "other"])
def test_a_trunk_receives_where_it_takes_what_its_largest_segment_may_have(jumbo: str) -> None:
    segments = {name: Segment(name=name, tenant="acme", mtu=1500) for name in ("native", "tagged", "other")}
    segments[jumbo] = replace(segments[jumbo], mtu=9000)
    port = Port(id="p0", ifname="tap0", mode=Mode.TRUNK, trunk=(("tagged", 10),), native="native")
    state = State(segments=segments, ports={"p0": port})
    assert choose(state, "p0", TAP).xdp == (BOTH if jumbo == "other" else Xdp.SENDS)
    assert choose(state, "p0", replace(TAP, mtu=9000)).xdp == BOTH
