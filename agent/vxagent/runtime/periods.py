"""How often the agent does what it does from time to time."""

from __future__ import annotations

from dataclasses import dataclass

AGEING_STEPS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Periods:
    """Seconds between two of each.

    Attributes:
        resync_s: readings of all devices.
        events_s: readings of the data plane's events.
        ageing_shortest_s, ageing_longest_s: looks at what has aged, at least and at most.
        retry_s: tries to take in what devices tell.
    """

    resync_s: float = 60.0
    events_s: float = 1.0
    ageing_shortest_s: float = 1.0
    ageing_longest_s: float = 30.0
    retry_s: float = 1.0

    def ageing_s(self, time_s: int) -> float:
        """Between two looks where entries age after so long, or (0) never; too old ones count as absent without it."""
        if not time_s:
            return self.ageing_longest_s
        return max(self.ageing_shortest_s, min(time_s / AGEING_STEPS, self.ageing_longest_s))


PERIODS = Periods()
