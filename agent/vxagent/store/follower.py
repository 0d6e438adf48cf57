"""What goes on in the cluster, as typed changes, without gaps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Self

from vxagent.errors import ClusterError, ClusterReset, Compacted
from vxagent.model.cluster import Change, Problem, Record, Snapshot
from vxagent.store.kv import KeyValue, Kv, Range, WatchBatch
from vxagent.store.read_ahead import ReadAhead
from vxagent.store.schema import Keys, key_of, parse, parse_schema


class Follower:
    """An async iterator of tuples of changes. What it tells adds up to what is in the cluster.

    The first tuple is the difference between `known` and what is there; `synced` is true from then on. It may be
    empty. When the engine has forgotten history it reads anew and tells the difference: nobody has to sweep.

    An error ends no more than the connection: asking for the next changes takes up where it was, with nothing lost,
    and the first tuple after it, maybe empty, says that the engine is back. How long to wait before that is the
    caller's to say; what was told stays right meanwhile as far as anybody knows.

        follower = cluster.follow(["blue"])
        while True:
            try:
                async for changes in follower: ...
            except ClusterAway: ...    # say so, wait a little, go on

    One task asks for changes; `add` and `remove` may be called meanwhile. What is not asked for waits at the engine.
    """

    def __init__(self, kv: Kv, name: str, segments: Iterable[str], known: Snapshot | None = None) -> None:
        self._kv = kv
        self._name = name
        self._keys = Keys(name)
        self._identity = known.identity if known else ""
        self._revision = known.revision if known else 0
        self._told: dict[Range, dict[str, Record]] = {}
        self._problems: dict[str, Problem] = {}
        self._from: dict[Range, int] = {}  # watched from this revision on; 0: to be read first
        self._segments: set[str] = set()
        self._untold: list[Change] = []
        self._ahead: ReadAhead | None = None
        self._news = asyncio.Event()  # there is something to take, or to read first
        for watched in self._keys.of_cluster():
            self._begin(watched)
        for segment in segments:
            self.add(segment)
        for record in known.records if known else ():
            key = key_of(self._keys, record)
            for watched, records in self._told.items():
                if key in watched:
                    records[key] = record

    @property
    def synced(self) -> bool:
        """All that is in the cluster has been told once, and no error has come since."""
        return self._ahead is not None and all(self._from.values())

    @property
    def snapshot(self) -> Snapshot:
        """All that it has told so far, and the keys that it could not read."""
        return Snapshot(
            revision=self._revision,
            identity=self._identity,
            records=tuple(record for records in self._told.values() for record in records.values()),
            problems=self.problems,
        )

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The keys that it cannot read."""
        return tuple(self._problems.values())

    def add(self, segment: str) -> None:
        """Follow this one too; what is in it comes as changes. One that is followed is no failure."""
        if segment not in self._segments:
            self._segments.add(segment)
            for watched in self._keys.of_segment(segment):
                self._begin(watched)

    def remove(self, segment: str) -> None:
        """Follow it no longer; that its records are gone comes as changes. One that is not followed is no failure."""
        if segment in self._segments:
            self._segments.remove(segment)
            for watched in self._keys.of_segment(segment):
                self._end(watched)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[Change, ...]:
        """The next changes.

        Raises:
            ClusterAway: no member answers, or there is no quorum.
            ClusterReset: the engine has lost what it told, or was restored from a copy. The records that are gone
                come as gone if you go on, also those that their owners will put back: bind this host's own ports
                first, and give the others the time to.
            ClusterRefused: the engine does not let us, or its schema is of another version.
        """
        try:
            while True:
                if self._ahead is None or not all(self._from.values()):
                    return await self._sync()
                if self._untold:
                    return self._tell()
                self._news.clear()
                if not await self._take_all(self._ahead):
                    self._ahead.check()
                    await self._news.wait()
        except Compacted:
            await self._disconnect()
            self._from = dict.fromkeys(self._from, 0)
            return await self.__anext__()
        except ClusterError:
            await self._disconnect()
            raise

    async def close(self) -> None:
        """Let go of the connection."""
        await self._disconnect()

    async def _sync(self) -> tuple[Change, ...]:
        """Read what has to be read, then watch everything."""
        # Before anything is read: whatever becomes of the store from here on ends the watch or is seen by it.
        watch = self._ahead.watch if self._ahead else await self._kv.watch(Range(self._keys.schema))
        try:
            revision = await self._check()
            unread = [watched for watched, start in self._from.items() if not start]
            read = {watched: (await self._kv.range(watched, revision)).found for watched in unread}
        except BaseException:
            if self._ahead is None:
                await watch.close()
            raise
        for watched, found in read.items():
            if watched in self._from:  # not removed meanwhile
                self._compare(watched, found)
                self._from[watched] = revision + 1
        for watched, start in self._from.items():
            if start:
                watch.add(watched, start)
        self._ahead = self._ahead or ReadAhead(watch, self._news)
        self._revision = max(self._revision, revision)
        return self._tell()

    async def _check(self) -> int:
        """Look whether it is the store that we know; return its revision.

        Raises:
            ClusterReset, ClusterRefused: it is not.
        """
        result = await self._kv.range(Range(self._keys.schema))
        schema = parse_schema(result.found, self._name)
        identity = schema.id if schema else ""
        before, revision = self._identity, self._revision
        if (before and identity != before) or result.revision < revision:
            self._from = dict.fromkeys(self._from, 0)
            self._identity, self._revision = identity, result.revision
            raise ClusterReset(
                f"cluster {self._name} has lost data, or was restored: revision {result.revision} after {revision}",
                "its hosts put back what is theirs",
            )
        self._identity = identity
        return result.revision

    async def _take_all(self, ahead: ReadAhead) -> bool:
        """Take in what has come; return whether anything has."""
        came = False
        while (batch := ahead.take()) is not None:
            came = True
            if batch.range == Range(self._keys.schema):
                await self._check()
            elif batch.range in self._from:
                self._take(batch)
        return came

    async def _disconnect(self) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            await ahead.close()

    def _take(self, batch: WatchBatch) -> None:
        told, start = self._told[batch.range], self._from[batch.range]
        for event in batch.events:
            if event.kv.mod_revision < start:  # from before the range was let go of, and then read anew
                continue
            key = event.kv.key
            self._note(told, key, None if event.deleted else parse(self._keys, event.kv))
        self._from[batch.range] = max(start, batch.revision + 1)
        self._revision = max(self._revision, batch.revision)

    def _compare(self, watched: Range, found: tuple[KeyValue, ...]) -> None:
        """Tell what is other than what was told; what was not found is gone."""
        told = self._told[watched]
        there = {kv.key for kv in found}
        for key in [key for key in told if key not in there]:
            self._note(told, key, None)
        for key in [key for key in self._problems if key in watched and key not in there]:
            del self._problems[key]
        for kv in found:
            self._note(told, kv.key, parse(self._keys, kv))

    def _note(self, told: dict[str, Record], key: str, now: Record | Problem | None) -> None:
        self._problems.pop(key, None)
        if isinstance(now, Problem):
            self._problems[key] = now
            now = None
        before = told.pop(key, None)
        if now is not None:
            told[key] = now
        if before != now:
            self._untold.append(Change(before=before, now=now))

    def _begin(self, watched: Range) -> None:
        self._told[watched] = {}
        self._from[watched] = 0
        self._news.set()

    def _end(self, watched: Range) -> None:
        self._untold += [Change(before=record, now=None) for record in self._told.pop(watched).values()]
        del self._from[watched]
        for key in [key for key in self._problems if key in watched]:
            del self._problems[key]
        if self._ahead is not None:
            self._ahead.watch.remove(watched)
        self._news.set()

    def _tell(self) -> tuple[Change, ...]:
        told, self._untold = tuple(self._untold), []
        return told
