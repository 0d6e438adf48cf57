"""Learned entries in the kernel's map: read, flushed, aged, and counted right while others change them."""

from __future__ import annotations

import itertools
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from vxagent.core.tables import FdbFlag, FdbRow, Origin, Table, fdb_key
from vxagent.datapath import abi, codec, maps
from vxagent.datapath.base import FdbEntry
from vxagent.datapath.bpf_map import Map, MapType
from vxagent.datapath.counters import Counters
from vxagent.datapath.fdb_map import FdbMap
from vxagent.datapath.table_reader import TableReader
from vxagent.errors import MapFull

SECOND = 1_000_000_000
AGEING = 60 * SECOND  # a machine that has just started has no entry that is much older
SIZES = maps.Sizes(ports=64, segments=64, memberships=64, fdb=200_000, counters=8192, drops=64, events=4096)


class Kernel:
    """The maps, without programs: the test is the data plane."""

    def __init__(self) -> None:
        self.maps = {name: Map.create(spec) for name, spec in maps.declare(SIZES).items()}
        self.fdb = FdbMap(self.maps["fdb"], self.maps["moves"], self.maps["learning"], self.maps["forgotten"])
        self.counters = Counters(self.maps)

    def close(self) -> None:
        for opened in self.maps.values():
            opened.close()

    def learn(self, mac: int, port: int, *, segment: int = 1, age_s: float = 0) -> bytes:
        """What the data plane does at a new source; returns the key."""
        key = codec.encode_key(Table.FDB, fdb_key(segment, mac))
        self.maps["fdb"].update(key, learned_value(port, segment, age_s))
        self.add_learned(port, 1)
        return key

    def hold(self, key: bytes, held_s: float) -> None:
        """What the data plane does when a MAC has moved too often."""
        held_ns = time.monotonic_ns() + int(held_s * SECOND)
        self.maps["moves"].update(key, abi.MOVES_ROW.pack(key=codec.U64.unpack(key)[0], held_ns=held_ns))

    def moves(self, key: bytes) -> bool:
        """Whether it knows of the MAC's moves."""
        return self.maps["moves"].lookup(key) is not None

    def add_learned(self, port: int, count: int) -> None:
        """Count entries as the data plane does."""
        key = codec.U32.pack(port)
        now = abi.LEARNING.unpack(self.maps["learning"].lookup(key) or b"")
        self.maps["learning"].update(key, abi.LEARNING.pack(**{**now, "learned": now["learned"] + count}))

    def held(self, port: int) -> int:
        return self.counters.learning([port])[0].entries

    def macs(self, ageing_ns: int = AGEING) -> set[int]:
        return {entry.mac for entry in self.fdb.entries(ageing_ns)}


def learned_value(port: int, segment: int, age_s: float) -> bytes:
    seen_ns = time.monotonic_ns() - int(age_s * SECOND)
    return abi.FDB_ENTRY.pack(port=port, segment=segment, origin=Origin.LEARNED, seen_ns=seen_ns)


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    made = Kernel()
    yield made
    made.close()


STATIC = FdbRow(port=9, segment=1, origin=Origin.STATIC, flags=FdbFlag.LISTED)


# Holds


def test_a_hold_is_told_for_as_long_as_it_lasts(kernel: Kernel) -> None:
    kernel.hold(kernel.learn(1, 1), 30)
    kernel.hold(kernel.learn(2, 1), -1)
    kernel.learn(3, 1)
    held = {entry.mac: entry.held_s for entry in kernel.fdb.entries(AGEING)}
    assert held == {1: pytest.approx(30, abs=5), 2: None, 3: None}


def test_forgetting_an_entry_lifts_its_hold_and_no_other(kernel: Kernel) -> None:
    gone, stays = kernel.learn(1, port=1), kernel.learn(2, port=2)
    for key in (gone, stays):
        kernel.hold(key, 30)
    assert kernel.fdb.flush(port=1) == 1
    assert (kernel.moves(gone), kernel.moves(stays)) == (False, True)


def test_an_entry_that_ages_out_takes_its_hold_along(kernel: Kernel) -> None:
    key = kernel.learn(1, 1, age_s=61)
    kernel.hold(key, 30)
    kernel.fdb.age(AGEING)
    assert not kernel.moves(key)


def test_stating_and_deleting_an_entry_lifts_its_hold(kernel: Kernel) -> None:
    key = kernel.learn(2, 1)
    kernel.hold(key, 30)
    kernel.fdb.put(fdb_key(1, 2), STATIC)
    assert not kernel.moves(key)
    kernel.hold(key, 30)
    kernel.fdb.delete(fdb_key(1, 2))
    assert not kernel.moves(key)


# Reading


def test_entries_are_told_with_their_age(kernel: Kernel) -> None:
    kernel.learn(0x020000000001, 1, age_s=10)
    kernel.fdb.put(fdb_key(1, 0x020000000002), STATIC)
    learned, static = sorted(kernel.fdb.entries(AGEING), key=lambda entry: entry.mac)
    assert (learned.port, learned.origin) == (1, Origin.LEARNED)
    assert learned.age_s == pytest.approx(10, abs=1)
    assert static == FdbEntry(segment=1, mac=0x020000000002, port=9, origin=Origin.STATIC, age_s=None)


def test_aged_out_entries_are_not_told_but_counted(kernel: Kernel) -> None:
    kernel.learn(1, 1, age_s=10)
    kernel.learn(2, 1, age_s=61)
    assert kernel.macs() == {1}
    assert kernel.macs(ageing_ns=0) == {1, 2}
    assert kernel.fdb.count() == 2


def test_one_segment_is_told_alone(kernel: Kernel) -> None:
    kernel.learn(1, 1, segment=1)
    kernel.learn(1, 1, segment=2)
    assert [entry.segment for entry in kernel.fdb.entries(AGEING, segment=2)] == [2]


def test_rows_are_what_the_agent_wrote(kernel: Kernel) -> None:
    kernel.learn(1, 1)
    kernel.fdb.put(fdb_key(1, 2), STATIC)
    assert TableReader(kernel.maps).read(Table.FDB).rows() == {(Table.FDB, fdb_key(1, 2)): STATIC}


def test_a_hundred_thousand_entries_are_each_told_once(kernel: Kernel) -> None:
    count = 100_000
    kernel.maps["fdb"].update_batch(
        struct.pack(f"={count}Q", *(fdb_key(1, mac) for mac in range(count))), learned_value(1, 1, 0) * count
    )
    macs = [entry.mac for entry in kernel.fdb.entries(AGEING)]
    assert len(macs) == count
    assert set(macs) == set(range(count))


# Flushing


def test_flush_takes_what_matches_and_counts_it(kernel: Kernel) -> None:
    for port, segment in ((1, 1), (1, 2), (2, 1), (2, 2)):
        kernel.learn(16 * port + segment, port, segment=segment)
    kernel.fdb.put(fdb_key(1, 99), STATIC)
    assert kernel.fdb.flush(segment=1, port=1) == 1
    assert kernel.macs() == {0x12, 0x21, 0x22, 99}
    assert kernel.fdb.flush(segment=2) == 2
    assert (kernel.held(1), kernel.held(2)) == (0, 1)
    assert kernel.fdb.flush() == 1
    assert kernel.macs() == {99}


# Ageing


def test_age_removes_the_old_and_counts_them(kernel: Kernel) -> None:
    for mac, age_s in enumerate((0, 50, 61, 80)):
        kernel.learn(mac, 1, age_s=age_s)
    assert kernel.fdb.age(AGEING) == 2
    assert kernel.macs(ageing_ns=0) == {0, 1}
    assert kernel.held(1) == 2


def test_static_entries_never_age(kernel: Kernel) -> None:
    kernel.fdb.put(fdb_key(1, 2), STATIC)
    assert kernel.fdb.age(1) == 0
    assert kernel.fdb.count() == 1


def test_without_ageing_nothing_is_removed(kernel: Kernel) -> None:
    kernel.learn(1, 1, age_s=90)
    assert kernel.fdb.age(0) == 0
    assert kernel.fdb.count() == 1


def test_age_puts_a_wrong_count_right(kernel: Kernel) -> None:
    kernel.learn(1, 1)
    kernel.add_learned(1, 5)  # entries that went without being counted: an agent was killed in between
    kernel.add_learned(2, 3)
    kernel.fdb.age(AGEING)
    assert (kernel.held(1), kernel.held(2)) == (1, 0)


class Interfering(Map):
    """The fdb map, with a data plane that does something at the last moment before an entry is taken out."""

    def __init__(self, fdb: Map, act: Callable[[bytes], object]) -> None:
        super().__init__(fdb.fd, fdb.spec)
        self.act = act

    def pop(self, key: bytes) -> bytes | None:
        self.act(key)
        return super().pop(key)

    def close(self) -> None:
        """The descriptor is another's."""


def test_an_entry_refreshed_while_it_ages_stays(kernel: Kernel) -> None:
    fdb = kernel.maps["fdb"]
    kernel.learn(1, 1, age_s=61)
    racing = Interfering(fdb, lambda key: fdb.update(key, learned_value(1, 1, 0)))
    assert FdbMap(racing, kernel.maps["moves"], kernel.maps["learning"], kernel.maps["forgotten"]).age(AGEING) == 0
    assert kernel.macs() == {1}
    assert kernel.held(1) == 1


def test_an_entry_that_moves_while_its_port_is_flushed_stays(kernel: Kernel) -> None:
    fdb = kernel.maps["fdb"]
    kernel.learn(1, 1)
    racing = Interfering(fdb, lambda key: fdb.update(key, learned_value(2, 1, 0)))
    assert FdbMap(racing, kernel.maps["moves"], kernel.maps["learning"], kernel.maps["forgotten"]).flush(port=1) == 0
    assert [entry.port for entry in kernel.fdb.entries(AGEING)] == [2]


def test_an_entry_that_vanishes_while_it_ages_is_not_counted_twice(kernel: Kernel) -> None:
    fdb = kernel.maps["fdb"]
    kernel.learn(1, 1, age_s=61)
    racing = Interfering(fdb, fdb.delete)
    assert FdbMap(racing, kernel.maps["moves"], kernel.maps["learning"], kernel.maps["forgotten"]).flush() == 0


def test_entries_are_read_whole_while_another_thread_changes_them(kernel: Kernel) -> None:
    """An entry's port is its MAC: a buffer that two threads share would mix them up."""
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            for mac in range(1, 50):
                kernel.learn(mac, mac, age_s=61 if mac % 2 else 0)
            kernel.fdb.age(AGEING)

    changer = threading.Thread(target=change)
    changer.start()
    try:
        for _ in range(200):
            for entry in kernel.fdb.entries(0):
                assert entry.mac == entry.port
            kernel.counters.learning(range(1, 50))
    finally:
        stop.set()
        changer.join()


# Static entries in the place of learned ones


def test_a_static_entry_takes_a_learned_ones_place(kernel: Kernel) -> None:
    kernel.learn(1, 1)
    kernel.fdb.put(fdb_key(1, 1), STATIC)
    assert kernel.held(1) == 0
    assert [entry.origin for entry in kernel.fdb.entries(AGEING)] == [Origin.STATIC]
    kernel.fdb.put(fdb_key(1, 1), STATIC)
    assert kernel.held(1) == 0


def test_deleting_an_absent_entry_is_no_failure(kernel: Kernel) -> None:
    kernel.fdb.delete(fdb_key(1, 1))
    kernel.fdb.put(fdb_key(1, 1), STATIC)
    kernel.fdb.delete(fdb_key(1, 1))
    assert kernel.fdb.count() == 0


# Counters of the data plane


def _per_cpu(opened: Map, layout: abi.Layout, *values: tuple[int, ...]) -> bytes:
    """A per-CPU value with these on the first CPUs, zeroes on the others."""
    return b"".join(layout.struct.pack(*value) for value in values).ljust(opened.stride, b"\0")


@pytest.mark.parametrize("count", [3, 5000], ids=["a few", "many"])
def test_traffic_is_summed_over_cpus_in_the_order_asked_for(count: int, kernel: Kernel) -> None:
    traffic = kernel.maps["traffic"]
    cpus = traffic.stride // abi.TRAFFIC.size
    for index in range(count):
        one = (index, 0, 0, 1, 60 * index, 0, 0, 60, 2, 3, 4)
        traffic.update(codec.U32.pack(index), _per_cpu(traffic, abi.TRAFFIC, *[one] * cpus))
    asked = [*reversed(range(count)), SIZES.counters + 1]
    *found, beyond = kernel.counters.traffic(asked)
    assert [sums.packets for sums in found] == [(cpus * index, 0, 0, cpus) for index in reversed(range(count))]
    assert found[0].bytes == (cpus * 60 * (count - 1), 0, 0, cpus * 60)
    assert (found[0].tx_packets, found[0].tx_bytes, found[0].copies) == (cpus * 2, cpus * 3, cpus * 4)
    assert beyond.packets == (0, 0, 0, 0)


def _drop(kernel: Kernel, port: int, segment: int) -> None:
    key = abi.DROP_KEY.pack(port=port, segment=segment, reason=abi.Reason.HAIRPIN)
    drops = kernel.maps["drops"]
    drops.update(key, _per_cpu(drops, abi.DROP_COUNT, (1, 60)))


@pytest.mark.parametrize(
    ("port", "segment", "left"),
    [(1, 0, {(2, 1), (2, 2)}), (0, 1, {(1, 2), (2, 2)}), (1, 1, {(1, 2), (2, 1), (2, 2)})],
    ids=["a port", "a segment", "both"],
)
def test_drops_of_what_is_gone_are_forgotten(
    port: int, segment: int, left: set[tuple[int, int]], kernel: Kernel
) -> None:
    for of_port, of_segment in ((1, 1), (1, 2), (2, 1), (2, 2)):
        _drop(kernel, of_port, of_segment)
    kernel.counters.clear_drops(port, segment)
    drops = kernel.counters.drops()
    assert {(drop.port, drop.segment) for drop in drops} == left
    assert {(drop.packets, drop.bytes) for drop in drops} == {(1, 60)}


def test_cleared_traffic_is_zero_on_every_cpu(kernel: Kernel) -> None:
    traffic = kernel.maps["traffic"]
    traffic.update(codec.U32.pack(1), b"\1" * traffic.stride)
    kernel.counters.clear_traffic([1])
    assert traffic.lookup(codec.U32.pack(1)) == bytes(traffic.stride)


@pytest.mark.parametrize(("key", "value"), [(bytes(4), bytes(16)), (bytes(8), bytes(15))], ids=["key", "value"])
def test_what_does_not_fit_is_refused_before_the_kernel_reads_beyond_it(
    key: bytes, value: bytes, kernel: Kernel
) -> None:
    with pytest.raises(ValueError, match=r"map fdb takes a (key of 8|value of 16) bytes"):
        kernel.maps["fdb"].update(key, value)


def test_a_ring_is_no_table(kernel: Kernel) -> None:
    """Every map but the ring and that of devices can be read in batches; the loader relies on it."""
    for opened in kernel.maps.values():
        if opened.spec.type not in (MapType.RINGBUF, MapType.DEVMAP):
            assert sum(batch.count for batch in opened.batches()) in (0, opened.spec.max_entries)


# A full map


def full(kernel: Kernel, holds: dict[int, int]) -> FdbMap:
    """A small one, in which ports hold so many learned entries."""
    spec = maps.declare(replace(SIZES, fdb=sum(holds.values())))["fdb"]
    kernel.maps["fdb"].close()
    kernel.maps["fdb"] = Map.create(spec)
    macs = itertools.count()
    for port, count in holds.items():
        for mac in itertools.islice(macs, count):
            kernel.learn(mac, port)
    return FdbMap(kernel.maps["fdb"], kernel.maps["moves"], kernel.maps["learning"], kernel.maps["forgotten"])


def test_what_is_stated_has_room_where_learned_entries_have_taken_all(kernel: Kernel) -> None:
    fdb = full(kernel, {1: 3000, 2: 5000, 3: 20})
    row = FdbRow(port=4, segment=2, origin=Origin.CLUSTER, flags=FdbFlag(0))
    for mac in range(1500):
        fdb.put(fdb_key(2, mac), row)
    assert [kernel.held(port) for port in (1, 3)] == [3000, 20]
    assert 5000 - 1500 - 1024 <= kernel.held(2) <= 5000 - 1500
    at = [entry for entry in fdb.entries(AGEING) if entry.port == 4]
    assert len(at) == 1500
    assert sum(entry.port == 2 for entry in fdb.entries(AGEING)) == kernel.held(2)


def test_a_map_that_is_full_of_what_is_stated_takes_no_more(kernel: Kernel) -> None:
    fdb = full(kernel, {1: 100})
    row = FdbRow(port=4, segment=2, origin=Origin.STATIC, flags=FdbFlag(0))
    for mac in range(100):
        fdb.put(fdb_key(2, mac), row)
    with pytest.raises(MapFull, match=r"map fdb is full \(100 entries\)"):
        fdb.put(fdb_key(2, 100), row)
    assert kernel.held(1) == 0
