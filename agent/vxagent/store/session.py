"""A host's session: its key under live/, which goes when the host no longer says that it lives."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from vxagent.errors import ClusterAmbiguous, ClusterAway, SessionLost
from vxagent.store.kv import Compare, Kv, created

TTL_S = 15
KEEPALIVE_S = 5.0
RETRY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Every change of the cluster is made under one: it is refused once the session is lost.

    Attributes:
        host: whose it is.
        key: the host's, under live/.
        revision: in which the key was made; names the session.
        lease: with which the key goes.
    """

    kv: Kv
    host: str
    key: str
    revision: int
    lease: int

    @property
    def holds(self) -> Compare:
        """What each transaction begins with: the session is still there."""
        return created(self.key, self.revision)

    async def keepalive(self) -> None:
        """Say once that the host lives.

        Raises:
            SessionLost: the lease has run out, or was revoked. Open another session, then bind what runs here.
            ClusterAway: no answer; it may be lost or not.
        """
        if not await self.kv.keepalive(self.lease):
            raise lost(self.host)

    async def hold(self, every_s: float = KEEPALIVE_S, retry_s: float = RETRY_S) -> None:
        """Say it again and again; while the engine is away, after each `retry_s`. It does not return.

        Raises:
            SessionLost: as above.
            ClusterRefused: the engine no longer lets us.
        """
        pause = every_s
        while True:
            await asyncio.sleep(pause)
            try:
                await self.keepalive()
            except (ClusterAway, ClusterAmbiguous):
                pause = retry_s
            else:
                pause = every_s

    async def close(self) -> None:
        """End it: to the others the host is dead now, its ports stay bound.

        Raises:
            ClusterError: the key stays until the lease runs out.
        """
        await self.kv.revoke(self.lease)


def lost(host: str) -> SessionLost:
    """The error."""
    return SessionLost(
        f"the cluster does not take host {host} for alive", "its agent comes back by itself; ask again in a moment"
    )
