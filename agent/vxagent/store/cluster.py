"""What the hosts of a cluster agree on, in the engine. See schema.py for the keys.

Each change is one transaction under the host's session, made by compare-and-swap: of hosts that want the same one
has it and the others are told by whom. When no answer comes to a change it is asked for again, under the same name,
until it is known what became of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from vxagent.errors import Conflict, NotFound
from vxagent.model.binding import Binding
from vxagent.model.cluster import Snapshot
from vxagent.store.acks import Acks
from vxagent.store.bindings import Bindings
from vxagent.store.follower import Follower
from vxagent.store.hosts import Hosts
from vxagent.store.kv import Compare, Delete, KeyValue, Op, Range, absent, unchanged
from vxagent.store.schema import parse_name
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

    async def forget(self, host: str, drop: Collection[str] = ()) -> None:
        """Remove a dead host: its VTEP is free, and nothing is flooded to it any more.

        When it fails on the way, some of its ports and segments are gone already; ask again.

        Args:
            drop: ports of which the caller knows that they are the host's own, and end with it.

        Raises:
            NotFound: no such host.
            Conflict: it is alive, as this one is; or other ports are bound to it, or on their way there.
        """
        keys = self._keys
        known, alive = await self._read(Range(keys.host(host)), Range(keys.live(host)))
        if alive:
            raise Conflict(f"host {host} is alive", "stop its agent first")
        if not known:
            raise NotFound("host", host)
        bindings = await self.bindings()
        _check_left_alone(host, [binding for binding in bindings if binding.id not in drop])
        for binding in bindings:
            if binding.owner == host:
                await self.drop(binding.id, host)
        await self._leave_all(host, (absent(keys.live(host)),))
        await self._remove(host, known[0])

    async def _leave_all(self, host: str, dead: tuple[Compare, ...]) -> None:
        """A dead host has no segment any more, and bridges none, also where it was none of those that have it."""
        keys = self._keys
        for kv in (await self._kv.range(keys.all("has"))).found:
            match keys.words(kv.key)[1:]:
                case [segment, holder] if holder == host:
                    await self._leave(segment, host, dead)
        for kv in (await self._kv.range(keys.all("bridge"))).found:
            if self._bridged_by([kv], host):
                compares = (*dead, unchanged(kv.key, kv.mod_revision))
                await self._change(compares, (Delete(Range(kv.key)),))  # or somebody else bridges it by now

    async def _remove(self, host: str, known: KeyValue) -> None:
        keys = self._keys
        compares = (absent(keys.live(host)), unchanged(keys.host(host), known.mod_revision))
        vteps = [kv.key for kv in (await self._kv.range(keys.all("vtep"))).found if parse_name((kv,)) == host]
        ops: list[Op] = [Delete(Range(key)) for key in (keys.host(host), *vteps)]
        changed = await self._change(compares, tuple(ops))
        if not changed.succeeded and any(changed.found):  # and else it was done, and that answer did not come
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


def _check_left_alone(host: str, bindings: list[Binding]) -> None:
    """Refuse while ports count on a host. Raises Conflict."""
    bound = [binding.id for binding in bindings if binding.owner == host]
    if bound:
        raise Conflict(
            f"{len(bound)} ports are bound on host {host}, {bound[0]} among them",
            f"`vxagent host evacuate {host}` first",
        )
    coming = next((binding for binding in bindings if binding.next == host), None)
    if coming is not None:
        raise Conflict(
            f"port {coming.id} is on its way to host {host}",
            f"`vxagent migrate cancel {coming.id}` on host {coming.owner}, or evacuate that if it is dead, too",
        )
