"""What the hosts of a cluster agree on, in the engine. See schema.py for the keys.

Each change is one transaction under the host's session, made by compare-and-swap: of hosts that want the same one
has it and the others are told by whom. When no answer comes to a change it is asked for again, under the same name,
until it is known what became of it.
"""

from __future__ import annotations

from collections.abc import Iterable

from vxagent.errors import Conflict, NotFound
from vxagent.model.cluster import ClusterHost, Snapshot
from vxagent.store.acks import Acks
from vxagent.store.bindings import Bindings
from vxagent.store.follower import Follower
from vxagent.store.hosts import Hosts
from vxagent.store.kv import Delete, Op, Range, absent, unchanged
from vxagent.store.schema import parse
from vxagent.store.segments import Segments


class Cluster(Hosts, Segments, Bindings, Acks):
    """A cluster as one host sees and changes it.

    Args:
        kv: the engine. Closing it is the caller's.
        name: the cluster's, of `[cluster] name`; several may share an engine.
        host: this host's.

    Attributes:
        session: the one that was opened last, or None.

    Raises (all methods that wait):
        ClusterAway: nothing was changed.
        ClusterAmbiguous: it was asked for several times without an answer. Ask again, with the same `op` where
            there is one.
        ClusterRefused: the engine does not let us.
        SessionLost (all that change something, but `open`): nothing was changed; open another session.
    """

    async def forget(self, host: str) -> None:
        """Remove a dead host: its VTEP is free, and nothing is flooded to it any more.

        When it fails on the way, some of its segments have been left already; ask again.

        Raises:
            NotFound: no such host.
            Conflict: it is alive, or ports are bound to it; evacuate them first.
        """
        keys = self._keys
        dead = absent(keys.live(host))
        known, alive = await self._read(Range(keys.host(host)), Range(keys.live(host)))
        if alive:
            raise Conflict(f"host {host} is alive", "stop its agent first")
        if not known:
            raise NotFound("host", host)
        bound = [binding.id for binding in await self.bindings() if binding.owner == host]
        if bound:
            raise Conflict(
                f"{len(bound)} ports are bound on host {host}, {bound[0]} among them",
                f"`vxagent host evacuate {host}` first",
            )
        for kv in (await self._kv.range(keys.all("has"))).found:
            segment, holder = keys.words(kv.key)[1:]
            if holder == host:
                await self._leave(segment, host, (dead,))
        compares = (dead, unchanged(keys.host(host), known[0].mod_revision))
        old = parse(keys, known[0])
        ops: list[Op] = [Delete(Range(keys.host(host)))]
        if isinstance(old, ClusterHost) and old.vtep is not None:
            ops.append(Delete(Range(keys.vtep(old.vtep))))
        if not (await self._change(compares, tuple(ops))).succeeded:
            raise Conflict(f"host {host} is back", "it is left as it is")

    async def snapshot(self, segments: Iterable[str]) -> Snapshot:
        """All hosts, and what is in these segments, at one revision.

        Raises:
            ClusterRefused: the cluster's schema is one that this version does not know.
        """
        follower = self.follow(segments)
        await anext(follower)
        await follower.close()
        return follower.snapshot

    def follow(self, segments: Iterable[str], known: Snapshot | None = None) -> Follower:
        """Tell all that there is and what changes: hosts, and what is in these segments.

        Args:
            known: what the caller knows already, such as from before its start.
        """
        return Follower(self._kv, self._name, segments, known)
