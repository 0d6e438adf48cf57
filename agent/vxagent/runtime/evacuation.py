"""Takes the ports of a dead host, so that their VMs can be started here."""

from __future__ import annotations

import logging
from dataclasses import replace

from vxagent.core.switch import Draft
from vxagent.errors import Conflict, NotFound, VxagentError
from vxagent.model.binding import Binding, must_be_dead
from vxagent.model.port import Mode, Port
from vxagent.runtime.changes import Changes
from vxagent.runtime.luggage import luggage_of
from vxagent.store.cluster import Cluster

log = logging.getLogger(__name__)


async def evacuate(changes: Changes, cluster: Cluster, host: str) -> list[str]:
    """All ports of a host but its internal ones; return their ids.

    Raises:
        NotFound: no such host.
        Conflict: it is alive, or a port of it cannot be here: none was taken.
        ClusterError: the engine did not answer; the log says if some were taken before. Ask again.
    """
    live = {known.host: alive is not None for known, alive in await cluster.hosts()}
    if host not in live:
        raise NotFound("host", host)
    if live[host]:
        raise Conflict(f"host {host} is alive", "migrate its ports instead")
    bindings = [binding for binding in await cluster.bindings() if binding.owner == host]
    wanted = [(binding, (await luggage_of(cluster, binding.id)).port.model()) for binding in bindings]
    wanted = [(binding, port) for binding, port in wanted if port.mode is not Mode.INTERNAL]
    _check(changes, wanted, {name for name, alive in live.items() if alive})
    taken: list[str] = []
    try:
        for binding, port in wanted:
            await _take(changes, cluster, port)
            taken.append(binding.id)
    except VxagentError:
        if taken:
            log.warning("cluster: %d of %d ports of host %s are taken, the others not", len(taken), len(wanted), host)
        raise
    return taken


def _check(changes: Changes, wanted: list[tuple[Binding, Port]], live: set[str]) -> None:
    """Refuse what cannot be, before any is taken. Raises Conflict, NotFound."""
    state = changes.switch.state
    draft = changes.switch.draft()
    for binding, port in wanted:
        for other in must_be_dead(binding, state.host):
            if other in live:
                raise Conflict(
                    f"host {other} is alive, to which port {binding.id} was switched over",
                    f"activate or cancel it there: `vxagent migrate cancel {binding.id}`",
                )
        for segment, _ in port.memberships:
            if segment not in state.segments:
                raise Conflict(
                    f"host {state.host} does not have segment {segment}, which port {port.id} is in",
                    "add the segment here first",
                )
        _attach(draft, port)


def _attach(draft: Draft, port: Port) -> None:
    """One that waited here for its VM is here already."""
    if port.id not in draft.state.ports:
        draft.attach_port(replace(port, applied=False))


async def _take(changes: Changes, cluster: Cluster, port: Port) -> None:
    async def work() -> None:
        binding = await cluster.evacuate(port.id)

        def attach(draft: Draft) -> None:
            draft.cluster_says(draft.state.remote.knowing(binding))
            _attach(draft, port)

        await changes.run(attach)

    await changes.in_turn(work)
