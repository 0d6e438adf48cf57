"""One BPF map by its descriptor: elements as bytes, one by one or in batches."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum, IntFlag
from pathlib import Path

from vxagent.datapath import bpf
from vxagent.datapath.bpf import BpfError, Command
from vxagent.errors import HostError, MapFull

CHUNK = 4096  # elements a batch call reads at most, if they fit into
CHUNK_BYTES = 1 << 20  # (values of a per-CPU map on a large machine are long)

_CREATE = struct.Struct("=7I16s")  # type, sizes, max_entries, flags, inner_map_fd, numa_node, name
_ELEMENT = struct.Struct("=I4xQQQ")  # map_fd, key, value or next_key, flags
_BATCH = struct.Struct("=QQQQIIQQ")  # in_batch, out_batch, keys, values, count, map_fd, elem_flags, flags
_BATCH_COUNT = struct.Struct("=32xI")  # the count in it, which the kernel sets
_MAP_INFO = struct.Struct("=6I")  # type, id, key_size, value_size, max_entries, map_flags


class MapType(IntEnum):
    """enum bpf_map_type."""

    HASH = 1
    ARRAY = 2
    PROG_ARRAY = 3
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12
    DEVMAP = 14
    RINGBUF = 27


class MapFlag(IntFlag):
    """map_flags at creation."""

    NONE = 0
    NO_PREALLOC = 1
    RDONLY_PROG = 1 << 7  # a device map has it, asked for or not


class Update(IntEnum):
    """Flags of an update."""

    ANY = 0
    NOEXIST = 1
    EXIST = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class MapSpec:
    """What a map is declared to be. Sizes in bytes; of a ring buffer max_entries is its size in bytes."""

    name: str
    type: MapType
    key_size: int
    value_size: int
    max_entries: int
    flags: MapFlag = MapFlag.NONE

    @property
    def per_cpu(self) -> bool:
        """It holds a value for each possible CPU."""
        return self.type in (MapType.PERCPU_HASH, MapType.PERCPU_ARRAY)

    @property
    def stride(self) -> int:
        """Bytes that a lookup writes: the value, or one for each possible CPU, each rounded up to 8."""
        return (self.value_size + 7) // 8 * 8 * bpf.possible_cpus() if self.per_cpu else self.value_size


@dataclass(frozen=True, slots=True)
class Batch:
    """Elements of one batch call: `count` keys and values, one after the other; `stride` bytes a value."""

    count: int
    keys: memoryview
    values: memoryview
    stride: int

    def value(self, at: int) -> memoryview:
        """The value of the element at this place."""
        return self.values[at * self.stride : (at + 1) * self.stride]


class Map(bpf.Fd):
    """An open map. Its methods may be called from several threads at once.

    Attributes:
        spec: what it was declared to be.
        stride: bytes of a value as lookups give it.
    """

    def __init__(self, fd: int, spec: MapSpec) -> None:
        super().__init__(fd)
        self.spec = spec
        self.stride = spec.stride

    @classmethod
    def create(cls, spec: MapSpec, *, inner: Map | None = None) -> Map:
        """Make a new map.

        Args:
            inner: of a map of maps, one like those that it will hold.

        Raises:
            BpfError: the kernel refused.
        """
        data = _CREATE.pack(
            *(spec.type, spec.key_size, spec.value_size, spec.max_entries, spec.flags),
            *(0 if inner is None else inner.fd, 0, bpf.object_name(spec.name)),
        )
        return cls(bpf.call_or_fail(Command.MAP_CREATE, bpf.attr(data), f"create map {spec.name}"), spec)

    @classmethod
    def open(cls, path: Path, spec: MapSpec, *, adopt: bool = False) -> Map | None:
        """Open a pinned map and check that it is what was declared.

        Args:
            adopt: take its number of entries and its flags as they are.

        Returns:
            The map, or None where nothing is pinned.

        Raises:
            HostError: it is another kind of map.
        """
        fd = bpf.open_pin(path)
        if fd is None:
            return None
        try:
            there = _read_spec(fd, spec.name)
            if adopt:
                spec = replace(spec, max_entries=there.max_entries, flags=there.flags)
            _check(path, there, spec)
        except BaseException:
            os.close(fd)
            raise
        return cls(fd, spec)

    @classmethod
    def open_as_it_is(cls, path: Path, name: str) -> Map | None:
        """Open a pinned map, whatever it is, or None where nothing is pinned.

        Raises:
            BpfError: it cannot be opened.
        """
        fd = bpf.open_pin(path)
        if fd is None:
            return None
        try:
            return cls(fd, _read_spec(fd, name))
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def open_or_create(cls, path: Path, spec: MapSpec, *, adopt: bool = False) -> Map:
        """Open the map pinned at `path`, or make it and pin it there.

        Raises:
            HostError: another kind of map is there, or the kernel refused.
        """
        found = cls.open(path, spec, adopt=adopt)
        if found is not None:
            return found
        made = cls.create(spec)
        try:
            bpf.pin(made.fd, path)
        except BaseException:
            made.close()
            raise
        return made

    @property
    def id(self) -> int:
        """The kernel's number for it."""
        return int(_MAP_INFO.unpack(bpf.info(self.fd, _MAP_INFO.size, f"map {self.spec.name}"))[1])

    def lookup(self, key: bytes) -> bytes | None:
        """The value (of a per-CPU map all values), or None where there is none."""
        value = ctypes.create_string_buffer(self.stride)
        found = self._element(Command.MAP_LOOKUP_ELEM, key, ctypes.addressof(value))
        return value.raw if found else None

    def pop(self, key: bytes) -> bytes | None:
        """Take the element out and return its value, or None where there was none. Hash maps only."""
        value = ctypes.create_string_buffer(self.stride)
        found = self._element(Command.MAP_LOOKUP_AND_DELETE_ELEM, key, ctypes.addressof(value))
        return value.raw if found else None

    def update(self, key: bytes, value: bytes, flags: Update = Update.ANY) -> bool:
        """Set an element.

        Returns:
            Whether it was set: with NOEXIST and EXIST the element may stand in the way or be absent.

        Raises:
            MapFull: no more entries.
            BpfError: the kernel refused.
        """
        self._fits("value", value, self.stride)
        data = ctypes.create_string_buffer(value, len(value))
        result = self._do(Command.MAP_UPDATE_ELEM, key, ctypes.addressof(data), flags)
        if result == -errno.E2BIG:
            raise MapFull(self.spec.name, self.spec.max_entries)
        if flags is not Update.ANY and result in (-errno.EEXIST, -errno.ENOENT):
            return False
        if result < 0:
            raise BpfError(f"write to map {self.spec.name}", -result)
        return True

    def delete(self, key: bytes) -> bool:
        """Remove an element.

        Returns:
            Whether it was there.
        """
        return self._element(Command.MAP_DELETE_ELEM, key, 0)

    def batches(self) -> Iterator[Batch]:
        """All elements, some thousand at a time. One that comes or goes meanwhile may be in or not."""
        chunk = min(CHUNK, max(1, CHUNK_BYTES // self.stride))
        token = ctypes.create_string_buffer(max(self.spec.key_size, 4))  # of a hash the bucket, u32
        first = True
        while True:
            keys = bytearray(chunk * self.spec.key_size)
            values = bytearray(chunk * self.stride)
            at = ctypes.addressof(token)
            request = bpf.attr(
                _BATCH.pack(0 if first else at, at, bpf.address(keys), bpf.address(values), chunk, self.fd, 0, 0)
            )
            result = bpf.call(Command.MAP_LOOKUP_BATCH, request)
            if result == -errno.ENOSPC:  # a hash bucket holds more than the chunk
                chunk *= 2
                continue
            if result not in (0, -errno.ENOENT):
                raise BpfError(f"read map {self.spec.name}", -result)
            (count,) = _BATCH_COUNT.unpack_from(request)
            if count:
                yield Batch(
                    count,
                    memoryview(keys)[: count * self.spec.key_size],
                    memoryview(values)[: count * self.stride],
                    self.stride,
                )
            if result:
                return
            first = False

    def update_batch(self, keys: bytes, values: bytes) -> None:
        """Set many elements.

        Raises:
            MapFull, BpfError: as `update`; the elements before the one that failed are set.
        """
        result = self._change_batch(Command.MAP_UPDATE_BATCH, keys, values)
        if result == -errno.E2BIG:
            raise MapFull(self.spec.name, self.spec.max_entries)
        if result < 0:
            raise BpfError(f"write to map {self.spec.name}", -result)

    def _change_batch(self, command: Command, keys: bytes, values: bytes) -> int:
        key_data = ctypes.create_string_buffer(keys, len(keys))
        value_data = ctypes.create_string_buffer(values, len(values))
        count = len(keys) // self.spec.key_size
        self._fits("batch of values", values, count * self.stride)
        return bpf.call(
            command,
            bpf.attr(_BATCH.pack(0, 0, ctypes.addressof(key_data), ctypes.addressof(value_data), count, self.fd, 0, 0)),
        )

    def _element(self, command: Command, key: bytes, value: int) -> bool:
        result = self._do(command, key, value)
        if result == -errno.ENOENT:
            return False
        if result < 0:
            verb = "delete from" if command is Command.MAP_DELETE_ELEM else "read"
            raise BpfError(f"{verb} map {self.spec.name}", -result)
        return True

    def _fits(self, what: str, data: bytes, size: int) -> None:
        """The kernel reads as many bytes as it wants, whatever it is given."""
        if len(data) != size:
            raise ValueError(f"map {self.spec.name} takes a {what} of {size} bytes, not {len(data)}")

    def _do(self, command: Command, key: bytes, value: int, flags: int = 0) -> int:
        self._fits("key", key, self.spec.key_size)
        key_data = ctypes.create_string_buffer(key, len(key))
        return bpf.call(command, bpf.attr(_ELEMENT.pack(self.fd, ctypes.addressof(key_data), value, flags)))


def _read_spec(fd: int, name: str) -> MapSpec:
    """What the kernel says that a map is."""
    kind, _, key_size, value_size, max_entries, flags = _MAP_INFO.unpack(bpf.info(fd, _MAP_INFO.size, f"map {name}"))
    return MapSpec(
        name=name,
        type=MapType(kind),
        key_size=key_size,
        value_size=value_size,
        max_entries=max_entries,
        flags=MapFlag(flags & ~MapFlag.RDONLY_PROG if kind == MapType.DEVMAP else flags),
    )


def _check(path: Path, there: MapSpec, wanted: MapSpec) -> None:
    wrong = [
        f"{name.replace('_', ' ')} {getattr(there, name)} instead of {getattr(wanted, name)}"
        for name in ("type", "key_size", "value_size", "max_entries", "flags")
        if getattr(there, name) != getattr(wanted, name)
    ]
    if wrong:
        raise HostError(
            f"the map pinned at {path} has {', '.join(wrong)}",
            "set the sizes back, or take the switch off with `vxagent down` and start it again",
        )
