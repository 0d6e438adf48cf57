"""How often and how long a fault is done. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How thoroughly.

    Attributes:
        kills, reloads, turns: how often the agent is killed and started, is reloaded, and does anything else.
        upgrades: how often another build takes over and hands back.
        away_s: seconds for which it hangs, or is not there.
        ports: that one `apply` brings and the next one takes.
        entries: of the FDB, that age.
        shortages: how often something is not to be had, or does not work.
    """

    kills: int
    reloads: int
    turns: int
    upgrades: int
    away_s: float
    ports: int
    entries: int
    shortages: int


FULL = Effort(kills=50, reloads=100, turns=50, upgrades=10, away_s=60, ports=1000, entries=100_000, shortages=5)
QUICK = Effort(kills=2, reloads=3, turns=3, upgrades=1, away_s=1, ports=40, entries=5_000, shortages=1)
