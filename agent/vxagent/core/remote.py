"""What the cluster says of other hosts and of where ports run, as this host has seen it last.

It is no wish of anybody's here and no row yet: `compile` makes rows of it as it does of what is desired. It is saved,
so that an agent that starts while the engine is away goes by what it knew.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

from vxagent.model.binding import Binding, Phase, Projection, project
from vxagent.model.vtep import Vtep

Told = tuple[str, str]
"""(segment, port)."""

Claim = tuple[str, str]
"""("segment" or "port", name)."""

NOBODY_LEAVES = (Phase.BOUND, Phase.PREPARED)
"""Phases in which a VM has neither left its owner, nor arrived elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another host.

    Attributes:
        vtep: where it ends tunnels.
        segments: that it has; what is flooded there goes to it too.
        silent: it has not been heard of for long and does not answer: nothing is flooded to it.
    """

    vtep: str
    segments: frozenset[str] = frozenset()
    silent: bool = False


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A snapshot. Changes make another one.

    Attributes:
        on: there is a cluster.
        peers: other hosts that have a VTEP, by name.
        told: bindings by segment and port; also of ports of this host.
        bridges: segment → the host that bridges its VLAN and VNI.
        leaving: ports of this host whose switchover has begun here, whether or not the engine knows yet.
        drained: those of them that take nothing any more.
        arrived: ports that run here, whether or not the engine knows yet.
        announced: ports that nobody has switched over, of which the engine is just told that they run here.
        doubtful: of which of this host's own the engine may hold something else than what is here.
    """

    on: bool = False
    peers: Mapping[str, Peer] = field(default_factory=dict)
    told: Mapping[Told, Projection] = field(default_factory=dict)
    bridges: Mapping[str, str] = field(default_factory=dict)
    leaving: frozenset[str] = frozenset()
    drained: frozenset[str] = frozenset()
    arrived: frozenset[str] = frozenset()
    announced: frozenset[str] = frozenset()
    doubtful: frozenset[Claim] = frozenset()

    @cached_property
    def by_vtep(self) -> dict[str, Peer]:
        """The peers by their addresses."""
        return {peer.vtep: peer for peer in self.peers.values()}

    @cached_property
    def vteps(self) -> dict[str, Vtep]:
        """Their VTEPs by address, as if they had been stated; which segments they are in is the peers' to say."""
        return {address: _vtep(address) for address in self.by_vtep}

    @cached_property
    def ports(self) -> dict[str, Projection]:
        """What is told of each port; in all of its segments it is the same but for the segment."""
        return {port: told for (_, port), told in self.told.items()}

    @cached_property
    def addressed(self) -> frozenset[str]:
        """The segments in which a port has an address for which the switch may answer."""
        return frozenset(segment for (segment, _), told in self.told.items() if told.ips and len(told.macs) == 1)

    def vtep_of(self, host: str | None) -> str | None:
        """Where a host ends tunnels, if that is known."""
        peer = self.peers.get(host or "")
        return peer.vtep if peer is not None else None

    def knowing(self, binding: Binding) -> Remote:
        """With a binding as it was just written: nobody waits until it comes back."""
        told = dict(self.told)
        for projection in project(binding):
            old = told.get((projection.segment, binding.id))
            if old is None or old.revision <= binding.revision:
                told[projection.segment, binding.id] = projection
        return replace(self, told=told).settled({binding.id} if binding.phase in NOBODY_LEAVES else ())

    def settled(self, ports: Collection[str]) -> Remote:
        """Without what was begun of migrations of these ports: they are over, or are others."""
        return replace(
            self,
            leaving=self.leaving.difference(ports),
            drained=self.drained.difference(ports),
            arrived=self.arrived.difference(ports),
            announced=self.announced.difference(ports),
        )

    def letting(self, port: str, *, leave: bool, drained: bool = False) -> Remote:
        """With the switchover of a port of this host begun, or not; and so far that the port takes nothing any more."""
        return replace(
            self,
            leaving=self.leaving | {port} if leave else self.leaving - {port},
            drained=self.drained | {port} if drained else self.drained - {port},
        )

    def receiving(self, port: str, *, here: bool) -> Remote:
        """With a port's VM here whether or not the engine knows, or not."""
        return replace(self, arrived=self.arrived | {port} if here else self.arrived - {port})

    def announcing(self, port: str, *, here: bool) -> Remote:
        """With the engine being told that a port's VM is here, or not."""
        return replace(self, announced=self.announced | {port} if here else self.announced - {port})

    def doubting(self, claims: Collection[Claim]) -> Remote:
        """With what the engine may hold otherwise."""
        return replace(self, doubtful=self.doubtful.union(claims))

    def agreed(self, claim: Claim) -> Remote:
        """Without one of them."""
        return replace(self, doubtful=self.doubtful - {claim})

    def within(self, segments: Collection[str]) -> Remote:
        """What concerns these segments alone."""
        return replace(
            self,
            peers={
                host: replace(peer, segments=peer.segments.intersection(segments)) for host, peer in self.peers.items()
            },
            told={key: told for key, told in self.told.items() if key[0] in segments},
            bridges={segment: host for segment, host in self.bridges.items() if segment in segments},
        )


@lru_cache(maxsize=8192)
def _vtep(address: str) -> Vtep:
    """The same one for each snapshot: there is one for each change, and hundreds of peers in it."""
    return Vtep(address=address)


NO_CLUSTER = Remote()
