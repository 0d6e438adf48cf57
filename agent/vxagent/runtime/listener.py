"""A socket that people can reach even when the process may open no more files: they hear why it refuses."""

from __future__ import annotations

import errno
import os
import select
import socket
import time

RESERVE = 2
PAUSE_S = 0.01

_EXHAUSTED = (errno.EMFILE, errno.ENFILE)


class Listener(socket.socket):
    """Listens, and keeps descriptors in reserve, to be given up for callers when there are no others.

    Without them a caller would wait for an answer that never comes, and asyncio, which tries to accept as often as its
    backlog is long, would write as many traces into the log each second.
    """

    def __init__(self, family: socket.AddressFamily, kind: socket.SocketKind) -> None:
        super().__init__(family, kind)
        self._reserve: list[int] = []
        self._refill()

    def accept(self) -> tuple[socket.socket, object]:
        """As `socket.socket.accept`.

        Raises:
            BlockingIOError: nobody calls, or no descriptor is left: the caller is kept waiting until one is.
            OSError: as there.
        """
        self._refill()
        try:
            return super().accept()
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
        waiting = select.poll()
        waiting.register(self, select.POLLIN)
        if not waiting.poll(0):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        if not self._reserve:
            time.sleep(PAUSE_S)  # the loop would spin: whoever waits keeps the socket readable
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        os.close(self._reserve.pop())
        return super().accept()

    def close(self) -> None:
        """Close it, and what it kept."""
        while self._reserve:
            os.close(self._reserve.pop())
        super().close()

    def _refill(self) -> None:
        """Take what is there again."""
        while len(self._reserve) < RESERVE:
            try:
                self._reserve.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
            except OSError:
                return
