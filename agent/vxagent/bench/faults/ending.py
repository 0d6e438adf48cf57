"""The agent ends, or hangs: by a signal, by command, for another build, for lack of memory. Each does it once."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vxagent.bench.faults.efforts import Effort
from vxagent.bench.faults.lab import Broken, FaultLab, NotHere
from vxagent.lab.agent import running
from vxagent.lab.waiting import wait_until

MEMORY_BYTES = 1 << 20  # more than this the agent may not take from now on
HUGE_PORTS = 30_000  # in a document that takes more


def nothing(_lab: FaultLab, effort: Effort) -> None:
    """The control: what the streams lose by themselves."""
    time.sleep(min(effort.away_s, 10))


def kill_and_up(lab: FaultLab, _effort: Effort) -> None:
    """SIGKILL, `up`."""
    lab.agent.kill()
    lab.agent.up()


def hang(lab: FaultLab, effort: Effort) -> None:
    """SIGSTOP, some time, SIGCONT; a command afterwards."""
    pid = lab.agent.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(effort.away_s)
    finally:
        os.kill(pid, signal.SIGCONT)
    lab.works()


def stop_and_up(lab: FaultLab, effort: Effort) -> None:
    """`stop`, some time without an agent, `up`."""
    lab.agent.cli("stop")
    time.sleep(effort.away_s)
    lab.agent.up()


def other_build(lab: FaultLab, _effort: Effort) -> None:
    """`stop`, `up` by another build, `stop`, `up` by this one: each takes programs and tables over from the other."""
    if lab.other is None:
        raise NotHere("no other build is given (--other-build)")
    try:
        for build in (lab.other, None):
            lab.agent.build = build
            lab.agent.cli("stop")
            lab.agent.up()
            lab.well()
    finally:
        lab.agent.build = None


def broken_build(lab: FaultLab, _effort: Effort) -> None:
    """`stop`, `up` by a build that does not work, which is refused and changes nothing; `up` by this one."""
    if not lab.broken:
        raise NotHere("no build that does not work is given (--broken-build)")
    for build in lab.broken:
        lab.agent.cli("stop")
        before = lab.xdp_programs(), lab.pins()
        lab.agent.build = build
        try:
            lab.refused(*lab.agent.up_words)
        except Broken:
            lab.agent.cli("stop", check=False)
            raise
        finally:
            lab.agent.build = None
        if (lab.xdp_programs(), lab.pins()) != before:
            raise Broken(f"the build in {build} was refused, and left other programs or pins")
        lab.agent.up()
        lab.well()


def out_of_memory(lab: FaultLab, _effort: Effort) -> None:
    """The agent alone in a memory cgroup that gives no more, and a document that takes more: the kernel kills it."""
    pid = lab.agent.pid
    with Memory.group(lab.world.name) as group:
        group.admit(pid)
        asking = subprocess.Popen(
            lab.agent.command("apply", str(huge_document(lab))),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            wait_until(lambda: not running(pid), within=30, what="the kernel kills the agent")
        finally:
            asking.kill()
            asking.wait()
        if not group.kills():
            raise Broken("the agent ended, and the kernel counts no kill for lack of memory")
    lab.agent.up()


def huge_document(lab: FaultLab) -> Path:
    """A document that the agent needs much memory to read."""
    file = lab.agent.run_dir / "huge.toml"
    file.write_text("".join(f'[[port]]\nifname = "h{n}"\nsegment = "grey"\n' for n in range(HUGE_PORTS)))
    return file


class Memory:
    """A memory cgroup, of either version, with a limit.

    Args:
        path: of its directory, which exists.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unified = (path / "memory.max").exists()

    @classmethod
    @contextmanager
    def group(cls, name: str) -> Iterator[Memory]:
        """A new one, removed afterwards.

        Raises:
            NotHere: this machine gives none.
        """
        path = _memory_root() / name
        try:
            path.mkdir()
        except OSError as exc:
            raise NotHere(f"no memory cgroup can be made: {path}: {exc.strerror}") from exc
        try:
            if not any((path / file).exists() for file in ("memory.max", "memory.limit_in_bytes")):
                raise NotHere(f"{path.parent} does not give the memory controller to its groups")
            yield cls(path)
        finally:
            for pid in (path / "cgroup.procs").read_text().split():  # one that was not killed
                with suppress(OSError):
                    (path.parent / "cgroup.procs").write_text(pid)
            wait_until(lambda: _removed(path), what=f"{path} is removed")

    def admit(self, pid: int) -> None:
        """Limit what a process takes from now on; what it has stays with the group that it comes from."""
        if self._unified:
            self._limit("memory.swap.max", 0)
            self._limit("memory.max", MEMORY_BYTES)
        else:
            self._limit("memory.limit_in_bytes", MEMORY_BYTES)
            self._limit("memory.memsw.limit_in_bytes", MEMORY_BYTES)
        (self._path / "cgroup.procs").write_text(str(pid))

    def _limit(self, file: str, size: int) -> None:
        if (self._path / file).exists():  # those of swap may be missing
            (self._path / file).write_text(str(size))

    def kills(self) -> int:
        """How many processes of it the kernel has killed for lack of memory."""
        text = (self._path / ("memory.events" if self._unified else "memory.oom_control")).read_text()
        words = dict(line.split() for line in text.splitlines())
        return int(words["oom_kill"])


def _memory_root() -> Path:
    """The uppermost memory cgroup. Raises NotHere."""
    unified = None
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup" and "memory" in options.split(","):
            return Path(where)
        if kind == "cgroup2":
            unified = Path(where)
    if unified is not None and "memory" in (unified / "cgroup.subtree_control").read_text().split():
        return unified
    raise NotHere("no memory cgroup can be made: no controller is mounted that gives them")


def _removed(path: Path) -> bool:
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:  # what was in it has not quite ended
        return False
    return True
