"""What etcd's errors mean, by the words that it has for them (api/v3rpc/rpctypes/error.go), and gRPC's."""

from __future__ import annotations

import re
from enum import Enum

from vxagent.errors import ClusterError, ClusterRefused, Compacted, TooManyKeys

# gRPC codes of what would be refused again
_REFUSALS = {
    "FAILED_PRECONDITION",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "OUT_OF_RANGE",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "UNAUTHENTICATED",
    "UNIMPLEMENTED",
}

# Of a member that cannot be reached gRPC says which, too: all are the same to us, and are told of once.
_UNREACHED = re.compile(r"failed to connect to all addresses; last error: \w+: \S+: ")
_TLS = {
    "CERTIFICATE_VERIFY_FAILED": "its certificate is by nobody whom this host trusts: ca of [cluster]",
    "Unwrap failed": "it does not take this host's certificate, or misses one: cert and key of [cluster]",
}


class Fate(Enum):
    """What is known of a request that failed."""

    NOT_DONE = "not done"  # another member may do it
    UNKNOWN = "unknown"
    REFUSED = "refused"


class LeaseGone(ClusterRefused):
    """The lease that was named does not exist any more."""


def fate_of(code: str, details: str) -> Fate:
    """What is known of a request that failed with this gRPC code."""
    if code in _REFUSALS and "too many requests" not in details:
        return Fate.REFUSED
    if any(words in details for words in ("failed to connect", "no leader", "too many requests")):
        return Fate.NOT_DONE
    return Fate.UNKNOWN


def reason_of(code: str, details: str) -> str:
    """Why, in a few words."""
    said = _UNREACHED.sub("", " ".join(details.split())).removeprefix("etcdserver: ")
    for words, meaning in _TLS.items():
        if words in said:
            return meaning
    return said or code.lower().replace("_", " ")


def refusal_of(code: str, details: str) -> ClusterError:
    """The error for people."""
    why = reason_of(code, details)
    if "compacted" in why:
        return Compacted()
    if "lease not found" in why:
        return LeaseGone("the lease of this host has run out", "begin another session")
    if code in {"UNAUTHENTICATED", "PERMISSION_DENIED"} or "user name is empty" in why:
        return ClusterRefused(f"etcd does not let this host in ({why})", "see its roles, and the name in cert")
    if "space exceeded" in why:
        return ClusterRefused(
            "etcd's database is full", "compact and defragment it, then `etcdctl alarm disarm`; --quota-backend-bytes"
        )
    if "too many operations" in why:
        return TooManyKeys("etcd takes fewer keys in one transaction", "raise its --max-txn-ops, 128 by default")
    return ClusterRefused(f"etcd refused it ({why})")
