"""What an agent has in the kernel, and what of it is left."""

from __future__ import annotations

import os
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from vxagent.datapath import bpf
from vxagent.datapath.bpf_map import Map, MapType

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


@dataclass(frozen=True, kw_only=True)
class SwitchObjects(KernelObjects):
    """Links besides, by the kernel's numbers."""

    links: frozenset[int]


def switch_objects(pid: int, directory: Path) -> SwitchObjects:
    """What an agent has open or pinned, and what its programs call. Raises OSError: it is gone."""
    found: dict[str, set[int]] = {"prog_id": set(), "map_id": set(), "link_id": set()}
    for name in os.listdir(f"/proc/{pid}/fdinfo"):
        with suppress(FileNotFoundError):  # closed meanwhile
            _number(found, Path(f"/proc/{pid}/fdinfo/{name}"))
    for pin in (path for path in directory.rglob("*") if path.is_file()):
        fd = bpf.open_pin(pin)
        if fd is None:
            continue
        try:
            _number(found, Path(f"/proc/self/fdinfo/{fd}"))
        finally:
            os.close(fd)
        if pin.name.startswith("progs-"):
            found["prog_id"] |= _called(pin)
    return SwitchObjects(
        programs=frozenset(found["prog_id"]), maps=frozenset(found["map_id"]), links=frozenset(found["link_id"])
    )


def _number(found: dict[str, set[int]], fdinfo: Path) -> None:
    for name, _, value in (line.partition(":") for line in fdinfo.read_text().splitlines()):
        if name in found:
            found[name].add(int(value))


def _called(pin: Path) -> set[int]:
    """The programs in a tail-call table."""
    table = Map.open_as_it_is(pin, pin.name)
    if table is None or table.spec.type is not MapType.PROG_ARRAY:
        return set()
    with table:
        values = (table.lookup(at.to_bytes(4, sys.byteorder)) for at in range(table.spec.max_entries))
        return {int.from_bytes(value, sys.byteorder) for value in values if value is not None}


def _is_there(command: _NextId, number: int) -> bool:
    request = bpf.attr(_ID.pack(number - 1, 0))
    result = bpf.call(command, request)  # type: ignore[arg-type]  # the switch needs neither
    return result >= 0 and _ID.unpack_from(request)[1] == number
