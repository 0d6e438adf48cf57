"""The bpf(2) system call: objects, pins and what goes wrong with them.

Only what every kind of object shares stands here; maps, programs and links have a module each. Every
call builds its own `union bpf_attr` and buffers, so threads share nothing. Attributes and commands:
<linux/bpf.h>.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from vxagent import steps
from vxagent.errors import HostError, mend_lack

KERNEL_FLOOR = (6, 1)
NAME_MAX = 15  # BPF_OBJ_NAME_LEN without the closing NUL

_SYSCALL_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
_NUMBER = _SYSCALL_NUMBERS.get(os.uname().machine, -1)
_ATTR_SIZE = 160  # above sizeof(union bpf_attr) of every kernel so far; zeroes beyond what it knows are accepted
_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_PERFMON": 38, "CAP_BPF": 39}  # <linux/capability.h>
_CAP_SYS_ADMIN = 21  # implies CAP_PERFMON and CAP_BPF

_libc = ctypes.CDLL(None, use_errno=True)
_OBJ = struct.Struct("=QII")  # pathname, bpf_fd, file_flags
_INFO = struct.Struct("=IIQ")  # bpf_fd, info_len, info


class Command(IntEnum):
    """enum bpf_cmd."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    PROG_TEST_RUN = 10
    PROG_GET_FD_BY_ID = 13
    OBJ_GET_INFO_BY_FD = 15
    PROG_QUERY = 16
    MAP_LOOKUP_AND_DELETE_ELEM = 21
    MAP_LOOKUP_BATCH = 24
    MAP_UPDATE_BATCH = 26
    MAP_DELETE_BATCH = 27
    LINK_CREATE = 28
    LINK_UPDATE = 29
    LINK_DETACH = 34


_CHANGES = frozenset(
    {
        Command.MAP_CREATE,
        Command.MAP_UPDATE_ELEM,
        Command.MAP_DELETE_ELEM,
        Command.PROG_LOAD,
        Command.OBJ_PIN,
        Command.MAP_LOOKUP_AND_DELETE_ELEM,
        Command.MAP_UPDATE_BATCH,
        Command.MAP_DELETE_BATCH,
        Command.LINK_CREATE,
        Command.LINK_UPDATE,
        Command.LINK_DETACH,
    }
)


class BpfError(HostError):
    """A bpf(2) call that the kernel refused.

    Attributes:
        errno: why, as a number.
        log: what the verifier said, or "".
    """

    def __init__(self, what: str, number: int, log: str = "") -> None:
        self.errno = number
        self.log = log
        said = [line for line in log.splitlines() if line and not line.startswith("processed ")]
        because = f": {said[-1]}" if said else ""
        super().__init__(f"cannot {what}: {os.strerror(number)}{because}", _mend(number))


class Fd:
    """A descriptor that is closed once. A context manager."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @property
    def fd(self) -> int:
        """The number; -1 once closed."""
        return self._fd

    def fileno(self) -> int:
        """The number, for select and epoll."""
        return self._fd

    def close(self) -> None:
        """Close it; twice is no failure."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def attr(data: bytes) -> ctypes.Array[ctypes.c_char]:
    """`data` as a bpf_attr with zeroes behind it; the kernel writes its answers into it."""
    return ctypes.create_string_buffer(data, _ATTR_SIZE)


def address(buffer: bytearray) -> int:
    """Where `buffer` lies, 0 if it is empty; good as long as it lives and keeps its length."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer)) if buffer else 0


def call(command: Command, attributes: ctypes.Array[ctypes.c_char]) -> int:
    """Do one system call.

    Returns:
        What it returned, or -errno.
    """
    result: int = _libc.syscall(_NUMBER, int(command), ctypes.byref(attributes), _ATTR_SIZE)
    if result < 0:
        return -ctypes.get_errno()
    if command in _CHANGES:
        steps.taken()
    return result


def call_or_fail(command: Command, attributes: ctypes.Array[ctypes.c_char], what: str) -> int:
    """Do one system call that ought to work.

    Args:
        what: the verb phrase for the error, such as "create map fdb".

    Raises:
        BpfError: it did not.
    """
    result = call(command, attributes)
    if result < 0:
        raise BpfError(what, -result)
    return result


def pin(fd: int, path: Path) -> None:
    """Give an object a name in a bpffs.

    Raises:
        BpfError: no bpffs there, no right, or the name is taken.
    """
    name = ctypes.create_string_buffer(os.fsencode(path))
    call_or_fail(Command.OBJ_PIN, attr(_OBJ.pack(ctypes.addressof(name), fd, 0)), f"pin {path}")


def unpin(path: Path) -> None:
    """Take an object's name away; one that has none is no failure.

    Raises:
        BpfError: no right to, or the bpffs is read-only.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise BpfError(f"remove the pin {path}", error.errno or 0) from error
    steps.taken()


def pins_in(directory: Path) -> list[Path]:
    """What is pinned in a directory; nothing where there is none.

    Raises:
        HostError: it cannot be read.
    """
    try:
        return list(directory.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HostError.of(f"cannot read the pins in {directory}", error, "run as root") from error


def open_pin(path: Path) -> int | None:
    """Open what is pinned at `path`.

    Returns:
        Its descriptor, or None where nothing is.

    Raises:
        BpfError: it cannot be opened.
    """
    name = ctypes.create_string_buffer(os.fsencode(path))
    result = call(Command.OBJ_GET, attr(_OBJ.pack(ctypes.addressof(name), 0, 0)))
    if result == -errno.ENOENT:
        return None
    if result < 0:
        raise BpfError(f"open the pin {path}", -result)
    return result


def info(fd: int, size: int, what: str) -> bytes:
    """The first `size` bytes of an object's bpf_map_info, bpf_prog_info or bpf_link_info.

    Raises:
        BpfError: the kernel does not tell.
    """
    answer = ctypes.create_string_buffer(size)
    request = attr(_INFO.pack(fd, size, ctypes.addressof(answer)))
    call_or_fail(Command.OBJ_GET_INFO_BY_FD, request, f"read about {what}")
    return answer.raw


def object_name(name: str) -> bytes:
    """`name` as the kernel takes it: at most 15 bytes."""
    return name.encode()[:NAME_MAX]


def check_kernel(release: str | None = None) -> None:
    """Refuse a kernel below the floor, and a machine whose system call is not known here.

    Raises:
        HostError: it is older than 6.1, or of another architecture.
    """
    if _NUMBER < 0:
        raise HostError(f"vxagent does not know the bpf system call of {os.uname().machine}")
    release = release or os.uname().release
    parts = release.replace("-", ".").split(".")
    if (int(parts[0]), int(parts[1])) < KERNEL_FLOOR:
        floor = ".".join(map(str, KERNEL_FLOOR))
        raise HostError(f"kernel {release} is too old", f"vxagent needs {floor} or newer")


def possible_cpus() -> int:
    """How many CPUs a per-CPU map holds values for.

    Raises:
        HostError: /sys is not there, or cannot be read.
    """
    try:
        return parse_cpus(Path("/sys/devices/system/cpu/possible").read_text())
    except OSError as exc:
        raise HostError.of("cannot read the possible CPUs", exc, "mount sysfs at /sys") from exc


def parse_cpus(text: str) -> int:
    """How many CPUs a kernel list such as ``0-3,8`` names."""
    ranges = (part.split("-") for part in text.strip().split(","))
    return sum(int(part[-1]) - int(part[0]) + 1 for part in ranges)


def missing_capabilities(status: str | None = None) -> list[str]:
    """Names of the capabilities that vxagent needs and this process has not.

    Args:
        status: the text of /proc/self/status, read by default.
    """
    status = status or Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    effective = int(line.split()[1], 16)
    if effective >> _CAP_SYS_ADMIN & 1:
        effective |= 1 << _CAPABILITIES["CAP_PERFMON"] | 1 << _CAPABILITIES["CAP_BPF"]
    return [name for name, bit in _CAPABILITIES.items() if not effective >> bit & 1]


def _mend(number: int) -> str:
    if number in (errno.EPERM, errno.EACCES):
        missing = missing_capabilities()
        return f"run as root or with {', '.join(missing)}" if missing else ""
    if number == errno.ENOMEM:
        return "free kernel memory or make the maps smaller"
    return mend_lack(number)
