"""This host's part in a cluster: its session, its claims, and what the others say.

    session   opened, held, opened again when it is lost; then all claims are compared with what is here
    follower  what others say becomes rows, in turn with all other changes; what has to be answered is

While the engine is away nothing is taken back: the rows stay, the session is tried again and again, and only what
would need everybody's consent is refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from enum import StrEnum
from functools import partial
from typing import Any, Protocol

from vxagent.core.census import Census, records_of
from vxagent.core.remote import NO_CLUSTER, Remote
from vxagent.core.state import State
from vxagent.core.switch import Draft
from vxagent.errors import (
    ClusterAmbiguous,
    ClusterAway,
    ClusterError,
    ClusterReset,
    Conflict,
    SessionLost,
    VxagentError,
)
from vxagent.model.binding import Projection
from vxagent.model.cluster import Change, Problem, Record, Snapshot
from vxagent.model.port import Port
from vxagent.runtime.changes import Changes
from vxagent.runtime.claimant import Claimant
from vxagent.runtime.claims import Claims, claims_of
from vxagent.runtime.periods import WAITS, Waits, sleep_about
from vxagent.runtime.silence import Silence, is_there
from vxagent.store.cluster import Cluster
from vxagent.store.follower import Follower
from vxagent.store.kv import Kv

log = logging.getLogger(__name__)

BACK_STEP_S = 0.01


class Hears(Protocol):
    """Who is told of bindings, and tells what goes with them."""

    async def told(self, now: Projection | None, before: Projection | None) -> None:
        """A binding is so now (None: gone), and was so; the rows are already."""

    async def carry(self, port: Port) -> None:
        """Leave for other hosts what they need of a port of this host. Raises ClusterError."""


class Connection(StrEnum):
    """What `status` shows."""

    OFF = "off"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"


class Agreement:
    """What was claimed for one change."""

    def __init__(self, membership: Membership, claims: Claims) -> None:
        self._membership = membership
        self._claims = claims

    async def withdraw(self) -> None:
        """The change was not made."""
        await self._membership.withdraw(self._claims)

    async def settle(self) -> None:
        """The change was made."""
        await self._membership.settle(self._claims)


class Membership:
    """One host in one cluster. It is the `Consent` that changes of the switch need.

    Args:
        changes: of this host's switch.
        kv: the engine; it is closed with this.
        name: the cluster's.
        host, vtep, boot: as `Cluster.open` takes them.
        answers: whether the host that has this VTEP is there; None: `is_there`.

    Attributes:
        cluster: for what goes beyond claims.
        heard: notified when what others say has become rows.
    """

    def __init__(
        self,
        changes: Changes,
        kv: Kv,
        *,
        name: str,
        host: str,
        vtep: str | None,
        boot: str,
        waits: Waits = WAITS,
        answers: Callable[[str], Awaitable[bool | None]] | None = None,
    ) -> None:
        self.cluster = Cluster(kv, name, host)
        self.heard = asyncio.Condition()
        self._changes = changes
        self._kv = kv
        self._host = host
        self._vtep = vtep
        self._boot = boot
        self._waits = waits
        self._silence = Silence(changes, answers or partial(is_there, within_s=waits.answers_s), waits.silent_s)
        self._hears: Hears | None = None
        self._session_is_up = False
        self._follows = False
        self._away_since = float("-inf")
        self._said = ""
        self._claimant = Claimant(changes, self.cluster, self._carry)
        self._census = Census(host, NO_CLUSTER)
        self._untaken: tuple[Change, ...] = ()
        self._follower: Follower | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._wake = asyncio.Event()
        self._told_unreadable: tuple[Problem, ...] = ()

    @property
    def connection(self) -> Connection:
        """Whether the engine answers."""
        return Connection.CONNECTED if self._session_is_up and self._follows else Connection.DISCONNECTED

    @property
    def live(self) -> set[str]:
        """Hosts that the engine takes for alive, this one too."""
        return self._census.live

    @property
    def unreadable(self) -> tuple[Problem, ...]:
        """The keys, of those that concern this host, that cannot be read."""
        return () if self._follower is None else self._follower.problems

    @property
    def state(self) -> State:
        """The switch's."""
        return self._changes.switch.state

    def begin(self, hears: Hears) -> None:
        """From now on the switch goes by what the cluster says, as it was known last until the engine answers."""
        self._hears = hears
        state = self.state
        known = Snapshot(revision=0, identity="", records=tuple(records_of(state.remote)))
        self._census = Census(self._host, state.remote)
        self._follower = self.cluster.follow(state.segments, known)
        self._tasks = [asyncio.create_task(self._keep_session()), asyncio.create_task(self._follow())]

    async def end(self, *, leave: bool) -> None:
        """Stop. With `leave` the others are told; without, they find out."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if leave and self.cluster.session is not None:
            with suppress(ClusterError):
                await self._leave_bridges()
                await self.cluster.session.close()
        if self._follower is not None:
            await self._follower.close()
        await self._kv.close()

    # What a change of the switch needs

    async def ask(self, old: State, new: State) -> Agreement:
        """Claim what a change needs, before it is made.

        Raises:
            ClusterAway: there is no engine to ask.
            Conflict, WrongPhase: somebody has it.
        """
        claims = claims_of(old, new)
        if claims.segments or claims.ports:
            self.check_connected()
            await self._claimant.claim(claims)
        return Agreement(self, claims)

    async def withdraw(self, claims: Claims) -> None:
        """The change was not made."""
        await self._claimant.withdraw(claims)
        self._wake.set()

    async def settle(self, claims: Claims) -> None:
        """The change was made: give up what it does not need any more, and hear of what it does."""
        await self._claimant.settle(claims, connected=self.connection is Connection.CONNECTED)
        if self._follower is not None:
            for segment in claims.left:
                self._follower.remove(segment)
            for added in claims.segments:
                self._follower.add(added.name)
        self._wake.set()

    def check_connected(self) -> None:
        """Refuse what needs the engine while that is away. Raises ClusterAway."""
        if self.connection is not Connection.CONNECTED:
            raise ClusterAway(
                f"the cluster does not answer{f' ({self._said})' if self._said else ''}",
                "what is attached goes on; ask again when `vxagent status` says connected",
            )

    async def wait_connected(self) -> None:
        """The same, unless it answers again at once: a member that dies is not the engine. Not in turn, for what it
        tells then has to have its own. Raises ClusterAway."""
        until, now = self._away_since + self._waits.back_s, asyncio.get_running_loop().time
        while self.connection is not Connection.CONNECTED and now() < until:
            await asyncio.sleep(BACK_STEP_S)
        self.check_connected()

    # The session

    async def _keep_session(self) -> None:
        while True:
            pause = self._waits.retry_s
            try:
                session = await self.cluster.open(vtep=self._vtep, boot=self._boot)
                await self._hold(session.hold(self._waits.keepalive_s, self._waits.retry_s))
            except SessionLost as error:
                log.warning("cluster: %s", error.what)
                pause = 0.0
            except ClusterAway as error:
                self._say(error.what)
            except (VxagentError, OSError) as error:
                self._say(str(error))
                pause = self._waits.refused_s
            finally:
                self._lose()
                self._session_is_up = False
            await sleep_about(pause)

    async def _hold(self, holding: Coroutine[Any, Any, None]) -> None:
        """Hold the session: claim what is here, which may take longer than a session lasts by itself; then see to what
        nobody else does, now and then."""
        held = asyncio.ensure_future(holding)
        claimed = asyncio.ensure_future(self._publish())
        listened: asyncio.Future[None] | None = None
        try:
            await asyncio.wait((held, claimed), return_when=asyncio.FIRST_COMPLETED)
            if held.done():
                return held.result()
            claimed.result()
            self._session_is_up = True
            self._say("")
            listened = asyncio.ensure_future(self._silence.listen(lambda: self._census.live, self._waits.refused_s))
            while True:
                woken = asyncio.ensure_future(self._wake.wait())
                await asyncio.wait((held, woken), timeout=self._waits.refused_s, return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()
                if held.done():
                    return held.result()
                self._wake.clear()
                with suppress(
                    ClusterAway, ClusterAmbiguous
                ):  # the session says whether it is lost; there is a next look
                    await self._claimant.look()
                    await self._bridge()
                self._tell_unreadable()
        finally:
            under_way = [future for future in (held, claimed, listened) if future is not None]
            for future in under_way:
                future.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _publish(self) -> None:
        """Again and again, as long as the session holds: to begin another one would cost all hosts more."""
        while True:
            try:
                return await self._claimant.publish()
            except (ClusterAway, ClusterAmbiguous) as error:
                self._say(error.what)
                await sleep_about(self._waits.retry_s)

    async def _try_to(self, what: str, work: Coroutine[Any, Any, Any]) -> None:
        """What somebody else has is said, and keeps nothing else from being done."""
        try:
            await work
        except Conflict as error:
            log.error("cluster: %s: %s", what, error)  # noqa: TRY400  # people read the line

    async def _carry(self, port: Port) -> None:
        if self._hears is not None:
            await self._hears.carry(port)

    async def _bridge(self) -> None:
        """Take on what nobody bridges, or a host that is silent, of the segments that this host could; leave others."""
        state = self.state
        silent = {host for host, peer in state.remote.peers.items() if peer.silent and host not in self.live}
        for segment in state.segments.values():
            name, holder = segment.name, state.remote.bridges.get(segment.name)
            could = None not in (segment.vlan, segment.vni, state.overlay) and bool(state.uplinks)
            if could and (holder is None or holder in silent):
                await self._try_to(f"bridge of {name}", self.cluster.claim_bridge(name, instead_of=holder))
            elif holder == self._host and not could:
                await self.cluster.release_bridge(name)

    async def _leave_bridges(self) -> None:
        """To whom else could: this host answers who asks whether it is there, and bridges nothing."""
        for segment, holder in self.state.remote.bridges.items():
            if holder == self._host:
                await self.cluster.release_bridge(segment)

    def _tell_unreadable(self) -> None:
        """Once for each: it counts as not being there."""
        now = self.unreadable
        for problem in now:
            if problem not in self._told_unreadable:
                log.warning("cluster: %s cannot be read (%s); it is left as it is", problem.key, problem.why)
        self._told_unreadable = now

    def _lose(self) -> None:
        if self.connection is Connection.CONNECTED:
            self._away_since = asyncio.get_running_loop().time()

    def _say(self, what: str) -> None:
        """Once for each thing."""
        if what == self._said:
            return
        self._said = what
        if what:
            log.warning("cluster: %s", what)
        else:
            log.info("cluster: connected as host %s", self._host)

    # The others

    async def _follow(self) -> None:
        assert self._follower is not None
        while True:
            pause = self._waits.retry_s
            try:
                if self._untaken:
                    await self._take(())
                async for changes in self._follower:
                    await self._take(changes)
            except ClusterReset as error:
                log.error("cluster: %s", error)  # noqa: TRY400  # people read the line
                with suppress(VxagentError):
                    await self._claimant.publish()
                pause = self._waits.reset_s
            except ClusterAway as error:
                self._say(error.what)
                pause = 0.0 if self._follows else pause  # of another member
            except (VxagentError, OSError) as error:
                self._say(str(error))
                pause = self._waits.refused_s
            self._lose()
            self._follows = False
            await sleep_about(pause)

    async def _take(self, changes: tuple[Change, ...]) -> None:
        """Make rows of what is told now, and of what could not be made any before."""
        self._untaken = changes = (*self._untaken, *changes)

        def tell(draft: Draft) -> None:
            before = draft.state.remote
            now = self._census.take(before, changes)
            came = {told.port for c in changes if (told := _projection(c.now)) and self._has_come(before, told)}
            draft.cluster_says(now.doubting({("port", port) for port in came & draft.state.ports.keys()}))
            gone = {c.before.port for c in changes if c.now is None and isinstance(c.before, Projection)}
            for port in gone - now.ports.keys():  # its VM has left it here, or was awaited
                if port in draft.state.ports and port in before.ports and before.ports[port].owner != self._host:
                    draft.detach_port(port)

        await self._changes.in_turn(lambda: self._changes.run(tell))
        self._untaken, self._follows = (), True
        async with self.heard:
            self.heard.notify_all()
        for change in changes:
            if isinstance(change.now or change.before, Projection) and self._hears is not None:
                await self._hears.told(_projection(change.now), _projection(change.before))
        self._wake.set()

    def _has_come(self, before: Remote, told: Projection) -> bool:
        """The VM of a port runs here now, of which this agent, or the one before it, knew only that it might."""
        knew = before.ports.get(told.port)
        return (told.owner, told.next) == (self._host, None) and knew is not None and knew.next == self._host


def _projection(record: Record | None) -> Projection | None:
    return record if isinstance(record, Projection) else None
