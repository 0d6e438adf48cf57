"""The fake of the devices does what the real ones do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vxagent.core.effects import InternalPair, MakeInternal, RemoveInternal, SetDevice, SetQueue
from vxagent.errors import HostError
from vxagent.model.device import Device
from vxagent.netlink.base import LinkChange
from vxagent.netlink.fake import FakeLinks

TAP = Device(ifname="tap0", ifindex=7)
PAIR = InternalPair(ifname="vxhost", peer="vxi-1", mac="02:00:00:00:00:01", mtu=1400)


def watched(*devices: Device) -> tuple[FakeLinks, list[LinkChange | None]]:
    links, told = FakeLinks(devices), list[LinkChange | None]()
    links.watch(told.append)
    return links, told


def test_what_changes_is_told() -> None:
    links, told = watched()
    links.put(TAP)
    links.put(TAP)
    links.rename("tap0", "tap1")
    links.remove("tap1")
    names = [change and (change.ifindex, change.device and change.device.ifname) for change in told]
    assert names == [(7, "tap0"), (7, "tap1"), (7, None)]


def test_set_device_sets_what_is_asked_for() -> None:
    links, told = watched(TAP)
    links.set_device(SetDevice(ifindex=7, ifname="tap0", up=False, arp=False))
    device = links.by_name["tap0"]
    assert (device.up, device.arp, device.ipv6, device.promisc) == (False, False, True, False)
    assert len(told) == 1
    links.set_device(SetDevice(ifindex=7, ifname="tap0", rxvlan=True))
    assert links.by_name["tap0"] == replace(device, rxvlan=True)


def test_set_queue_sets_what_is_asked_for() -> None:
    links, told = watched(TAP)
    links.set_queue(SetQueue(ifindex=7, ifname="tap0", frames=5000, old=1000))
    assert links.by_name["tap0"] == replace(TAP, txqueuelen=5000)
    assert len(told) == 1


def test_a_device_that_is_gone_or_renamed_is_left_alone() -> None:
    links, told = watched(TAP)
    links.set_device(SetDevice(ifindex=8, ifname="tap0", up=False))
    links.set_device(SetDevice(ifindex=7, ifname="tap1", up=False))
    links.set_queue(SetQueue(ifindex=8, ifname="tap0", frames=5000, old=1000))
    links.set_queue(SetQueue(ifindex=7, ifname="tap1", frames=5000, old=1000))
    assert links.devices() == [TAP]
    assert told == []


def test_an_internal_pair_is_made_and_removed_once() -> None:
    links, _ = watched(TAP)
    for _ in range(2):
        links.make_internal(MakeInternal(pair=PAIR))
        assert sorted(links.by_name) == ["tap0", "vxhost", "vxi-1"]
    for _ in range(2):
        links.remove_internal(RemoveInternal(pair=PAIR))
        assert sorted(links.by_name) == ["tap0"]


def test_an_internal_pair_follows_its_mac_and_mtu() -> None:
    links, _ = watched()
    links.make_internal(MakeInternal(pair=PAIR))
    links.make_internal(MakeInternal(pair=replace(PAIR, mac="02:00:00:00:00:02", mtu=9000), old=PAIR))
    assert links.by_name[PAIR.ifname].mtu == links.by_name[PAIR.peer].mtu == 9000
    assert links.by_name[PAIR.ifname].mac == "02:00:00:00:00:02"


def test_a_name_that_is_taken_is_refused() -> None:
    links, _ = watched(Device(ifname="vxhost", ifindex=3))
    with pytest.raises(HostError, match="a device vxhost is there already"):
        links.make_internal(MakeInternal(pair=PAIR))


def test_it_fails_once_where_it_is_told_to() -> None:
    links, _ = watched(TAP)
    links.fail_at = 2
    down = SetDevice(ifindex=7, ifname="tap0", up=False)
    links.set_device(down)
    with pytest.raises(HostError):
        links.set_device(down)
    links.set_device(down)
    assert links.done == [down, down]


def test_clsact_goes_with_its_device() -> None:
    links, _ = watched(TAP)
    links.attach_clsact(7, 42)
    assert links.clsact_attached(7)
    links.remove("tap0")
    assert not links.clsact_attached(7)
    with pytest.raises(HostError):
        links.attach_clsact(7, 42)
