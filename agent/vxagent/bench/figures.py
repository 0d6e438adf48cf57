"""What the rounds of a case come to, and whether they may be believed. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vxagent.bench.cases import Case

AA_PACKETS, AA_NOISY = 0.05, 0.15  # how far the same thing measured twice may lie apart
Round = Mapping[str, float]  # contender → what it reached in that round


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """Which contender of a case is what.

    Attributes:
        base: what the ratio is to: the bridge.
        again: the same as `base` once more, for A/A.
        tested: the switch.
        limit: the bare program; it takes no part in what is valid.
        others: further ones that are compared with `base`.
    """

    base: str = "bridge"
    again: str = "bridge again"
    tested: str = "vxagent"
    limit: str | None = "limit"
    others: tuple[str, ...] = ()

    @property
    def needed(self) -> tuple[str, str, str]:
        """Those without which a case says nothing."""
        return (self.base, self.again, self.tested)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """The median of the ratios of rounds, the smallest and the largest."""

    median: float
    least: float
    most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """A case's result. What was not measured, or says nothing, is None.

    Attributes:
        case: which.
        base, tested, limit: medians, in the case's unit.
        ratio: tested ÷ base.
        others: contender → its ratio to `base`.
        aa: median of again ÷ base.
        why_not: why it may not be believed; "" where it may.
        left_out: limit or others that took no part, and why.
    """

    case: Case
    base: float | None = None
    tested: float | None = None
    limit: float | None = None
    ratio: Ratio | None = None
    others: Mapping[str, Ratio]
    aa: float | None = None
    why_not: str = ""
    left_out: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        """It may be believed."""
        return not self.why_not


def failed(case: Case, why: str) -> Figures:
    """The result of a case that could not be measured."""
    return Figures(case=case, others={}, why_not=why)


def judge(case: Case, rounds: Sequence[Round], roles: Roles) -> Figures:
    """The result of a case that was measured.

    Args:
        rounds: those that count; the first one that was made is not among them.

    Returns:
        Medians over the rounds; ratios are taken in each round, never of medians: what the machine does besides, it
        does to both. A case is invalid if something arrived nowhere, or the bridge was not as fast as the bridge.
    """
    if not rounds:
        return failed(case, "no round was measured")
    silent = sorted({name for name in roles.needed for one in rounds if not one.get(name, 0) > 0})
    if silent:
        return failed(case, f"nothing arrived: {', '.join(silent)}")
    aa = statistics.median(one[roles.again] / one[roles.base] for one in rounds)
    allowed = AA_NOISY if case.noisy else AA_PACKETS
    off = abs(aa - 1) > allowed
    return Figures(
        case=case,
        base=_median(rounds, roles.base),
        tested=_median(rounds, roles.tested),
        limit=None if roles.limit is None else _median(rounds, roles.limit),
        ratio=ratio(rounds, roles.tested, roles.base),
        others={name: found for name in roles.others if (found := ratio(rounds, name, roles.base)) is not None},
        aa=aa,
        why_not=f"A/A is {aa:.2f}, more than {allowed:.0%} off: the machine is too busy" if off else "",
    )


def ratio(rounds: Sequence[Round], above: str, below: str) -> Ratio | None:
    """`above` ÷ `below`, round by round; None where one is missing from a round or is 0."""
    pairs = [(one.get(above, 0.0), one.get(below, 0.0)) for one in rounds]
    if not pairs or not all(a > 0 and b > 0 for a, b in pairs):
        return None
    ratios = [a / b for a, b in pairs]
    return Ratio(median=statistics.median(ratios), least=min(ratios), most=max(ratios))


def _median(rounds: Sequence[Round], name: str) -> float | None:
    found = [one[name] for one in rounds if one.get(name, 0) > 0]
    return statistics.median(found) if len(found) == len(rounds) else None
