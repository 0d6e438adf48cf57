"""Steps: every change that the agent makes to the kernel or the disk, one system call each, or to the engine.

For tests only, a process can be told to die right after one of them, as by kill -9, so that a test can see what the
next agent makes of anything that is cut in two. $VXAGENT_DIE_AFTER names a file; a number in it counts down, one a
step, and the process that comes to 0 kills itself. While there is no file nothing is counted.
"""

from __future__ import annotations

import os
import signal
import threading
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
            left = int(file.read_text()) - 1
        except FileNotFoundError:
            return
        new = file.with_suffix(".new")
        new.write_text(str(left))
        new.replace(file)  # whoever reads it finds a number
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
