"""A whole switch in memory: core, executor and the shipped fakes, driven like the agent drives them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from vxagent.core.reconcile import reconcile
from vxagent.core.switch import Draft, Switch
from vxagent.datapath.fake import FakeDatapath
from vxagent.model.device import Device
from vxagent.netlink.fake import FakeLinks
from vxagent.runtime.executor import Executor
from vxagent.store.fake import FakeStore

T = TypeVar("T")


class Sim:
    """One host. `change` is what the agent does for a command, `restart` what a new agent does at start."""

    def __init__(self, *devices: Device) -> None:
        self.datapath = FakeDatapath()
        self.links = FakeLinks(devices)
        self.store = FakeStore()
        self.executor = Executor(self.datapath, self.links, self.store)
        self.switch = Switch({}, host="hv1")
        self.now = 0.0  # Unix time
        self.restart()

    def change(self, make: Callable[[Draft], T]) -> T:
        """Run one change; when an effect fails, the switch stays as it was."""
        draft = self.switch.draft()
        result = make(draft)
        plan = draft.plan()
        self.executor.run(plan.effects)
        self.switch.commit(plan)
        return result

    def restart(self) -> None:
        """The agent starts anew: from the store, the kernel's tables and the devices."""
        switch = Switch(self.store.load(), host="hv1")
        rows, attached, xdp = self.datapath.rows(), self.datapath.attached(), self.datapath.xdp()
        plan = reconcile(switch, self.links.devices(), rows, attached, xdp, ageing_s=300, now=self.now)
        self.executor.run(plan.effects)
        switch.commit(plan)
        self.switch = switch

    def reboot(self) -> None:
        """The machine starts anew: the kernel's tables are empty, the devices are as they are told to be."""
        self.datapath.destroy()
        self.restart()

    def plug(self, device: Device) -> None:
        """A device comes or changes."""
        self.links.put(device)
        self.change(lambda draft: draft.link_changed(device.ifindex, device))
        self.sync()

    def unplug(self, ifname: str) -> None:
        """A device goes, and with it the program that ran on it."""
        device = self.links.remove(ifname)
        self.change(lambda draft: draft.link_changed(device.ifindex, None))

    def sync(self) -> None:
        """Netlink tells what the agent itself has set on the devices."""
        self.change(lambda draft: draft.links_read(self.links.devices()))
