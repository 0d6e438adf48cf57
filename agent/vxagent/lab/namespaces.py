"""Network namespaces, entered by a thread for as long as it takes to open a socket or start a process.

A socket stays in the namespace in which it was opened, a process in the one in which it was started.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vxagent.lab.signals import Stopped, undisturbed
from vxagent.lab.waiting import wait_until

CLONE_NEWNET = 0x40000000  # <linux/sched.h>
SIOCGIFFLAGS = 0x8913  # <linux/sockios.h>
IFF_RUNNING = 0x40  # <linux/if.h>
DIRECTORY = Path("/run/netns")  # where `ip netns` keeps them
COMMAND_TIMEOUT_S = 60

_libc = ctypes.CDLL(None, use_errno=True)


def _setns(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class CommandFailed(Exception):
    """A command ended with another code than 0; `str()` is what it said.

    Attributes:
        command, code, output: its words, its exit code, what it wrote.
    """

    def __init__(self, command: Iterable[str], code: int, output: str) -> None:
        self.command = tuple(command)
        self.code = code
        self.output = output
        super().__init__(f"{' '.join(self.command)} ended with {code}: {output.strip()}")


class Namespace:
    """A network namespace with a name under /run/netns.

    Attributes:
        name, path: as `ip netns` knows it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = DIRECTORY / name

    def __repr__(self) -> str:
        return f"Namespace({self.name!r})"

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Put the calling thread, and it alone, into the namespace."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            there = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                _setns(there)
            finally:
                os.close(there)
            yield
        finally:
            with undisturbed():  # a thread that stays there would be one of the processes that `delete` kills
                _setns(before)
                os.close(before)

    def run(self, *command: str, check: bool = True, feed: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command to its end.

        Args:
            command: the words of it.
            check: raise when it fails.
            feed: text for its standard input.

        Raises:
            CommandFailed: it did, and `check` is set.
        """
        with self.entered():
            return run(*command, check=check, feed=feed)

    def start(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command in a session of its own, so that Ctrl-C reaches it only through us.

        Args:
            command: the words of it.
            options: of subprocess.Popen.
        """
        with self.entered():
            return _start(command, text=True, **options)

    def ip(self, *words: str) -> str:
        """Run `ip words`; return what it printed.

        Raises:
            CommandFailed: it refused.
        """
        return self.run("ip", *words).stdout

    def ip_batch(self, lines: Iterable[str]) -> None:
        """Run many `ip` commands in one process.

        Raises:
            CommandFailed: one was refused; those after it did not run.
        """
        self.run("ip", "-batch", "-", feed="\n".join(lines) + "\n")

    def sysctl(self, key: str, value: str | int) -> None:
        """Set net/… below /proc/sys for this namespace."""
        with self.entered():
            Path("/proc/sys", key).write_text(str(value))

    def devices(self) -> set[str]:
        """The names of its devices."""
        return {line.split(":")[1].split("@")[0].strip() for line in self.ip("-o", "link").splitlines()}

    def wait_running(self, ifname: str) -> None:
        """Wait until a device that is up takes frames: after its carrier comes it loses them for some milliseconds.

        Raises:
            OSError: there is no such device.
            TimeoutError: the other end is not up.
        """
        with self.entered():
            probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with probe:
            request = struct.pack("16s24x", ifname.encode())
            wait_until(
                lambda: struct.unpack_from("H", fcntl.ioctl(probe, SIOCGIFFLAGS, request), 16)[0] & IFF_RUNNING,
                what=f"{ifname} runs",
            )

    def create(self, *, ipv6: bool = False) -> None:
        """Make it, with lo up. Without `ipv6` devices are silent until somebody sends."""
        run("ip", "netns", "add", self.name)
        if not ipv6:
            self.sysctl("net/ipv6/conf/default/disable_ipv6", 1)
            self.sysctl("net/ipv6/conf/all/disable_ipv6", 1)
        self.ip("link", "set", "lo", "up")

    def processes(self) -> list[int]:
        """The pids of those whose main thread is in it, but for this one, which a signal may have caught there."""
        there = self.path.stat()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has just ended
                where = Path(process, "ns/net").stat()
                if (where.st_dev, where.st_ino) == (there.st_dev, there.st_ino):
                    found.append(int(process.name))
        return [pid for pid in found if pid != os.getpid()]

    def delete(self) -> None:
        """Kill what still runs in it and remove it; it may be gone already."""
        if not self.path.exists():
            return
        if found := self.processes():
            for pid in found:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with suppress(TimeoutError):
                wait_until(lambda: not self.processes())
        run("ip", "netns", "delete", self.name, check=False)


def run(
    *command: str, check: bool = True, feed: str | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command where the calling thread is, out of reach of Ctrl-C; see `Namespace.run`.

    `environment`: is added to that of this process.
    """
    stdin = subprocess.DEVNULL if feed is None else subprocess.PIPE
    pipe = subprocess.PIPE
    env = {**os.environ, **(environment or {})}
    with _start(command, stdin=stdin, stdout=pipe, stderr=pipe, text=True, env=env) as process:
        try:
            said, errors = process.communicate(feed, COMMAND_TIMEOUT_S)
        except BaseException:
            process.kill()
            raise
    if check and process.returncode != 0:
        raise CommandFailed(command, process.returncode, errors or said)
    return subprocess.CompletedProcess(command, process.returncode, said, errors)


def _start(command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    """A process in a session of its own. A signal waits: one that comes between fork and exec would leave a process
    that nobody knows, and that makes a namespace, say, after all has been cleaned up."""
    process: subprocess.Popen[str] | None = None
    try:
        with undisturbed():
            process = subprocess.Popen(command, start_new_session=True, **options)
    except Stopped:
        if process is not None:
            process.kill()
            process.communicate()
        raise
    return process
