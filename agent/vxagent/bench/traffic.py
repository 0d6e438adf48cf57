"""Senders and receivers: processes that run `c/traffic.c`, each pinned to a CPU."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vxagent.errors import HostError
from vxagent.lab.namespaces import Namespace

SOURCE = Path(__file__).parent / "c" / "traffic.c"
INSTALL_CC = "install one: apt-get install gcc libc6-dev"
CPUS = 2
GRACE_S = 10.0  # beyond its time, after which a process is stuck


@dataclass(frozen=True, slots=True)
class Counted:
    """A process's last line: frames, bytes or answers, and in which time."""

    count: int
    ns: int


class Receiver:
    """One that runs and is ready."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def end(self) -> Counted:
        """Let it take what is on its way, then end it."""
        self._process.terminate()
        return _last_line(self._process, GRACE_S)


def compiled(source: Path, directory: Path) -> Path:
    """The program that a C file is, compiled into a directory.

    Raises:
        HostError: there is no C compiler, or it fails.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise HostError("the senders are written in C and there is no C compiler", INSTALL_CC)
    program = directory / source.stem
    done = subprocess.run(
        [compiler, "-O2", "-o", str(program), str(source)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if "error:" in line] or done.stderr.splitlines()
        raise HostError(f"cannot compile {source.name}: {errors[0] if errors else done.returncode}", INSTALL_CC)
    return program


def two_cpus() -> tuple[int, int]:
    """A CPU for the sender and another one for the receiver.

    Raises:
        HostError: this process may use one only.
    """
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < CPUS:
        raise HostError("the bench takes two CPUs, one for the sender and one for the receiver", "see `taskset -p`")
    return cpus[0], cpus[1]


class Traffic:
    """The compiled program, and the CPUs that it may use.

    Args:
        directory: where it is compiled into.

    Attributes:
        sender_cpu, receiver_cpu: different ones.

    Raises:
        HostError: this process may use one CPU only, there is no C compiler, or it fails.
    """

    def __init__(self, directory: Path) -> None:
        self.sender_cpu, self.receiver_cpu = two_cpus()
        self._program = str(compiled(SOURCE, directory))

    def send(self, namespace: Namespace, *words: object, seconds: float, fds: Sequence[int] = ()) -> Counted:
        """Run a sender to its end.

        Args:
            words: its command line, behind the CPU.
            seconds: how long it is going to take.
            fds: descriptors that it uses.

        Raises:
            HostError: it failed or did not end.
        """
        process = self._start(namespace, self.sender_cpu, words, fds)
        try:
            return _last_line(process, seconds + GRACE_S)
        finally:
            _kill(process)

    @contextmanager
    def receiving(
        self, namespace: Namespace, *words: object, fds: Sequence[int] = (), cpu: int | None = None
    ) -> Iterator[Receiver]:
        """A receiver that is ready; gone afterwards, ended or not.

        Args:
            cpu: another one than `receiver_cpu`.

        Raises:
            HostError: it failed.
        """
        process = self._start(namespace, self.receiver_cpu if cpu is None else cpu, words, fds)
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                _last_line(process, GRACE_S)
            yield Receiver(process)
        finally:
            _kill(process)

    def _start(
        self, namespace: Namespace, cpu: int, words: Sequence[object], fds: Sequence[int]
    ) -> subprocess.Popen[str]:
        command = [self._program, str(cpu), *map(str, words)]
        return namespace.start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=tuple(fds))


def _last_line(process: subprocess.Popen[str], seconds: float) -> Counted:
    try:
        said, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired as exc:
        raise HostError(f"{_command(process)} has not ended after {seconds:.0f} s") from exc
    numbers = said.split()
    if process.returncode != 0 or len(numbers) < 2:
        raise HostError(f"{_command(process)} failed: {errors.strip() or process.returncode}")
    return Counted(int(numbers[-2]), int(numbers[-1]))


def _command(process: subprocess.Popen[str]) -> str:
    words = process.args
    assert isinstance(words, tuple | list)
    return f"`traffic {words[2]}`"


def _kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()
