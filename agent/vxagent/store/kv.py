"""What the agent asks of the engine of many hosts; `etcd` does it by gRPC, `fake_kv` in memory.

The words are etcd's: every change of the store has a revision, one higher than the last; a key remembers in which
one it was made and in which it was changed last. Keys are text; bytes that are no UTF-8 come as surrogate escapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Range:
    """The keys from `key` to before `end`, or (`end` empty) `key` alone."""

    key: str
    end: str = ""

    def __contains__(self, key: str) -> bool:
        return self.key <= key < self.end if self.end else key == self.key


def prefix(text: str) -> Range:
    """The keys that start with `text`, whose last character is ASCII."""
    return Range(text, text[:-1] + chr(ord(text[-1]) + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyValue:
    """A key as it is at some revision.

    Attributes:
        create_revision: in which it was made.
        mod_revision: in which it was changed last; of a deleted one, in which it was deleted.
        lease: it goes with this lease; 0: with none.
    """

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    lease: int = 0


class Of(StrEnum):
    """Which revision of a key is compared."""

    CREATE = "create"
    MOD = "mod"


@dataclass(frozen=True, slots=True)
class Compare:
    """Each key of the range has this revision, or (not `equal`) another; a key that is not there, and a range
    without keys, have 0."""

    range: Range
    of: Of
    revision: int
    equal: bool = True


def absent(key: str | Range) -> Compare:
    """The key is not there; of a range, none is."""
    return Compare(key if isinstance(key, Range) else Range(key), Of.CREATE, 0)


def present(key: str) -> Compare:
    """The key is there."""
    return Compare(Range(key), Of.CREATE, 0, equal=False)


def created(key: str, revision: int) -> Compare:
    """The key is still the one that was made then."""
    return Compare(Range(key), Of.CREATE, revision)


def unchanged(key: str, revision: int) -> Compare:
    """The key has not been changed since; 0: it is still not there."""
    return Compare(Range(key), Of.MOD, revision)


@dataclass(frozen=True, slots=True)
class Put:
    """Make or change a key; it goes with the lease, if one is given."""

    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the keys of a range; none there is no failure."""

    range: Range


@dataclass(frozen=True, slots=True)
class Get:
    """Read the keys of a range as they are where it stands in the transaction."""

    range: Range


Op = Put | Delete | Get


@dataclass(frozen=True, slots=True, kw_only=True)
class Txn:
    """If all compares hold, do `success`, otherwise `failure`: all of it, at one revision.

    No key is put twice, or put and deleted, in one branch. etcd takes 128 of each kind unless told otherwise.
    """

    compares: tuple[Compare, ...] = ()
    success: tuple[Op, ...] = ()
    failure: tuple[Op, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TxnResult:
    """What became of a transaction.

    Attributes:
        succeeded: the compares held.
        revision: of the store after it; of what it wrote, if it wrote.
        found: what each `Get` of the branch read, in their order; keys ascend.
    """

    succeeded: bool
    revision: int
    found: tuple[tuple[KeyValue, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeResult:
    """The keys of a range, ascending, as they were at `revision`."""

    revision: int
    found: tuple[KeyValue, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchEvent:
    """A key was put, or (`deleted`) removed, by a Delete or with its lease; then `value` is empty."""

    kv: KeyValue
    deleted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchBatch:
    """What happened in one watched range, in order: all of it up to `revision`, the last event's.

    Events of one revision are never in two batches of one range.
    """

    range: Range
    revision: int
    events: tuple[WatchEvent, ...]


class Watch(Protocol):
    """Changes of several ranges. Of one range they come in order; between ranges there is no order.

    After an error it is of no more use: begin another one, each range from after the last batch that came.
    """

    def add(self, watched: Range, revision: int) -> None:
        """Watch this range too, from this revision on; adding what is watched is no failure."""

    def remove(self, watched: Range) -> None:
        """Watch it no longer: no batch of it comes after this."""

    async def next(self) -> WatchBatch:
        """Wait for the next batch.

        Raises:
            Compacted: events from a revision that was asked for are no longer kept. Read the ranges anew.
            ClusterAway: no member answers, or the one that does knows no leader.
            ClusterRefused: the engine does not let us.
        """

    async def close(self) -> None:
        """Let go of it; whoever waits in `next` gets ClusterAway."""


class Kv(Protocol):
    """The engine. Each call ends within a few seconds.

    Raises (all methods): ClusterAway where nothing was changed, ClusterAmbiguous (txn, grant, revoke) where
    something may have been, ClusterRefused.
    """

    async def range(self, asked: Range, revision: int = 0) -> RangeResult:
        """The keys as they were at `revision`; 0: as they are, all of them at one revision.

        Raises:
            Compacted: that revision is no longer kept.
        """

    async def txn(self, txn: Txn) -> TxnResult:
        """Do one of the two branches, all of it or nothing."""

    async def watch(self, first: Range) -> Watch:
        """Begin to watch this range, from now on; `add` says what else.

        When it returns a member has begun: a store that is replaced by another one from now on ends the watch.
        """

    async def grant(self, ttl_s: int) -> int:
        """A new lease, which ends `ttl_s` after it was kept alive last, at the earliest."""

    async def keepalive(self, lease: int) -> int:
        """Keep it alive; return how many seconds it has from now, 0 if it is gone."""

    async def revoke(self, lease: int) -> None:
        """End it now: its keys go. One that is gone is no failure."""

    async def close(self) -> None:
        """Let go of the connections. Leases stay until their time is up."""
