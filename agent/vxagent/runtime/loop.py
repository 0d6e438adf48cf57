"""The agent: takes commands and link events one at a time, lets the core decide, and has it done.

commands (API) ──► change ─┐
link events ─► follower ───┼─► changes ─► executor ─► kernel, store
the clock ─► audit, age … ─┘
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from vxagent.core.checks import check_overlay
from vxagent.core.effects import MakeInternal, Xdp
from vxagent.core.reconcile import reconcile
from vxagent.core.remote import NO_CLUSTER
from vxagent.core.switch import Draft, Switch
from vxagent.core.tables import Rows, Table
from vxagent.datapath.base import EVENTS_AT_ONCE, Datapath
from vxagent.errors import VxagentError
from vxagent.model.device import Device
from vxagent.netlink.base import Links
from vxagent.runtime.audit import Auditor
from vxagent.runtime.changes import Changes, log_failed
from vxagent.runtime.config import ClusterConfig, Config, connect_to, waiting
from vxagent.runtime.executor import Executor
from vxagent.runtime.follower import LinkFollower, device_names
from vxagent.runtime.host import tell_manager, tell_reloading
from vxagent.runtime.journal import Journal
from vxagent.runtime.leases import by_port
from vxagent.runtime.losses import EgressLosses
from vxagent.runtime.membership import Membership
from vxagent.runtime.migrations import Migrations
from vxagent.runtime.overlay import OverlayWatch
from vxagent.runtime.periods import PERIODS, WAITS, Periods, Waits
from vxagent.runtime.watchdog import Progress
from vxagent.store.base import Store
from vxagent.store.kv import Kv

log = logging.getLogger(__name__)

T = TypeVar("T")


class Agent:
    """Owns the switch of one host.

    Attributes:
        datapath, links, store: the adapters; for reading, inside `read`.
        config: the settings that it goes by.
        started: time.monotonic() when it became ready.
        ready: the switch forwards as desired.
        taken_off: `down` was done.
        auditor: looks for drift.
        ended: set when `stop` or `down` is done.
    """

    def __init__(
        self,
        *,
        datapath: Datapath,
        links: Links,
        store: Store,
        config: Config,
        read_config: Callable[[], Config],
        periods: Periods = PERIODS,
        waits: Waits = WAITS,
        connect: Callable[[ClusterConfig], Kv] = connect_to,
        answers: Callable[[str], Awaitable[bool | None]] | None = None,
        boot: str = "",
    ) -> None:
        self.datapath = datapath
        self.links = links
        self.store = store
        self.config = config
        self.started = time.monotonic()
        self.ready = False
        self.taken_off = False
        self.ended = asyncio.Event()
        self._read_config = read_config
        self._periods = periods
        self._waits = waits
        self._changes = Changes(Switch({}), Executor(datapath, links, store), EgressLosses(links))
        self._follower = LinkFollower(self._changes, links, datapath, periods.retry_s)
        self.auditor = Auditor(self._changes, self._follower, datapath, links)
        self._overlay = OverlayWatch()
        self._journal = Journal()
        self._background: list[asyncio.Task[None]] = []
        self._connect = connect
        self._answers = answers
        self._boot = boot
        self._heard = asyncio.Event()
        self._events_fd: int | None = None
        self.membership: Membership | None = None
        self.migrations: Migrations | None = None

    # What the API calls

    @property
    def switch(self) -> Switch:
        """What is desired and what is done; for reading."""
        return self._changes.switch

    @property
    def changes(self) -> Changes:
        """For what needs nobody's consent, or has asked for it already."""
        return self._changes

    @property
    def progress(self) -> Progress:
        """Whether the change that has its turn comes along."""
        return self._changes.progress

    async def change(self, make: Callable[[Draft], T]) -> T:
        """Run one command and return what `make` returned, once it is done.

        Args:
            make: says what shall be, on a draft; it must not block.

        Raises:
            VxagentError: refused or failed; nothing has changed then.
        """

        async def work() -> T:
            await self._follower.take()  # what is known of the devices should be no older than the command
            return await self._changes.run(make, self.membership)

        return await self._changes.in_turn(work)

    async def act(self, fn: Callable[[], T]) -> T:
        """Call what changes the kernel but not what is desired, when its turn comes.

        Raises:
            HostError: from the adapter.
        """
        return await self._changes.in_turn(partial(self._changes.blocking, fn))

    async def read(self, fn: Callable[[], T]) -> T:
        """Call what blocks and reads, off the event loop and beside the changes."""
        return await self._changes.reading(fn)

    def egress_failed(self) -> dict[str, int]:
        """Port id → frames for the VM that its device took and lost. Blocks: call it inside `read`."""
        return self._changes.losses.by_port(self.switch.state)

    async def reload(self) -> None:
        """Read the config anew, swap the programs and make the kernel once more what is desired.

        Raises:
            Invalid, Conflict, HostError: the switch goes on as it was.
        """

        async def work() -> None:
            tell_reloading()
            try:
                await self._reload()
            finally:
                tell_manager("READY=1")

        await self._changes.in_turn(work)

    async def stop(self) -> None:
        """End; the kernel goes on forwarding."""
        await self._changes.in_turn(self._stop)

    async def down(self) -> None:
        """Take the switch off the devices, then end; what is desired stays.

        Raises:
            HostError: something could not be taken off.
        """
        await self._changes.in_turn(self._down)

    # From start to end

    async def start(self) -> None:
        """Make the kernel what is desired, and follow the devices from now on.

        Raises:
            StoreError, HostError: the switch goes on as before, without an agent.
        """
        await self._changes.in_turn(self._start)

    async def _start(self) -> None:
        blocking = self._changes.blocking
        try:
            self._changes.switch = Switch(await blocking(self.store.load), host=self.config.host)
            await blocking(self.datapath.open)
            await self._begin()
        except BaseException:
            await self._close()
            raise
        works = (
            self._follower.follow(),
            _repeat("resync", lambda: self._periods.resync_s, self._resync),
            _repeat("overlay", lambda: self.config.audit_s, self._look_at_overlay),
            _repeat("audit", lambda: self.config.audit_s, self._audit),
            _repeat("ageing", lambda: self._periods.ageing_s(self.switch.state.ageing_s), self._age),
            _repeat("journal", lambda: self._periods.events_s, self._write_journal, self._heard),
        )
        self._background = [asyncio.create_task(work) for work in works]
        await self._join()
        self.started = time.monotonic()
        self.ready = True

    async def _begin(self) -> None:
        """Where no switch was before, a start that fails leaves none: its tables may be what it failed by."""
        blocking = self._changes.blocking
        was_there = any(table is Table.PORTS for table, _ in await blocking(self.datapath.rows))
        try:
            await self._follower.watch()
            await self._reconcile()
        except BaseException:
            if not was_there and not await blocking(self.datapath.attached):
                await blocking(self.datapath.destroy)
            raise

    async def _stop(self) -> None:
        await self._try_to_keep_leases()
        await self._end()

    async def _down(self) -> None:
        await self._try_to_keep_leases()
        await self._changes.run(Draft.take_off)
        try:
            await self._changes.blocking(self.datapath.destroy)
            self.taken_off = True
        finally:
            await self._end()

    async def _join(self) -> None:
        """Begin to be in the cluster, if there is one. What it said of other segments than those that are here may have
        changed since, and what it said at all is over without it."""
        config, known = self.config, self.switch.state.remote
        if known.on:
            now = NO_CLUSTER if config.cluster is None else known.within(self.switch.state.segments)
            await self._changes.run(lambda draft: draft.cluster_says(now))
        if config.cluster is None:
            return
        self.membership = Membership(
            self._changes,
            self._connect(config.cluster),
            name=config.cluster.name,
            host=config.host,
            vtep=None if config.overlay is None else config.overlay.vtep,
            boot=self._boot,
            waits=self._waits,
            answers=self._answers,
        )
        self.migrations = Migrations(
            self._changes, self.membership, self.datapath, config.host, self._follower.take, self._waits
        )
        self.membership.begin(self.migrations)
        self.migrations.resume()
        self._wait_for_events()

    def _wait_for_events(self) -> None:
        """Be woken by what must not wait: a VM that has arrived."""
        loop = asyncio.get_running_loop()
        if self._events_fd is not None:
            loop.remove_reader(self._events_fd)
        self._events_fd = self.datapath.events_fd() if self.migrations is not None else None
        if self._events_fd is not None:
            loop.add_reader(self._events_fd, self._heard.set)

    async def _end(self) -> None:
        self.ready = False
        if self._events_fd is not None:
            asyncio.get_running_loop().remove_reader(self._events_fd)
        if self.migrations is not None:
            await self.migrations.end()
        if self.membership is not None:
            await self.membership.end(leave=self.taken_off)
        for task in self._background:
            task.cancel()
        for task in self._background:
            with suppress(asyncio.CancelledError):
                await task
        await self._close()
        self.ended.set()

    async def _close(self) -> None:
        await self._changes.end((self.links.close, self.datapath.close, self.store.close))

    # Making the kernel what is desired

    async def _reload(self) -> None:
        config = self._read_config()
        check_overlay(replace(self.switch.state, overlay=config.overlay))
        await self._changes.blocking(partial(self.datapath.reload, fdb_entries=config.fdb_entries))
        self._wait_for_events()
        for what in waiting(self.config, config):
            log.warning("%s at the next start", what)
        if self.membership is not None:  # the others know this host by its name
            config = replace(config, host=self.config.host)
        self.config = config
        self.switch.state = replace(self.switch.state, host=config.host)
        await self._reconcile()

    async def _reconcile(self) -> None:
        """First what runs already, all or nothing; then device by device what does not run yet, so that one bad
        device keeps no other from being attached."""
        self._follower.try_all_again()
        devices, rows, attached, xdp, lacking = await self._changes.blocking(self._look_at_all)
        wanted = device_names(replace(self.switch.state, overlay=self.config.overlay))
        running = [d for d in devices if d.ifname not in wanted or d.ifindex in attached.values()]
        plan = reconcile(
            self.switch,
            running,
            rows,
            attached,
            xdp,
            ageing_s=self.config.ageing_s,
            fdb_entries=self.config.fdb_entries,
            now=time.time(),
            overlay=self.config.overlay,
            lacking=lacking,
        )
        internal = [effect for effect in plan.effects if isinstance(effect, MakeInternal)]
        others = tuple(effect for effect in plan.effects if not isinstance(effect, MakeInternal))
        await self._changes.perform(replace(plan, effects=others))
        await self._changes.blocking(self.datapath.take_over)
        for effect in internal:
            try:
                await self._changes.blocking(partial(self._changes.apply, (effect,)))
            except VxagentError as error:
                log_failed(f"internal port {effect.pair.ifname}", error)
        self._changes.executor.torn = False
        await self._follower.read()
        await self._follower.take_all()
        await self._look_at_overlay()

    def _look_at_all(self) -> tuple[list[Device], Rows, dict[int, int], dict[int, Xdp], list[int]]:
        """What there is, as `reconcile` wants it. Blocks. Half there can only be the two programs of the underlay."""
        attached = self.datapath.attached()
        state = self.switch.state
        underlay = state.numbers.number("port", state.underlay)
        wanted = {handle: ifindex for handle, ifindex in attached.items() if handle == underlay}
        lacking = [handle for handle, runs in self.datapath.runs(wanted).items() if not runs]
        return self.links.devices(), self.datapath.rows(), attached, self.datapath.xdp(), lacking

    # What happens by the clock

    async def _audit(self) -> None:
        await self.auditor.audit()
        if self.migrations is not None:
            self.migrations.arrived(self.auditor.come_up)

    async def _look_at_overlay(self) -> None:
        self._overlay.look(self.switch.state)

    async def _resync(self) -> None:
        """The net under the link events, and under a change that could not be undone."""
        torn = self._changes.executor.torn
        await self._changes.in_turn(self._reconcile if torn else self._follower.read)

    async def _age(self) -> None:
        await self._changes.blocking(self.datapath.age)
        await self._changes.in_turn(self._keep_leases)

    async def _keep_leases(self) -> None:
        """Save what the data plane has, for a start without its tables."""
        leases = await self._changes.blocking(self.datapath.leases)
        seen = by_port(self.switch.state, leases, time.time())
        await self._changes.run(lambda draft: draft.leases_seen(seen))

    async def _try_to_keep_leases(self) -> None:
        """What was saved last has to do where this fails."""
        try:
            await self._keep_leases()
        except VxagentError as error:
            log_failed("leases", error)

    async def _write_journal(self) -> None:
        """All that waits, in pieces: between two of them everybody else has a turn."""
        taken = EVENTS_AT_ONCE
        while taken == EVENTS_AT_ONCE:
            events = await self.read(self.datapath.events)
            self._journal.write(events, self.switch.state, time.monotonic())
            if self.migrations is not None:
                self.migrations.hear(events)
            taken = len(events)


async def _repeat(
    what: str,
    interval: Callable[[], float],
    work: Callable[[], Coroutine[Any, Any, None]],
    sooner: asyncio.Event | None = None,
) -> None:
    """Work for ever, at intervals or, where it is set, by `sooner`; what fails is tried again."""
    woken = asyncio.Event() if sooner is None else sooner
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(interval()):
                await woken.wait()
        woken.clear()
        try:
            await work()
        except Exception as error:
            log_failed(what, error)
