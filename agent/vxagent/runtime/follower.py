"""Follows the devices: a port is attached when its device comes and pending when it goes, whatever else happens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial

from vxagent.core.plan import Plan
from vxagent.core.state import State
from vxagent.core.switch import Draft
from vxagent.datapath.base import Datapath
from vxagent.model.device import Device
from vxagent.netlink.base import LinkChange, Links
from vxagent.runtime.changes import Changes, log_failed
from vxagent.runtime.inbox import LinkInbox

log = logging.getLogger(__name__)

BATCH = 16
"""Ports and uplinks whose devices change in one turn: some 8 ms each, so a command waits 0.15 s at most for it."""

SETTLE_S = 0.01
"""What makes a device tells of it in several events, the one that enslaves it last: one command, some microseconds."""


class LinkFollower:
    """Brings link events into the switch. A device that cannot be attached is logged, known and left alone.

    Args:
        retry_s: seconds after which events that could not be taken in are tried again.
    """

    def __init__(self, changes: Changes, links: Links, datapath: Datapath, retry_s: float) -> None:
        self._changes = changes
        self._datapath = datapath
        self._links = links
        self._retry_s = retry_s
        self._inbox = LinkInbox()
        self._arrived = asyncio.Event()
        self._failed: dict[int, str] = {}  # ifindex → why it could not be attached, already logged

    async def watch(self) -> None:
        """Have events come in from now on. Raises HostError."""
        loop = asyncio.get_running_loop()

        def tell(change: LinkChange | None) -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._put, change)

        await self._changes.blocking(partial(self._links.watch, tell))

    async def follow(self) -> None:
        """Take in events as they come, for ever."""
        while True:
            await self._arrived.wait()
            await asyncio.sleep(SETTLE_S)
            self._arrived.clear()
            while self._inbox:
                try:
                    await self._changes.in_turn(self.take)
                except Exception as error:
                    log_failed("link events", error)
                    await asyncio.sleep(self._retry_s)

    def try_all_again(self) -> None:
        """Forget which devices could not be attached, and the events that wait: `read` follows."""
        self._failed.clear()
        self._inbox.clear()

    async def read(self) -> None:
        """In turn: read all devices; what differs from what is known waits as if it had been an event.

        Raises:
            HostError: it is tried again.
        """
        self._inbox.clear()
        state = self._changes.switch.state
        try:
            ended, devices = await self._changes.blocking(lambda: (self._ended(state), self._links.devices()))
        except BaseException:
            self._put(None)
            raise
        for change in differences(state.devices, devices, ended):
            self._put(change)

    def _ended(self, state: State) -> set[int]:
        """Ifindexes on which the program of a port does not run any more. Blocks. Before the devices are read: a
        program goes when its device has gone."""
        wanted = {handle: ifindex for handle, (ifindex, _) in state.attached.items()}
        return {wanted[handle] for handle, runs in self._datapath.runs(wanted).items() if not runs}

    async def take_all(self) -> None:
        """In turn: take in all that waits. Raises HostError, as `read`."""
        while self._inbox:
            await self.take()

    async def take(self) -> None:
        """In turn: take in one batch of what waits. What a device does cannot make it fail.

        Raises:
            HostError: events were lost and the devices cannot be read.
        """
        if self._inbox.lost:
            log.warning("link events were lost; reading all devices")
            await self.read()
        if not self._inbox:
            return
        state = self._changes.switch.state
        batch = [change for change in self._inbox.take(BATCH, _costs(state)) if not is_known(state, change)]
        for change in [c for c in batch if self._would_fail_again(c)]:
            self._note(change)
            batch.remove(change)
        if len(batch) < 2 or not await self._succeeds(batch):
            for change in batch:
                await self._take_alone(change)

    async def _succeeds(self, batch: list[LinkChange]) -> bool:
        """Whether all of them together did; if not, nothing has changed."""
        try:
            await self._changes.run(partial(_link_changes, batch))
        except Exception:
            return False
        for change in batch:
            self._failed.pop(change.ifindex, None)
        return True

    async def _take_alone(self, change: LinkChange) -> None:
        try:
            await self._changes.run(partial(_link_changes, [change]))
            self._failed.pop(change.ifindex, None)
        except Exception as error:
            self._log_once(change, error)
            self._note(change)

    def _put(self, change: LinkChange | None) -> None:
        self._inbox.put(change)
        self._arrived.set()

    def _would_fail_again(self, change: LinkChange) -> bool:
        """It failed before, and only what a failed attempt itself sets and sets back is another now. Trying at
        such events would make the next ones, for ever."""
        now = change.device
        known = self._changes.switch.state.devices.get(now.ifname) if now is not None else None
        if now is None or known is None or change.ifindex not in self._failed:
            return False
        set_by_attempts = ("up", "carrier", "arp", "ipv6", "promisc", "rxvlan", "txqueuelen")
        return known == replace(now, **{name: getattr(known, name) for name in set_by_attempts})

    def _log_once(self, change: LinkChange, error: Exception) -> None:
        """Once for each device and reason: it may fail again at every event."""
        if self._failed.get(change.ifindex) != str(error):
            self._failed[change.ifindex] = str(error)
            log_failed(f"device {change.device.ifname if change.device is not None else change.ifindex}", error)

    def _note(self, change: LinkChange) -> None:
        """Know of a device and do nothing about it."""
        switch = self._changes.switch
        draft = switch.draft()
        _link_changes([change], draft)
        switch.commit(Plan(state=draft.state, effects=()))


def device_names(state: State) -> set[str]:
    """The devices that ports, uplinks and the overlay ask for."""
    underlay = () if state.overlay is None else (state.overlay.device,)
    return {*state.uplinks, *underlay, *(state.device_name(port) for port in state.ports.values())}


def differences(known: dict[str, Device], now: Iterable[Device], ended: Collection[int] = ()) -> list[LinkChange]:
    """The events that lead from the devices that are known to those that are there now; what went comes first.

    Args:
        ended: ifindexes on which a program ended. Where it ran on another device than the one that has the number now,
            that one went: this one is a stranger, and nobody renamed it.
    """
    there = {device.ifindex: device for device in now}
    gone = {d.ifindex for d in known.values() if d.ifindex not in there or _is_stranger(d, there[d.ifindex], ended)}
    changed = [device for device in there.values() if known.get(device.ifname) != device]
    return [
        *(LinkChange(ifindex=ifindex, device=None) for ifindex in sorted(gone)),
        *(LinkChange(ifindex=device.ifindex, device=device) for device in changed),
    ]


def _is_stranger(known: Device, now: Device, ended: Collection[int]) -> bool:
    same = (known.ifname, known.kind, known.mac) == (now.ifname, now.kind, now.mac)
    return known.ifindex in ended and not same


def is_known(state: State, change: LinkChange) -> bool:
    """The event tells nothing new."""
    if change.device is not None:
        return state.devices.get(change.device.ifname) == change.device
    return all(device.ifindex != change.ifindex for device in state.devices.values())


def _costs(state: State) -> Callable[[LinkChange], bool]:
    """Tells whether an event may have a program attached or taken off."""
    wanted = device_names(state)
    running = {ifindex for ifindex, _ in state.attached.values()}
    return lambda c: c.ifindex in running or (c.device is not None and c.device.ifname in wanted)


def _link_changes(changes: Iterable[LinkChange], draft: Draft) -> None:
    for change in changes:
        draft.link_changed(change.ifindex, change.device)
