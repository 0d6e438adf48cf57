"""Something that the agent needs is not to be had: commands are refused meanwhile, and work afterwards. Each function
does it once."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from vxagent.bench.faults.efforts import Effort
from vxagent.bench.faults.lab import MANY, SPARE, Broken, FaultLab
from vxagent.lab.namespaces import run
from vxagent.lab.waiting import PAUSE_S, wait_until

_ATTACH = ("port", "attach", SPARE, "--segment", "grey")
_ADD = ("segment", "add", "another", "--tenant", "grey")
DESCRIPTORS = ((0, _ATTACH), (1, _ATTACH), (2, _ATTACH), (0, ("reload",)), (5, ("reload",)))  # and what is asked for
LOOKS = 10  # at what a process has open
_LOCK = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


def database_locked(lab: FaultLab, _effort: Effort) -> None:
    """Another process has the state database locked for writing."""
    with _locked(lab.agent.state_dir / "vxagent.db"):
        lab.refused(*_ATTACH)
        lab.refused(*_ADD)
    lab.works()


def disk_full(lab: FaultLab, _effort: Effort) -> None:
    """The state directory's file system is full, for commands, and for a start after a kill and after `stop`."""
    lab.agent.cli("stop")  # its log is written back and gone: there is no room in it
    lab.agent.up()
    with filled(lab.agent.state_dir):
        lab.refused(*_ATTACH)
        lab.refused(*_ADD)
        lab.agent.kill()
        started = _starts(lab)
    if not started:
        lab.agent.up()
    lab.agent.cli("stop")
    with filled(lab.agent.state_dir):
        started = _starts(lab)
    if not started:
        lab.agent.up()
    lab.works()


def pins_read_only(lab: FaultLab, _effort: Effort) -> None:
    """The bpffs of the pins is remounted read-only."""
    with _read_only(lab.agent.run_dir / "bpf"):
        lab.refused(*_ATTACH)
        lab.refused("reload")
        lab.refused("port", "detach", MANY)
    lab.works()


def no_descriptors(lab: FaultLab, _effort: Effort) -> None:
    """The agent may open 0, 1, 2 or 5 files more than it has: it refuses, or has enough and works."""
    for more, words in DESCRIPTORS:
        with _descriptors(lab, more):
            done = lab.agent.cli(*words, check=False)
            if done.returncode != 0:
                lab.check_refusal(done)
            elif more == 0:
                raise Broken(f"`vxagent {' '.join(words)}` worked without a descriptor")
        if any(port["id"] == SPARE for port in lab.agent.json("port", "list")):
            lab.agent.cli("port", "detach", SPARE)
    lab.works()


def _starts(lab: FaultLab) -> bool:
    """Whether an agent starts now, and is well; otherwise it says why not in one line. Raises Broken."""
    done = lab.agent.cli(*lab.agent.up_words, check=False)
    if done.returncode == 0:
        lab.well()
        return True
    lab.check_refusal(done)
    return False


@contextmanager
def _locked(database: Path) -> Iterator[None]:
    locker = subprocess.Popen(
        [sys.executable, "-I", "-c", _LOCK, str(database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert locker.stdout is not None
        if locker.stdout.readline() != "locked\n":
            raise Broken(f"{database} cannot be locked")
        yield
    finally:
        locker.kill()
        locker.communicate()


@contextmanager
def filled(directory: Path) -> Iterator[None]:
    """No room is left on a directory's file system meanwhile."""
    file = directory / "filler"
    try:
        with file.open("wb", buffering=0) as filler, suppress(OSError):
            while filler.write(bytes(1 << 16)):
                pass
        yield
    finally:
        file.unlink(missing_ok=True)


@contextmanager
def _read_only(directory: Path) -> Iterator[None]:
    run("mount", "-o", "remount,ro", str(directory))
    try:
        yield
    finally:
        run("mount", "-o", "remount,rw", str(directory))


@contextmanager
def _descriptors(lab: FaultLab, more: int) -> Iterator[None]:
    """The agent may open that many files, and no more: others are taken by callers who say nothing."""
    pid = lab.agent.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    taken = _kept(pid)
    limit = max(max(taken) + 1, len(taken) + more)
    with ExitStack() as callers:
        callers.callback(resource.prlimit, pid, resource.RLIMIT_NOFILE, before)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, before[1]))
        for _ in range(limit - len(taken) - more):
            caller = callers.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            caller.connect(str(lab.agent.run_dir / "api.sock"))
        wait_until(lambda: len(os.listdir(f"/proc/{pid}/fd")) == limit - more, what="all callers are heard")
        yield


def _kept(pid: int) -> set[int]:
    """The descriptors of a process that it has for longer than a moment: not those of a caller who has just gone."""
    looks = []
    for _ in range(LOOKS):
        looks.append({int(fd) for fd in os.listdir(f"/proc/{pid}/fd")})
        time.sleep(PAUSE_S)
    return set.intersection(*looks)
