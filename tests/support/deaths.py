"""Agents that die on demand."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, flock
from pathlib import Path

from support.lan import Lan
from support.picture import Picture, differences, picture
from vxagent.errors import VxagentError
from vxagent.lab.agent import running
from vxagent.lab.namespaces import CommandFailed
from vxagent.lab.waiting import wait_until
from vxagent.steps import DIE_AFTER

_MANY = 1_000_000


class Deaths:
    """Counts the steps of agents, and kills them in the middle of what they do.

    Args:
        file: where agents that were started with `DIE_AFTER` in their environment look.
    """

    def __init__(self, lan: Lan, file: Path) -> None:
        self._lan = lan
        self._file = file

    def steps_of(self, do: Callable[[], object]) -> int:
        """Do something; return how many steps it took."""
        self._file.write_text(str(_MANY))
        try:
            do()
        finally:
            left = steps_left(self._file, remove=True)
        return _MANY - left

    def die(self, do: Callable[[], object], after: int) -> bool:
        """Begin something whose agent dies after that many steps, and start the next one; False if it had been done
        before it came to that."""
        pid = self._pid()
        self._file.write_text(str(after))
        with suppress(VxagentError, CommandFailed):
            do()
        died = steps_left(self._file, remove=True) <= 0
        if died and pid is not None:
            wait_until(lambda: not running(pid), what="the agent is dead")
        return died

    def _pid(self) -> int | None:
        try:
            return int(self._lan.client.get("v1", "status")["pid"])
        except VxagentError:
            return None


def steps_left(file: Path, *, remove: bool = False) -> int:
    """After how many steps whoever looks at this file dies; 0: he has. Who is not told to any more lives on."""
    with file.open() as handle:
        flock(handle, LOCK_EX)
        left = int(handle.read())
        if remove:
            file.unlink()
    return left


@contextmanager
def deadly(lan: Lan, file: Path) -> Iterator[Deaths]:
    """Agents that are started from now on can be killed. `file` does not exist."""
    os.environ[DIE_AFTER] = str(file)
    try:
        yield Deaths(lan, file)
    finally:
        del os.environ[DIE_AFTER]


def assert_like(lan: Lan, wanted: Picture, when: str) -> None:
    """Wait until everything is as in the picture; what the kernel does later (netlink, RCU) may still be on its way.

    Raises:
        AssertionError: it does not become so; says what differs.
    """
    found: list[str] = []

    def alike() -> bool:
        found[:] = differences(picture(lan), wanted)
        return not found

    with suppress(TimeoutError):
        wait_until(alike, within=5)
    assert not found, "\n".join([when, *found])
