"""What an agent has in the kernel, and what of it is left."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from vxagent.datapath import bpf

_ID = struct.Struct("=II")  # start_id, next_id


class _NextId(IntEnum):
    """Of enum bpf_cmd. They only read: to open an object by its number takes a reference to it.

    On a program array that is about to go the kernel never gives such a reference back: when the descriptor is closed
    while the array is still to be cleared, prog_array_map_clear() takes one for work that is queued already (897 of
    3,000 on Linux 6.18).
    """

    PROGRAM = 11
    MAP = 12


@dataclass(frozen=True, kw_only=True)
class KernelObjects:
    """Programs and maps by the kernel's numbers."""

    programs: frozenset[int]
    maps: frozenset[int]

    def left(self) -> set[str]:
        """Those that are still there."""
        kinds = {"program": (_NextId.PROGRAM, self.programs), "map": (_NextId.MAP, self.maps)}
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


def _is_there(command: _NextId, number: int) -> bool:
    request = bpf.attr(_ID.pack(number - 1, 0))
    result = bpf.call(command, request)  # type: ignore[arg-type]  # the switch needs neither
    return result >= 0 and _ID.unpack_from(request)[1] == number
