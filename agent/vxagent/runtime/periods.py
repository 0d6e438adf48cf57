"""How often the agent does what it does from time to time, and how long it waits for others."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import uniform

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """Seconds that a host of a cluster waits.

    Attributes:
        keepalive_s: between two words that it lives.
        retry_s: before the engine that is away is asked again.
        refused_s: before what somebody has refused is tried again, and between two looks at what nobody else sees to.
        reset_s: for the others to put back what a store has lost.
        silent_s: after the engine last heard of a host, before that is asked whether it is there.
        answers_s: for its answer, or for the network to say that nobody is there.
        back_s: for an engine that has just stopped to answer, before what needs it is refused.
        drain_s: after all that comes for a VM that leaves is redirected, before its port takes nothing any more. What a
            CPU had in hand still goes to the port; as long as an RCU grace period.
        switchover_s: that a switchover waits for all hosts.
        activate_s: that the activation of what was switched over waits for the engine, before it is done without.
        linger_s: that a port whose VM has left still sends on what comes for it.
        record_s: between two tries to record an activation that the engine does not know of.
        prepared_s: that a port waits for a VM that nobody has switched over.
    """

    keepalive_s: float = 5.0
    retry_s: float = 1.0
    refused_s: float = 5.0
    reset_s: float = 10.0
    silent_s: float = 30.0
    answers_s: float = 5.0
    back_s: float = 2.0
    drain_s: float = 0.005
    switchover_s: float = 0.2
    activate_s: float = 0.1
    linger_s: float = 10.0
    record_s: float = 1.0
    prepared_s: float = 3600.0


async def sleep_about(seconds: float) -> None:
    """So long on average: hosts that all lost the engine at one moment do not come back at one moment."""
    await asyncio.sleep(seconds * uniform(0.5, 1.5))


PERIODS = Periods()
WAITS = Waits()
