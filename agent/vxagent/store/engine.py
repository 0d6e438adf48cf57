"""The way to the engine of many hosts. Nothing of its client is imported before it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from vxagent.errors import HostError, Invalid
from vxagent.store.kv import Kv

PATIENCE_S = 4.0  # a leader is elected in 1 to 2 s
ATTEMPT_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What TLS needs, as files in PEM.

    Attributes:
        ca: who signs the members' certificates; None: those whom this machine trusts.
        cert, key: this host's own certificate; None: it has none.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


def check_endpoints(endpoints: Sequence[str]) -> tuple[str, ...]:
    """Return them if each is http://HOST:PORT or https://HOST:PORT, all of one kind.

    Raises:
        Invalid: one is not.
    """
    if not endpoints:
        raise Invalid("endpoints", None, "name at least one member of etcd")
    for endpoint in endpoints:
        try:
            url = urlsplit(endpoint)
            right = url.scheme in {"http", "https"} and url.hostname and url.port
        except ValueError:
            right = False
        if not right or endpoint.rstrip("/") != f"{url.scheme}://{url.netloc}" or "@" in url.netloc:
            raise Invalid("endpoints", endpoint, "must be http://HOST:PORT or https://HOST:PORT")
    if len({urlsplit(endpoint).scheme for endpoint in endpoints}) > 1:
        raise Invalid("endpoints", ", ".join(endpoints), "all are http, or all are https")
    return tuple(endpoint.rstrip("/") for endpoint in endpoints)


def connect(
    endpoints: Sequence[str],
    credentials: Credentials | None = None,
    *,
    patience_s: float = PATIENCE_S,
    attempt_s: float = ATTEMPT_S,
) -> Kv:
    """The engine whose members are at these endpoints. It does not wait for one; call it in the event loop.

    Args:
        patience_s: for how long a call looks for a member that does it.
        attempt_s: how long one member has to take a connection, and to answer.

    Raises:
        Invalid: an endpoint is none.
        HostError: its client is not installed, or a file of the credentials cannot be read.
    """
    members = check_endpoints(endpoints)
    try:
        from vxagent.store.etcd import EtcdKv  # noqa: PLC0415  # an extra, which a single host does not have
    except ImportError as error:
        raise HostError(
            f"the client of etcd is not installed ({error})", "install it: pip install 'vxagent[cluster]'"
        ) from error
    return EtcdKv(members, credentials or Credentials(), patience_s, attempt_s)
