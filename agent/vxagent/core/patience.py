"""How often to put right what drifts again and again: somebody else may want it otherwise, and nobody shall fight."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

FREE = 3  # repairs of one thing at once; those after them wait
FIRST_WAIT_S = 10.0  # before the next; doubled for each further
LONGEST_WAIT_S = 300.0
QUIET_S = 900.0  # what has not drifted for so long is as if it never had; longer than the longest wait


@dataclass(slots=True)
class _Case:
    attempts: int = 0
    seen_at: float = 0.0
    next_at: float = 0.0


class Patience:
    """Remembers what was put right. Times are seconds of any clock that does not jump."""

    def __init__(self) -> None:
        self._cases: dict[Hashable, _Case] = {}

    def attempt(self, thing: Hashable, now: float) -> int:
        """The thing has drifted (again): which attempt to put it right this is, from 1; 0: it has to wait."""
        case = self._cases.setdefault(thing, _Case())
        case.seen_at = now
        if now < case.next_at:
            return 0
        case.attempts += 1
        further = case.attempts - FREE
        if further >= 0:
            case.next_at = now + min(FIRST_WAIT_S * 2.0**further, LONGEST_WAIT_S)
        return case.attempts

    def forget(self, now: float) -> None:
        """Forget what has been quiet for long."""
        self._cases = {thing: case for thing, case in self._cases.items() if now - case.seen_at <= QUIET_S}
