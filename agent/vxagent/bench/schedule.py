"""How many rounds, how long a slice, who is next. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SLICE_MOST_S = 0.6
OVERHEAD_S = 0.03  # beside each slice: processes start, rings run dry


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How thoroughly to measure.

    Attributes:
        rounds: that count, of a case; one more is made and thrown away.
        slices_s: for all slices of all cases together; what is built and probed comes on top.
        slice_most_s: of one contender in one round.
    """

    rounds: int
    slices_s: float
    slice_most_s: float = SLICE_MOST_S

    def slice_s(self, contenders: Iterable[int]) -> float:
        """How long a slice may be, given how many take part in each case."""
        slices = (self.rounds + 1) * sum(contenders)
        return min(self.slice_most_s, max(self.slices_s / slices - OVERHEAD_S, 0.01)) if slices else self.slice_most_s


FULL = Effort(rounds=9, slices_s=245)
QUICK = Effort(rounds=3, slices_s=32)


def order(names: Sequence[str], number: int) -> list[str]:
    """Who is measured when in that round: A B C, then C B A, so that nobody is always the first after another."""
    return list(names) if number % 2 == 0 else list(reversed(names))
