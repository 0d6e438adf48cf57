"""Tells the service manager that the agent is alive, as long as it is (sd_notify(3), WATCHDOG=1).

That the event loop runs is shown by telling at all. What changes the kernel runs beside it, and may hang while the loop
does not: nobody is told then, and the service manager starts the agent anew, while the kernel goes on forwarding.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

log = logging.getLogger(__name__)

STALLED_S = 150.0
"""Work that does nothing for longer hangs. The longest step there is: a compilation, which is given up after 120 s."""


class Progress:
    """Whether work that has begun comes along. Any thread may tell of it.

    Args:
        clock: gives seconds that never go back.

    Attributes:
        stalls_after_s: work that does nothing for longer hangs.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.stalls_after_s = STALLED_S
        self._clock = clock
        self._working: dict[object, None] = {}
        self._last = clock()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Work that lasts as long as this context. Enter it when the work begins, not when it begins to wait."""
        token = object()
        self.beat()
        self._working[token] = None
        try:
            yield
        finally:
            self._working.pop(token)
            self.beat()

    def beat(self) -> None:
        """One step of it is done."""
        self._last = self._clock()

    def stalled_s(self) -> float:
        """For how long it has done nothing, 0 where nothing is to be done."""
        return self._clock() - self._last if self._working else 0.0


def interval(environment: Mapping[str, str] = os.environ) -> float | None:
    """Seconds between two signs of life, half of what the service manager waits; None: nobody waits for any."""
    microseconds = environment.get("WATCHDOG_USEC", "")
    whose = environment.get("WATCHDOG_PID", "")
    if not microseconds.isdecimal() or int(microseconds) == 0 or whose not in ("", str(os.getpid())):
        return None
    return int(microseconds) / 1e6 / 2


async def watch(progress: Progress, every: float, tell: Callable[[str], None]) -> None:
    """Give signs of life for ever; none while work hangs.

    Args:
        every: seconds between two.
        tell: as `host.tell_manager`.
    """
    silent = False
    while True:
        stalled = progress.stalled_s() > progress.stalls_after_s
        if not stalled:
            tell("WATCHDOG=1")
        elif not silent:
            log.error("a change has done nothing for %.0f s; the watchdog is not told any more", progress.stalled_s())
        silent = stalled
        await asyncio.sleep(every)
