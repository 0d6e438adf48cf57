"""Starts an agent, in this process or in one of its own, and takes away what one left behind.

The command line calls these functions; `python -m vxagent.main` is the process that `run_detached` starts. What is
heavy is imported when it is needed.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vxagent.errors import HostError, VxagentError
from vxagent.runtime.host import check_host
from vxagent.runtime.rundir import Options, RunDir

if TYPE_CHECKING:
    from vxagent.runtime.findings import Finding

__all__ = ["Options", "doctor_without_agent", "down_without_agent", "run", "run_detached"]

log = logging.getLogger(__name__)

_READY = "ready"
_LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"
_LOG_MODE = 0o640


def run(options: Options) -> None:
    """Run an agent in this process until it is told to end.

    Raises:
        VxagentError: it did not start.
    """
    from vxagent.runtime.process import live  # noqa: PLC0415  # heavy, and not for `up --detach`

    _log_to_stderr()
    live(options, lambda: None)


def run_detached(options: Options) -> int:
    """Start an agent in a process of its own; return its pid when it forwards.

    The process keeps none of the caller's descriptors, session or directory.

    Raises:
        VxagentError: it did not start; the message is its own.
    """
    check_host()  # its process would too, but has nowhere to say so where it may not write
    run_dir = RunDir(options.run_dir.absolute())
    run_dir.make()
    reading, writing = os.pipe()
    try:
        child = _spawn(options, run_dir, writing)
    finally:
        os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        try:
            answer = pipe.read().strip()
        except BaseException:
            child.terminate()
            raise
    if answer == _READY:
        child.returncode = 0  # it goes on without us: nobody waits for it
        return child.pid
    code = child.wait()
    raise HostError(answer or f"the agent ended with {code} at its start", "" if answer else f"see {run_dir.log}")


def down_without_agent(options: Options) -> None:
    """Take the switch off the devices where no agent lives; what is desired stays.

    Raises:
        Refused: an agent lives, or it ran in another network namespace than the caller is in.
        VxagentError: something could not be taken off.
    """
    from vxagent.runtime.process import take_away  # noqa: PLC0415  # heavy, and not for `up --detach`

    _log_to_stderr(logging.WARNING)
    take_away(options)


def doctor_without_agent() -> list[Finding]:
    """What can be said of this host where no agent lives."""
    from vxagent.runtime.doctor import examine  # noqa: PLC0415  # heavy, and not for `up --detach`

    return examine()


def _spawn(options: Options, run_dir: RunDir, ready_fd: int) -> subprocess.Popen[bytes]:
    words = {
        "--run-dir": run_dir.path,
        "--state-dir": options.state_dir and options.state_dir.absolute(),
        "--config": options.config and options.config.absolute(),
        "--netns": options.netns and (Path(options.netns).absolute() if "/" in options.netns else options.netns),
        "--ready-fd": ready_fd,
    }
    given = [str(word) for pair in words.items() if pair[1] is not None for word in pair]
    try:
        log_fd = os.open(run_dir.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _LOG_MODE)
    except OSError as error:
        raise HostError(f"cannot write {run_dir.log}: {error.strerror}", "run as root") from error
    try:
        return subprocess.Popen(
            # -P: what lies in the working directory is no module of ours.
            (sys.executable, "-P", "-m", "vxagent.main", *given),
            stdin=subprocess.DEVNULL,
            stdout=log_fd,
            stderr=log_fd,
            pass_fds=(ready_fd,),
            start_new_session=True,
            cwd="/",
            umask=0o022,
        )
    finally:
        os.close(log_fd)


def _main(arguments: list[str]) -> int:
    """The process of `run_detached`: says on a pipe that it is ready, or why not."""
    parser = argparse.ArgumentParser(prog="vxagent.main")
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--state-dir", type=Path)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--netns")
    parser.add_argument("--ready-fd", type=int, required=True)
    given = vars(parser.parse_args(arguments))
    ready_fd = given.pop("ready_fd")
    os.set_inheritable(ready_fd, False)
    _log_to_stderr()
    from vxagent.runtime.process import live  # noqa: PLC0415  # heavy, and not for `up --detach`

    def say(what: str) -> None:
        os.write(ready_fd, what.encode())
        os.close(ready_fd)

    try:
        live(Options(**given), lambda: say(_READY))
    except VxagentError as error:
        log.error("%s", error)  # noqa: TRY400  # people read the line
        say(str(error))
        return error.exit_code
    return 0


def _log_to_stderr(level: int = logging.INFO) -> None:
    logging.basicConfig(level=level, format=_LOG_FORMAT)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
