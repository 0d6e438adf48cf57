"""One member of etcd in a namespace: the engine that hosts of a lab share."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

from vxagent.lab.namespaces import Namespace
from vxagent.lab.waiting import wait_until

PORT = 2379
START_S = 20.0
ANSWER_S = 10.0


def binary() -> Path:
    """Of etcd, where `make setup` unpacks it."""
    return Path(sys.prefix, "etcd/usr/bin/etcd")


def environment() -> dict[str, str]:
    """In which it starts, also where its makers have not tried it."""
    return {**os.environ, "ETCD_UNSUPPORTED_ARCH": {"aarch64": "arm64"}.get(platform.machine(), "")}


class Etcd:
    """A cluster of one member. It ends with the thread that starts it, whatever becomes of that.

    Args:
        directory: an empty one, for its data and log.
        namespace, address: where it listens.

    Attributes:
        url: for clients.
    """

    def __init__(self, directory: Path, namespace: Namespace, address: str) -> None:
        self.url = f"http://{address}:{PORT}"
        self._directory = directory
        self._namespace = namespace
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, on what data it has; it serves when this returns.

        Raises:
            TimeoutError: it does not.
        """
        peer = f"http://127.0.0.1:{PORT + 1}"
        options = {
            "data-dir": self._directory / "data",
            "listen-client-urls": self.url,
            "advertise-client-urls": self.url,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
        }
        words = [f"--{name}={value}" for name, value in options.items()]
        with (self._directory / "log").open("ab") as log:
            self._process = self._namespace.start(
                *("setpriv", "--pdeathsig", "KILL", str(binary()), *words),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
            )
        wait_until(self.serves, within=START_S, what="etcd serves")

    def serves(self) -> bool:
        """Whether it answers and there is a leader."""
        with (
            suppress(OSError, ValueError),
            self._namespace.entered(),
            urllib.request.urlopen(f"{self.url}/health", timeout=0.5) as answer,
        ):
            return bool(json.load(answer)["health"] == "true")
        return False

    def ask(self, path: str, **question: Any) -> Any:
        """Ask its JSON gateway; keys and values are base64. Raises OSError: it does not answer."""
        request = urllib.request.Request(f"{self.url}/v3/{path}", json.dumps(question).encode())
        with self._namespace.entered(), urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
            return json.load(answer)

    @property
    def pid(self) -> int:
        """Of its process, while it runs."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """As by a power cut: its connections are reset. Again is no failure."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def hang(self) -> None:
        """It stands still; its connections stay."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """After `hang`."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
