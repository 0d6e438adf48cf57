"""What a watch brings, read ahead of whoever takes it: who is slow gets more at a time."""

from __future__ import annotations

import asyncio
from collections import deque

from vxagent.store.kv import Watch, WatchBatch

AHEAD = 256  # batches; what comes after them waits at the engine


class ReadAhead:
    """Reads a watch until it fails.

    Args:
        news: is set when there is something to take, be it an error.
    """

    def __init__(self, watch: Watch, news: asyncio.Event) -> None:
        self.watch = watch
        self._news = news
        self._batches: deque[WatchBatch] = deque()
        self._room = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    def take(self) -> WatchBatch | None:
        """The next batch, if one is there."""
        if not self._batches:
            return None
        self._room.set()
        return self._batches.popleft()

    def check(self) -> None:
        """All is taken: raise the error that the watch ended with, if it did."""
        if self._reading.done():
            self._reading.result()

    async def close(self) -> None:
        """Let go of the watch."""
        await self.watch.close()
        self._reading.cancel()
        await asyncio.wait((self._reading,))
        if not self._reading.cancelled():
            self._reading.exception()  # it is why we are here, or no longer of interest

    async def _read(self) -> None:
        try:
            while True:
                batch = await self.watch.next()
                self._batches.append(batch)
                self._news.set()
                while len(self._batches) >= AHEAD:
                    self._room.clear()
                    await self._room.wait()
        finally:
            self._news.set()
