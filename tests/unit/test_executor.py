"""Effects are applied in order, and undone in reverse when one fails."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from vxagent.core.effects import (
    Attach,
    ClearCounters,
    DeleteRow,
    Detach,
    Effect,
    FlushFdb,
    InternalPair,
    MakeInternal,
    PutRow,
    RemoveInternal,
    Save,
    SetDevice,
    SetQueue,
    SetXdp,
    Xdp,
)
from vxagent.core.tables import DeviceRow, SettingsRow, Table
from vxagent.datapath.fake import FakeDatapath
from vxagent.errors import HostError, StoreError
from vxagent.model.device import Device
from vxagent.netlink.fake import FakeLinks
from vxagent.runtime.executor import Executor
from vxagent.store.fake import FakeStore

TAP = Device(ifname="tap0", ifindex=7, kind="tun")
PAIR = InternalPair(ifname="vxhost", peer="vxi-1", mac="02:00:00:00:00:01", mtu=1500)
CHANGE: tuple[Effect, ...] = (
    Save(put={("port", "tap0"): {"id": "tap0"}}, old={("port", "tap0"): None}),
    MakeInternal(pair=PAIR),
    MakeInternal(pair=replace(PAIR, mtu=9000), old=PAIR),
    SetDevice(ifindex=7, ifname="tap0", arp=False, ipv6=False, undo=(None, True, True, None, None)),
    SetQueue(ifindex=7, ifname="tap0", frames=5000, old=1000),
    PutRow(table=Table.SETTINGS, key=0, row=SettingsRow(ageing_ns=5), old=SettingsRow(ageing_ns=3)),
    PutRow(table=Table.DEVICES, key=7, row=DeviceRow(ifindex=7, port=1)),
    Attach(handle=1, ifindex=7, ifname="tap0"),
    SetXdp(handle=1, ifindex=7, ifname="tap0", xdp=Xdp.SENDS | Xdp.RECEIVES, old=Xdp.NONE),
    SetXdp(handle=2, ifindex=8, ifname="tap1", xdp=Xdp.NONE, old=Xdp.SENDS),
    Detach(handle=2, ifindex=8, ifname="tap1"),
    DeleteRow(table=Table.DEVICES, key=8, old=DeviceRow(ifindex=8, port=2)),
    RemoveInternal(pair=PAIR),
    FlushFdb(port=2),
    ClearCounters(port=2, counters=(3,)),
)


class Host:
    """The three fakes, with one port attached already."""

    def __init__(self) -> None:
        self.datapath, self.links, self.store = FakeDatapath(), FakeLinks([TAP]), FakeStore()
        self.datapath.table[Table.SETTINGS, 0] = SettingsRow(ageing_ns=3)
        self.datapath.table[Table.DEVICES, 8] = DeviceRow(ifindex=8, port=2)
        self.datapath.programs[2] = 8
        self.datapath.xdp_roles[2] = Xdp.SENDS
        self.executor = Executor(self.datapath, self.links, self.store)

    def snapshot(self) -> object:
        datapath = self.datapath
        return datapath.rows(), datapath.attached(), datapath.xdp(), self.links.devices(), self.store.load()


def test_all_effects_reach_their_adapter() -> None:
    host = Host()
    host.executor.run(CHANGE)
    assert host.store.documents == {("port", "tap0"): {"id": "tap0"}}
    assert not host.links.by_name["tap0"].arp
    assert list(host.links.by_name) == ["tap0"]
    assert host.datapath.programs == {1: 7}
    assert host.datapath.xdp_roles == {1: Xdp.SENDS | Xdp.RECEIVES}
    assert host.datapath.table == {
        (Table.SETTINGS, 0): SettingsRow(ageing_ns=5),
        (Table.DEVICES, 7): DeviceRow(ifindex=7, port=1),
    }


@pytest.mark.parametrize("number", range(1, 8))
def test_a_row_or_attachment_that_fails_leaves_all_as_it_was(number: int) -> None:
    host = Host()
    before = host.snapshot()
    host.datapath.fail_at = number
    with pytest.raises(HostError, match="told to fail"):
        host.executor.run(CHANGE)
    assert host.snapshot() == before
    assert not host.executor.torn


@pytest.mark.parametrize("number", range(1, 5))
def test_a_device_that_fails_leaves_all_as_it_was(number: int) -> None:
    host = Host()
    before = host.snapshot()
    host.links.fail_at = number
    with pytest.raises(HostError, match="told to fail"):
        host.executor.run(CHANGE)
    assert host.snapshot() == before


def test_a_store_that_fails_leaves_all_as_it_was() -> None:
    host = Host()
    before = host.snapshot()
    host.store.fail_at = 1
    with pytest.raises(StoreError, match="told to fail"):
        host.executor.run(CHANGE)
    assert host.snapshot() == before


def test_an_undo_that_fails_is_logged_and_the_rest_is_undone(caplog: pytest.LogCaptureFixture) -> None:
    host = Host()
    before = host.snapshot()
    host.datapath.missing.add(7)  # the attachment fails
    host.links.fail_at = 6  # and after making, changing, setting twice and setting back so does setting back again
    with caplog.at_level(logging.ERROR), pytest.raises(HostError, match="device tap0 is gone"):
        host.executor.run(CHANGE)
    assert "cannot undo SetDevice" in caplog.text
    assert host.executor.torn
    host.links.by_name["tap0"] = TAP
    assert host.snapshot() == before
