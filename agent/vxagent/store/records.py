"""Records of the cluster as documents for the state database, for a start while the engine is away."""

from __future__ import annotations

from dataclasses import asdict

import msgspec

from vxagent.core.effects import Document
from vxagent.errors import Invalid
from vxagent.model.binding import Projection
from vxagent.model.cluster import Bridge, ClusterHost, ClusterSegment, Live, Presence, Record

_KINDS: dict[str, type[Record]] = {
    "host": ClusterHost,
    "live": Live,
    "segment": ClusterSegment,
    "has": Presence,
    "bridge": Bridge,
    "fdb": Projection,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def to_document(record: Record) -> Document:
    """The record as a JSON-able dict."""
    return {"record": _NAMES[type(record)], **asdict(record)}


def from_document(document: Document) -> Record | None:
    """The record of a document; None of one that this version cannot read: the engine has what it said."""
    fields = dict(document)
    try:
        kind = _KINDS[str(fields.pop("record"))]
        return msgspec.convert(fields, type=kind, strict=True)
    except (KeyError, TypeError, msgspec.ValidationError, Invalid):
        return None
