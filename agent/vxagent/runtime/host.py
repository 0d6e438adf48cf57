"""What the process needs of the machine before it is an agent: rights, its namespace, sockets, a service manager."""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import struct
import time
from pathlib import Path

from vxagent.datapath.bpf import check_kernel, missing_capabilities
from vxagent.errors import HostError, Refused
from vxagent.runtime.listener import Listener
from vxagent.runtime.rundir import Started

NETNS_DIR = Path("/run/netns")  # where `ip netns` keeps them
_CLONE_NEWNET = 0x40000000  # <linux/sched.h>
_SUN_PATH = 107  # <linux/un.h>: bytes of a socket's path, without the closing NUL
_BACKLOG = 128
_SOCKET_MODE = 0o660
_MANAGER_WAIT_S = 1.0  # for a service manager that has not read what it was told before; the event loop waits along
_CAP_SYS_ADMIN = 21  # <linux/capability.h>
_CAP_VERSION_3 = 0x20080522
_CAP_HEADER = struct.Struct("=Ii")  # version, pid; 0 is the calling thread
_CAP_SETS = struct.Struct("=6I")  # effective, permitted, inheritable of capabilities 0 to 31, then of the others
_M_ARENA_MAX = -8  # <malloc.h>

_libc = ctypes.CDLL(None, use_errno=True)


def save_memory() -> None:
    """Have all threads allocate from one arena: they take turns anyway, and each further arena keeps what was freed
    in it (some 3 MB with 1,000 ports). Before the first thread starts; a libc without mallopt has no arenas."""
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_ARENA_MAX, 1)


def allow_descriptors() -> None:
    """Have as many descriptors as this process may: the agent holds the link of every port open."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def check_host() -> None:
    """Refuse a kernel that is too old and a process that may not.

    Raises:
        HostError: names the kernel, or the capabilities that are missing.
    """
    check_kernel()
    missing = missing_capabilities()
    if missing:
        raise HostError(f"this process lacks {', '.join(missing)}", "run as root, or give it these capabilities")


def netns_path(name: str) -> Path:
    """The file of a network namespace given by name or path."""
    return Path(name).absolute() if "/" in name else NETNS_DIR / name


def netns_id() -> str:
    """Which network namespace this thread is in; the same text means the same one."""
    return str(Path("/proc/thread-self/ns/net").readlink())


def enter_netns(path: Path) -> None:
    """Put this process into a network namespace; it has one thread yet. Who is not root gives away CAP_SYS_ADMIN, which
    nothing else needs.

    Raises:
        HostError: there is none at `path`, or no right to.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"no network namespace at {path}: {error.strerror}", "see `ip netns list`") from error
    try:
        if _libc.setns(fd, _CLONE_NEWNET) < 0:
            number = ctypes.get_errno()
            mend = "entering one takes CAP_SYS_ADMIN" if number == 1 else "it must be a network namespace"
            raise HostError(f"cannot enter {path}: {os.strerror(number)}", mend)
    finally:
        os.close(fd)
    if os.geteuid() != 0:
        give_away(_CAP_SYS_ADMIN)


def give_away(capability: int) -> None:
    """Take a capability from this process, which has one thread yet, for good; one that it has not is none.

    Raises:
        HostError: the kernel refuses.
    """
    header = ctypes.create_string_buffer(_CAP_HEADER.pack(_CAP_VERSION_3, 0), _CAP_HEADER.size)
    sets = ctypes.create_string_buffer(_CAP_SETS.size)
    done = _libc.capget(header, sets)
    if done == 0:
        keep = ~(1 << capability % 32) & 0xFFFFFFFF
        words = enumerate(_CAP_SETS.unpack(sets.raw))
        sets.raw = _CAP_SETS.pack(*(word & keep if at // 3 == capability // 32 else word for at, word in words))
        done = _libc.capset(header, sets)
    if done < 0:
        raise HostError(f"cannot give away capability {capability}: {os.strerror(ctypes.get_errno())}")


def check_same_netns(started: Started | None) -> None:
    """Refuse to start where the switch of this run dir is in another network namespace that still is: the
    numbers of its devices mean nothing here.

    Raises:
        Refused: says how to take it away.
    """
    if started is not None and started.netns_id != netns_id() and _is_there(started):
        where = f"network namespace {started.netns}" if started.netns else "another network namespace"
        raise Refused(f"the switch of this run dir is in {where}", "take it off first with `vxagent down`")


def go_back(started: Started | None) -> bool:
    """Enter the network namespace in which the agent was; False when it is gone, and its devices with it.

    Raises:
        Refused: it was the caller's of that time, and this is another.
    """
    if started is None or started.netns_id == netns_id():
        return True
    if started.netns is None:
        raise Refused("the agent ran in another network namespace than this one", "run `vxagent down` there")
    if not _is_there(started):
        return False
    enter_netns(Path(started.netns))
    return True


def _is_there(started: Started) -> bool:
    """The namespace of that agent still is. One without a path is taken to be."""
    if started.netns is None:
        return True
    try:
        return f"net:[{os.stat(started.netns).st_ino}]" == started.netns_id
    except OSError:
        return False


def listen_unix(path: Path, gid: int | None = None) -> socket.socket:
    """A listening socket at `path`, for its owner and a group (None: its own), in place of what a dead agent left.

    Raises:
        HostError: it cannot be made.
    """
    listener = Listener(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        path.unlink(missing_ok=True)
        _bind_unix(listener, path)
        if gid is not None and gid != path.stat().st_gid:
            os.chown(path, -1, gid)
        path.chmod(_SOCKET_MODE)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise HostError(f"cannot listen at {path}: {error.strerror or error}") from error
    finally:
        os.umask(before)
    return listener


def _bind_unix(listener: socket.socket, path: Path) -> None:
    """Bind; a path too long for a socket's address is reached by a descriptor of its directory."""
    if len(os.fsencode(path)) <= _SUN_PATH:
        listener.bind(os.fspath(path))
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)


def listen_tcp(address: str, port: int) -> socket.socket:
    """A listening socket for the metrics.

    Raises:
        HostError: the address is not this machine's, or the port is taken.
    """
    try:
        return socket.create_server((address, port), family=_family(address), backlog=_BACKLOG)
    except OSError as error:
        what = f"cannot listen at {address} port {port} for metrics: {os.strerror(error.errno or 0)}"
        raise HostError(what, "change metrics_listen in the config") from error


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def tell_manager(message: str) -> None:
    """Tell systemd, or whoever set $NOTIFY_SOCKET, how the service is (sd_notify(3)); nobody listens: nothing to do."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]  # in the abstract namespace, unix(7)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
        manager.settimeout(_MANAGER_WAIT_S)
        try:
            manager.sendto(message.encode(), address)
        except OSError:
            return


def tell_reloading() -> None:
    """Tell it that the service reloads, until READY=1; systemd wants to know since when, to tell answers apart."""
    tell_manager(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
