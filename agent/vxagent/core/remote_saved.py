"""What the cluster said, as documents for the store, and back: what an agent goes by until the engine answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from vxagent.core.effects import Document
from vxagent.core.remote import NO_CLUSTER, Claim, Peer, Remote, Told
from vxagent.errors import StoreError, VxagentError
from vxagent.model.binding import Phase, Projection

REMOTE = ("peer", "told", "bridge", "arrived", "doubtful")
"""Kinds: by the host's name, by SEGMENT/PORT, by segment, by port, by "segment" or "port"/NAME."""


def remote_document(remote: Remote, kind: str, name: str) -> Document | None:
    """What the store should hold under this kind and name; None: nothing."""
    match kind:
        case "peer" if name in remote.peers:
            peer = remote.peers[name]
            return {"vtep": peer.vtep, "segments": sorted(peer.segments), "silent": peer.silent}
        case "told" if _key(name) in remote.told:
            return asdict(remote.told[_key(name)])
        case "bridge" if name in remote.bridges:
            return {"host": remote.bridges[name]}
        case "arrived" if name in remote.arrived:
            return {}
        case "doubtful" if _key(name) in remote.doubtful:
            return {}
    return None


def load_remote(documents: Mapping[tuple[str, str], Document]) -> Remote:
    """What they say. Raises StoreError: one cannot be read."""
    if not documents:
        return NO_CLUSTER
    peers: dict[str, Peer] = {}
    told: dict[Told, Projection] = {}
    bridges: dict[str, str] = {}
    for (kind, name), document in documents.items():
        fields: dict[str, Any] = dict(document)
        try:
            match kind:
                case "peer":
                    peers[name] = Peer(**{**fields, "segments": frozenset(fields["segments"])})
                case "told":
                    lists = {key: tuple(fields[key]) for key in ("macs", "ips")}
                    told[_key(name)] = Projection(**{**fields, **lists, "phase": Phase(fields["phase"])})
                case "bridge":
                    bridges[name] = str(fields["host"])
        except (VxagentError, TypeError, ValueError, KeyError) as exc:
            raise StoreError(
                f"the state database holds a {kind} {name} that cannot be read ({exc})",
                "use the version that wrote it, or move the state directory away",
            ) from exc
    arrived = frozenset(name for kind, name in documents if kind == "arrived")
    doubtful = frozenset(_key(name) for kind, name in documents if kind == "doubtful")
    return Remote(on=True, peers=peers, told=told, bridges=bridges, arrived=arrived, doubtful=doubtful)


def _key(name: str) -> Told | Claim:
    first, _, second = name.partition("/")
    return first, second
