"""Who asks: the process at the other end of the API's socket, and whether it may.

The socket's mode (0660) and group decide who can connect at all; `may_ask` decides once more, by what the kernel says
of the process that connected (SO_PEERCRED and SO_PEERGROUPS), should the mode be another one than it was made with.
"""

from __future__ import annotations

import asyncio
import errno
import grp
import os
import pwd
import socket
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from starlette.requests import Request
from uvicorn.protocols.http.h11_impl import H11Protocol

from vxagent.errors import HostError

DEFAULT_GROUP = "vxagent"

_UCRED = struct.Struct("3i")  # <linux/socket.h>: pid, uid, gid
_SO_PEERGROUPS = 59  # <asm-generic/socket.h>
_GROUPS_BYTES = 1024  # as much as getsockopt gives in Python: 256 groups
_ROOT = 0

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A process, as it was when it connected.

    Attributes:
        pid, uid, gid: its own.
        groups: its supplementary groups; None: more than fit.
    """

    pid: int
    uid: int
    gid: int
    groups: frozenset[int] | None = frozenset()


def read_peer(connection: socket.socket) -> Peer:
    """The process at the other end of a unix socket.

    Raises:
        OSError: it is no such socket.
    """
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        return Peer(pid=pid, uid=uid, gid=gid, groups=None)
    return Peer(pid=pid, uid=uid, gid=gid, groups=frozenset(struct.unpack(f"={len(raw) // 4}I", raw)))


def may_ask(peer: Peer, *, uid: int, gid: int) -> bool:
    """Root may, the agent's own user `uid`, and members of the socket's group `gid`; where the groups did not fit, the
    socket's mode has decided alone."""
    return peer.uid in (_ROOT, uid) or peer.gid == gid or peer.groups is None or gid in peer.groups


def who(peer: Peer | None) -> str:
    """The process for the log, such as ``alice (uid 1000, vxagent[4711])``. Blocks where user names do."""
    if peer is None:
        return "?"
    return f"{_user(peer.uid)} (uid {peer.uid}, {_command(peer.pid)}[{peer.pid}])"


def peer_of(request: Request) -> Peer | None:
    """Who sent a request; None where it came by no unix socket."""
    found = request.scope.get("state", {}).get("peer")
    return found if isinstance(found, Peer) else None


class PeerProtocol(H11Protocol):
    """HTTP on a unix socket: each request's scope has its sender as state["peer"]."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as H11Protocol's
        """A connection begins."""
        super().connection_made(transport)
        peer = read_peer(transport.get_extra_info("socket"))
        app: App = self.app

        async def with_peer(scope: Scope, receive: Any, send: Any) -> None:
            scope["state"]["peer"] = peer
            await app(scope, receive, send)

        self.app = with_peer


def socket_group(configured: str | None) -> int:
    """The group of the API's socket.

    Args:
        configured: its name or number in vxagent.toml; None: vxagent where there is such a group and the agent may give
            things to it, else the agent's own.

    Raises:
        HostError: there is no such group, or the agent's user is not in it.
    """
    own = os.getegid()
    name = DEFAULT_GROUP if configured is None else configured
    try:
        gid = int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError:
        if configured is None:
            return own
        raise HostError(
            f"there is no group {name}", f"`groupadd --system {name}`, or change group in the config"
        ) from None
    if os.geteuid() == _ROOT or gid == own or gid in os.getgroups():
        return gid
    if configured is None:
        return own
    raise HostError(f"the agent's user is not in group {name}", "add it, or change group in the config")


def group_name(gid: int) -> str:
    """The name of a group, its number where it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


@lru_cache(maxsize=256)
def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return "?"


def _command(pid: int) -> str:
    """The name of a process, which it may have chosen itself; "?" where it has ended or is not to be seen."""
    try:
        name = Path(f"/proc/{pid}/comm").read_text(errors="replace").rstrip("\n")
    except OSError:
        return "?"
    return "".join(c if c.isprintable() else "?" for c in name)
