"""Steps: every change that the agent makes to the kernel or the disk, one system call each, or to the engine.

For tests only, a process can be told to die right after one of them, as by kill -9, so that a test can see what the
next agent makes of anything that is cut in two. $VXAGENT_DIE_AFTER names a file; a number in it counts down, one a
step, and the process that comes to 0 kills itself. While there is no file nothing is counted. Who reads or removes the
file locks it (flock(2)), so that no step is half counted meanwhile.
"""

from __future__ import annotations

import os
import signal
import threading
from fcntl import LOCK_EX, flock
from pathlib import Path

DIE_AFTER = "VXAGENT_DIE_AFTER"

_told = os.environ.get(DIE_AFTER)
_lock = threading.Lock()


def taken() -> None:
    """A step is done."""
    if _told is not None:
        _count_down(Path(_told))


def _count_down(file: Path) -> None:
    with _lock:
        try:
            handle = file.open("r+")
        except FileNotFoundError:
            return
        with handle:
            flock(handle, LOCK_EX)
            if not os.fstat(handle.fileno()).st_nlink:  # removed before it was our turn
                return
            left = int(handle.read()) - 1
            handle.seek(0)
            handle.truncate()
            handle.write(str(left))
            handle.flush()
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
