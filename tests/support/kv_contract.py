"""What holds for every engine: the contract of `store.kv`."""

from __future__ import annotations

import asyncio

import pytest

from support.engines import TTL_S, Engine, kv_of, until
from vxagent.errors import ClusterAway, ClusterRefused, Compacted, TooManyKeys
from vxagent.store.kv import (
    Compare,
    Delete,
    Get,
    Kv,
    Of,
    Put,
    Range,
    Txn,
    Watch,
    WatchBatch,
    absent,
    created,
    prefix,
    present,
    unchanged,
)

QUIET_S = 0.2  # for what must not come


def key(engine: Engine, name: str) -> str:
    return f"/{engine.name}/{name}"


async def put(kv: Kv, *keys: str, value: bytes = b"1", lease: int = 0) -> int:
    """Put them in one transaction; return its revision."""
    return (await kv.txn(Txn(success=tuple(Put(each, value, lease) for each in keys)))).revision


async def delete(kv: Kv, gone: Range) -> int:
    return (await kv.txn(Txn(success=(Delete(gone),)))).revision


async def holds(kv: Kv, *compares: Compare) -> bool:
    return (await kv.txn(Txn(compares=compares))).succeeded


async def soon(watch: Watch) -> WatchBatch:
    async with asyncio.timeout(5):
        return await watch.next()


def said(batch: WatchBatch) -> list[tuple[str, bytes | None]]:
    """Last word of each key, and its value, None where it is deleted."""
    return [(e.kv.key.rsplit("/", 1)[-1], None if e.deleted else e.kv.value) for e in batch.events]


class KvContract:
    """Every class that has a fixture `engine` and inherits this runs it."""

    # Keys and transactions

    async def test_a_key_remembers_when_it_was_made_and_changed(self, engine: Engine) -> None:
        async with kv_of(engine) as kv:
            a = key(engine, "a")
            made = await put(kv, a, value=b"x")
            changed = await put(kv, a, value=b"y")
            (found,) = (await kv.range(Range(a))).found
            assert (found.key, found.value, found.create_revision, found.mod_revision) == (a, b"y", made, changed)
            assert changed > made

    async def test_a_key_that_was_deleted_is_made_anew(self, engine: Engine) -> None:
        async with kv_of(engine) as kv:
            a = key(engine, "a")
            await put(kv, a)
            await delete(kv, Range(a))
            assert (await kv.range(Range(a))).found == ()
            again = await put(kv, a)
            assert (await kv.range(Range(a))).found[0].create_revision == again

    async def test_a_range_is_sorted_and_ends_before_its_end(self, engine: Engine) -> None:
        async with kv_of(engine) as kv:
            names = ["p/b", "p/a", "p", "p0", "p/a/b", "q"]
            await put(kv, *(key(engine, name) for name in names))
            found = (await kv.range(prefix(key(engine, "p/")))).found
            assert [kv.key for kv in found] == [key(engine, name) for name in ("p/a", "p/a/b", "p/b")]

    async def test_a_range_reads_the_past(self, engine: Engine) -> None:
        async with kv_of(engine) as kv:
            a, b, c = (key(engine, name) for name in "abc")
            then = await put(kv, a, b, value=b"old")
            await put(kv, a, c, value=b"new")
            await delete(kv, Range(b))
            found = (await kv.range(prefix(key(engine, "")), then)).found
            assert [(kv.key, kv.value) for kv in found] == [(a, b"old"), (b, b"old")]

    async def test_the_past_that_is_no_longer_kept_is_told_as_such(self, engine: Engine) -> None:
        async with kv_of(engine) as kv:
            then = await put(kv, key(engine, "a"))
            await put(kv, key(engine, "a"))
            engine.compact()
            with pytest.raises(Compacted):
                await kv.range(Range(key(engine, "a")), then)

    async def test_the_future_is_not_read(self, engine: Engine) -> None:
        async with kv_of(engine) as kv:
            now = await put(kv, key(engine, "a"))
            with pytest.raises(ClusterRefused):
                await kv.range(Range(key(engine, "a")), now + 1_000_000)

    async def test_more_keys_than_a_page_and_a_message_hold_are_read_at_one_revision(self, engine: Engine) -> None:
        async with kv_of(engine) as kv, kv_of(engine) as other:
            whole, value = prefix(key(engine, "p/")), b"x" * 500
            names = [key(engine, f"p/{n:05}") for n in range(10_100)]
            for start in range(0, len(names), 100):
                await put(kv, *names[start : start + 100], value=value)

            async def disturb() -> None:
                while True:
                    await put(other, names[0], names[-1], value=b"y")

            disturbing = asyncio.ensure_future(disturb())
            try:
                result = await kv.range(whole)
            finally:
                disturbing.cancel()
            assert [found.key for found in result.found] == names
            assert all(found.mod_revision <= result.revision for found in result.found)
            assert result.found[0].value == result.found[-1].value

    async def test_keys_that_are_no_text_come_back_as_they_were(self, engine: Engine) -> None:
        async with kv_of(engine) as kv:
            odd = key(engine, b"\xff\xfe/\xc3\xa9".decode("utf-8", "surrogateescape"))
            await put(kv, odd)
            assert [found.key for found in (await kv.range(prefix(key(engine, "")))).found] == [odd]
            await delete(kv, Range(odd))
            assert (await kv.range(prefix(key(engine, "")))).found == ()

    async def test_all_compares_hold_or_nothing_is_done(self, engine: Engine) -> None:
        async with kv_of(engine) as kv:
            a, b = key(engine, "a"), key(engine, "b")
            revision = await put(kv, a)
            txn = Txn(
                compares=(unchanged(a, revision), present(b)),
                success=(Put(a, b"2"), Put(b, b"2")),
                failure=(Get(Range(a)), Get(Range(b))),
            )
            result = await kv.txn(txn)
            assert not result.succeeded
            assert [[kv.value for kv in found] for found in result.found] == [[b"1"], []]
            await put(kv, b)
            assert (await kv.txn(txn)).succeeded
            assert [kv.value for kv in (await kv.range(prefix(key(engine, "")))).found] == [b"2", b"2"]

    async def test_compares(self, engine: Engine) -> None:
        async with kv_of(engine) as kv:
            a, no = key(engine, "a"), key(engine, "no")
            made = await put(kv, a)
            changed = await put(kv, a)
            for compare, right in (
                (absent(no), True),
                (absent(a), False),
                (present(a), True),
                (present(no), False),
                (created(a, made), True),
                (created(a, changed), False),
                (created(no, made), False),
                (unchanged(a, changed), True),
                (unchanged(a, made), False),
                (unchanged(no, 0), True),
                (Compare(Range(a), Of.MOD, made, equal=False), True),
            ):
                assert await holds(kv, compare) is right, compare

    async def test_compares_of_ranges_are_of_each_key_in_them(self, engine: Engine) -> None:
        async with kv_of(engine) as kv:
            whole = prefix(key(engine, "p/"))
            assert await holds(kv, absent(whole))
            revision = await put(kv, key(engine, "p/a"), key(engine, "p/b"))
            assert not await holds(kv, absent(whole))
            assert await holds(kv, Compare(whole, Of.MOD, revision))
            await put(kv, key(engine, "p/b"))
            assert not await holds(kv, Compare(whole, Of.MOD, revision))
            assert await holds(kv, Compare(whole, Of.CREATE, revision))

    async def test_a_get_sees_what_stands_before_it(self, engine: Engine) -> None:
        async with kv_of(engine) as kv:
            a = key(engine, "a")
            await put(kv, a, value=b"old")
            result = await kv.txn(Txn(success=(Get(Range(a)), Put(a, b"new"), Get(Range(a)))))
            assert [found[0].value for found in result.found] == [b"old", b"new"]

    async def test_a_key_is_not_put_twice_in_one(self, engine: Engine) -> None:
        async with kv_of(engine) as kv:
            a = key(engine, "a")
            with pytest.raises(ClusterRefused):
                await kv.txn(Txn(success=(Put(a, b"1"), Put(a, b"2"))))
            with pytest.raises(ClusterRefused):
                await kv.txn(Txn(success=(Put(a, b"1"), Delete(prefix(key(engine, ""))))))
            assert (await kv.range(Range(a))).found == ()

    async def test_too_many_keys_in_one_are_refused_with_what_to_do(self, engine: Engine) -> None:
        async with kv_of(engine) as kv:
            await put(kv, *(key(engine, f"{n}") for n in range(128)))
            with pytest.raises(TooManyKeys, match=r"raise .*--max-txn-ops"):
                await put(kv, *(key(engine, f"{n}") for n in range(129)))

    # Leases

    async def test_keys_go_with_their_lease(self, engine: Engine) -> None:
        async with kv_of(engine) as kv:
            lease = await kv.grant(TTL_S)
            a, b = key(engine, "a"), key(engine, "b")
            await put(kv, a, lease=lease)
            await put(kv, b)
            assert (await kv.range(Range(a))).found[0].lease == lease

            async def gone() -> bool:
                engine.pass_time()
                return not (await kv.range(Range(a))).found

            await until(gone)
            assert (await kv.range(Range(b))).found
            assert await kv.keepalive(lease) == 0

    async def test_a_lease_that_is_kept_alive_stays(self, engine: Engine) -> None:
        async with kv_of(engine) as kv:
            kept, left = await kv.grant(TTL_S), await kv.grant(TTL_S)
            await put(kv, key(engine, "kept"), lease=kept)
            await put(kv, key(engine, "left"), lease=left)

            async def one_is_gone() -> bool:
                assert 0 < await kv.keepalive(kept) <= TTL_S
                engine.pass_time()
                return not (await kv.range(Range(key(engine, "left")))).found

            assert not await one_is_gone()
            await until(one_is_gone)
            assert (await kv.range(Range(key(engine, "kept")))).found

    async def test_a_revoked_lease_takes_its_keys_along_at_once(self, engine: Engine) -> None:
        async with kv_of(engine) as kv:
            lease = await kv.grant(60)
            a, b = key(engine, "a"), key(engine, "b")
            before = await put(kv, a, b, lease=lease)
            await kv.revoke(lease)
            assert (await kv.range(prefix(key(engine, "")))).found == ()
            watch = await kv.watch(Range(key(engine, "not followed")))
            watch.add(prefix(key(engine, "")), before + 1)
            batch = await soon(watch)
            assert sorted(said(batch)) == [("a", None), ("b", None)]
            assert len({event.kv.mod_revision for event in batch.events}) == 1
            await kv.revoke(lease)  # gone: no failure
            assert await kv.keepalive(lease) == 0

    async def test_a_lease_that_is_gone_takes_no_key(self, engine: Engine) -> None:
        async with kv_of(engine) as kv:
            lease = await kv.grant(60)
            await kv.revoke(lease)
            with pytest.raises(ClusterRefused, match="lease"):
                await put(kv, key(engine, "a"), lease=lease)

    # Watches

    async def test_a_watch_tells_from_a_revision_on_in_order(self, engine: Engine) -> None:
        async with kv_of(engine) as kv:
            a, b = key(engine, "a"), key(engine, "b")
            await put(kv, a, value=b"0")
            first = await put(kv, a, value=b"1")
            await put(kv, b, value=b"2")
            await delete(kv, Range(a))
            watch = await kv.watch(Range(key(engine, "not followed")))
            watch.add(prefix(key(engine, "")), first)
            told: list[tuple[str, bytes | None]] = []
            while len(told) < 3:
                told += said(await soon(watch))
            assert told == [("a", b"1"), ("b", b"2"), ("a", None)]
            last = await put(kv, b, value=b"3")
            batch = await soon(watch)
            assert said(batch) == [("b", b"3")]
            assert batch.revision == batch.events[-1].kv.mod_revision == last

    async def test_a_watch_tells_of_its_first_range_from_when_it_began(self, engine: Engine) -> None:
        async with kv_of(engine) as kv:
            a = Range(key(engine, "a"))
            await put(kv, a.key, value=b"before")
            watch = await kv.watch(a)
            await put(kv, a.key, value=b"after")
            assert said(await soon(watch)) == [("a", b"after")]

    async def test_what_is_done_in_one_comes_in_one(self, engine: Engine) -> None:
        async with kv_of(engine) as kv:
            watch = await kv.watch(Range(key(engine, "not followed")))
            watch.add(prefix(key(engine, "")), await put(kv, "/elsewhere") + 1)
            await put(kv, *(key(engine, f"{n:03}") for n in range(100)))
            assert len((await soon(watch)).events) == 100

    async def test_a_watch_is_told_of_its_ranges_alone(self, engine: Engine) -> None:
        async with kv_of(engine) as kv:
            ranges = [prefix(key(engine, "p/")), Range(key(engine, "q"))]
            watch = await kv.watch(Range(key(engine, "not followed")))
            for watched in ranges:
                watch.add(watched, 1 + await put(kv, key(engine, "other")))
            for name in ("p/a", "q", "q1", "p", "r"):
                await put(kv, key(engine, name))
            batches = [await soon(watch), await soon(watch)]
            assert sorted((batch.range.key, said(batch)) for batch in batches) == [
                (ranges[0].key, [("a", b"1")]),
                (ranges[1].key, [("q", b"1")]),
            ]
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(watch.next(), QUIET_S)

    async def test_ranges_come_and_go_while_somebody_waits(self, engine: Engine) -> None:
        async with kv_of(engine) as kv:
            a, b = Range(key(engine, "a")), Range(key(engine, "b"))
            watch = await kv.watch(Range(key(engine, "not followed")))
            watch.add(a, 1 + await put(kv, a.key))
            waiting = asyncio.ensure_future(watch.next())
            await asyncio.sleep(0)
            watch.add(b, 1 + await put(kv, b.key))
            await put(kv, b.key)
            async with asyncio.timeout(5):
                assert (await waiting).range == b
            watch.remove(b)
            watch.add(a, 1)  # is watched already
            await put(kv, b.key)
            await put(kv, a.key, value=b"2")
            batch = await soon(watch)
            assert (batch.range, said(batch)) == (a, [("a", b"2")])

    async def test_a_range_that_is_added_again_begins_anew(self, engine: Engine) -> None:
        async with kv_of(engine) as kv:
            a = Range(key(engine, "a"))
            first = await put(kv, a.key, value=b"1")
            watch = await kv.watch(Range(key(engine, "not followed")))
            watch.add(a, first)
            assert said(await soon(watch)) == [("a", b"1")]
            watch.remove(a)
            watch.add(a, first)
            assert said(await soon(watch)) == [("a", b"1")]

    async def test_a_watch_from_before_what_is_kept_says_so(self, engine: Engine) -> None:
        async with kv_of(engine) as kv:
            first = await put(kv, key(engine, "a"))
            await put(kv, key(engine, "a"))
            oldest = engine.compact()
            watch = await kv.watch(Range(key(engine, "not followed")))
            watch.add(Range(key(engine, "a")), first)
            with pytest.raises(Compacted) as raised:
                await soon(watch)
            assert raised.value.revision == oldest

    async def test_a_watch_that_is_closed_ends_for_who_waits(self, engine: Engine) -> None:
        async with kv_of(engine) as kv:
            watch = await kv.watch(Range(key(engine, "not followed")))
            watch.add(Range(key(engine, "a")), 1 + await put(kv, key(engine, "a")))
            waiting = asyncio.ensure_future(watch.next())
            with pytest.raises(TimeoutError):  # the stream is open
                await asyncio.wait_for(asyncio.shield(waiting), QUIET_S)
            await watch.close()
            with pytest.raises(ClusterAway):
                await asyncio.wait_for(waiting, 5)
            with pytest.raises(ClusterAway):
                await asyncio.wait_for(watch.next(), 5)

    async def test_a_client_that_is_closed_is_away(self, engine: Engine) -> None:
        kv = engine.kv()
        watch = await kv.watch(Range(key(engine, "a")))
        waiting = asyncio.ensure_future(watch.next())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(waiting), QUIET_S)
        await kv.close()
        await kv.close()
        for attempt in (waiting, kv.range(Range("/a")), kv.grant(60), kv.watch(Range("/a"))):
            with pytest.raises(ClusterAway):
                await asyncio.wait_for(attempt, 5)

    # Many clients

    async def test_of_clients_that_want_the_same_one_has_it(self, engine: Engine) -> None:
        a = key(engine, "a")

        async def claim(number: int) -> bool:
            async with kv_of(engine) as kv:
                return (await kv.txn(Txn(compares=(absent(a),), success=(Put(a, b"%d" % number),)))).succeeded

        won = await asyncio.gather(*(claim(number) for number in range(8)))
        async with kv_of(engine) as kv:
            assert won.count(True) == 1
            assert (await kv.range(Range(a))).found[0].value == b"%d" % won.index(True)
