"""Cleaning up when somebody interrupts."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end.

    Attributes:
        number: which one.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


class _Delay:
    """Whether a signal has to wait, and which one does."""

    depth = 0
    waiting: int | None = None


def _stop(number: int, _frame: FrameType | None) -> None:
    for ending in ENDING:  # what unwinds now must not be interrupted by a second one
        signal.signal(ending, signal.SIG_IGN)
    if _Delay.depth:
        _Delay.waiting = number
    else:
        raise Stopped(number)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Have a signal wait until the block is over: for steps of which nobody would know if they were half done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _Delay.depth += 1
    try:
        yield
    finally:
        _Delay.depth -= 1
    if not _Delay.depth and _Delay.waiting is not None:
        number, _Delay.waiting = _Delay.waiting, None
        raise Stopped(number)


@contextmanager
def stoppable() -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into one `Stopped`, so that context managers run; later ones are ignored.

    Outside the main thread, where Python takes no signals, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _stop) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
