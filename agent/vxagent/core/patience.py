"""How often to put right what drifts again and again: somebody else may want it otherwise, and nobody shall fight.

A thing goes by its kind and name. What is urgent does not wait (`core/audit.py` says what is); its repairs are counted
all the same, for people to see.
"""

from __future__ import annotations

from dataclasses import dataclass

FREE = 3  # repairs of one thing at once; those after them wait
FIRST_WAIT_S = 10.0  # before the next; doubled for each further
LONGEST_WAIT_S = 300.0
_DOUBLINGS = 16  # reach it; many more would be no number any more
QUIET_S = 900.0  # what has not drifted for so long is as if it never had; longer than the longest wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Restless:
    """What drifts again and again.

    Attributes:
        thing: which.
        attempts: to put it right.
        seen_s: seconds since it was last seen to have drifted.
        wait_s: seconds until the next attempt, if it has drifted by then; None: it does not wait.
    """

    thing: str
    attempts: int
    seen_s: float
    wait_s: float | None


@dataclass(slots=True)
class _Case:
    attempts: int = 0
    seen_at: float = 0.0
    next_at: float = 0.0
    urgent: bool = False


class Patience:
    """Remembers what was put right. Times are seconds of any clock that does not jump."""

    def __init__(self) -> None:
        self._cases: dict[str, _Case] = {}

    def attempt(self, thing: str, now: float, *, urgent: bool = False) -> int:
        """The thing has drifted (again): which attempt to put it right this is, from 1; 0: it has to wait."""
        case = self._cases.setdefault(thing, _Case())
        case.seen_at = now
        case.urgent = urgent
        if now < case.next_at and not urgent:
            return 0
        case.attempts += 1
        further = case.attempts - FREE
        if further >= 0:
            case.next_at = now + min(FIRST_WAIT_S * 2 ** min(further, _DOUBLINGS), LONGEST_WAIT_S)
        return case.attempts

    def attempts(self, thing: str) -> int:
        """How many there were."""
        case = self._cases.get(thing)
        return case.attempts if case is not None else 0

    def forget(self, now: float) -> None:
        """Forget what has been quiet for long."""
        self._cases = {thing: case for thing, case in self._cases.items() if now - case.seen_at <= QUIET_S}

    def restless(self, now: float) -> list[Restless]:
        """What was put right so often that the next repair waits, or would if it were not urgent. From any thread."""
        return [
            Restless(
                thing=thing,
                attempts=case.attempts,
                seen_s=now - case.seen_at,
                wait_s=None if case.urgent else max(case.next_at - now, 0.0),
            )
            for thing, case in list(self._cases.items())
            if case.attempts >= FREE
        ]
