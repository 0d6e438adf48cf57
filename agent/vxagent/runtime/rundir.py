"""The directories of one agent, and who holds them.

<run-dir>/lock          held while an agent lives; its content is the agent's pid
<run-dir>/agent.json    what the agent was started with, for a `down` that finds no agent
<run-dir>/api.sock      its API
<run-dir>/agent.log     what it says when it was started with --detach
<run-dir>/bpf           the bpffs of its pins, but for the default run dir
<state-dir>/lock        held as well: one state has one agent
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from vxagent import steps
from vxagent.errors import HostError, Refused

DEFAULT_RUN_DIR = Path("/run/vxagent")
DEFAULT_STATE_DIR = Path("/var/lib/vxagent")
_DEFAULT_PINS = Path("/sys/fs/bpf/vxagent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to start an agent.

    Attributes:
        run_dir: names the agent.
        state_dir: where its desired state is; None: the default or, to take a switch away, the last agent's.
        config: its vxagent.toml; None: the default one, if it is there.
        netns: name or path of its network namespace; None: the caller's.
    """

    run_dir: Path = DEFAULT_RUN_DIR
    state_dir: Path | None = None
    config: Path | None = None
    netns: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What an agent was started with.

    Attributes:
        pid: its process.
        version: of vxagent.
        netns: the path of the network namespace that it was told to enter, or None.
        netns_id: which one it is in, as /proc/self/ns/net shows it.
        state_dir, config: as given; config None: the default.
    """

    pid: int
    version: str
    netns: str | None
    netns_id: str
    state_dir: str
    config: str | None


class Lock:
    """An exclusive lock on a file, until it is closed or the process ends, however that ends.

    Attributes:
        path: the file; its content is the holder's pid.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(self._fd)
            raise
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)


class RunDir:
    """The run dir of one agent; several agents have one each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.api = path / "api.sock"
        self.log = path / "agent.log"
        self._lock = path / "lock"
        self._started = path / "agent.json"

    @property
    def pins(self) -> Path:
        """Where this agent's pins go; the same by whatever path the directory is named, such as /var/run/vxagent."""
        return _DEFAULT_PINS if self.path.resolve() == DEFAULT_RUN_DIR else self.path / "bpf"

    def make(self) -> None:
        """Make the directory. Raises HostError."""
        _make(self.path, 0o755)

    def lock(self) -> Lock:
        """Claim the run dir, which exists.

        Raises:
            Refused: an agent lives there.
            HostError: the file cannot be written.
        """
        end = "vxagent" if self.path == DEFAULT_RUN_DIR else f"vxagent --run-dir {self.path}"
        return _lock(self._lock, f"with run dir {self.path}", f"`{end} stop` ends it")

    def remember(self, started: Started) -> None:
        """Write down what the agent was started with. Raises HostError."""
        new = self._started.with_suffix(".new")
        try:
            new.write_text(json.dumps(asdict(started)) + "\n")
            new.replace(self._started)
            steps.taken()
        except OSError as error:
            raise _host_error(f"cannot write {self._started}", error) from error

    def recall(self) -> Started | None:
        """What the last agent was started with, None where that is not known."""
        try:
            return Started(**json.loads(self._started.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def forget(self) -> None:
        """Remove what an agent leaves, but for its log."""
        for path in (self._started, self.api):
            path.unlink(missing_ok=True)
            steps.taken()


def claim_state_dir(path: Path) -> Lock:
    """Make the state directory, for its owner alone, and lock it.

    Raises:
        Refused: another agent has it.
        HostError: it cannot be made.
    """
    _make(path, 0o700)
    return _lock(path / "lock", f"with state dir {path}", "give this one another --state-dir")


def _make(path: Path, mode: int) -> None:
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        raise _host_error(f"cannot make {path}", error) from error


def _lock(path: Path, whose: str, mend: str) -> Lock:
    try:
        return Lock(path)
    except BlockingIOError:
        pid = path.read_text().strip() or "?"
        raise Refused(f"an agent (pid {pid}) already runs {whose}", mend) from None
    except OSError as error:
        raise _host_error(f"cannot write {path}", error) from error


def _host_error(what: str, error: OSError) -> HostError:
    return HostError(f"{what}: {error.strerror}", "run as root" if isinstance(error, PermissionError) else "")
