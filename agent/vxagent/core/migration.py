"""Where a port's frames go while its VM moves from one host to another.

                    bound      prepared    switched    held        bound at the other host
    owner's port    up         up, then    draining    draining    draining, then gone
                               draining
    next's port     –          standby     standby     holding     up
                                           until it has heard of it
    others send to  the owner  the owner   the owner   the next    the new owner

The owner's host redirects what still comes for a port that drains (bpf/README.md). It begins to when the switchover
begins, while the port is up, so that no frame that is on its way meets a port that takes none. Others send to the next
host once that holds, so nobody sends to a port that does not take it.

What is flooded reaches both hosts. The owner's port drains before the engine is told, so before the next one holds: no
flood reaches the VM twice. None misses it either: until that port holds, the owner's host sends a copy for it alone.
"""

from __future__ import annotations

from binascii import crc32
from dataclasses import dataclass, replace

from vxagent.core.remote import Remote
from vxagent.core.tables import TOKEN_BITS, PortMode, PortRow, Row
from vxagent.model.binding import Phase, Projection


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What a port of this host is, as far as migrations go.

    Attributes:
        mode: of its row.
        via: the host to which its VM's frames go instead, or None.
        redirect: they do whoever sent them: the VM has left, or is about to.
        copied: so does a copy of what is flooded, for no flood there reaches it yet.
    """

    mode: PortMode = PortMode.UP
    via: str | None = None
    redirect: bool = False
    copied: bool = False


HERE = Placement()


def placement(remote: Remote, host: str, port: str) -> Placement:
    """What a port of this host is."""
    told = remote.ports.get(port)
    if told is None:
        return HERE
    if told.owner == host:
        return _leaving(told, begun=port in remote.leaving, drained=port in remote.drained)
    if told.next == host:
        if port in remote.arrived:
            return HERE
        if told.phase is Phase.PREPARED and port not in remote.announced:
            return Placement(mode=PortMode.STANDBY, via=told.owner)
        return Placement(mode=PortMode.HOLDING)
    return _left(whereabouts(told))


def whereabouts(told: Projection) -> str:
    """The host to which frames go for a port that is not this host's own."""
    return told.next if told.phase is Phase.HELD and told.next is not None else told.owner


def migrating(remote: Remote, host: str) -> list[Projection]:
    """The ports of a host that are on their way, by id."""
    there = (told for told in remote.ports.values() if told.next is not None)
    return sorted((told for told in there if host in (told.owner, told.next)), key=lambda told: told.port)


def has_come_up(should: Row | None, there: Row | None) -> bool:
    """Whether this is a port that holds, which its VM has brought up by announcing itself: the data plane does that."""
    if not isinstance(should, PortRow) or not isinstance(there, PortRow) or should.state is not PortMode.HOLDING:
        return False
    return there == replace(should, state=PortMode.UP)


def token_of(port: str) -> int:
    """By which two hosts know a port that goes from one to the other, in the mark of a copy for it."""
    return crc32(port.encode()) & (1 << TOKEN_BITS) - 1


def _leaving(told: Projection, *, begun: bool, drained: bool) -> Placement:
    if told.phase in (Phase.SWITCHED, Phase.HELD):
        return _left(told.next, copied=told.phase is Phase.SWITCHED)
    if not begun or told.next is None:
        return HERE
    return replace(_left(told.next, copied=True), mode=PortMode.DRAINING if drained else PortMode.UP)


def _left(host: str | None, *, copied: bool = False) -> Placement:
    return Placement(mode=PortMode.DRAINING, via=host, redirect=True, copied=copied)
