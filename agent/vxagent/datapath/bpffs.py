"""The file system that holds pins: find it, mount it, take it away again.

A bpffs that vxagent mounted has "vxagent" as its source in /proc/self/mountinfo, and only such a one is
ever unmounted.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import re
from pathlib import Path

from vxagent.errors import HostError

HOST_BPFFS = Path("/sys/fs/bpf")

_HOST_NAMESPACE = Path("/proc/1/ns/mnt")
_SOURCE = "vxagent"
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8  # <sys/mount.h>
_MNT_DETACH = 2

log = logging.getLogger(__name__)
_libc = ctypes.CDLL(None, use_errno=True)


def mount_point(pin_root: Path) -> Path:
    """Where a bpffs belongs for pins in `pin_root`: the host's own if they lie in it, else `pin_root` itself."""
    return HOST_BPFFS if pin_root.is_relative_to(HOST_BPFFS) else pin_root


def ensure(path: Path) -> None:
    """Mount a bpffs at `path`, unless one is there.

    Raises:
        HostError: the directory cannot be made, or no right to mount.
    """
    if _source(path) is not None:
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise HostError(f"cannot make {path}: {exc.strerror}", f"mount a bpffs there: mount -t bpf bpf {path}") from exc
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    source = _SOURCE if path != HOST_BPFFS else "bpf"
    if _libc.mount(source.encode(), os.fsencode(path), b"bpf", ctypes.c_ulong(flags), b"mode=0700") < 0:
        number = ctypes.get_errno()
        mend = f"run as root, or have root do: mount -t bpf bpf {path}"
        if number == errno.ENODEV:
            mend = "the kernel needs CONFIG_BPF_SYSCALL"
        raise HostError(f"no bpffs at {path}, and cannot mount one: {os.strerror(number)}", mend)
    if in_private_namespace():
        log.warning("the bpffs at %s is mounted in a private mount namespace: forwarding ends with it", path)


def is_there(path: Path) -> bool:
    """A bpffs is mounted at `path`."""
    return _source(path) is not None


def remove(path: Path) -> None:
    """Unmount the bpffs at `path` if vxagent mounted it, and remove the directory.

    Raises:
        HostError: no right to.
    """
    if _source(path) != _SOURCE:
        return
    if _libc.umount2(os.fsencode(path), _MNT_DETACH) < 0:
        number = ctypes.get_errno()
        raise HostError(f"cannot unmount {path}: {os.strerror(number)}", f"have root do: umount {path}")
    with contextlib.suppress(OSError):  # somebody keeps something in it
        path.rmdir()


def in_private_namespace() -> bool:
    """Whether this process sees other mounts than the host's first process; False where it may not know."""
    try:
        return Path("/proc/self/ns/mnt").readlink() != _HOST_NAMESPACE.readlink()
    except OSError:
        return False


def source_at(path: str, mounts: str) -> str | None:
    """The source of the bpffs mounted at `path`, or None if none is.

    Args:
        mounts: the text of /proc/self/mountinfo (proc_pid_mountinfo(5)).
    """
    source = None
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        kind, name, *_ = after.split()
        if _unescape(before.split()[4]) == path:  # the last one mounted there is the one that is seen
            source = name if kind == "bpf" else None
    return source


def _source(path: Path) -> str | None:
    return source_at(str(path.resolve()), Path("/proc/self/mountinfo").read_text())


def _unescape(path: str) -> str:
    """A path of mountinfo, where blanks are octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), path)
