"""Takes the ports of a dead host, so that their VMs can be started here.

Each port is made here first, and drains: it takes and gives nothing. Then the engine is asked, and it goes up. Whatever
fails, and whenever this agent dies, a port is the dead host's or works here, and who asks again goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from vxagent.core.state import State, unusable
from vxagent.core.switch import Draft
from vxagent.errors import ClusterAmbiguous, ClusterError, Conflict, NotFound, VxagentError
from vxagent.model.binding import Binding, must_be_dead
from vxagent.model.port import Port
from vxagent.runtime.changes import Changes
from vxagent.runtime.left_behind import LeftBehind, left_behind
from vxagent.runtime.luggage import pack
from vxagent.store.cluster import Cluster

log = logging.getLogger(__name__)

NO_IFNAMES: Mapping[str, str] = {}


async def evacuate(changes: Changes, cluster: Cluster, host: str, ifnames: Mapping[str, str] = NO_IFNAMES) -> list[str]:
    """Take the ports of a dead host that others can take; return their ids.

    Args:
        ifnames: port → its VM's device here; by default it is called as it was there.

    Raises:
        NotFound: no such host, or no such port.
        Conflict: it is alive, or a port of it cannot be here: none was taken.
        VxagentError: it failed on the way; the message says how many were taken before. Ask again.
    """
    left = await left_behind(cluster, host, "migrate its ports instead")
    wanted = _named(changes.switch.state, host, left, ifnames)
    _check(changes, host, wanted, left.live)
    taken: list[str] = []
    try:
        for _, port in wanted:
            await _take(changes, cluster, port)
            taken.append(port.id)
    except VxagentError as error:
        if taken:
            so_far = f"{len(taken)} of {len(wanted)} ports of host {host} are here now, the others not"
            log.warning("cluster: %s: %s", so_far, error)
            error.args = (f"{so_far}: {error}; then ask again for the others",)
        raise
    return taken


def _named(state: State, host: str, left: LeftBehind, ifnames: Mapping[str, str]) -> list[tuple[Binding, Port]]:
    """The ports with their devices here. One that was taken before may still be named. Raises NotFound, Conflict."""
    left_there = {port.id for _, port in left.takeable}
    for port_id, ifname in ifnames.items():
        here = state.ports.get(port_id)
        if here is not None and here.ifname != ifname:
            raise Conflict(
                f"port {port_id} is here already, with device {here.ifname}", f"leave out --ifname {port_id}={ifname}"
            )
        if here is None and port_id not in left_there:
            raise NotFound("binding", port_id, wanted_by=f"--ifname for host {host}")
    return [
        (binding, state.ports.get(port.id) or replace(port, ifname=ifnames.get(port.id, port.ifname), applied=False))
        for binding, port in left.takeable
    ]


def _check(changes: Changes, host: str, wanted: list[tuple[Binding, Port]], live: frozenset[str]) -> None:
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
        if port.id in draft.state.ports:  # it has waited here for its VM, or is what an attempt before has left
            continue
        why = _device_trouble(draft.state, port.ifname)
        if why:
            raise Conflict(
                f"port {port.id} cannot have device {port.ifname} on host {state.host}: {why}",
                f"name another one: `vxagent host evacuate {host} --ifname {port.id}=IFNAME`",
            )
        draft.attach_port(port)


def _device_trouble(state: State, ifname: str) -> str:
    """Who has a device, or what else keeps a port from having it; "" for nothing."""
    holder = next((port.id for port in state.ports.values() if port.ifname == ifname), None)
    if holder is not None:
        return f"it is port {holder}'s"
    if ifname in state.uplinks:
        return "it is an uplink"
    if state.overlay is not None and state.overlay.device == ifname:
        return "it is the underlay of the overlay"
    device = state.devices.get(ifname)
    return "" if device is None else unusable(device)


async def _take(changes: Changes, cluster: Cluster, port: Port) -> None:
    def attach(draft: Draft) -> None:
        draft.attach_port(port)

    def detach(draft: Draft) -> None:
        draft.detach_port(port.id)

    async def work() -> None:
        is_new = port.id not in changes.switch.state.ports
        if is_new:
            await changes.run(attach)
        try:
            binding = await cluster.evacuate(port.id)
        except VxagentError as error:
            if is_new and not isinstance(error, ClusterAmbiguous):  # what may have been done is heard of later
                await changes.run(detach)
            raise
        await changes.run(lambda draft: draft.cluster_says(draft.state.remote.knowing(binding)))
        try:  # what the dead host has left of it is old: its VM begins anew
            await cluster.carry(port.id, pack(binding.owner, port))
        except ClusterError as error:
            log.warning("cluster: port %s is here; that it is so is told later: %s", port.id, error)
            await changes.run(lambda draft: draft.cluster_says(draft.state.remote.doubting({("port", port.id)})))

    await changes.in_turn(work)
