"""What the data plane has counted: traffic, drops, learning, and what its buckets hold. Values of per-CPU maps are
summed here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from vxagent.datapath import abi, codec
from vxagent.datapath.base import Drop, Learning, Traffic
from vxagent.datapath.bpf_map import Map

_FEW = 32  # so many elements are read one by one, more in batches
_VERDICTS = abi.COUNTED_VERDICTS
_U64 = 1 << 64

T = TypeVar("T")
Value = bytes | memoryview


class Counters:
    """The traffic, drops, learning, forgotten, buckets, leases and telling maps. Methods read, but for those that say
    clear."""

    def __init__(self, shared: Mapping[str, Map]) -> None:
        self._traffic = shared["traffic"]
        self._drops = shared["drops"]
        self._learning = shared["learning"]
        self._forgotten = shared["forgotten"]
        self._buckets = shared["buckets"]
        self._leases = shared["leases"]
        self._refused_leases = shared["leases_refused"]
        self._telling = shared["telling"]

    def traffic(self, counters: Sequence[int]) -> list[Traffic]:
        """Sums for these indices, in that order; zeroes for one beyond the map."""
        return _pick(self._traffic, counters, _sum_traffic)

    def drops(self) -> list[Drop]:
        """Every drop counter."""
        return [drop for _, drop in self._each_drop()]

    def learning(self, handles: Sequence[int]) -> list[Learning]:
        """What these ports have learned, in that order."""
        learned = _pick(self._learning, handles, abi.LEARNING.unpack)
        forgotten = _pick(self._forgotten, handles, _number)
        return list(map(_learning, learned, forgotten))

    def refused_leases(self, handles: Sequence[int]) -> list[int]:
        """How many leases there was no room for, of these ports, in that order."""
        return _pick(self._refused_leases, handles, _number)

    def suppressed_events(self, handles: Sequence[int]) -> list[int]:
        """How many events of these ports were not told, in that order."""
        return _pick(self._telling, handles, _suppressed)

    def clear_telling(self, port: int) -> None:
        """A port has told nothing yet."""
        self._telling.update(codec.U32.pack(port), bytes(abi.TELLING.size))

    def clear_leases(self, port: int) -> None:
        """A port holds none, and was refused none."""
        for counted in (self._leases, self._refused_leases):
            counted.update(codec.U32.pack(port), codec.U64.pack(0))

    def clear_traffic(self, counters: Sequence[int]) -> None:
        """Zero these indices."""
        zero = bytes(self._traffic.stride)
        for counter in counters:
            self._traffic.update(codec.U32.pack(counter), zero)

    def clear_drops(self, port: int, segment: int) -> None:
        """Forget the drops of a port (0: any) in a segment (0: any)."""
        for key, drop in list(self._each_drop()):
            if port in (0, drop.port) and segment in (0, drop.segment):
                self._drops.delete(key)

    def clear_buckets(self, port: int) -> None:
        """Fill all of a port's buckets."""
        self._buckets.update(codec.U32.pack(port), bytes(abi.BUCKETS.size))

    def _each_drop(self) -> Iterator[tuple[bytes, Drop]]:
        key_size = abi.DROP_KEY.size
        for batch in self._drops.batches():
            for at in range(batch.count):
                key = bytes(batch.keys[at * key_size : (at + 1) * key_size])
                port, segment, reason, kind = abi.DROP_KEY.struct.unpack(key)
                packets, size = _sum(abi.DROP_COUNT, batch.value(at))
                of = abi.DropKind(kind)
                yield key, Drop(port=port, segment=segment, reason=reason, packets=packets, bytes=size, kind=of)


def _pick(array: Map, indices: Sequence[int], decode: Callable[[Value], T]) -> list[T]:
    """The decoded values at these indices, of zeroes for one beyond the array; many are read in batches."""
    zero = bytes(array.stride)
    if len(indices) <= _FEW:
        return [decode(array.lookup(codec.U32.pack(index)) or zero) for index in indices]
    found: dict[int, T] = {}
    wanted, last = set(indices), max(indices)
    index = 0
    for batch in array.batches():
        for at in range(batch.count):
            if index in wanted:
                found[index] = decode(batch.value(at))
            index += 1
        if index > last:
            break
    return [found[index] if index in found else decode(zero) for index in indices]


def _sum(layout: abi.Layout, value: Value) -> tuple[int, ...]:
    """The sums of a per-CPU value's members; every member is a u64."""
    return tuple(map(sum, zip(*layout.struct.iter_unpack(value), strict=True)))


def _sum_traffic(value: Value) -> Traffic:
    sums = _sum(abi.TRAFFIC, value)
    tx_packets, tx_bytes, copies = sums[2 * _VERDICTS :]
    return Traffic(
        packets=sums[:_VERDICTS],  # type: ignore[arg-type]  # that many
        bytes=sums[_VERDICTS : 2 * _VERDICTS],  # type: ignore[arg-type]  # that many
        tx_packets=tx_packets,
        tx_bytes=tx_bytes,
        copies=copies,
    )


def _number(value: Value) -> int:
    return int(codec.U64.unpack(value)[0])


def _suppressed(value: Value) -> int:
    return int(abi.TELLING.struct.unpack(value)[0])


def _learning(counted: dict[str, int], forgotten: int) -> Learning:
    return Learning(
        entries=(counted["learned"] - forgotten) % _U64,
        limited=counted["limited"],
        moved=counted["moved"],
        full=counted["full"],
        held=counted["held"],
    )
