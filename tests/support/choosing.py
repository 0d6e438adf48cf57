"""How often something is tried that may be tried very often."""

from __future__ import annotations

import os

EVERY_TIME = "VXAGENT_EVERY_DEATH"
"""Set: die after each step there is, and not after some of them."""


def some_of(count: int, *, every: int = 10) -> list[int]:
    """Of 1 to `count` the first, the last, the one in the middle and each tenth; all where the environment says so."""
    if os.environ.get(EVERY_TIME):
        return list(range(1, count + 1))
    return sorted({1, (count + 1) // 2, count, *range(every, count + 1, every)} - {0})


def spread(count: int, turns: list[int], of: int) -> list[int]:
    """Of 1 to `count` those that lie as far along as turn 0 (the first) to turn `of - 1` (the last); all where the
    environment says so."""
    if os.environ.get(EVERY_TIME):
        return list(range(1, count + 1))
    return sorted({1 + turn * (count - 1) // (of - 1) for turn in turns}) if count else []
