"""What etcd's errors mean for whoever asked."""

from __future__ import annotations

import pytest

from vxagent.errors import Compacted
from vxagent.store.etcd_errors import Fate, LeaseGone, fate_of, reason_of, refusal_of


@pytest.mark.parametrize(
    ("code", "details", "fate"),
    [
        # Nobody has it: another member may be asked.
        (
            "UNAVAILABLE",
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:192.0.2.5:2379: …",
            Fate.NOT_DONE,
        ),
        ("UNAVAILABLE", "etcdserver: no leader", Fate.NOT_DONE),
        ("RESOURCE_EXHAUSTED", "etcdserver: too many requests", Fate.NOT_DONE),
        # Somebody had it.
        ("UNAVAILABLE", "etcdserver: request timed out", Fate.UNKNOWN),
        ("UNAVAILABLE", "etcdserver: request timed out, possibly due to previous leader failure", Fate.UNKNOWN),
        ("UNAVAILABLE", "etcdserver: request timed out, possibly due to connection lost", Fate.UNKNOWN),
        ("UNAVAILABLE", "etcdserver: leader changed", Fate.UNKNOWN),
        ("UNAVAILABLE", "etcdserver: server stopped", Fate.UNKNOWN),
        ("UNAVAILABLE", "Socket closed", Fate.UNKNOWN),
        ("UNAVAILABLE", "recvmsg:Connection reset by peer", Fate.UNKNOWN),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", Fate.UNKNOWN),
        ("CANCELLED", "", Fate.UNKNOWN),
        ("INTERNAL", "Received RST_STREAM with error code 2", Fate.UNKNOWN),
        ("UNKNOWN", "", Fate.UNKNOWN),
        # It would be refused again.
        ("INVALID_ARGUMENT", "etcdserver: too many operations in txn request", Fate.REFUSED),
        ("INVALID_ARGUMENT", "etcdserver: duplicate key given in txn request", Fate.REFUSED),
        ("NOT_FOUND", "etcdserver: requested lease not found", Fate.REFUSED),
        ("OUT_OF_RANGE", "etcdserver: mvcc: required revision has been compacted", Fate.REFUSED),
        ("PERMISSION_DENIED", "etcdserver: permission denied", Fate.REFUSED),
        ("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded", Fate.REFUSED),
    ],
)
def test_what_is_known_of_a_request_that_failed(code: str, details: str, fate: Fate) -> None:
    assert fate_of(code, details) is fate


@pytest.mark.parametrize(
    ("code", "details", "says"),
    [
        (
            "INVALID_ARGUMENT",
            "etcdserver: too many operations in txn request",
            "raise its --max-txn-ops, 128 by default",
        ),
        (
            "PERMISSION_DENIED",
            "etcdserver: permission denied",
            "does not let this host in .permission denied.; see its roles",
        ),
        ("INVALID_ARGUMENT", "etcdserver: user name is empty", "does not let this host in"),
        ("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded", "database is full; compact and defragment"),
        ("INVALID_ARGUMENT", "etcdserver: key is not provided", "etcd refused it .key is not provided."),
    ],
)
def test_a_refusal_says_what_to_do(code: str, details: str, says: str) -> None:
    with pytest.raises(type(refusal_of(code, details)), match=says):
        raise refusal_of(code, details)


def test_what_callers_tell_apart() -> None:
    assert isinstance(refusal_of("OUT_OF_RANGE", "etcdserver: mvcc: required revision has been compacted"), Compacted)
    assert isinstance(refusal_of("NOT_FOUND", "etcdserver: requested lease not found"), LeaseGone)


def test_without_words_the_code_is_the_reason() -> None:
    assert reason_of("DEADLINE_EXCEEDED", "") == "deadline exceeded"
    assert reason_of("UNAVAILABLE", "etcdserver: no  leader\n") == "no leader"


@pytest.mark.parametrize(
    ("why", "says"),
    [
        (
            "Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:1000007d:SSL routines:OPENSSL_internal:"
            "CERTIFICATE_VERIFY_FAILED: unable to get local issuer certificate",
            "its certificate is by nobody whom this host trusts: ca of [cluster]",
        ),
        (
            "Unwrap failed (TSI_DATA_CORRUPTED)",
            "it does not take this host's certificate, or misses one: cert and key of [cluster]",
        ),
        ("Failed to connect to remote host: connect: Connection refused (111)", None),
    ],
)
def test_why_no_member_is_reached_is_told_alike_of_all_and_in_the_words_of_the_configuration(
    why: str, says: str | None
) -> None:
    for member in ("ipv4:192.0.2.5:2379", "ipv6:%5B2001:db8::5%5D:2379"):
        details = f"failed to connect to all addresses; last error: UNKNOWN: {member}: {why}"
        assert reason_of("UNAVAILABLE", details) == (says or why)
