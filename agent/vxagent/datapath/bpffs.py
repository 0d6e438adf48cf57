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
from dataclasses import dataclass
from pathlib import Path

from vxagent import steps
from vxagent.errors import HostError

HOST_BPFFS = Path("/sys/fs/bpf")

_HOST_NAMESPACE = Path("/proc/1/ns/mnt")
_SOURCE = "vxagent"
_KIND = "bpf"
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8  # <sys/mount.h>
_MNT_DETACH = 2

log = logging.getLogger(__name__)
_libc = ctypes.CDLL(None, use_errno=True)


def mount_point(pin_root: Path) -> Path:
    """Where a bpffs belongs for pins in `pin_root`: the host's own if they lie in it, else `pin_root` itself."""
    return HOST_BPFFS if pin_root.is_relative_to(HOST_BPFFS) else pin_root


def ensure(path: Path, pin_root: Path) -> None:
    """Mount a bpffs at `path`, unless there is one that `pin_root` lies in.

    Only root mounts: what another user mounts, others can take away from under the switch.

    Raises:
        HostError: the directory cannot be made, or no right to mount.
    """
    if holds(pin_root):
        return
    by_hand = f"mkdir -p {path} && mount -t bpf bpf {path}"
    if os.geteuid() != 0:
        by_hand += f" && install -d -m 0700 -o {os.geteuid()} {pin_root}"
        raise HostError(f"no bpffs at {path}, and only root mounts one", f"run as root, or have root do: {by_hand}")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise HostError(f"cannot make {path}: {exc.strerror}", f"mount a bpffs there: {by_hand}") from exc
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    source = _SOURCE if path != HOST_BPFFS else "bpf"
    if _libc.mount(source.encode(), os.fsencode(path), b"bpf", ctypes.c_ulong(flags), b"mode=0700") < 0:
        number = ctypes.get_errno()
        mend = f"run as root, or have root do: {by_hand}"
        if number == errno.ENODEV:
            mend = "the kernel needs CONFIG_BPF_SYSCALL"
        raise HostError(f"no bpffs at {path}, and cannot mount one: {os.strerror(number)}", mend)
    steps.taken()
    if in_private_namespace():
        log.warning("the bpffs at %s is mounted in a private mount namespace: forwarding ends with it", path)


def holds(pin_root: Path) -> bool:
    """Whether `pin_root` lies in a bpffs."""
    here = mount_of(str(pin_root.resolve()), own_mounts())
    return here is not None and here.kind == _KIND


def remove(path: Path) -> None:
    """Unmount the bpffs at `path` if vxagent mounted it, and remove the directory.

    Raises:
        HostError: no right to.
    """
    if source_at(str(path.resolve()), own_mounts()) != _SOURCE:
        return
    if os.geteuid() != 0:
        log.warning("the bpffs at %s stays, empty: only root unmounts it", path)
        return
    if _libc.umount2(os.fsencode(path), _MNT_DETACH) < 0:
        number = ctypes.get_errno()
        raise HostError(f"cannot unmount {path}: {os.strerror(number)}", f"have root do: umount {path}")
    steps.taken()
    with contextlib.suppress(OSError):  # somebody keeps something in it
        path.rmdir()
        steps.taken()


def in_private_namespace() -> bool:
    """Whether this process sees other mounts than the host's first process; False where it may not know."""
    try:
        return Path("/proc/self/ns/mnt").readlink() != _HOST_NAMESPACE.readlink()
    except OSError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """What is mounted somewhere.

    Attributes:
        at: where.
        kind: of file system.
        source: what was mounted.
        inherited: from the host's mount namespace into one of this process's own (it has a master there).
    """

    at: str
    kind: str
    source: str
    inherited: bool


def read_mounts(mounts: str) -> list[Mount]:
    """The lines of /proc/self/mountinfo (proc_pid_mountinfo(5))."""
    found = []
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        kind, source, *_ = after.split()
        fields = before.split()
        inherited = any(tag.startswith("master:") for tag in fields[6:])
        found.append(Mount(at=_unescape(fields[4]), kind=kind, source=source, inherited=inherited))
    return found


def mount_of(path: str, mounts: str) -> Mount | None:
    """The mount that `path`, an absolute one that need not exist, lies in; None where nothing is mounted at all."""
    above = [m for m in read_mounts(mounts) if Path(path).is_relative_to(m.at)]
    longest = max((len(m.at) for m in above), default=0)
    # The last one mounted at a place is the one that is seen.
    return next((m for m in reversed(above) if len(m.at) == longest), None)


def source_at(path: str, mounts: str) -> str | None:
    """The source of the bpffs mounted right at `path`, or None if none is."""
    here = mount_of(path, mounts)
    return here.source if here is not None and here.at == path and here.kind == _KIND else None


def vanishing(mounts: str) -> list[str]:
    """Where, in a private mount namespace, bpffs are that an agent mounted in it, and with which they will go."""
    found = read_mounts(mounts)
    return [m.at for m in found if m.kind == _KIND and m.source == _SOURCE and not m.inherited]


def own_mounts() -> str:
    """The text of /proc/self/mountinfo."""
    return Path("/proc/self/mountinfo").read_text()


def _unescape(path: str) -> str:
    """A path of mountinfo, where blanks are octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), path)
