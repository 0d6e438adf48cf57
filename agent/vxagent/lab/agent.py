"""An agent of one's own, driven through its command line."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from vxagent.lab.namespaces import CommandFailed, Namespace, run
from vxagent.lab.waiting import wait_until

VXAGENT = str(Path(sys.prefix, "bin", "vxagent"))

_UCRED = struct.Struct("3i")  # <linux/socket.h>: pid, uid, gid


class Agent:
    """An agent with its own run dir and state dir, for the switch in one namespace.

    Args:
        directory: an empty one; run dir, state dir and config go below it.
        netns: the switch's namespace.
        config: text of its vxagent.toml.

    Attributes:
        run_dir, state_dir, config_file: their paths.
        build: the directory of another build's package `vxagent`, to run from now on; None: this one.
    """

    def __init__(self, directory: Path, netns: Namespace, *, config: str = "") -> None:
        self.netns = netns
        self.build: Path | None = None
        self.run_dir = directory / "run"
        self.state_dir = directory / "state"
        self.config_file = directory / "vxagent.toml"
        self.config_file.write_text(config)

    def up(self) -> None:
        """Start it; it forwards when this returns.

        Raises:
            CommandFailed: it did not; says what its log says.
        """
        try:
            self.cli(*self.up_words)
        except CommandFailed as exc:
            raise CommandFailed(exc.command, exc.code, f"{exc.output}{self.log()}") from exc

    @property
    def up_words(self) -> tuple[str, ...]:
        """Of the command line that starts it."""
        return (
            *("up", "--detach", "--netns", self.netns.name),
            *("--state-dir", str(self.state_dir), "--config", str(self.config_file)),
        )

    def log(self) -> str:
        """What it has logged so far."""
        try:
            return (self.run_dir / "agent.log").read_text()
        except FileNotFoundError:
            return ""

    def cli(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `vxagent --run-dir … words`.

        Raises:
            CommandFailed: it ended with another code than 0, and `check` is set.
        """
        environment = None if self.build is None else {"PYTHONPATH": str(self.build)}
        return run(*self.command(*words), check=check, environment=environment)

    def command(self, *words: str) -> list[str]:
        """The command line that `cli` runs."""
        return [VXAGENT, "--run-dir", str(self.run_dir), *words]

    def json(self, *words: str) -> Any:
        """What a reading command prints with --json.

        Raises:
            CommandFailed: it ended with another code than 0.
        """
        return json.loads(self.cli(*words, "--json").stdout)

    def drops(self, port: str | None = None) -> dict[str, int]:
        """Reason → packets, of one port (id) or, without, of those that no port accounts for."""
        found: Counter[str] = Counter()
        for row in self.json("drops"):
            if row["port"] == port:
                found[row["reason"]] += row["packets"]  # a row for each segment
        return dict(found)

    @property
    def pid(self) -> int:
        """Of the agent: of whoever listens in its run dir.

        Raises:
            OSError: nobody does.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(str(self.run_dir / "api.sock"))
            return int(_UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[0])

    def kill(self) -> None:
        """kill -9; returns when the process is gone."""
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not running(pid), what=f"end of process {pid}")

    def end(self) -> None:
        """Take the switch away with `down`, or kill the agent. What it mounted goes with its directory."""
        pid = None
        with suppress(OSError):
            pid = self.pid
        with suppress(CommandFailed, subprocess.TimeoutExpired):
            self.cli("down")
        if pid is not None and running(pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def running(pid: int) -> bool:
    """Whether a process does (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
