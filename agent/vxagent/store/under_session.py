"""Transactions under the host's session: what all that a host changes in the cluster has in common."""

from __future__ import annotations

from dataclasses import dataclass, replace
from uuid import uuid4

from vxagent.errors import ClusterAmbiguous, ClusterAway, Conflict
from vxagent.model.ids import check_name
from vxagent.store.kv import Compare, Get, KeyValue, Kv, Op, Range, Txn
from vxagent.store.schema import Keys
from vxagent.store.session import Session, lost

ASKED = 5  # times, for a change whose answer does not come; each takes a second or so
TRIES = 16  # of a change that another host's comes before, each time anew

Found = tuple[tuple[KeyValue, ...], ...]


def new_op() -> str:
    """A name for a request that no other has."""
    return uuid4().hex


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """What became of a change.

    Attributes:
        succeeded: it was done now.
        revision: of the store.
        found: if not, what is in the range of each compare.
        doubtful: an earlier try, whose answer did not come, may have been done.
    """

    succeeded: bool
    revision: int
    found: Found
    doubtful: bool


class UnderSession:
    """A cluster as one host sees and changes it.

    Attributes:
        session: the one that was opened last, or None.
    """

    def __init__(self, kv: Kv, name: str, host: str) -> None:
        self.session: Session | None = None
        self._kv = kv
        self._name = check_name("cluster", name)
        self._host = check_name("host", host)
        self._keys = Keys(name)

    async def _read(self, *ranges: Range) -> Found:
        """The keys of each range, all at one revision."""
        return (await self._kv.txn(Txn(success=tuple(Get(asked) for asked in ranges)))).found

    async def _change(self, compares: tuple[Compare, ...], ops: tuple[Op, ...]) -> Changed:
        """Do `ops` if all compares hold, and the session.

        Raises:
            SessionLost: nothing was done, unless it is `doubtful`.
        """
        if self.session is None:
            raise lost(self._host)
        changed = await self._ask((self.session.holds, *compares), ops)
        if changed.succeeded:
            return changed
        live, *found = changed.found
        if [kv.create_revision for kv in live] != [self.session.revision]:
            error = lost(self._host)
            error.doubtful = changed.doubtful
            raise error
        return replace(changed, found=tuple(found))

    async def _ask(self, compares: tuple[Compare, ...], ops: tuple[Op, ...]) -> Changed:
        """As `Kv.txn`, again while no answer comes. Once it is done, its compares must fail."""
        txn = Txn(compares=compares, success=ops, failure=tuple(Get(compare.range) for compare in compares))
        unknown: ClusterAmbiguous | None = None
        for _ in range(ASKED):
            try:
                result = await self._kv.txn(txn)
            except ClusterAmbiguous as error:
                unknown = error
            except ClusterAway:
                if unknown is None:
                    raise
            else:
                doubtful = unknown is not None
                return Changed(
                    succeeded=result.succeeded, revision=result.revision, found=result.found, doubtful=doubtful
                )
        assert unknown is not None  # every way out of the loop but this one left it
        raise unknown

    def _contended(self, what: str) -> Conflict:
        return Conflict(f"{what} is changed by other hosts again and again", "ask again")
