"""The drift audit: every few seconds, is the kernel still what the switch says, and if not, why not make it so?

    look (a thread) ─► examine (core) ─► [read the devices anew, look again] ─► repair, one thing at a time

It has its turn like any change, so no change is half done when it looks. Where nothing has changed it costs little: a
table whose bytes are those that were right is not taken apart.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial

from vxagent.core.audit import OF_DEVICES, Drift, Kind, Sight, Thing, examine, tables_changed
from vxagent.core.effects import Attach, SetXdp
from vxagent.core.migration import has_come_up
from vxagent.core.patience import FREE, Patience, Restless
from vxagent.core.state import State
from vxagent.core.tables import Rows, Table
from vxagent.datapath.base import Datapath
from vxagent.errors import HostError, VxagentError
from vxagent.netlink.base import Links
from vxagent.runtime.changes import Changes
from vxagent.runtime.follower import LinkFollower
from vxagent.runtime.strangers import Strangers

log = logging.getLogger(__name__)

LOOKS = 3  # at once, until the devices hold still
BATCH = 16
"""Programs that are put back in one turn, some 8 ms each, so that a command waits 0.15 s at most for it."""
LINES = 10  # of log for one kind of thing at one look


class Auditor:
    """Looks for drift and repairs it.

    Attributes:
        found: kind → how often something of it was not as it should be, each look counted.
        repaired: kind → how often it was put right.
        postponed: kind → how often something of it was left for a later look, because it drifts again and again.
        strangers: programs of others on the switch's devices.
        come_up: handles of ports that hold and whose VMs were seen to have announced themselves, at the last look.
    """

    def __init__(self, changes: Changes, follower: LinkFollower, datapath: Datapath, links: Links) -> None:
        self.found: Counter[Kind] = Counter()
        self.repaired: Counter[Kind] = Counter()
        self.postponed: Counter[Kind] = Counter()
        self.strangers = Strangers(datapath, links)
        self.come_up: frozenset[int] = frozenset()
        self._changes = changes
        self._follower = follower
        self._datapath = datapath
        self._patience = Patience()
        self._tried: set[str] = set()  # to put right, at this look
        self._right: dict[Table, bytes] = {}  # digests of what was as it should be by these rows:
        self._rows: Rows = {}

    async def audit(self) -> None:
        """Look once, and repair what is to be repaired. Raises HostError: something cannot be looked at."""
        more = await self._changes.in_turn(self._first_turn)
        while more:
            more = await self._changes.in_turn(self._further_turn)

    def restless(self) -> list[Restless]:
        """What drifts again and again. From any thread."""
        return self._patience.restless(time.monotonic())

    async def _first_turn(self) -> bool:
        self._tried.clear()
        drifts = await self._settled()
        self.found.update(drift.kind for drift in drifts)
        self._patience.forget(time.monotonic())
        more = await self._repair(drifts)
        await self._changes.blocking(partial(self.strangers.look, self._changes.switch.state))
        return more

    async def _further_turn(self) -> bool:
        return await self._repair(await self._settled())

    async def _settled(self) -> list[Drift]:
        """What has drifted. What a device takes along when it goes is no drift: its event may be on its way."""
        for _ in range(LOOKS):
            await self._follower.take_all()
            state = self._changes.switch.state
            drifts = await self._changes.blocking(partial(self._look, state))
            if not any(drift.kind in OF_DEVICES for drift in drifts):
                return drifts
            await self._follower.read()
            await self._follower.take_all()
            if self._changes.switch.state is state:
                return drifts
        return []  # they change faster than they can be looked at; the next time, then

    def _look(self, state: State) -> list[Drift]:
        """What is not as it should be, as it looks. Blocks."""
        for table in tables_changed(self._rows, state.rows):
            self._right.pop(table, None)
        self._rows = state.rows
        rows: dict[Table, Rows] = {}
        digests: dict[Table, bytes] = {}
        for table in Table:
            contents = self._datapath.contents(table)
            digest = contents.digest
            if self._right.get(table) != digest:
                rows[table], digests[table] = contents.rows(), digest
        ports = rows.get(Table.PORTS, {})
        self.come_up = frozenset(
            key for (table, key), row in ports.items() if has_come_up(state.rows.get((table, key)), row)
        )
        wanted = {handle: ifindex for handle, (ifindex, _) in state.attached.items()}
        sight = Sight(
            rows=rows,
            running=self._datapath.runs(wanted),
            xdp=self._datapath.xdp_at(wanted),
            refused=self._datapath.xdp_refused().keys() - self.strangers.left,
            faults=tuple(self._datapath.faults()),
        )
        drifts = examine(state, sight)
        wrong = {drift.kind for drift in drifts}
        self._right |= {table: digest for table, digest in digests.items() if table not in wrong}
        return drifts

    async def _repair(self, drifts: Sequence[Drift]) -> bool:
        """In turn: repair what does not have to wait, and at most BATCH programs.

        Returns:
            Whether there is more; not where none of the programs could be put back: the rest waits for the next look.
        """
        now = time.monotonic()
        due: list[tuple[Drift, int]] = []
        slow = 0
        for drift in sorted(drifts, key=self._order):
            if slow == BATCH:
                break
            if drift.thing in self._tried:
                continue
            self._tried.add(drift.thing)
            attempt = self._patience.attempt(drift.thing, now, urgent=drift.urgent)
            if attempt:
                due.append((drift, attempt))
                slow += is_slow(drift)
            else:
                self.postponed[drift.kind] += 1
        done = await self._try_all(due)
        return slow == BATCH and any(map(is_slow, done))

    def _order(self, drift: Drift) -> tuple[bool, int]:
        """Programs last, of them those first that were tried least: what cannot be put right keeps no other from it."""
        slow = is_slow(drift)
        return slow, self._patience.attempts(drift.thing) if slow else 0

    async def _try_all(self, due: Sequence[tuple[Drift, int]]) -> list[Drift]:
        """Returns what was put right."""
        if not due:
            return []
        outcomes = await self._changes.blocking(lambda: [self._try(drift) for drift, _ in due])
        lines: Counter[Kind] = Counter()
        for (drift, attempt), error in zip(due, outcomes, strict=True):
            self.repaired[drift.kind] += error is None
            lines[drift.kind] += 1
            if attempt <= FREE and lines[drift.kind] <= LINES:
                _tell(drift, error, attempt)
        for kind, count in lines.items():
            if count > LINES:
                log.warning("drift: %d more of %s", count - LINES, kind)
        return [drift for (drift, _), error in zip(due, outcomes, strict=True) if error is None]

    def _try(self, drift: Drift) -> Exception | None:
        """Blocks. Put one thing right; return why it cannot be."""
        try:
            self._changes.executor.run([drift.repair])
        except VxagentError as error:
            return error
        if drift.kind is Thing.XDP and isinstance(drift.repair, SetXdp):
            why = self._datapath.xdp_refused().get(drift.repair.handle)
            return HostError(why) if why is not None else None
        return None


def is_slow(drift: Drift) -> bool:
    """Putting it right takes some milliseconds."""
    return isinstance(drift.repair, Attach | SetXdp)


def _tell(drift: Drift, error: Exception | None, attempt: int) -> None:
    done = "put right" if error is None else f"cannot be put right: {error}"
    how = "at every look, without a line" if drift.urgent else "at longer and longer intervals"
    more = f"; it drifts again and again, and is looked after {how}" if attempt == FREE else ""
    log.warning("drift: %s %s: %s%s", drift.thing, drift.what, done, more)
