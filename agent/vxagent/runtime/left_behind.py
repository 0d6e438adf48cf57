"""What a dead host has left behind: ports that others can take, and ports that are nobody else's."""

from __future__ import annotations

from dataclasses import dataclass

from vxagent.errors import Conflict, NotFound
from vxagent.model.binding import Binding
from vxagent.model.port import Mode, Port
from vxagent.runtime.luggage import unpack
from vxagent.store.cluster import Cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftBehind:
    """The ports of a dead host.

    Attributes:
        takeable: where each is bound, and as it was asked for.
        own: ids of the others: internal ports, and those of which the host has left nothing that one could go by.
        live: the hosts that are alive.
    """

    takeable: tuple[tuple[Binding, Port], ...]
    own: tuple[str, ...]
    live: frozenset[str]


async def left_behind(cluster: Cluster, host: str, instead: str) -> LeftBehind:
    """What a host has left.

    Args:
        instead: what to do if it is alive.

    Raises:
        NotFound: no such host.
        Conflict: it is alive, or what it has left of a port cannot be read.
        ClusterError: the engine did not answer.
    """
    lives = {known.host: alive is not None for known, alive in await cluster.hosts()}
    if host not in lives:
        raise NotFound("host", host)
    if lives[host]:
        raise Conflict(f"host {host} is alive", instead)
    takeable: list[tuple[Binding, Port]] = []
    own: list[str] = []
    for binding in await cluster.bindings():
        if binding.owner != host:
            continue
        carried = await cluster.carried(binding.id)
        port = None if carried is None else unpack(binding.id, carried).port.model()
        if port is None or port.mode is Mode.INTERNAL:
            own.append(binding.id)
        else:
            takeable.append((binding, port))
    live = frozenset(name for name, alive in lives.items() if alive)
    return LeftBehind(takeable=tuple(takeable), own=tuple(own), live=live)
