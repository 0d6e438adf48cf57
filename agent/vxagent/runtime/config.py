"""The agent's own settings: vxagent.toml. None is needed for a single host."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path
from random import sample

from vxagent.core.state import DEFAULT_AGEING_S
from vxagent.core.switch import AGEING_MAX_S
from vxagent.datapath.maps import DEFAULT_SIZES
from vxagent.errors import HostError, Invalid
from vxagent.model.ids import check_name, check_range
from vxagent.model.vtep import DEFAULT_TTL, Overlay
from vxagent.protocol.requests import Request
from vxagent.protocol.shape import Shape
from vxagent.runtime.toml_text import TomlText
from vxagent.store.engine import Credentials, check_endpoints, connect
from vxagent.store.kv import Kv

DEFAULT_PATH = Path("/etc/vxagent/vxagent.toml")
LOOPBACK = "127.0.0.1"
PORT_MAX = 65535
DEFAULT_AUDIT_S, AUDIT_MAX_S = 5, 3600
FDB_ENTRIES_MAX = 1 << 24  # over a gigabyte of the kernel's memory, taken at once


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """The cluster that this host is in.

    Attributes:
        name: several clusters may share an engine.
        endpoints: of the members of etcd, as URLs.
        credentials: for TLS.
    """

    name: str
    endpoints: tuple[str, ...]
    credentials: Credentials = field(default_factory=Credentials)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the agent goes by.

    Attributes:
        host: this host's name.
        metrics_listen: address and TCP port to serve metrics at, or None.
        ageing_s: learned FDB entries not seen for longer are absent; 0: they never age.
        fdb_entries: how many the FDB has room for.
        audit_s: seconds between two looks for drift.
        group: who besides root may ask the agent, by name or number; None: group vxagent if there is one.
        overlay: this host's part in the overlay, or None.
        cluster: None: this host is alone, or its VTEPs and entries are stated.
    """

    host: str
    metrics_listen: tuple[str, int] | None = None
    ageing_s: int = DEFAULT_AGEING_S
    fdb_entries: int = DEFAULT_SIZES.fdb
    audit_s: int = DEFAULT_AUDIT_S
    group: str | None = None
    overlay: Overlay | None = None
    cluster: ClusterConfig | None = None


class _Overlay(Request):
    vtep: str
    device: str
    ttl: int = DEFAULT_TTL


class _Cluster(Request):
    name: str
    endpoints: list[str]
    ca: str | None = None
    cert: str | None = None
    key: str | None = None


class _File(Request):
    host: str | None = None
    metrics_listen: str | int | None = None
    ageing_s: int = DEFAULT_AGEING_S
    fdb_entries: int = DEFAULT_SIZES.fdb
    audit_s: int = DEFAULT_AUDIT_S
    group: str | None = None
    overlay: _Overlay | None = None
    cluster: _Cluster | None = None


_SHAPE = Shape(_File)


def connect_to(cluster: ClusterConfig) -> Kv:
    """The engine of a cluster; its members are asked in an order that is drawn anew: hosts, and what they watch, are
    shared out among them. Raises HostError: its client is not installed, or a file cannot be read."""
    return connect(sample(cluster.endpoints, len(cluster.endpoints)), cluster.credentials)


def load_config(path: Path | None = None) -> Config:
    """Read the settings.

    Args:
        path: the file; None: the default one, which need not be there.

    Raises:
        Invalid: not TOML, unknown key, wrong type or value; names file, line and key.
        HostError: the file cannot be read.
    """
    file = DEFAULT_PATH if path is None else path
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        if path is None:
            return Config(host=socket.gethostname())
        raise HostError(f"config file {file} is not there") from exc
    except OSError as exc:
        raise HostError(f"config file {file} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise HostError(f"config file {file} is not UTF-8 text") from exc
    return parse_config(text, str(file))


def waiting(old: Config, new: Config) -> list[str]:
    """What is otherwise in the new settings and has to wait for a start, as the beginnings of sentences."""
    found = [f"{name} changes" for name in ("metrics_listen", "group") if getattr(old, name) != getattr(new, name)]
    if old.cluster != new.cluster:
        found.append("[cluster] changes")
    if old.cluster is not None and old.host != new.host:
        found.append("the host's name in the cluster changes")
    return found


def parse_config(text: str, file: str) -> Config:
    """The settings in a text; `file` is what messages call it. Raises Invalid."""
    toml = TomlText(text, file)
    given = toml.shaped(_SHAPE)
    overlay = None if given.overlay is None else _overlay(toml, given.overlay)
    cluster = None if given.cluster is None else _cluster(toml, given.cluster)
    try:
        return Config(
            host=socket.gethostname() if given.host is None else check_name("host", given.host),
            metrics_listen=None if given.metrics_listen is None else _listen(str(given.metrics_listen)),
            ageing_s=check_range("ageing_s", given.ageing_s, 0, AGEING_MAX_S),
            fdb_entries=check_range("fdb_entries", given.fdb_entries, 1, FDB_ENTRIES_MAX),
            audit_s=check_range("audit_s", given.audit_s, 1, AUDIT_MAX_S),
            group=None if given.group is None else _group(given.group),
            overlay=overlay,
            cluster=cluster,
        )
    except Invalid as exc:
        raise toml.refusal((exc.field,), exc.why, exc.value) from exc


def _overlay(toml: TomlText, given: _Overlay) -> Overlay:
    try:
        return Overlay(vtep=given.vtep, device=given.device, ttl=given.ttl)
    except Invalid as exc:
        raise toml.refusal(("overlay", exc.field), exc.why, exc.value) from exc


def _cluster(toml: TomlText, given: _Cluster) -> ClusterConfig:
    if (given.cert is None) != (given.key is None):
        raise toml.refusal(("cluster", "key" if given.key is None else "cert"), "cert and key go together")
    ca, cert, key = (None if text is None else Path(text) for text in (given.ca, given.cert, given.key))
    try:
        return ClusterConfig(
            name=check_name("name", given.name),
            endpoints=check_endpoints(given.endpoints),
            credentials=Credentials(ca=ca, cert=cert, key=key),
        )
    except Invalid as exc:
        raise toml.refusal(("cluster", exc.field), exc.why, exc.value) from exc


def _group(value: str) -> str:
    if not value or any(not c.isprintable() or c in ":, " for c in value):
        raise Invalid("group", value, "must be the name or number of a group")
    return value


def _listen(value: str) -> tuple[str, int]:
    """ADDRESS:PORT, an IPv6 address in brackets; a port alone means this machine itself."""
    address, colon, port = value.rpartition(":") if ":" in value else (LOOPBACK, ":", value)
    bracketed = address.startswith("[") and address.endswith("]")
    if bracketed:
        address = address[1:-1]
    right = port.isascii() and port.isdigit() and len(port) <= len(str(PORT_MAX)) and 0 < int(port) <= PORT_MAX
    if not colon or not address or not right or (":" in address) != bracketed:
        raise Invalid("metrics_listen", value, "must be PORT or ADDRESS:PORT such as 127.0.0.1:9478 or [::1]:9478")
    return address, int(port)
