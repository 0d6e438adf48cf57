"""What a lookup in the FDB costs, by how it could be laid out: the second table of `make cost`.

The kernel's hash with keys of 8 bytes, as the FDB is, beside a hash table in an array with four entries a set, as
large and twice as large. Test runs that look random keys up, in rounds, one layout after the other; what drawing the
keys takes is taken off.
"""

from __future__ import annotations

import random
import statistics
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from vxagent.datapath import maps, source
from vxagent.datapath.bpf_map import Map, MapSpec, MapType
from vxagent.datapath.bpf_prog import Program, ProgSpec, ProgType, relocate

SIZES = (1_000, 10_000, 100_000, 1_000_000)
ROUNDS = 15
LOOKUPS = 32  # of a test run, as in layout.c
REPEAT = 4_000
WAYS = 4
ROOM = (1, 2)  # entries that there is room for in the sets ÷ those that are to go in

_SOURCE = Path(__file__).with_name("layout.c")
_MAPS = ("setting", "hash", "sets")
_NAMES = ("layout_nothing", "layout_hash", "layout_sets")
_SETTING = struct.Struct("=IIQII")
_SET = struct.Struct(f"={WAYS}Q{2 * WAYS}Q")
_ONLY = struct.pack("=I", 0)
_FIRST = 1 << 48 | 0x020000000001
_FACTOR, _WORD = 0xFF51AFD7ED558CCD, 1 << 64


def measured(directory: Path) -> Iterator[str]:
    """Lines of the table."""
    yield f"{'a lookup in the FDB, random keys':<48}" + "".join(f"{size:>12,}" for size in SIZES)
    code = source.load(directory, source.Source.of(_SOURCE, _NAMES, map_names=_MAPS)).programs
    rows: dict[str, list[str]] = {}
    for size in SIZES:
        hashed, *others = (_one(code, size, room) for room in ROOM)
        rows.setdefault("the kernel's hash map", []).append(f"{hashed[0]:.0f} ns")
        for room, (_, ns, lost) in zip(ROOM, (hashed, *others), strict=True):
            rows.setdefault(f"sets of {WAYS} in an array, room for {room} ×", []).append(f"{ns:.0f} ns")
            rows.setdefault(f"  entries whose set is full, room for {room} ×", []).append(f"{lost:.2%}")
    for what, cells in rows.items():
        yield f"{what:<48}" + "".join(f"{cell:>12}" for cell in cells)


def _one(code: Mapping[str, bytes], size: int, room: int) -> tuple[float, float, float]:
    """ns of a lookup in the hash and in the sets, and the share of entries that found no place there."""
    sets = max(2, 1 << (size * room // WAYS - 1).bit_length())
    with ExitStack() as stack:
        named = {
            "setting": _map(stack, "setting", MapType.ARRAY, 4, _SETTING.size, 1),
            "hash": _map(stack, "hash", MapType.HASH, 8, 16, size),
            "sets": _map(stack, "sets", MapType.ARRAY, 4, _SET.size, sets),
        }
        lost = _fill(named, size, sets)
        numbers = maps.sentinels(_MAPS)
        fds = {numbers[name]: found.fd for name, found in named.items()}
        programs = [
            stack.enter_context(
                Program.load(ProgSpec(name=name[:15], type=ProgType.SCHED_CLS), relocate(code[name], fds))
            )
            for name in _NAMES
        ]
        seed = random.Random(size).getrandbits(32)
        spent: list[list[float]] = [[] for _ in _NAMES]
        for number in range(ROUNDS + 1):
            for which in range(len(_NAMES)) if number % 2 else reversed(range(len(_NAMES))):
                named["setting"].update(_ONLY, _SETTING.pack(size, seed + number, 0, sets - 1, 0))
                ns = programs[which].test_run(bytes(64), b"", REPEAT).duration_ns / LOOKUPS
                if number:
                    spent[which].append(ns)
        nothing, hashed, in_sets = map(statistics.median, spent)
        return hashed - nothing, in_sets - nothing, lost


def _map(stack: ExitStack, name: str, kind: MapType, key_size: int, value_size: int, entries: int) -> Map:
    spec = MapSpec(name=name, type=kind, key_size=key_size, value_size=value_size, max_entries=entries)
    return stack.enter_context(Map.create(spec))


def _fill(named: dict[str, Map], size: int, sets: int) -> float:
    """Put all entries into both; the share that found no place in the sets."""
    table: dict[int, list[int]] = {}
    lost = 0
    for number in range(size):
        key = _FIRST + number
        keys = table.setdefault(((key ^ key >> 33) * _FACTOR % _WORD >> 40) & (sets - 1), [])
        if len(keys) < WAYS:
            keys.append(key)
        else:
            lost += 1
    named["hash"].update_batch(struct.pack(f"={size}Q", *range(_FIRST, _FIRST + size)), struct.pack("=QQ", 1, 0) * size)
    named["sets"].update_batch(
        struct.pack(f"={len(table)}I", *table),
        b"".join(_SET.pack(*keys, *[0] * (WAYS - len(keys)), *[1, 0] * WAYS) for keys in table.values()),
    )
    return lost / size
