"""Which taps the kernel itself serves, by vhost-net: it takes a VM's frames in batches.

Nothing but the processes' descriptors tells: a hypervisor that does so holds /dev/vhost-net beside the tap. To look at
those of others takes CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
VHOST, TUN = Path("/dev/vhost-net"), Path("/dev/net/tun")
DRIVER = Path("/sys/class/misc/vhost-net")
"""There while the kernel's module is, also for an agent with devices of its own (PrivateDevices= in systemd)."""


def taps_of_vhost(proc: Path = PROC) -> set[str] | None:
    """Names of taps whose holder uses vhost-net, of whatever network namespace; None: not all processes can be seen."""
    found: set[str] = set()
    if not (proc / "1").exists():  # mounted with hidepid, or ProtectProc= in systemd: others are not in the list
        return None
    for process in proc.glob("[0-9]*"):
        try:
            held = _held(process / "fd")
            if VHOST.name in held.values():
                found.update(_taps(process, [fd for fd, of in held.items() if of == TUN.name]))
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
        except OSError:
            return None
    return found


def _held(fds: Path) -> dict[str, str]:
    """Descriptor → name of the file that it is open on; the directories above are as its opener saw them."""
    held = {}
    for fd in os.listdir(fds):
        with suppress(FileNotFoundError):  # closed meanwhile
            held[fd] = os.readlink(f"{fds}/{fd}").rpartition("/")[2]
    return held


def _taps(process: Path, fds: list[str]) -> Iterator[str]:
    for fd in fds:
        with suppress(FileNotFoundError):  # closed meanwhile
            for line in (process / "fdinfo" / fd).read_text().splitlines():
                key, _, name = line.partition(":")
                if key == "iff":
                    yield name.strip()
