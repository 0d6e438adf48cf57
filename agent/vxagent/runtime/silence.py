"""Hosts that are silent: nothing is flooded to them until they are back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace

from vxagent.core.switch import Draft
from vxagent.runtime.changes import Changes

log = logging.getLogger(__name__)

PROBED_PORT = 4789  # by TCP, where VXLAN has UDP: no host listens there


class Silence:
    """Finds those that the engine does not take for alive and that do not answer either. An agent that has died does
    not make its host one of them.

    Args:
        changes: of this host's switch, which has the others as its peers.
        answers: whether the host that has this VTEP is there.
        silent_s: for how long the engine has to have lost a host before that is asked.
    """

    def __init__(self, changes: Changes, answers: Callable[[str], Awaitable[bool]], silent_s: float) -> None:
        self._changes = changes
        self._answers = answers
        self._silent_s = silent_s
        self._lost_at: dict[str, float] = {}

    async def listen(self, live: Collection[str]) -> None:
        """Look once.

        Args:
            live: hosts that the engine takes for alive; the census has them silent no longer.
        """
        peers = self._changes.switch.state.remote.peers
        now = asyncio.get_running_loop().time()
        for host in [host for host in self._lost_at if host not in peers or host in live]:
            del self._lost_at[host]
        for host, peer in peers.items():
            if host in live or peer.silent:
                continue
            lost_at = self._lost_at.setdefault(host, now)
            if now - lost_at >= self._silent_s and not await self._answers(peer.vtep):
                log.warning("cluster: host %s does not answer; nothing is flooded to it until it is back", host)
                await self._mark(host)

    async def _mark(self, host: str) -> None:
        def mark(draft: Draft) -> None:
            remote = draft.state.remote
            if host in remote.peers:
                peers = {**remote.peers, host: replace(remote.peers[host], silent=True)}
                draft.cluster_says(replace(remote, peers=peers))

        await self._changes.in_turn(lambda: self._changes.run(mark))


async def is_there(vtep: str, *, within_s: float) -> bool:
    """Whether somebody is at this address: what listens nowhere refuses a connection, and so tells."""
    try:
        async with asyncio.timeout(within_s):
            _, writer = await asyncio.open_connection(vtep, PROBED_PORT)
    except ConnectionError:
        return True
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
