"""Waiting for a condition instead of for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PAUSE_S = 0.005


def wait_until(condition: Callable[[], T], *, within: float = 15.0, what: str = "") -> T:
    """Call `condition` until it returns something true, and return that.

    Args:
        condition: what is waited for.
        within: seconds.
        what: names the condition in the error.

    Raises:
        TimeoutError: it did not come true in time.
    """
    deadline = time.monotonic() + within
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within} s: {what or condition}")
        time.sleep(PAUSE_S)
    return result
