"""What an agent has in the kernel, and what of it is left."""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from vxagent.datapath import bpf

_ID = struct.Struct("=I")


class _GetById(IntEnum):
    """Of enum bpf_cmd."""

    PROGRAM = 13
    MAP = 14


@dataclass(frozen=True, kw_only=True)
class KernelObjects:
    """Programs and maps by the kernel's numbers."""

    programs: frozenset[int]
    maps: frozenset[int]

    def left(self) -> set[str]:
        """Those that are still there."""
        kinds = {"program": (_GetById.PROGRAM, self.programs), "map": (_GetById.MAP, self.maps)}
        return {f"{kind} {n}" for kind, (command, numbers) in kinds.items() for n in numbers if _is_there(command, n)}


def pinned_below(directory: Path) -> KernelObjects:
    """Maps pinned there, and programs of links pinned there."""
    programs, maps = set(), set()
    for pin in (path for path in directory.rglob("*") if path.is_file()):
        fd = bpf.open_pin(pin)
        if fd is None:
            continue
        try:
            info = dict(line.split(":", 1) for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines())
        finally:
            os.close(fd)
        if "map_id" in info:
            maps.add(int(info["map_id"]))
        if "prog_id" in info:
            programs.add(int(info["prog_id"]))
    return KernelObjects(programs=frozenset(programs), maps=frozenset(maps))


def _is_there(command: _GetById, number: int) -> bool:
    result = bpf.call(command, bpf.attr(_ID.pack(number)))  # type: ignore[arg-type]  # the switch needs neither
    if result >= 0:
        os.close(result)
    return result != -errno.ENOENT
