"""What the agent has programs do for it, on real devices: `support.place` draws them."""

from __future__ import annotations

import pytest

from support.place import Place
from vxagent.core.effects import AddCounts, Announce
from vxagent.datapath.abi import DropKind, Reason
from vxagent.datapath.base import Traffic
from vxagent.datapath.errands import rarp
from vxagent.lab.sniffer import Sniffer

MAC = "02:00:00:00:00:07"


@pytest.mark.parametrize("vid", [0, 20])
def test_an_announcement_leaves_by_its_device(place: Place, vid: int) -> None:
    datapath = place.opened()
    with Sniffer(place.namespace, "a1") as heard:
        datapath.announce(Announce(ifindex=place.ifindex["a0"], vid=vid, mac=MAC))
        frame = heard.wait_for(lambda frame: frame.ethertype == 0x8035)
        assert (frame.source, frame.vid) == (MAC, vid or None)


def test_a_device_that_is_gone_hears_nothing(place: Place) -> None:
    datapath = place.opened()
    ifindex = place.ifindex["a0"]
    place.unplug("a")
    datapath.announce(Announce(ifindex=ifindex, vid=20, mac=MAC))


def test_a_reverse_request_is_what_rfc_903_says() -> None:
    frame = rarp(Announce(ifindex=1, vid=20, mac=MAC))
    mac = bytes.fromhex("020000000007")
    assert frame == (
        bytes.fromhex("ffffffffffff") + mac + bytes.fromhex("81000014 8035 0001 0800 06 04 0003")
        + (mac + bytes(4)) * 2 + bytes(18)
    )  # fmt: skip


def test_what_a_port_counted_elsewhere_adds_up(place: Place) -> None:
    datapath = place.opened()
    place.join(datapath, 3, "a0")
    there = AddCounts(counter=7, traffic=tuple(range(1, 12)))
    drops = AddCounts(drop=(3, 0, Reason.VLAN_DENIED, DropKind.FRAME), dropped=(5, 300))
    for _ in range(2):
        datapath.add_counts(there)
        datapath.add_counts(drops)
    assert datapath.traffic([7]) == [
        Traffic(packets=(2, 4, 6, 8), bytes=(10, 12, 14, 16), tx_packets=18, tx_bytes=20, copies=22)
    ]
    (drop,) = [drop for drop in datapath.drops() if (drop.port, drop.reason) == (3, Reason.VLAN_DENIED)]
    assert (drop.packets, drop.bytes) == (10, 600)
