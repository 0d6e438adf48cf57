"""How a switchover went: the hosts for which the one that a VM has left still sends on what comes for it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from vxagent.errors import ClusterAway
from vxagent.model.binding import Binding, Phase, Projection
from vxagent.runtime.changes import Changes
from vxagent.runtime.membership import Membership


@dataclass(frozen=True, slots=True, kw_only=True)
class Switchover:
    """How a switchover went. missing: hosts that have not said yet that they send to the next one."""

    next: str
    missing: tuple[str, ...]


async def missing_hosts(changes: Changes, membership: Membership, switched: Binding, deadline: float) -> frozenset[str]:
    """Those that do not send to the next host yet, once none is left, the time is up or the migration is over.

    Args:
        switched: as the switchover left it.
        deadline: by the loop's clock.
    """

    def told() -> Projection | None:
        return changes.switch.state.remote.ports.get(switched.id)

    def goes_on() -> bool:
        now = told()
        return now is not None and now.revision >= switched.revision and now.phase is not Phase.SWITCHED

    heard = membership.heard
    try:
        async with asyncio.timeout_at(deadline), heard:
            await heard.wait_for(goes_on)
    except TimeoutError:
        return frozenset({str(switched.next)})
    now = told()
    if now is None or now.phase is not Phase.HELD:
        return frozenset()
    held = replace(switched, phase=Phase.HELD, revision=now.revision)
    try:
        return await membership.cluster.missing_acks(held, max(0.0, deadline - asyncio.get_running_loop().time()))
    except ClusterAway:
        return frozenset({str(switched.next)})
