"""What a cluster's records come to: which hosts there are, who has which segment, and where ports run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from vxagent.core.remote import NOBODY_LEAVES, Peer, Remote
from vxagent.model.binding import Projection
from vxagent.model.cluster import Bridge, Change, ClusterHost, Live, Presence, Record


class Census:
    """Takes in what is told, in whatever order: that a host has a segment may come before the host, and its VTEP later.

    Args:
        host: this one.
        known: what was known last.

    Attributes:
        live: hosts that the engine takes for alive, this one too.
    """

    def __init__(self, host: str, known: Remote) -> None:
        self.live: set[str] = set()
        self._host = host
        self._vteps: dict[str, str | None] = {name: peer.vtep for name, peer in known.peers.items()}
        self._has: dict[str, set[str]] = {name: set(peer.segments) for name, peer in known.peers.items()}

    def take(self, remote: Remote, changes: Iterable[Change]) -> Remote:
        """What the cluster says once these are told, too. To take them in twice is no failure."""
        told, bridges = dict(remote.told), dict(remote.bridges)
        settled: set[str] = set()
        same_hosts = True
        for change in changes:
            gone = change.now is None
            match change.now or change.before:
                case Projection() as record:
                    key = (record.segment, record.port)
                    if is_news(told.get(key), change):
                        _put(told, key, None if gone else record)
                        settled |= {record.port} if record.phase in NOBODY_LEAVES and not gone else set()
                    continue
                case Bridge(segment=segment, host=host):
                    _put(bridges, segment, None if gone else host)
                    continue
                case ClusterHost(host=host, vtep=vtep):
                    self._vteps[host] = None if gone else vtep
                case Live(host=host):
                    (self.live.discard if gone else self.live.add)(host)
                case Presence(segment=segment, host=host):
                    names = self._has.setdefault(host, set())
                    (names.discard if gone else names.add)(segment)
                case _:
                    continue
            same_hosts = False
        peers = remote.peers if same_hosts else self._peers(remote)
        return replace(remote, on=True, told=told, bridges=bridges, peers=peers).settled(settled)

    def _peers(self, remote: Remote) -> dict[str, Peer]:
        """The other hosts that have a VTEP."""
        silent = {name for name, peer in remote.peers.items() if peer.silent and name not in self.live}
        return {
            name: Peer(vtep=vtep, segments=frozenset(self._has.get(name, ())), silent=name in silent)
            for name, vtep in self._vteps.items()
            if vtep is not None and name != self._host
        }


def is_news(known: Projection | None, change: Change) -> bool:
    """Whether this host does not know it better already: what it has written itself it knows before that comes back,
    and before what came in front of it. The revisions of a store that has begun anew go back."""
    before, now = change.before, change.now
    if known is None or not isinstance(now, Projection) or known.revision <= now.revision:
        return True
    return isinstance(before, Projection) and before.revision > now.revision


def records_of(remote: Remote) -> Iterable[Record]:
    """What is known, as the engine would tell it."""
    for host, peer in remote.peers.items():
        yield ClusterHost(host=host, vtep=peer.vtep)
        for segment in peer.segments:
            yield Presence(segment=segment, host=host)
    yield from remote.told.values()
    for segment, host in remote.bridges.items():
        yield Bridge(segment=segment, host=host)


def _put(table: dict[Any, Any], key: Any, value: object) -> None:
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value
