"""Has the engine hold what is here: of a change before it is made, of everything when it may hold something else."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from vxagent.core.remote import Claim
from vxagent.core.state import State
from vxagent.errors import ClusterAmbiguous, ClusterAway, ClusterError, Conflict, Refused, SessionLost, WrongPhase
from vxagent.model.binding import Phase
from vxagent.model.port import Port
from vxagent.model.segment import Segment
from vxagent.runtime.changes import Changes
from vxagent.runtime.claims import Claims, bind, claim, cluster_segment, is_bound_here, let_go, take_back
from vxagent.store.cluster import Cluster

log = logging.getLogger(__name__)

_UNKNOWN = (ClusterAway, ClusterAmbiguous, SessionLost)  # what became of it, and whether it can be taken back


class Claimant:
    """Of one host.

    Args:
        carry: leaves for other hosts what they need of a port. Raises ClusterError.
    """

    def __init__(self, changes: Changes, cluster: Cluster, carry: Callable[[Port], Awaitable[None]]) -> None:
        self._changes = changes
        self._cluster = cluster
        self._carry = carry
        self._said: dict[Claim, str] = {}

    @property
    def _state(self) -> State:
        return self._changes.switch.state

    # Of a change, in turn

    async def claim(self, claims: Claims) -> None:
        """Claim what a change needs; all of it or nothing.

        Raises:
            Conflict, WrongPhase: somebody has it, who is named.
            ClusterError: the engine did not answer, or does not let us.
        """
        made: list[Segment | Port] = []
        try:
            await claim(self._cluster, claims, made)
        except BaseException as error:
            if isinstance(error, _UNKNOWN) or not await take_back(self._cluster, claims, made):
                await self._doubt(claims)
            raise

    async def withdraw(self, claims: Claims) -> None:
        """The change was not made."""
        if not await take_back(self._cluster, claims, (*claims.segments, *claims.ports)):
            await self._doubt(claims)

    async def settle(self, claims: Claims, *, connected: bool) -> None:
        """The change was made: give up what it does not need any more, at once or when the engine answers again."""
        if not (claims.carried or claims.gone or claims.left):
            return
        if not connected:
            await self._doubt(claims)
            return
        try:
            for port in claims.carried:
                await self._carry(port)
            await let_go(self._cluster, claims)
        except (ClusterError, Refused) as error:
            log.warning("cluster: %s; it is told later what has changed here", error)
            await self._doubt(claims)

    async def _doubt(self, claims: Claims) -> None:
        ports = (*(port.id for port in claims.carried), *claims.gone)
        segments = (*(segment.name for segment in claims.segments), *claims.left)
        doubtful = {*(("port", name) for name in ports), *(("segment", name) for name in segments)}
        await self._changes.run(lambda draft: draft.cluster_says(draft.state.remote.doubting(doubtful)))

    # Of everything

    async def publish(self) -> None:
        """All that is here, and what the engine may still hold of what was. Raises ClusterError."""
        state = self._state
        strays = [
            told.port
            for told in state.remote.ports.values()
            if told.owner == state.host and told.port not in state.ports and told.phase is Phase.BOUND
        ]
        ports = ("port", *state.ports, *strays)
        here = {*(("segment", name) for name in state.segments), *(("port", name) for name in ports[1:])}
        await self._agree(here | state.remote.doubtful)

    async def look(self) -> None:
        """What is in doubt. Raises ClusterError."""
        await self._agree(self._state.remote.doubtful)

    async def _agree(self, claims: Iterable[Claim]) -> None:
        """One after the other, so that nothing else has to wait for long: segments that are here before the ports that
        are in them, those that are not after."""

        def order(of: Claim) -> tuple[int, str]:
            kind, name = of
            return (1 if kind == "port" else 0 if name in self._state.segments else 2, name)

        for of in sorted(claims, key=order):
            try:
                await self._changes.in_turn(partial(self._make_agree, of))
            except (Conflict, WrongPhase) as error:  # what somebody else has keeps nothing else from being done
                if self._said.get(of) != str(error):
                    log.error("cluster: %s %s: %s", *of, error)  # noqa: TRY400  # people read the line
                self._said[of] = str(error)
            else:
                self._said.pop(of, None)

    async def _make_agree(self, of: Claim) -> None:
        """In turn: have the engine hold of this what is here now."""
        kind, name = of
        if kind == "segment":
            await self._agree_on_segment(name)
        else:
            await self._agree_on_port(name)
        if of in self._state.remote.doubtful:
            await self._changes.run(lambda draft: draft.cluster_says(draft.state.remote.agreed(of)))

    async def _agree_on_segment(self, name: str) -> None:
        segment = self._state.segments.get(name)
        if segment is not None:
            await self._cluster.claim_segment(cluster_segment(segment))
            if self._state.bridges(name):  # the store may have lost that, too
                await self._cluster.claim_bridge(name)
        else:
            await self._cluster.leave_segment(name)

    async def _agree_on_port(self, name: str) -> None:
        port = self._state.ports.get(name)
        if port is None:
            await self._unbind(name)
        elif is_bound_here(self._state, name):
            await bind(self._cluster, port)
            await self._carry(port)

    async def _unbind(self, port: str) -> None:
        try:
            await self._cluster.unbind(port)
        except WrongPhase as error:
            if error.phase != Phase.BOUND:  # it migrates, and is this host's if that is cancelled
                raise
