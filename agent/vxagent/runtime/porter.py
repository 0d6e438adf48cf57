"""What goes along with a port whose VM migrates: left by its host, taken in by the next one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from weakref import WeakValueDictionary

from vxagent.core.state import State
from vxagent.datapath.base import Datapath
from vxagent.errors import ClusterError, Conflict, HostError, NotFound, Refused
from vxagent.model.binding import Phase
from vxagent.model.port import Port
from vxagent.runtime.carried import Counts, counts_of, effects_of, left_of, puts_of
from vxagent.runtime.changes import Changes
from vxagent.runtime.errands import Errands
from vxagent.runtime.luggage import luggage_of, pack
from vxagent.runtime.periods import WAITS, Waits
from vxagent.store.cluster import Cluster

log = logging.getLogger(__name__)


class Porter:
    """Of the ports of one host. What cannot be brought along is said, and holds nothing up.

    What is asked for one port is done in that order: a VM may leave again before all that it has brought is unpacked.
    """

    def __init__(
        self,
        changes: Changes,
        cluster: Cluster,
        datapath: Datapath,
        errands: Errands,
        waits: Waits = WAITS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._changes = changes
        self._cluster = cluster
        self._datapath = datapath
        self._errands = errands
        self._waits = waits
        self._unpacked: set[str] = set()  # ports whose leases are good here
        self._counted: set[str] = set()  # ports whose counters go on here
        self._unpacking: set[str] = set()
        self._late: set[str] = set()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._clock = clock
        self._expected: dict[str, tuple[int, float]] = {}  # port → revision of its preparation, when that was

    @property
    def _state(self) -> State:
        return self._changes.switch.state

    def is_leased(self, port: str) -> bool:
        """It is a port of this host whose VM speaks from what it was leased: it cannot where its leases are not."""
        model = self._state.ports.get(port)
        return model is not None and model.dhcp_snoop

    async def carry(self, port: Port) -> None:
        """Leave for the next host what it needs of a port; what that came with is unpacked first, where an agent before
        this one did not, or the engine went away. Raises ClusterError."""
        told = self._state.remote.ports.get(port.id)
        if told is not None and told.next is not None:
            if told.phase is Phase.PREPARED:  # and else it goes as it was packed
                self._errands.send(self.pack(port.id))
        elif port.id not in self._unpacking and not await self._leave(port):
            self._errands.send(self._unpack_late(port.id))

    async def _leave(self, port: Port) -> bool:
        """Leave a port as it was asked for; False: what it came with is not unpacked yet, and was left as it is."""
        with suppress(NotFound, Conflict):  # then there is nothing that could be unpacked
            luggage = await luggage_of(self._cluster, port.id)
            if luggage.host != self._state.host and (luggage.leases or luggage.counts != Counts()):
                return False
        await self._cluster.carry(port.id, pack(self._state.host, port))
        return True

    async def pack(self, port: str, left_s: float | None = None) -> None:
        """Leave what the VM has here, too. A VM that goes without its leases asks its DHCP server again.

        Args:
            left_s: since when what comes for it is sent after it; None: it is not.
        """
        async with self._turn(port):
            await self._pack(port, left_s)

    async def _pack(self, port: str, left_s: float | None) -> None:
        state = self._state
        try:
            counts = await self._changes.reading(partial(counts_of, state, self._datapath, port))
            leases = await self._changes.reading(self._datapath.leases) if self.is_leased(port) else ()
            packed = pack(state.host, state.ports[port], left_of(state, leases, port), counts, left_s)
            await self._cluster.carry(port, packed)
        except (ClusterError, NotFound, HostError) as error:
            log.warning("cluster: port %s leaves without its leases and counters: %s", port, error)

    def expect(self, port: str, revision: int) -> None:
        """A VM is to come, perhaps not for the first time; `revision` is that of its preparation, a moment ago."""
        self._unpacked.discard(port)
        self._counted.discard(port)
        self._late.discard(port)
        self._expected[port] = (revision, self._clock())

    async def unpack_leases(self, port: str) -> bool:
        """They are good here, too: once, for the VM may have renewed them since. False: they cannot be had now, and
        somebody will ask again."""
        if not self.is_leased(port) or port in self._unpacked:
            return True
        try:
            luggage = await luggage_of(self._cluster, port)
            leases = luggage.leases if luggage.host != self._state.host else ()
            age_s = self._age_s(port)
            await self._changes.apply_for(port, lambda state, of: puts_of(state, of, leases, age_s))
        except (ClusterError, HostError) as error:
            if port not in self._late:
                log.warning("cluster: port %s gets its leases later: %s", port, error)
            self._late.add(port)
            return False
        except Refused as error:
            log.warning("cluster: port %s comes without its leases: %s", port, error)
        self._late.discard(port)
        self._unpacked.add(port)
        return True

    async def given(self, port: str) -> int:
        """How many frames the device of a port has been given. Raises NotFound, HostError."""
        state = self._state
        return (await self._changes.reading(partial(counts_of, state, self._datapath, port))).given

    async def unpack(self, port: str) -> float | None:
        """Of a port that runs here now: what its VM was leased, and what it has counted, go on here and are left to
        nobody else. Return its host's `left_s`, where it can be had."""
        self._unpacking.add(port)
        try:
            while self._runs_here(port) and not await self.unpack_leases(port):
                await asyncio.sleep(self._waits.record_s)
            async with self._turn(port):
                return await self._unpack_counts(port)
        finally:
            self._unpacking.discard(port)

    async def _unpack_late(self, port: str) -> None:
        """Who has just activated it does that, and knows how long it took."""
        await asyncio.sleep(self._waits.retry_s)
        if port not in self._unpacking:
            await self.unpack(port)

    def _runs_here(self, port: str) -> bool:
        told = self._state.remote.ports.get(port)
        return told is not None and (told.owner, told.phase) == (self._state.host, Phase.BOUND)

    async def _unpack_counts(self, port: str) -> float | None:
        left_s: float | None = None
        try:
            try:
                luggage = await luggage_of(self._cluster, port)
            except (NotFound, Conflict) as error:
                log.warning("cluster: port %s begins to count anew: %s", port, error)
            else:
                if luggage.host == self._state.host:
                    return None
                left_s, counts = luggage.left_s, luggage.counts
                if port not in self._counted:
                    await self._changes.apply_for(port, lambda state, of: effects_of(state, of, counts))
                    self._counted.add(port)
            await self._replace(port)
        except (ClusterError, Refused, HostError) as error:
            log.warning("cluster: port %s goes on counting later: %s", port, error)
        else:
            self._unpacked.discard(port)
            self._counted.discard(port)
        return left_s

    async def _replace(self, port: str) -> None:
        """Leave a port as it is in place of what it came with; it may change, or be detached, meanwhile."""
        left: Port | None = None
        while (model := self._state.ports.get(port)) is not None and model != left:
            await self._cluster.carry(port, pack(self._state.host, model))
            left = model

    def _age_s(self, port: str) -> float:
        """How old is what was left for this host: where nobody has switched over, it is as of the preparation."""
        told = self._state.remote.ports.get(port)
        revision, since = self._expected.get(port, (0, 0.0))
        is_prepared = told is not None and told.phase is Phase.PREPARED and told.revision == revision
        return self._clock() - since if is_prepared else 0.0

    def _turn(self, port: str) -> asyncio.Lock:
        return self._turns.setdefault(port, asyncio.Lock())
