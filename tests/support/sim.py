"""A whole switch in memory: core, executor and the shipped fakes, driven like the agent drives them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

from vxagent.core.plan import Plan
from vxagent.core.reconcile import reconcile
from vxagent.core.switch import Draft, Switch
from vxagent.core.tables import DeviceRow, OverlayRow, PortRow, Rows, Table
from vxagent.datapath.fake import FakeDatapath
from vxagent.model.device import Device
from vxagent.model.ids import FDB_ENTRIES
from vxagent.model.vtep import Overlay
from vxagent.netlink.fake import FakeLinks
from vxagent.runtime.executor import Executor
from vxagent.runtime.takeoff import take_off
from vxagent.store.fake import FakeStore

T = TypeVar("T")


class Sim:
    """One host. `change` is what the agent does for a command, `restart` what a new agent does at start."""

    def __init__(self, *devices: Device, overlay: Overlay | None = None) -> None:
        self.datapath = FakeDatapath()
        self.links = FakeLinks(devices)
        self.store = FakeStore()
        self.executor = Executor(self.datapath, self.links, self.store)
        self.switch = Switch({}, host="hv1")
        self.now = 0.0  # Unix time
        self.overlay = overlay  # as the config has it; a restart reads it
        self.restart()

    def change(self, make: Callable[[Draft], T]) -> T:
        """Run one change; when an effect fails, the switch stays as it was."""
        draft = self.switch.draft()
        result = make(draft)
        plan = draft.plan()
        self.executor.run(plan.effects)
        self.switch.commit(plan)
        return result

    def restart(self, *, dies_after: int | None = None) -> None:
        """The agent starts anew: from the store, the kernel's tables and the devices; it may die after some effects."""
        switch, plan = self.start()
        self.executor.run(plan.effects[:dies_after])
        switch.commit(plan)
        self.switch = switch

    def start(self) -> tuple[Switch, Plan]:
        """What a new agent knows, and what it does about it."""
        switch = Switch(self.store.load(), host="hv1")
        rows, attached, xdp = self.datapath.rows(), self.datapath.attached(), self.datapath.xdp()
        underlay = switch.state.numbers.number("port", switch.state.underlay)
        plan = reconcile(
            switch,
            self.links.devices(),
            rows,
            attached,
            xdp,
            ageing_s=300,
            fdb_entries=FDB_ENTRIES,
            now=self.now,
            overlay=self.overlay,
            lacking=[h for h, runs in self.datapath.runs(attached).items() if h == underlay and not runs],
        )
        return switch, plan

    def forget(self) -> None:
        """The agent is dead: what it knew is lost. `settle` and `take_off` start the next one."""
        self.switch = Switch({}, host="hv1")
        self.restart()

    def settle(self) -> None:
        """Netlink tells of everything, until there is nothing new to it."""
        before = None
        while before != (before := self.links.devices()):
            self.sync()

    def take_off(self) -> None:
        """`down` where no agent lives."""
        take_off(self.store, self.datapath, self.links)

    def picture(self) -> dict[str, object]:
        """All that there is, but for what the agent thinks of it. Devices are named, for the kernel numbers them as it
        likes, and times left out."""
        names = {device.ifindex: device.ifname for device in self.links.devices()}
        saved: dict[tuple[str, str], Any] = self.store.load()
        for document in saved.values():
            document.pop("ifindex", None)
            for lease in document.get("leases", ()):
                lease.pop("expires")
        return {
            "rows": dict(_named(self.datapath.rows(), names)),
            "programs": {handle: names.get(ifindex) for handle, ifindex in self.datapath.attached().items()},
            "programs out": set(self.datapath.programs_out),
            "xdp": self.datapath.xdp(),
            "learned": {key: entry.port for key, entry in self.datapath.learned.items()},
            "leases": {key: replace(lease, left_s=None) for key, lease in self.datapath.given.items()},
            "dropped": dict(self.datapath.drop_counts),
            "counted": dict(self.datapath.counted),
            "devices": {device.ifname: replace(device, ifindex=0) for device in self.links.devices()},
            "saved": saved,
        }

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


def _named(rows: Rows, names: dict[int, str]) -> Iterator[tuple[object, object]]:
    for (table, key), row in rows.items():
        if isinstance(row, DeviceRow | PortRow | OverlayRow):
            named = (replace(row, ifindex=0), names.get(row.ifindex))
            yield (table, names.get(key) if table is Table.DEVICES else key), named
        else:
            yield (table, key), row
