"""Commands into a guest, by a virtio-serial port: the other side is `files/channel`. No network takes part."""

from __future__ import annotations

import base64
import itertools
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass

_UP = "up"


class GuestGone(Exception):
    """The guest ended, or began anew, before a command did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a command ended.

    Attributes:
        code: its exit code.
        output: what it wrote, stdout and stderr as they came.
    """

    code: int
    output: str


class Channel:
    """The host's end of a port.

    Args:
        connected: a stream socket to QEMU; the channel closes it.
        on_up: is called, in the channel's thread, each time the guest begins to listen.
    """

    def __init__(self, connected: socket.socket, on_up: Callable[[], None]) -> None:
        self._socket = connected
        self._on_up = on_up
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Future[Result]] = {}
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def begin(self, script: str) -> Future[Result]:
        """Have the guest's shell run a script beside whatever else runs there."""
        future: Future[Result] = Future()
        with self._lock:
            number = next(self._numbers)
            self._waiting[number] = future
            encoded = base64.b64encode(script.encode()).decode()
            try:
                self._socket.sendall(f"{number} {encoded}\n".encode())
            except OSError as error:
                self._waiting.pop(number)
                raise GuestGone("the guest has ended") from error
        return future

    def close(self) -> None:
        """Let go of it; commands that still run end with GuestGone here."""
        with suppress(OSError):  # QEMU has closed it
            self._socket.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._socket.close()

    def _read(self) -> None:
        with self._socket.makefile("r", encoding="ascii", errors="replace") as lines, suppress(OSError):  # QEMU is gone
            for line in lines:
                self._take(line.split())
        self._fail_all("the guest has ended")

    def _take(self, words: list[str]) -> None:
        if words == [_UP]:
            self._fail_all("the guest has started anew")
            self._on_up()
        elif len(words) in (2, 3) and words[0].isdigit():
            with self._lock:
                future = self._waiting.pop(int(words[0]), None)
            if future is not None:
                output = base64.b64decode(words[2]).decode(errors="replace") if len(words) == 3 else ""
                future.set_result(Result(code=int(words[1]), output=output))

    def _fail_all(self, why: str) -> None:
        with self._lock:
            left, self._waiting = self._waiting, {}
        for future in left.values():
            future.set_exception(GuestGone(why))
