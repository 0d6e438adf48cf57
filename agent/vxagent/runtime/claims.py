"""What this host claims in the cluster: its segments, and that its ports run here.

Claims go by difference, like all else: of a change that somebody asks for, and, when the engine has been away, of all
that this host has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vxagent.core.state import State
from vxagent.errors import ClusterError, Refused, WrongPhase
from vxagent.model.cluster import ClusterSegment
from vxagent.model.port import Port
from vxagent.model.segment import Segment
from vxagent.store.cluster import Cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What has to be claimed for a change before it is made, and let go of after.

    Attributes:
        segments, ports: new, or not as they were.
        before: what those were that were there, to go back to.
        carried: ports that are in any way not as they were: what a next host needs of them is another.
        left: names of segments that go; gone: ids of ports that go.
    """

    segments: tuple[Segment, ...] = ()
    ports: tuple[Port, ...] = ()
    before: tuple[Segment | Port, ...] = ()
    carried: tuple[Port, ...] = ()
    left: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()


def claims_of(old: State, new: State) -> Claims:
    """What a change from one state to the other, that somebody asks for, claims.

    Raises:
        WrongPhase: it takes away or changes a port that another host goes by.
    """
    gone = old.ports.keys() - new.ports.keys()
    carried = tuple(port for id_, port in new.ports.items() if old.ports.get(id_) != port)
    for id_ in gone:
        _check_does_not_migrate(old, id_, "detach")
    for port in carried:
        _check_does_not_migrate(old, port.id, "change")
    segments = tuple(s for name, s in new.segments.items() if _said(old.segments.get(name)) != _said(s))
    ports = tuple(p for id_, p in new.ports.items() if _bound(old.ports.get(id_)) != _bound(p))
    there = [*(old.segments.get(s.name) for s in segments), *(old.ports.get(p.id) for p in ports)]
    return Claims(
        segments=segments,
        ports=ports,
        before=tuple(one for one in there if one is not None),
        carried=carried,
        left=tuple(old.segments.keys() - new.segments.keys()),
        gone=tuple(id_ for id_ in gone if is_bound_here(old, id_)),
    )


def _check_does_not_migrate(state: State, port: str, step: str) -> None:
    told = state.remote.ports.get(port)
    if port not in state.ports or told is None or told.next is None or state.host not in (told.owner, told.next):
        return
    raise WrongPhase(
        port,
        told.phase,
        step,
        f"its VM migrates from host {told.owner} to host {told.next}",
        f"`vxagent migrate cancel {port}` first, or activate it on host {told.next}",
    )


def is_bound_here(state: State, port: str) -> bool:
    """Whether this host is to be the owner of a port that it has: not while the VM is only awaited, or has left."""
    told = state.remote.ports.get(port)
    return told is None or told.owner == state.host


async def claim(cluster: Cluster, claims: Claims, made: list[Segment | Port]) -> None:
    """Claim what a change needs; `made` gets what was claimed.

    Raises:
        Conflict, WrongPhase: somebody has it, who is named.
        ClusterError: the engine did not answer, or does not let us.
    """
    for segment in claims.segments:
        await cluster.claim_segment(cluster_segment(segment))
        made.append(segment)
    for port in claims.ports:
        await bind(cluster, port)
        made.append(port)


async def take_back(cluster: Cluster, claims: Claims, made: Sequence[Segment | Port]) -> bool:
    """Undo `claim`; False: the engine did not let us, and holds some of it still."""
    were: dict[tuple[type, str], Segment | Port] = {(type(one), name_of(one)): one for one in claims.before}
    for one in reversed(made):
        old = were.get((type(one), name_of(one)))
        try:
            if isinstance(one, Port):
                await (bind(cluster, old) if isinstance(old, Port) else cluster.unbind(one.id))
            elif isinstance(old, Segment):
                await cluster.claim_segment(cluster_segment(old))
            else:
                await cluster.leave_segment(one.name)
        except (ClusterError, Refused):
            return False
    return True


async def let_go(cluster: Cluster, claims: Claims) -> None:
    """Give up what a change that was made does not need any more. Raises ClusterError."""
    for port in claims.gone:
        await cluster.unbind(port)
    for segment in claims.left:
        await cluster.leave_segment(segment)


async def bind(cluster: Cluster, port: Port) -> None:
    """The port runs here."""
    segments = [name for name, _ in port.memberships]
    await cluster.bind(port.id, segments=segments, macs=port.macs, ips=port.ips)


def cluster_segment(segment: Segment) -> ClusterSegment:
    """What the hosts agree on about it."""
    return ClusterSegment(name=segment.name, tenant=segment.tenant, vlan=segment.vlan, vni=segment.vni, mtu=segment.mtu)


def name_of(one: Segment | Port) -> str:
    """Its name or id."""
    return one.id if isinstance(one, Port) else one.name


def _said(segment: Segment | None) -> ClusterSegment | None:
    return None if segment is None else cluster_segment(segment)


def _bound(port: Port | None) -> tuple[object, ...] | None:
    return None if port is None else (port.memberships, port.macs, port.ips)
