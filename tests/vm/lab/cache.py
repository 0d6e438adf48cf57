"""Where kernels and images are kept: outside the repository, because they are large and nobody's work here.

The directory is $VXAGENT_VM_CACHE, or ~/.cache/vxagent-vm. It may be removed at any time; what is missing is made
again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

FILES = Path(__file__).parent / "files"
BUILD_TIMEOUT_S = 600
KEEP_S = 2 * 24 * 60 * 60


class BuildFailed(Exception):
    """A command that builds something ended with another code than 0; `str()` is the end of what it said."""


def directory() -> Path:
    """Where all of it is."""
    chosen = os.environ.get("VXAGENT_VM_CACHE")
    found = Path(chosen) if chosen else Path.home() / ".cache" / "vxagent-vm"
    found.mkdir(parents=True, exist_ok=True)
    return found


def made(kind: str, recipe: Sequence[str], make: Callable[[Path], None]) -> Path:
    """A file or directory that `make` makes, or made before from the same recipe.

    Args:
        kind: the beginning of its name. Those of the kind that were made days ago are removed.
        recipe: all that it depends on.
        make: is called with a path at which nothing is, in the same file system.

    Returns:
        Where it is; whoever uses it must not change it.
    """
    digest = hashlib.sha256("\0".join(recipe).encode())
    path = directory() / f"{kind}-{digest.hexdigest()[:16]}"
    with _alone(kind):
        if not path.exists():
            _remove_old(kind)
            with tempfile.TemporaryDirectory(prefix="making-", dir=directory(), ignore_cleanup_errors=True) as place:
                making = Path(place, kind)
                make(making)
                making.rename(path)
    return path


def build(*command: str, cwd: Path | None = None) -> str:
    """Run a command that builds something; return what it printed.

    Raises:
        BuildFailed: it failed.
    """
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, timeout=BUILD_TIMEOUT_S, stdin=subprocess.DEVNULL
    )
    if done.returncode != 0:
        raise BuildFailed(f"{' '.join(command)} ended with {done.returncode}: {(done.stderr or done.stdout)[-2000:]}")
    return done.stdout


@contextmanager
def _alone(kind: str) -> Iterator[None]:
    """Nobody else makes one of this kind meanwhile."""
    with (directory() / f".{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove_old(kind: str) -> None:
    """Remove what was made days ago; of something younger another tree may be in need."""
    for old in directory().glob(f"{kind}-*"):
        if time.time() - old.stat().st_mtime < KEEP_S:
            continue
        if old.is_dir():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.unlink(missing_ok=True)
