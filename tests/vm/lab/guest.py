"""A guest: QEMU in a network namespace, started, spoken to and ended."""

from __future__ import annotations

import itertools
import shlex
import socket
import subprocess
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from contextlib import suppress
from pathlib import Path

from vm.lab.channel import Channel, Result
from vm.lab.qemu import Machine, command
from vxagent.lab.namespaces import Namespace
from vxagent.lab.waiting import wait_until

BOOT_TIMEOUT_S = 240  # twenty times what it takes where nobody else wants the CPUs
COMMAND_TIMEOUT_S = 60
END_TIMEOUT_S = 30

_END = "if [ -d /run/systemd/system ]; then systemctl {0}; else {0} -f; fi"


class GuestError(Exception):
    """A command in a guest failed or hung, or the guest did not start; `str()` has what was said last."""


class Guest:
    """One virtual machine. Whoever starts it kills it in the end; it dies with this process, too.

    Args:
        machine: what it consists of.
        netns: QEMU runs there, so its taps are there.
        directory: an empty one with a short path, for its sockets and `console.log`.
        name: by which errors call it.

    Attributes:
        machine, netns, name: as given.
    """

    def __init__(self, machine: Machine, netns: Namespace, directory: Path, name: str = "guest") -> None:
        self.machine = machine
        self.netns = netns
        self.name = name
        self._directory = directory
        self._starts = itertools.count(1)
        self._process: subprocess.Popen[str] | None = None
        self._channel: Channel | None = None
        self._boots = 0
        self._seen = 0
        self._booted = threading.Condition()

    def start(self) -> None:
        """Start QEMU; returns at once. Call it in the main thread: the guest dies with the thread that started it.

        Raises:
            GuestError: QEMU refused.
        """
        place = self._directory / str(next(self._starts))
        place.mkdir()
        self._place = place
        self._seen = self._boots
        with place.joinpath("qemu.log").open("w") as log:
            self._process = self.netns.start(
                *("setpriv", "--pdeathsig", "KILL", *command(self.machine, place)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        connected = socket.socket(socket.AF_UNIX)
        try:
            wait_until(lambda: self._connects(connected), what=f"QEMU of {self.name} listens")
            self._channel = Channel(connected, self._on_up)
        except BaseException:
            connected.close()
            self.kill()
            raise

    def wait_up(self, within: float = BOOT_TIMEOUT_S) -> None:
        """Wait until it takes commands; after `start` or a reboot, once for each.

        Raises:
            GuestError: it did not in time, or ended.
        """
        deadline = time.monotonic() + within
        with self._booted:
            while self._boots == self._seen:
                if not self.running:
                    raise GuestError(f"{self.name} ended: {self._last_words()}")
                if time.monotonic() > deadline:
                    raise GuestError(f"{self.name} is not up after {within} s: {self._last_words()}")
                self._booted.wait(0.1)
            self._seen = self._boots

    def run(self, *words: str, check: bool = True, within: float = COMMAND_TIMEOUT_S) -> Result:
        """Run a command; see `sh`."""
        return self.sh(shlex.join(words), check=check, within=within)

    def sh(self, script: str, *, check: bool = True, within: float = COMMAND_TIMEOUT_S) -> Result:
        """Run a script in the guest's shell, as root, to its end.

        Args:
            script: lines for sh (busybox's, or dash in Debian).
            check: raise when it ends with another code than 0.
            within: seconds.

        Raises:
            GuestError: it failed and `check` is set, or it hangs.
            GuestGone: the guest ended meanwhile.
        """
        try:
            result = self.begin(script).result(within)
        except NotInTime as error:
            raise GuestError(f"{self.name}: not within {within} s: {script}\n{self._last_words()}") from error
        if check and result.code != 0:
            raise GuestError(f"{self.name}: {script} ended with {result.code}: {result.output.strip()}")
        return result

    def begin(self, script: str) -> Future[Result]:
        """Start a script beside others; the future has its result, or GuestGone."""
        if self._channel is None:
            raise GuestError(f"{self.name} is not started")
        return self._channel.begin(script)

    def write(self, path: str, text: str) -> None:
        """Put a file there; its directory exists."""
        self.sh(f"printf %s {shlex.quote(text)} >{shlex.quote(path)}")

    def reboot(self) -> None:
        """Have it restart by itself, and wait until it is up again. QEMU goes on."""
        self.begin(_END.format("reboot"))
        self.wait_up()

    def stop(self) -> None:
        """Have it power off, and wait until QEMU has ended; kill that if it does not."""
        if self._process is not None and self.running:
            self.begin(_END.format("poweroff"))
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(END_TIMEOUT_S)
        self.kill()

    def kill(self) -> None:
        """kill -9 of QEMU; nothing happens when it has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    @property
    def running(self) -> bool:
        """Whether QEMU does."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of QEMU.

        Raises:
            GuestError: it is not started.
        """
        if self._process is None:
            raise GuestError(f"{self.name} is not started")
        return self._process.pid

    @property
    def console(self) -> str:
        """What the guest's kernel and init have said since `start`."""
        log = self._place / "console.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def _connects(self, connected: socket.socket) -> bool:
        if not self.running:
            raise GuestError(f"QEMU of {self.name} ended: {self._last_words()}")
        try:
            connected.connect(str(self._place / "lab.sock"))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True

    def _on_up(self) -> None:
        with self._booted:
            self._boots += 1
            self._booted.notify_all()

    def _last_words(self) -> str:
        return f"{self._place.joinpath('qemu.log').read_text()}{self.console[-2000:]}".strip()
