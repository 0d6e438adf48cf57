"""Which pins this process stands behind, so that one that somebody removes or replaces is found and made anew.

A pin is known by the number of its inode: to read the names of a directory shows them all in one go, and nothing has to
be opened. Whoever has a pin here holds its object open, so nothing ends with the pin while the agent lives.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

from vxagent.datapath import bpf


class Ledger:
    """Pins, by directory and name. Methods may be called from several threads at once."""

    def __init__(self) -> None:
        self._noted: dict[Path, dict[str, tuple[int, bpf.Fd]]] = {}
        self._lock = threading.Lock()

    def note(self, pin: Path, held: bpf.Fd) -> None:
        """Stand behind a pin that is there; `held` is its object, open for as long."""
        with self._lock:
            self._noted.setdefault(pin.parent, {})[pin.name] = (_inode(pin), held)

    def forget(self, pin: Path) -> None:
        """Stand behind it no more."""
        with self._lock:
            self._noted.get(pin.parent, {}).pop(pin.name, None)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._noted.clear()

    def lost(self) -> list[Path]:
        """The pins that are not there, or are not what they were."""
        with self._lock:
            noted = {directory: dict(names) for directory, names in self._noted.items()}
        lost = []
        for directory, names in noted.items():
            there = _inodes(directory)
            lost += [directory / name for name, (inode, _) in names.items() if there.get(name) != inode]
        return lost

    def mend(self, pin: Path) -> None:
        """Make a pin anew, in place of whatever has its name.

        Raises:
            BpfError: no bpffs there, or no right to.
        """
        with self._lock:
            _, held = self._noted.get(pin.parent, {}).get(pin.name, (0, None))
        if held is None:
            return
        with suppress(OSError):  # nothing, or what cannot be removed, which the pinning will say
            pin.unlink()
        bpf.pin(held.fd, pin)
        self.note(pin, held)


def _inode(pin: Path) -> int:
    """0 where nothing is: it is lost already."""
    try:
        return os.stat(pin, follow_symlinks=False).st_ino
    except OSError:
        return 0


def _inodes(directory: Path) -> dict[str, int]:
    try:
        with os.scandir(directory) as entries:
            return {entry.name: entry.inode() for entry in entries}
    except OSError:
        return {}
