"""Live migration, as this host does its part of it: see core/migration.py for what each step makes of the ports.

prepare      here, the host that the VM is to come to
switchover   here, the host that it leaves: first our own tables, then the engine
(hold)       by itself, when the other host has switched over
activate     here, where the VM runs now: by command, or because it has announced itself
cancel       on either, before that
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from prometheus_client import Histogram

from vxagent.core.announcements import announcements
from vxagent.core.remote import NOBODY_LEAVES
from vxagent.core.switch import Draft
from vxagent.datapath.abi import EventType
from vxagent.datapath.base import Datapath, Event
from vxagent.errors import ClusterAway, ClusterError, NotFound, Refused, WrongPhase
from vxagent.model.binding import Binding, Phase, Projection
from vxagent.model.port import Port
from vxagent.runtime.changes import Changes
from vxagent.runtime.errands import Errands
from vxagent.runtime.evacuation import evacuate
from vxagent.runtime.luggage import luggage_of, wanted
from vxagent.runtime.membership import Membership
from vxagent.runtime.periods import WAITS, Waits
from vxagent.runtime.porter import Porter

log = logging.getLogger(__name__)

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Switchover:
    """How a switchover went. missing: hosts that have not said yet that they send to the next one."""

    next: str
    missing: tuple[str, ...]


class Migrations:
    """Of the ports of one host in a cluster.

    Attributes:
        blackouts: for how long the frames of VMs that came here were held, from the switchover, as this host heard of
            it, to the activation.
    """

    def __init__(
        self,
        changes: Changes,
        membership: Membership,
        datapath: Datapath,
        host: str,
        look: Callable[[], Coroutine[Any, Any, None]],
        waits: Waits = WAITS,
    ) -> None:
        self.blackouts = Histogram(
            "vxagent_migration_blackout_seconds",
            "For how long the frames of VMs that came here were held.",
            buckets=BUCKETS_S,
            registry=None,
        )
        self._held_since: dict[str, float] = {}
        self._changes = changes
        self._membership = membership
        self._cluster = membership.cluster
        self._porter = Porter(changes, membership.cluster, datapath)
        self._host = host
        self._look = look
        self._waits = waits
        self._errands = Errands()

    # Commands

    async def prepare(self, port: str, ifname: str | None = None) -> Binding:
        """Have this host be the next one of a port that runs elsewhere; its VM will be behind `ifname` here.

        Raises:
            NotFound, WrongPhase, Conflict, ClusterError: it stays where it is.
        """
        await self._membership.wait_connected()
        asked = wanted(await luggage_of(self._cluster, port))
        model = replace(asked, ifname=ifname or asked.ifname, applied=False)
        told = self._changes.switch.state.remote.ports.get(port)
        lingers = told is not None and self._host not in (told.owner, told.next)
        binding = await self._cluster.prepare(port)

        def let_go(draft: Draft) -> None:
            """What the VM has left here a moment ago: it comes with another device perhaps, and with its counters."""
            if lingers and port in draft.state.ports:
                draft.detach_port(port)

        def attach(draft: Draft) -> None:
            draft.cluster_says(draft.state.remote.knowing(binding))
            draft.attach_port(model)

        async def work() -> None:
            await self._look()  # the device may be another one of the same name since the VM was here
            await self._changes.run(let_go)
            await self._changes.run(attach)

        try:
            await self._changes.in_turn(work)
        except BaseException:
            with suppress(ClusterError):
                await self._cluster.cancel(port)
            raise
        self._errands.send(self._expire(port, binding.revision))
        return binding

    async def switchover(self, port: str) -> Switchover:
        """The VM of a port of this host is about to stop, or has just stopped; it goes on at the next host.

        Raises:
            NotFound, WrongPhase, ClusterError: nothing has changed.
        """
        await self._membership.wait_connected()
        told = self._changes.switch.state.remote.ports.get(port)
        if told is None or told.owner != self._host or told.next is None:
            await self._know(await self._cluster.switchover(port))  # says why not, or knows better
        if self._porter.is_leased(port):  # the next host reads them as soon as it holds
            await self._porter.pack(port)
        deadline = asyncio.get_running_loop().time() + self._waits.switchover_s
        await self._let(port, leave=True)
        try:
            await asyncio.sleep(self._waits.drain_s)
            await self._let(port, leave=True, drained=True)
            binding = await self._cluster.switchover(port)
        except BaseException:
            await self._let(port, leave=False)
            raise
        await self._know(binding)
        await self._porter.pack(port)
        missing = await self._wait_for_all(binding, deadline)
        return Switchover(next=str(binding.next), missing=tuple(sorted(missing)))

    async def activate(self, port: str) -> None:
        """The VM of a port runs here now. What was switched over before needs no engine for it.

        Raises:
            NotFound, WrongPhase: it is not to come here, or not yet.
            ClusterError: the engine has to be asked first, and did not do it.
        """
        told = self._told(port)
        if told.owner == self._host and told.phase is Phase.BOUND:
            return
        if told.next != self._host:
            raise WrongPhase(port, told.phase, "activate", f"it runs on host {told.owner}", "prepare it here first")
        if told.phase is Phase.PREPARED:
            await self._membership.wait_connected()
            if self._porter.is_leased(port):
                await self._porter.unpack_leases(port)
            await self._settle(await self._ask_to_activate(port))
            return
        since = self._held_since.pop(port, None)
        try:
            self._membership.check_connected()
            async with asyncio.timeout(self._waits.activate_s):
                binding = await self._cluster.activate(port)
        except (ClusterError, TimeoutError) as error:
            log.warning("cluster: port %s runs here, which is recorded later: %s", port, str(error) or "no answer came")
            await self._receive(port, since)
            self._errands.send(self._record(port))
        except Refused:
            await self._give_way(port)
            raise
        else:
            await self._settle(binding, since)

    async def _ask_to_activate(self, port: str) -> Binding:
        """Of what nobody has switched over. Others may hear of it, and send here, before this host does: it holds what
        comes from now on."""
        await self._change(lambda draft: draft.cluster_says(draft.state.remote.announcing(port, here=True)))
        try:
            return await self._cluster.activate(port)
        except BaseException:
            await self._change(lambda draft: draft.cluster_says(draft.state.remote.announcing(port, here=False)))
            raise

    async def _receive(self, port: str, since: float | None) -> None:
        """It runs here, whether or not the engine knows. Where the engine answers it is asked first: who has cancelled
        the migration meanwhile has the port up already."""
        await self._change(lambda draft: draft.cluster_says(draft.state.remote.receiving(port, here=True)))
        self._tell_blackout(port, since)

    async def _give_way(self, port: str) -> None:
        """The engine knows better: it does not run here."""
        await self._change(lambda draft: draft.cluster_says(draft.state.remote.receiving(port, here=False)))

    def _tell_blackout(self, port: str, since: float | None) -> None:
        """For how long the VM's frames were held here."""
        if since is None:
            return
        held_s = time.monotonic() - since
        self.blackouts.observe(held_s)
        log.info("port %s runs here; its frames were held for %.1f ms", port, held_s * 1000)

    async def cancel(self, port: str) -> None:
        """The VM stays where it is. Raises NotFound, WrongPhase, ClusterError."""
        await self._membership.wait_connected()
        binding = await self._cluster.cancel(port)
        await self._change(lambda draft: self._stay(draft, binding))

    async def evacuate(self, host: str) -> list[str]:
        """Take all ports of a dead host; their VMs can be started here. Return their ids. See evacuation.py."""
        await self._membership.wait_connected()
        return await evacuate(self._changes, self._cluster, host)

    # What happens by itself

    def resume(self) -> None:
        """What an agent before this one has left to be done."""
        state = self._changes.switch.state
        for told in state.remote.ports.values():
            if told.next == state.host and told.phase is Phase.PREPARED:
                self._errands.send(self._expire(told.port, told.revision))
            elif told.next == state.host and told.port in state.remote.arrived:
                self._errands.send(self._record(told.port))
            elif told.next == state.host and told.phase is Phase.SWITCHED:
                self._errands.send(self._hold(told.port))
            elif told.phase is Phase.BOUND and told.port in state.ports and told.owner != state.host:
                self._errands.send(self._drop(told, self._waits.linger_s))

    async def told(self, now: Projection | None, before: Projection | None) -> None:
        """A binding has changed, and so have the rows."""
        if now is None:
            return
        state, port = self._changes.switch.state, now.port
        if now.phase in NOBODY_LEAVES:
            self._held_since.pop(port, None)
        if now.next == self._host and now.phase is Phase.SWITCHED:
            self._errands.send(self._hold(port))
        elif now.phase is Phase.PREPARED and now.owner == self._host:
            self._errands.send(self._porter.pack(port))  # nobody may switch it over: its VM may just appear there
        elif now.phase is Phase.HELD and now.next != self._host:
            self._errands.send(self._cluster.ack(now))
        elif now.phase is Phase.BOUND and port in state.ports and now.owner != self._host:
            cancelled = before is not None and before.next == self._host and before.owner == now.owner
            self._errands.send(self._drop(now, 0.0 if cancelled else self._waits.linger_s))
        elif now.phase is Phase.BOUND and now.owner == self._host and before is not None and before.next == self._host:
            self._errands.send(self._remind(port))

    def hear(self, events: Iterable[Event]) -> None:
        """The VM of a port that waits for it may have said that it is here."""
        self.arrived(event.port for event in events if event.type == EventType.ANNOUNCED)

    def arrived(self, handles: Iterable[int]) -> None:
        """The VMs of these ports are here."""
        names = self._changes.switch.state.names("port")
        for handle in handles:
            self._errands.send(self.activate(names.get(handle, "")))

    async def carry(self, port: Port) -> None:
        """Leave for the next host what it needs of a port. Raises ClusterError."""
        await self._porter.leave(port)

    async def end(self) -> None:
        """Leave all that is under way."""
        await self._errands.end()

    async def _hold(self, port: str) -> None:
        if port not in self._changes.switch.state.ports:
            what = "cluster: the VM of port %s is to come here, where no port waits; `vxagent migrate cancel %s`"
            log.error(what, port, port)
            return
        self._held_since.setdefault(port, time.monotonic())
        await self._know(await self._cluster.hold(port))
        await self._changes.apply_for(port, announcements)
        await self._porter.unpack_leases(port)

    async def _drop(self, left: Projection, after_s: float) -> None:
        """The VM of a port has left for good, if it has not been here again meanwhile."""
        await asyncio.sleep(after_s)

        def drop(draft: Draft) -> None:
            told = draft.state.remote.ports.get(left.port)
            if told is None or self._host in (told.owner, told.next) or told.epoch != left.epoch:
                return
            if left.port in draft.state.ports:
                draft.detach_port(left.port)

        await self._change(drop)

    async def _remind(self, port: str) -> None:
        """Where the VM was nobody could learn where it is, as long as its port was there."""
        await asyncio.sleep(self._waits.linger_s + self._waits.retry_s)
        told = self._changes.switch.state.remote.ports.get(port)
        if told is not None and told.owner == self._host and told.phase in NOBODY_LEAVES:
            await self._changes.apply_for(port, announcements)

    async def _expire(self, port: str, revision: int) -> None:
        """Nobody has switched over what was prepared at this revision: it stays where it is."""
        await asyncio.sleep(self._waits.prepared_s)
        told = self._changes.switch.state.remote.ports.get(port)
        if told is not None and (told.next, told.phase, told.revision) == (self._host, Phase.PREPARED, revision):
            within = self._waits.prepared_s
            log.warning("port %s was not switched over within %.0f s; its migration is cancelled", port, within)
            await self.cancel(port)

    async def _record(self, port: str) -> None:
        """Tell the engine, once it answers, that a port runs here, unless that is over: its migration was cancelled."""
        while True:
            await asyncio.sleep(self._waits.record_s)
            if port not in self._changes.switch.state.remote.arrived:
                return
            try:
                binding = await self._cluster.record(port)
            except ClusterError:
                continue
            except Refused:
                await self._give_way(port)
                raise
            await self._settle(binding)
            return

    async def _wait_for_all(self, switched: Binding, deadline: float) -> frozenset[str]:
        """The hosts that do not send to the next one yet, once none is left, the time is up or it is over."""

        def told() -> Projection | None:
            return self._changes.switch.state.remote.ports.get(switched.id)

        def goes_on() -> bool:
            now = told()
            return now is not None and now.revision >= switched.revision and now.phase is not Phase.SWITCHED

        loop = asyncio.get_running_loop()
        heard = self._membership.heard
        try:
            async with asyncio.timeout_at(deadline), heard:
                await heard.wait_for(goes_on)
        except TimeoutError:
            return frozenset({str(switched.next)})
        now = told()
        if now is None or now.phase is not Phase.HELD:
            return frozenset()
        binding = replace(switched, phase=Phase.HELD, revision=now.revision)
        try:
            return await self._cluster.missing_acks(binding, max(0.0, deadline - loop.time()))
        except ClusterAway:
            return frozenset({str(switched.next)})

    def _stay(self, draft: Draft, binding: Binding) -> None:
        remote = draft.state.remote.knowing(binding)
        draft.cluster_says(remote.letting(binding.id, leave=False))
        if binding.owner != self._host and binding.id in draft.state.ports:
            draft.detach_port(binding.id)

    async def _settle(self, binding: Binding, since: float | None = None) -> None:
        """This host is the owner now. What the port has counted so far goes on here, where it can be had, by and by."""
        await self._know(binding)
        self._tell_blackout(binding.id, since)
        self._errands.send(self._porter.unpack_counts(binding.id))

    async def _let(self, port: str, *, leave: bool, drained: bool = False) -> None:
        """So far its switchover has begun here."""
        await self._change(
            lambda draft: draft.cluster_says(draft.state.remote.letting(port, leave=leave, drained=drained))
        )

    async def _know(self, binding: Binding) -> None:
        """Go by what was just written, before it comes back."""
        await self._change(lambda draft: draft.cluster_says(draft.state.remote.knowing(binding)))

    def _told(self, port: str) -> Projection:
        told = self._changes.switch.state.remote.ports.get(port)
        if told is None:
            raise NotFound("binding", port)
        return told

    async def _change(self, make: Any) -> None:
        await self._changes.in_turn(lambda: self._changes.run(make))
