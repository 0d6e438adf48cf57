"""Acknowledgements: who acts on a switchover already."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from vxagent.errors import ClusterAway, ClusterError
from vxagent.model.binding import Binding, Phase, Projection
from vxagent.store.kv import KeyValue, Put, Range, Watch, unchanged
from vxagent.store.schema import encode, parse_revision
from vxagent.store.under_session import UnderSession


class Acks(UnderSession):
    """Who acts on what he was told."""

    async def ack(self, seen: Projection) -> bool:
        """This host acts on what it was told of a binding; False if that is no longer what is."""
        told = unchanged(self._keys.fdb(seen.segment, seen.port), seen.revision)
        put = Put(self._keys.ack(seen.port, self._host), encode(seen.revision))
        return (await self._change((told,), (put,))).succeeded

    async def missing_acks(self, binding: Binding, timeout_s: float) -> frozenset[str]:
        """Wait until each other live host that has one of its segments acts on this revision of it. That it is held is
        the next host's own word: that one is not asked then.

        Returns:
            The hosts that did not in time, or before it was changed again; empty: all did.

        Raises:
            ClusterAway: it is not even known in time which hosts there are.
        """
        acks = self._keys.all("ack", binding.id)
        missing: set[str] | None = None
        watch: Watch | None = None
        try:
            async with asyncio.timeout(timeout_s):
                watch = await self._kv.watch(acks)
                watch.add(Range(self._keys.port(binding.id)), binding.revision + 1)
                missing = await self._asked(binding)
                while missing:
                    batch = await watch.next()
                    if batch.range != acks:
                        break
                    missing -= self._acting(binding, [event.kv for event in batch.events if not event.deleted])
        except (TimeoutError, ClusterError) as error:
            if missing is None:
                raise ClusterAway(
                    "it is not known which hosts have seen the switchover", "see `vxagent status`"
                ) from error
        finally:
            if watch is not None:
                await watch.close()
        return frozenset(missing or ())

    async def _asked(self, binding: Binding) -> set[str]:
        """Who must acknowledge it and has not yet."""
        keys = self._keys
        alive, acked, *has = await self._read(
            keys.all("live"), keys.all("ack", binding.id), *(keys.all("has", segment) for segment in binding.segments)
        )
        living = {keys.words(kv.key)[-1] for kv in alive}
        concerned = {keys.words(kv.key)[-1] for kvs in has for kv in kvs}
        said = {self._host, binding.next if binding.phase is Phase.HELD else None}
        return (concerned & living) - said - self._acting(binding, acked)

    def _acting(self, binding: Binding, acks: Iterable[KeyValue]) -> set[str]:
        return {self._keys.words(kv.key)[-1] for kv in acks if parse_revision(kv) == binding.revision}
