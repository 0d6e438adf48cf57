"""Talks to the agent in a run dir: HTTP and JSON over its unix socket, with the standard library alone."""

from __future__ import annotations

import grp
import json
import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from vxagent.errors import HostError, NoAgent, VxagentError

Object = dict[str, Any]

SOCKET = "api.sock"
READ_TIMEOUT_S = 30.0
CHANGE_TIMEOUT_S = 600.0  # thousands of ports, a first compilation
END_TIMEOUT_S = 60.0  # for the agent's process to end once it said that it will
CHUNK = 1 << 16

_UCRED = struct.Struct("3i")  # <linux/socket.h>: pid, uid, gid
_PATH_MAX = 107  # <linux/un.h>: sun_path without its closing NUL


class AgentSaysNo(VxagentError):
    """The agent refused or failed; `str()` is its sentence."""

    def __init__(self, message: str, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(message)


class Client:
    """One agent, named by its run dir. Every call opens a connection of its own.

    Raises (all methods):
        NoAgent: nobody answers there.
        AgentSaysNo: the agent refused or failed.
        HostError: the connection broke, or may not be made.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    def get(self, *path: str, **query: str | None) -> Any:
        """What stands at a path; query arguments that are None are left out."""
        with self._exchange("GET", _target(path, query)) as response:
            return json.loads(response.read())

    def change(self, method: str, *path: str, body: Object | None = None) -> Any:
        """Ask for a change and wait until it is made."""
        with self._exchange(method, _target(path, {}), body) as response:
            return json.loads(response.read())

    def raw(self, *path: str, **query: str | None) -> Iterator[bytes]:
        """The bytes at a path, as they come."""
        with self._exchange("GET", _target(path, query)) as response:
            while chunk := response.read1(CHUNK):
                yield chunk

    def rows(self, *path: str, **query: str | None) -> Iterator[list[Object]]:
        """A list at a path, in batches as they come; the agent writes one object a line."""
        rest = b""
        for chunk in self.raw(*path, **query):
            whole, newline, rest = (rest + chunk).rpartition(b"\n")
            if newline:
                yield _objects(whole)
        if rest:
            yield _objects(rest)

    def end(self, how: str) -> None:
        """Ask the agent to end, by `stop` or `down`, and wait until its process is gone.

        Raises:
            HostError: it does not end.
        """
        agent = self._process()
        try:
            self.change("POST", "v1", how)
            if agent is not None and not select.select([agent], [], [], END_TIMEOUT_S)[0]:
                raise HostError(f"the agent in {self.run_dir} has not ended after {END_TIMEOUT_S:.0f} s", "see its log")
        finally:
            if agent is not None:
                os.close(agent)

    def _process(self) -> int | None:
        """A descriptor that becomes readable when the agent's process ends; None where there is none to be had."""
        with self._connected(READ_TIMEOUT_S) as connection:
            peer = connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        with suppress(OSError):
            return os.pidfd_open(_UCRED.unpack(peer)[0])
        return None

    @contextmanager
    def _exchange(self, method: str, target: str, body: Object | None = None) -> Iterator[HTTPResponse]:
        timeout = READ_TIMEOUT_S if method == "GET" else CHANGE_TIMEOUT_S
        with self._connected(timeout) as connection:
            try:
                response = _ask(connection, method, target, body)
                if response.status >= 400:
                    raise _refusal(response)
                yield response
            except TimeoutError as exc:
                raise NoAgent(f"the agent in {self.run_dir} has not answered for {timeout:.0f} s") from exc
            except (OSError, HTTPException, ValueError) as exc:
                raise HostError(
                    f"the connection to the agent in {self.run_dir} broke ({_why(exc)})",
                    "it may have ended; see its log",
                ) from exc

    @contextmanager
    def _connected(self, timeout: float) -> Iterator[HTTPConnection]:
        connection = _UnixConnection(self.run_dir, timeout)
        try:
            connection.connect()
        except PermissionError as exc:
            raise _not_allowed(self.run_dir) from exc
        except OSError as exc:
            raise NoAgent(f"no agent answers in {self.run_dir}", "start one with `vxagent up`") from exc
        try:
            yield connection
        finally:
            connection.close()


def _not_allowed(run_dir: Path) -> HostError:
    """Says whose the socket is, where that is to be seen."""
    try:
        gid = (run_dir / SOCKET).stat().st_gid
    except OSError:
        return HostError(f"the agent in {run_dir} cannot be asked: permission denied", "use sudo")
    try:
        group = grp.getgrgid(gid).gr_name
    except KeyError:
        group = str(gid)
    what = f"the agent in {run_dir} cannot be asked: you are not in group {group}"
    join = "" if gid == 0 else f", or join the group (`sudo usermod -aG {group} $USER`) and log in anew"
    return HostError(what, f"use sudo{join}")


class _UnixConnection(HTTPConnection):
    def __init__(self, run_dir: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._run_dir = run_dir

    def connect(self) -> None:
        """Connect; a run dir whose name is too long for a socket address is reached by a descriptor."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(self.timeout)
        try:
            path = self._run_dir / SOCKET
            if len(os.fsencode(path)) <= _PATH_MAX:
                sock.connect(os.fspath(path))
            else:
                directory = os.open(self._run_dir, os.O_PATH | os.O_DIRECTORY)
                try:
                    sock.connect(f"/proc/self/fd/{directory}/{SOCKET}")
                finally:
                    os.close(directory)
        except BaseException:
            sock.close()
            raise
        self.sock = sock


def _ask(connection: HTTPConnection, method: str, target: str, body: Object | None) -> HTTPResponse:
    try:
        content = None if body is None else json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError as exc:
        raise AgentSaysNo(f"{exc.object!a} is not UTF-8 text", 1) from exc
    with suppress(BrokenPipeError, ConnectionResetError):  # refused before all of it was sent; the answer says why
        connection.request(method, target, body=content, headers={"Content-Type": "application/json"})
    return connection.getresponse()


def _refusal(response: HTTPResponse) -> VxagentError:
    content = response.read()
    try:
        error = json.loads(content)["error"]
        return AgentSaysNo(error["message"], error["exit_code"])
    except (ValueError, KeyError, TypeError):
        return AgentSaysNo(f"the agent answered {response.status} {response.reason}", 1)


def _target(path: tuple[str, ...], query: dict[str, str | None]) -> str:
    target = "/" + "/".join(quote(os.fsencode(step), safe="") for step in path)
    given = {name: value for name, value in query.items() if value is not None}
    return f"{target}?{urlencode(given)}" if given else target


def _objects(lines: bytes) -> list[Object]:
    """The objects on these lines; brackets that open and close the list stand on lines of their own."""
    inner = lines.strip(b"[],\n")
    found: list[Object] = json.loads(b"[" + inner + b"]")
    return found


def _why(exc: Exception) -> str:
    return (exc.strerror if isinstance(exc, OSError) else None) or str(exc) or type(exc).__name__
