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
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from vxagent.core.announcements import announcements
from vxagent.core.checks import check_can_follow
from vxagent.core.remote import NOBODY_LEAVES
from vxagent.core.switch import Draft
from vxagent.datapath.abi import EventType
from vxagent.datapath.base import Datapath, Event
from vxagent.errors import ClusterError, HostError, NotFound, Refused, WrongPhase
from vxagent.model.binding import Binding, Phase, Projection, Step, after
from vxagent.model.port import Port
from vxagent.runtime.changes import Changes
from vxagent.runtime.errands import Errands
from vxagent.runtime.luggage import luggage_of, wanted
from vxagent.runtime.membership import Membership
from vxagent.runtime.migration_figures import MigrationFigures
from vxagent.runtime.periods import WAITS, Waits
from vxagent.runtime.porter import Porter
from vxagent.runtime.switchover import Switchover, missing_hosts

log = logging.getLogger(__name__)


class Migrations:
    """Of the ports of one host in a cluster.

    Attributes:
        figures: what they cost.
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
        self.figures = MigrationFigures()
        self._changes = changes
        self._membership = membership
        self._cluster = membership.cluster
        self._host = host
        self._look = look
        self._waits = waits
        self._errands = Errands()
        self._porter = Porter(changes, membership.cluster, datapath, self._errands, waits)
        self._arriving: set[int] = set()

    # Commands

    async def prepare(self, port: str, ifname: str | None = None) -> Binding:
        """Have this host be the next one of a port that runs elsewhere; its VM will be behind `ifname` here.

        Raises:
            NotFound, WrongPhase, Conflict, ClusterError: it stays where it is.
        """
        await self._membership.wait_connected()
        wanted(await luggage_of(self._cluster, port))
        told = self._changes.switch.state.remote.ports.get(port)
        lingers = told is not None and self._host not in (told.owner, told.next)
        if told is not None:
            check_can_follow(self._changes.switch.state, told)
        before = await self._cluster.binding(port)
        binding = await self._cluster.prepare(port)
        self._porter.expect(port, binding.revision)

        def let_go(draft: Draft) -> None:
            """What the VM has left here a moment ago: it comes with another device perhaps, and with its counters."""
            if lingers and port in draft.state.ports:
                draft.detach_port(port)

        def attach(draft: Draft, model: Port) -> None:
            draft.cluster_says(draft.state.remote.knowing(binding))
            draft.attach_port(model)

        async def work() -> None:
            asked = wanted(await luggage_of(self._cluster, port))  # no other than this one from now on
            model = replace(asked, ifname=ifname or asked.ifname, applied=False)
            await self._look()  # the device may be another one of the same name since the VM was here
            await self._changes.run(let_go)
            await self._changes.run(partial(attach, model=model))

        try:
            await self._changes.in_turn(work)
        except BaseException:
            if before is None or before.next != self._host:  # what was asked for before goes on
                with suppress(ClusterError):
                    await self._cluster.cancel(port)
            raise
        self._errands.send(self._expire(port, binding.revision))
        if self._is_to_come(port, Phase.SWITCHED):  # meanwhile
            self._errands.send(self._hold(port))
        return binding

    async def switchover(self, port: str) -> Switchover:
        """The VM of a port of this host is about to stop, or has just stopped; it goes on at the next host.

        Raises:
            NotFound, WrongPhase, ClusterError: nothing has changed.
        """
        await self._membership.wait_connected()
        told = self._changes.switch.state.remote.ports.get(port)
        if told is None or told.owner != self._host or told.next is None:
            await self._hear_of(port)
        if self._porter.is_leased(port):  # the next host reads them as soon as it holds
            await self._porter.pack(port)
        now = asyncio.get_running_loop().time
        began = now()
        await self._let(port, leave=True)
        try:
            await asyncio.sleep(self._waits.drain_s)
            await self._let(port, leave=True, drained=True)
            binding = await self._cluster.switchover(port)
        except BaseException:
            await self._let(port, leave=False)
            raise
        left_s = now() - began
        await self._know(binding)
        await self._porter.pack(port, left_s)
        missing = await missing_hosts(self._changes, self._membership, binding, began + self._waits.switchover_s)
        return Switchover(next=str(binding.next), missing=tuple(sorted(missing)))

    async def _hear_of(self, port: str) -> None:
        """What this host has not been told yet. Raises NotFound, WrongPhase: it cannot be switched over."""
        binding = await self._cluster.binding(port)
        if binding is None:
            raise NotFound("binding", port)
        after(binding, Step.SWITCHOVER, self._host, binding.op)
        await self._know(binding)

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
            await self._porter.unpack_leases(port)
            self.figures.begin(port)
            await self._settle(await self._ask_to_activate(port), self.figures.end(port))
            return
        try:
            self._membership.check_connected()
            async with asyncio.timeout(self._waits.activate_s):
                binding = await self._cluster.activate(port)
        except (ClusterError, TimeoutError) as error:
            log.warning("cluster: port %s runs here, which is recorded later: %s", port, str(error) or "no answer came")
            await self._receive(port)
            self._errands.send(self._record(port, self.figures.end(port)))
        except Refused:
            await self._give_way(port)
            raise
        else:
            await self._settle(binding, self.figures.end(port))

    async def _ask_to_activate(self, port: str) -> Binding:
        """Of what nobody has switched over. Others may hear of it, and send here, before this host does: it holds what
        comes from now on."""
        await self._change(lambda draft: draft.cluster_says(draft.state.remote.announcing(port, here=True)))
        try:
            return await self._cluster.activate(port)
        except BaseException:
            await self._change(lambda draft: draft.cluster_says(draft.state.remote.announcing(port, here=False)))
            raise

    async def _receive(self, port: str) -> None:
        """It runs here, whether or not the engine knows. Where the engine answers it is asked first: who has cancelled
        the migration meanwhile has the port up already."""
        await self._change(lambda draft: draft.cluster_says(draft.state.remote.receiving(port, here=True)))

    async def _give_way(self, port: str) -> None:
        """The engine knows better: it does not run here."""
        await self._change(lambda draft: draft.cluster_says(draft.state.remote.receiving(port, here=False)))

    async def cancel(self, port: str) -> None:
        """The VM stays where it is. Raises NotFound, WrongPhase, ClusterError."""
        await self._membership.wait_connected()
        binding = await self._cluster.cancel(port)
        await self._changes.in_turn(lambda: self._stay(binding))

    # What happens by itself

    def resume(self) -> None:
        """What an agent before this one has left to be done."""
        state = self._changes.switch.state
        for told in state.remote.ports.values():
            if told.phase is Phase.PREPARED and state.host in (told.owner, told.next):
                self._errands.send(self._expire(told.port, told.revision))
            elif told.next == state.host and told.port in state.remote.arrived:
                self._errands.send(self._record(told.port, None))
            elif told.next == state.host:
                self._errands.send(self._hold(told.port))
            elif told.phase is Phase.BOUND and told.port in state.ports and told.owner != state.host:
                self._errands.send(self._drop(told, cancelled=False))

    async def told(self, now: Projection | None, before: Projection | None) -> None:
        """A binding has changed, and so have the rows."""
        if now is None:
            return
        state, port = self._changes.switch.state, now.port
        if now.phase is Phase.BOUND and now.owner != self._host:
            self.figures.end(port)
        if now.next == self._host and now.phase is Phase.SWITCHED:
            self.figures.end(port)
            self.figures.begin(port)
            self._errands.send(self._hold(port))
        elif now.phase is Phase.PREPARED and now.owner == self._host:
            self._errands.send(self._porter.pack(port))  # nobody may switch it over: its VM may just appear there
            self._errands.send(self._expire(port, now.revision))
        elif now.phase is Phase.HELD and now.next != self._host:
            self._errands.send(self._cluster.ack(now))
        elif now.phase is Phase.BOUND and port in state.ports and now.owner != self._host:
            cancelled = before is not None and before.next == self._host and before.owner == now.owner
            self._errands.send(self._drop(now, cancelled=cancelled))
        elif now.phase is Phase.BOUND and now.owner == self._host and before is not None:
            if before.next == self._host:
                self._errands.send(self._remind(port))
            elif before.phase not in NOBODY_LEAVES:  # the fabric has been told otherwise
                self._errands.send(self._changes.apply_for(port, announcements))

    def hear(self, events: Iterable[Event]) -> None:
        """The VM of a port that waits for it may have said that it is here."""
        self.arrived(event.port for event in events if event.type == EventType.ANNOUNCED)

    def arrived(self, handles: Iterable[int]) -> None:
        """The VMs of these ports are here."""
        for handle in set(handles) - self._arriving:
            self._arriving.add(handle)
            self._errands.send(self._arrive(handle))

    async def _arrive(self, handle: int) -> None:
        """It says so no second time: where only the engine can have it run here that is asked until it answers."""
        try:
            port = self._changes.switch.state.names("port").get(handle, "")
            said = False
            while True:
                try:
                    return await self.activate(port)
                except ClusterError as error:
                    if not said:
                        log.warning("cluster: the VM of port %s is here, and takes no part yet: %s", port, error)
                said = True
                await asyncio.sleep(self._waits.record_s)
        finally:
            self._arriving.discard(handle)

    async def carry(self, port: Port) -> None:
        """Leave for the next host what it needs of a port. Raises ClusterError."""
        await self._porter.carry(port)

    async def end(self) -> None:
        """Leave all that is under way."""
        await self._errands.end()

    async def _hold(self, port: str) -> None:
        if port not in self._changes.switch.state.ports:
            what = "cluster: the VM of port %s is to come here, where no port waits; `vxagent migrate cancel %s`"
            log.error(what, port, port)
            return
        while self._is_to_come(port, Phase.SWITCHED):  # others send by its host as long as nobody else has said so
            try:
                await self._know(await self._cluster.hold(port))
            except ClusterError as error:
                log.info("cluster: port %s holds what comes for its VM, which is said later: %s", port, error)
                await asyncio.sleep(self._waits.record_s)
        await self._changes.apply_for(port, announcements)
        while self._is_to_come(port, Phase.HELD) and not await self._porter.unpack_leases(port):
            await asyncio.sleep(self._waits.record_s)

    def _is_to_come(self, port: str, phase: Phase) -> bool:
        told = self._changes.switch.state.remote.ports.get(port)
        return told is not None and (told.next, told.phase) == (self._host, phase)

    async def _drop(self, left: Projection, *, cancelled: bool) -> None:
        """The VM of a port has left for good, or does not come; if it has not been here again meanwhile."""
        if not cancelled:
            await asyncio.sleep(self._waits.linger_s)

        async def drop() -> None:
            state = self._changes.switch.state
            told = state.remote.ports.get(left.port)
            if told is None or self._host in (told.owner, told.next) or told.epoch != left.epoch:
                return
            if cancelled:
                await self._give_up(left.port)
            elif left.port in state.ports:
                await self._changes.run(lambda draft: draft.detach_port(left.port))

        await self._changes.in_turn(drop)

    async def _remind(self, port: str) -> None:
        """Where the VM was nobody could learn where it is, as long as its port was there."""
        await asyncio.sleep(self._waits.linger_s + self._waits.retry_s)
        await self._changes.apply_for(port, announcements)

    async def _expire(self, port: str, revision: int) -> None:
        """Nobody has switched over what was prepared at this revision: it stays where it is. Both hosts see to that,
        for one of them may be dead."""

        def waits() -> bool:
            told = self._changes.switch.state.remote.ports.get(port)
            return told is not None and (told.phase, told.revision) == (Phase.PREPARED, revision)

        within = self._waits.prepared_s
        await asyncio.sleep(within)
        if waits():
            log.warning("port %s was not switched over within %.0f s; its migration is cancelled", port, within)
        while waits():
            with suppress(ClusterError):
                await self.cancel(port)
                return
            await asyncio.sleep(self._waits.record_s)

    async def _record(self, port: str, waited_s: float | None) -> None:
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
            await self._settle(binding, waited_s)
            return

    async def _stay(self, binding: Binding) -> None:
        """In turn: a VM stays where it is."""

        def know(draft: Draft) -> None:
            remote = draft.state.remote.knowing(binding)
            draft.cluster_says(remote.letting(binding.id, leave=False))

        await self._changes.run(know)
        if binding.owner != self._host:
            await self._give_up(binding.id)

    async def _give_up(self, port: str) -> None:
        """In turn: a VM does not come. Its port takes nothing any more; what it took is in its device, and lost."""
        self.figures.end(port)
        if port in self._changes.switch.state.ports:
            with suppress(HostError):
                self.figures.stayed(port, await self._porter.given(port))
            await self._changes.run(lambda draft: draft.detach_port(port))

    async def _settle(self, binding: Binding, waited_s: float | None) -> None:
        """This host is the owner now. What the port has counted so far goes on here, where it can be had, by and by."""
        await self._know(binding)
        self._errands.send(self._unpack(binding.id, waited_s))

    async def _unpack(self, port: str, waited_s: float | None) -> None:
        left_s = await self._porter.unpack(port)
        if waited_s is not None:
            self.figures.arrived(port, waited_s, left_s)

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
