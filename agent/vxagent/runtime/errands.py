"""What is done for a cluster beside all else, and nobody waits for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from vxagent.errors import ClusterError, NotFound, WrongPhase
from vxagent.runtime.changes import log_failed

log = logging.getLogger(__name__)


class Errands:
    """Work that is under way, and ends with this."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = False

    def send(self, work: Coroutine[Any, Any, object]) -> None:
        """Begin it; what becomes of it is in the log."""
        if self._ended:
            work.close()
            return
        task = asyncio.create_task(_run(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: work.close())  # it may have been cancelled before it began

    async def end(self) -> None:
        """Leave all that is under way, and begin nothing more."""
        self._ended = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _run(work: Coroutine[Any, Any, object]) -> None:
    try:
        await work
    except (ClusterError, WrongPhase, NotFound) as error:
        log.info("cluster: %s", error)
    except Exception as error:
        log_failed("migration", error)
