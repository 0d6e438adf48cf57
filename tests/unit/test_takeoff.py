"""`down` without an agent."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from vxagent.core.effects import Xdp
from vxagent.core.switch import Draft
from vxagent.datapath.fake import FakeDatapath
from vxagent.model.device import Device
from vxagent.model.port import Mode, Port, Uplink
from vxagent.model.segment import Segment
from vxagent.netlink.fake import FakeLinks
from vxagent.runtime.config import Config
from vxagent.runtime.loop import Agent
from vxagent.runtime.takeoff import take_off
from vxagent.store.fake import FakeStore

TAP = Device(ifname="tap0", ifindex=7, kind="tun")
ETH = Device(ifname="eth1", ifindex=3, promisc=False, rxvlan=True)


class Left:
    """What an agent left that had a port, an internal port and an uplink, and was killed."""

    def __init__(self) -> None:
        self.datapath, self.links, self.store = FakeDatapath(), FakeLinks([TAP, ETH]), FakeStore()
        asyncio.run(self._live())
        self.documents = self.store.load()

    async def _live(self) -> None:
        config = Config(host="hv1")
        agent = Agent(
            datapath=self.datapath, links=self.links, store=self.store, config=config, read_config=lambda: config
        )
        await agent.start()
        await agent.change(self._plug)
        await agent.change(lambda draft: None)  # the internal port's device has come
        await agent.stop()
        assert len(self.datapath.attached()) == 3
        assert len(self.datapath.xdp()) == 2
        assert not self.links.by_name["eth1"].rxvlan

    @staticmethod
    def _plug(draft: Draft) -> None:
        draft.add_segment(Segment(name="blue", tenant="acme", vlan=10))
        draft.attach_port(Port(id="tap0", ifname="tap0", segment="blue"))
        draft.attach_port(Port(id="host0", ifname="host0", mode=Mode.INTERNAL, segment="blue"))
        draft.add_uplink(Uplink(ifname="eth1"))


def test_devices_are_put_back_and_the_kernel_is_emptied() -> None:
    left = Left()
    take_off(left.store, left.datapath, left.links)
    assert left.links.by_name == {"tap0": replace(TAP, up=False), "eth1": ETH}
    assert left.datapath.attached() == {}
    assert left.datapath.xdp() == {}
    assert left.datapath.rows() == {}
    kinds = {kind for kind, _ in left.store.load()}
    assert kinds == {kind for kind, _ in left.documents} - {"before"}


def test_without_the_devices_the_kernel_is_emptied_all_the_same() -> None:
    left = Left()
    before = left.links.devices()
    take_off(left.store, left.datapath, None)
    assert left.datapath.attached() == {}
    assert left.datapath.xdp() == {}
    assert left.links.devices() == before
    assert left.store.load() == left.documents


def test_a_program_of_no_port_is_taken_off_too() -> None:
    datapath = FakeDatapath()
    datapath.programs[9] = 7
    datapath.xdp_roles[9] = Xdp.SENDS
    take_off(FakeStore(), datapath, FakeLinks([TAP]))
    assert datapath.attached() == {}
    assert datapath.xdp() == {}
