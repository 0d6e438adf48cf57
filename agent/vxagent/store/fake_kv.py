"""The engine of many hosts in memory: one `FakeEngine`, and a `FakeKv` for each host that uses it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum

from vxagent.errors import ClusterAmbiguous, ClusterAway, ClusterRefused, Compacted, TooManyKeys
from vxagent.store.kv import (
    Compare,
    Delete,
    Get,
    KeyValue,
    Of,
    Op,
    Put,
    Range,
    RangeResult,
    Txn,
    TxnResult,
    Watch,
    WatchBatch,
    WatchEvent,
)

MAX_OPS = 128  # etcd's default of --max-txn-ops


class Lost(Enum):
    """What becomes of a change whose answer does not come."""

    BEFORE = "before"  # it never arrives
    AFTER = "after"  # it is done
    LATE = "late"  # it is done when the same client asks for something again


class FakeEngine:
    """What etcd keeps.

    Args:
        clock: seconds; leases end by it.

    Attributes:
        revision: of the last change.
        compacted: what was before this revision is not kept.
        history: every event that is kept, in order.
        keys: all that is there.
        leases: (time to live, end) of each, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = lambda: 0.0) -> None:
        self.revision = 1
        self.compacted = 0
        self.history: list[WatchEvent] = []
        self.keys: dict[str, KeyValue] = {}
        self.leases: dict[int, tuple[int, float]] = {}
        self._clock = clock
        self._granted = 0
        self._watches: list[_FakeWatch] = []

    def client(self) -> FakeKv:
        """A host's way to it."""
        return FakeKv(self)

    def compact(self, revision: int = 0) -> None:
        """Forget what was before this revision; 0: before the last one."""
        self.compacted = revision or self.revision
        self.history = [e for e in self.history if e.kv.mod_revision >= self.compacted]

    def lose_everything(self) -> None:
        """Begin anew with an empty store, as a member does whose disk is new. Watches end."""
        for watch in tuple(self._watches):
            watch.fail()
        self.revision, self.compacted = 1, 0
        self.history.clear()
        self.leases.clear()
        self.keys.clear()

    def expire(self) -> None:
        """End the leases whose time is up. Every call of a client does it, too."""
        for lease in [number for number, (_, end) in self.leases.items() if end <= self._clock()]:
            self.end_lease(lease)

    def grant(self, ttl_s: int) -> int:
        """A new lease."""
        self._granted += 1
        self.leases[self._granted] = (ttl_s, self._clock() + ttl_s)
        return self._granted

    def renew(self, lease: int) -> int:
        """Seconds that it has from now, or 0."""
        if lease not in self.leases:
            return 0
        ttl_s, _ = self.leases[lease]
        self.leases[lease] = (ttl_s, self._clock() + ttl_s)
        return ttl_s

    def end_lease(self, lease: int) -> None:
        """Its keys go, at one revision."""
        if self.leases.pop(lease, None) is not None:
            gone = [Delete(Range(kv.key)) for kv in self.keys.values() if kv.lease == lease]
            self._apply(tuple(gone))

    def read(self, asked: Range, revision: int = 0) -> RangeResult:
        """The keys of a range, now or then."""
        if not revision or revision == self.revision:
            keys = self.keys
        elif revision > self.revision:
            raise ClusterRefused(f"revision {revision} is of the future", "the store was restored")
        elif revision < self.compacted:
            raise Compacted(self.compacted)
        else:
            keys = self._keys_at(revision)
        return RangeResult(revision=self.revision, found=tuple(keys[k] for k in sorted(keys) if k in asked))

    def do(self, txn: Txn) -> TxnResult:
        """One of the two branches."""
        for part in (txn.compares, txn.success, txn.failure):
            if len(part) > MAX_OPS:
                raise TooManyKeys(
                    f"the cluster takes {MAX_OPS} keys in one transaction, not {len(part)}",
                    "raise --max-txn-ops of etcd",
                )
        succeeded = all(self._holds(compare) for compare in txn.compares)
        branch = txn.success if succeeded else txn.failure
        _check_once(branch)
        for op in branch:
            if isinstance(op, Put) and op.lease and op.lease not in self.leases:
                raise ClusterRefused("the lease has run out", "begin another session")
        found = self._apply(branch)
        return TxnResult(succeeded=succeeded, revision=self.revision, found=found)

    def watched(self, watch: _FakeWatch) -> None:
        """Tell this one what happens from now on."""
        self._watches.append(watch)

    def unwatched(self, watch: _FakeWatch) -> None:
        """Tell it nothing more."""
        if watch in self._watches:
            self._watches.remove(watch)

    def _keys_at(self, revision: int) -> dict[str, KeyValue]:
        """What the store held then: what it holds now, with each later event taken back."""
        keys = dict(self.keys)
        for event in reversed([e for e in self.history if e.kv.mod_revision > revision]):
            before = self._before(event.kv.key, event.kv.mod_revision)
            if before is None:
                keys.pop(event.kv.key, None)
            else:
                keys[event.kv.key] = before
        return keys

    def _before(self, key: str, revision: int) -> KeyValue | None:
        for event in reversed(self.history):
            if event.kv.key == key and event.kv.mod_revision < revision:
                return None if event.deleted else event.kv
        return None

    def _holds(self, compare: Compare) -> bool:
        found = [kv for kv in self.keys.values() if kv.key in compare.range]
        revisions = [kv.create_revision if compare.of is Of.CREATE else kv.mod_revision for kv in found] or [0]
        return all((revision == compare.revision) is compare.equal for revision in revisions)

    def _apply(self, ops: Iterable[Op]) -> tuple[tuple[KeyValue, ...], ...]:
        events: list[WatchEvent] = []
        found: list[tuple[KeyValue, ...]] = []
        revision = self.revision + 1
        for op in ops:
            match op:
                case Get():
                    found.append(tuple(self.keys[k] for k in sorted(self.keys) if k in op.range))
                case Put():
                    old = self.keys.get(op.key)
                    self.keys[op.key] = KeyValue(
                        key=op.key,
                        value=op.value,
                        create_revision=old.create_revision if old else revision,
                        mod_revision=revision,
                        lease=op.lease,
                    )
                    events.append(WatchEvent(kv=self.keys[op.key]))
                case Delete():
                    for key in sorted(k for k in self.keys if k in op.range):
                        del self.keys[key]
                        gone = KeyValue(key=key, value=b"", create_revision=0, mod_revision=revision)
                        events.append(WatchEvent(kv=gone, deleted=True))
        if events:
            self.revision = revision
            self.history += events
            for watch in tuple(self._watches):
                watch.wake()
        return tuple(found)


@dataclass
class FakeKv:
    """`store.kv.Kv` on a `FakeEngine`.

    Attributes:
        away: every call raises ClusterAway, and watches end with it.
        deaf: watches tell nothing (True), or nothing of what came after this revision; False: all.
        losing: what becomes of the next changes, one each, whose answers do not come; None: it comes.
        before: awaited, once, before the next change: somebody else is faster.
        then: awaited, once, when an answer did not come.
        turns: how many turns of the event loop a call takes.
        calls: how many calls there were.
        closed: `close` was called.
    """

    engine: FakeEngine
    losing: deque[Lost | None] = field(default_factory=deque)
    before: Callable[[], Awaitable[object]] | None = None
    then: Callable[[], Awaitable[object]] | None = None
    turns: Callable[[], int] = lambda: 1
    calls: int = 0
    closed: bool = False
    _away: bool = False
    _deaf: bool | int = False
    _late: list[Txn] = field(default_factory=list)
    _watches: list[_FakeWatch] = field(default_factory=list)

    @property
    def away(self) -> bool:
        """The engine does not answer."""
        return self._away

    @away.setter
    def away(self, away: bool) -> None:
        self._away = away
        if away:
            for watch in self._watches:
                watch.fail()
            self._watches.clear()

    @property
    def deaf(self) -> bool | int:
        """Watches are behind."""
        return self._deaf

    @deaf.setter
    def deaf(self, deaf: bool | int) -> None:
        self._deaf = deaf
        for watch in self._watches:
            watch.wake()

    def hears(self, revision: int) -> bool:
        """Whether watches tell of it yet."""
        return not self._deaf or (self._deaf is not True and revision <= self._deaf)

    async def range(self, asked: Range, revision: int = 0) -> RangeResult:
        """The keys, now or then."""
        await self._reach()
        return self.engine.read(asked, revision)

    async def txn(self, txn: Txn) -> TxnResult:
        """Do one of the two branches."""
        await self._reach()
        changes = any(not isinstance(op, Get) for op in (*txn.success, *txn.failure))
        before, self.before = (None, self.before) if not changes else (self.before, None)
        if before is not None:
            await before()
        lost = self.losing.popleft() if changes and self.losing else None
        if lost is Lost.LATE:
            self._late.append(txn)
        result = self.engine.do(txn) if lost in (None, Lost.AFTER) else None
        if result is None or lost is not None:
            then, self.then = self.then, None
            if then is not None:
                await then()
            raise ClusterAmbiguous("the fake was told not to answer", "ask again")
        return result

    async def watch(self, first: Range) -> Watch:
        """Begin to watch."""
        await self._reach()
        watch = _FakeWatch(self.engine, self.hears)
        watch.add(first, self.engine.revision + 1)
        self._watches.append(watch)
        return watch

    async def grant(self, ttl_s: int) -> int:
        """A new lease."""
        await self._reach()
        return self.engine.grant(ttl_s)

    async def keepalive(self, lease: int) -> int:
        """Keep it alive."""
        await self._reach()
        return self.engine.renew(lease)

    async def revoke(self, lease: int) -> None:
        """End it."""
        await self._reach()
        self.engine.end_lease(lease)

    async def close(self) -> None:
        """Let go of it."""
        self.closed = True
        self.away = True

    async def _reach(self) -> None:
        self.calls += 1
        for _ in range(self.turns()):
            await asyncio.sleep(0)
        if self._away:
            raise ClusterAway("the fake was told to be away", "see that etcd runs")
        self.engine.expire()
        while self._late:
            self.engine.do(self._late.pop(0))


class _FakeWatch:
    """`store.kv.Watch`: reads the engine's history, as far as it is kept, each range from where it is."""

    def __init__(self, engine: FakeEngine, hears: Callable[[int], bool]) -> None:
        self._engine = engine
        self._hears = hears
        self._next: dict[Range, int] = {}
        self._woken = asyncio.Event()
        self._failed = False
        engine.watched(self)

    def add(self, watched: Range, revision: int) -> None:
        """Watch it too."""
        self._next.setdefault(watched, revision)
        self.wake()

    def remove(self, watched: Range) -> None:
        """Watch it no longer."""
        self._next.pop(watched, None)

    async def next(self) -> WatchBatch:
        """Wait for the next batch."""
        while True:
            if self._failed:
                raise ClusterAway("the fake was told to be away", "see that etcd runs")
            self._woken.clear()
            batch = self._read()
            if batch is not None:
                return batch
            await self._woken.wait()

    async def close(self) -> None:
        """Let go of it."""
        self.fail()

    def wake(self) -> None:
        """Something happened."""
        self._woken.set()

    def fail(self) -> None:
        """It ends."""
        self._failed = True
        self._engine.unwatched(self)
        self.wake()

    def _read(self) -> WatchBatch | None:
        for watched, start in self._next.items():
            if start < self._engine.compacted:
                raise Compacted(self._engine.compacted)
            since = (e for e in self._engine.history if e.kv.mod_revision >= start and e.kv.key in watched)
            events = tuple(e for e in since if self._hears(e.kv.mod_revision))
            if events:
                last = events[-1].kv.mod_revision
                self._next[watched] = last + 1
                return WatchBatch(range=watched, revision=last, events=events)
            if self._hears(self._engine.revision):
                self._next[watched] = max(start, self._engine.revision + 1)
        return None


def _check_once(ops: tuple[Op, ...]) -> None:
    puts = [op.key for op in ops if isinstance(op, Put)]
    deletes = [op.range for op in ops if isinstance(op, Delete)]
    for at, key in enumerate(puts):
        if key in puts[:at] or any(key in gone for gone in deletes):
            raise ClusterRefused(f"{key} is put twice, or put and deleted, in one transaction", "this is a bug")
