"""One set of tables takes over from another, on real devices: other sizes, other structs, and an agent that dies."""

from __future__ import annotations

import signal
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from support.place import SIZES, Place
from support.tcx import program_ids
from vxagent.core.effects import PutRow
from vxagent.core.tables import FdbFlag, FdbRow, Origin, Table, fdb_key
from vxagent.datapath import abi, description, maps
from vxagent.datapath.bpf_datapath import BpfDatapath
from vxagent.datapath.bpf_map import Map
from vxagent.datapath.description import Description, Members
from vxagent.datapath.handover import Handover
from vxagent.datapath.pins import SetPins
from vxagent.datapath.table_set import TableSet
from vxagent.errors import HostError, MapFull
from vxagent.lab.waiting import wait_until

LARGER = replace(SIZES, fdb=4096)
STATIC = FdbRow(port=1, segment=1, origin=Origin.STATIC, flags=FdbFlag(0))


def _drops(datapath: BpfDatapath) -> int:
    return sum(drop.packets for drop in datapath.drops())


def learn(place: Place, macs: range, *, port: int = 1, seen_ns: int | None = None) -> None:
    """As the data plane does."""
    entries = place.map("fdb")
    for mac in macs:
        seen = time.monotonic_ns() if seen_ns is None else seen_ns + mac
        value = abi.FDB_ENTRY.pack(port=port, segment=1, origin=Origin.LEARNED, seen_ns=seen)
        entries.update(struct.pack("=Q", fdb_key(1, mac)), value)


def known(datapath: BpfDatapath) -> set[int]:
    return {entry.mac for entry in datapath.fdb()}


# Other sizes


def test_a_larger_fdb_has_what_was_learned(place: Place) -> None:
    place.join(first := place.opened(), 1, "a0")
    first.put(PutRow(table=Table.FDB, key=fdb_key(1, 9), row=STATIC))
    learn(place, range(100, 1100 - 200))
    place.send("a0", 5)
    wait_until(lambda: _drops(first) == 5, what="five drops")
    first.close()
    before = program_ids(place.ifindex["a0"])
    second = place.opened(sizes=LARGER)
    assert program_ids(place.ifindex["a0"]) == before, "what ran goes on until all is prepared"
    place.send("a0", 3)
    second.take_over()
    assert program_ids(place.ifindex["a0"]) != before
    place.send("a0", 2)
    assert known(second) == {9, *range(100, 900)}
    assert second.learning([1])[0].entries == 800
    assert second.fdb_room() == 4096
    wait_until(lambda: _drops(second) == 10, what="all frames, whichever program saw them")
    assert [one.directory.name for one in place.pins.sets()] == ["v1-1"]
    pins = (*maps.declare(SIZES), "progs-1", "description", "live")
    assert {pin for pin in place.listing() if "/" in pin} == {*(f"v1-1/{name}" for name in pins), "links/1"}


def test_what_is_learned_meanwhile_is_taken_over(place: Place) -> None:
    place.join(first := place.opened(), 1, "a0")
    learn(place, range(1, 10))
    first.close()
    second = place.datapath(sizes=LARGER)
    old = place.map("fdb")
    second.open()
    for mac, port in ((20, 1), (5, 1), (30, 7)):  # new, refreshed, and of a port that is not there
        value = abi.FDB_ENTRY.pack(port=port, segment=1, origin=Origin.LEARNED, seen_ns=time.monotonic_ns())
        old.update(struct.pack("=Q", fdb_key(1, mac)), value)
    second.take_over()
    assert known(second) == {*range(1, 10), 20}
    assert second.learning([1])[0].entries == 10


def test_a_smaller_fdb_keeps_the_youngest(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.join(first := place.opened(), 1, "a0")
    first.put(PutRow(table=Table.FDB, key=fdb_key(1, 999), row=STATIC))
    learn(place, range(1, 101), seen_ns=time.monotonic_ns())
    first.close()
    second = place.opened(sizes=replace(SIZES, fdb=11))
    second.take_over()
    assert known(second) == {999, *range(91, 101)}
    assert "the new fdb has room for 11 entries: not all were kept" in caplog.text


def test_static_entries_must_have_room(place: Place) -> None:
    place.join(first := place.opened(), 1, "a0")
    for mac in range(20):
        first.put(PutRow(table=Table.FDB, key=fdb_key(1, mac), row=STATIC))
    first.close()
    with pytest.raises(MapFull, match=r"map fdb is full \(10 entries\)"):
        place.datapath(sizes=replace(SIZES, fdb=10)).open()
    assert [one.directory.name for one in place.pins.sets()] == ["v1"]
    assert not place.pins.unfinished()
    place.opened()


def test_reload_changes_the_room_and_reverts_what_fails(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.join(datapath := place.opened(), 1, "a0")
    learn(place, range(1, 101))
    with monkeypatch.context() as failing:
        failing.setattr("vxagent.datapath.renewal.probe", _no)
        with pytest.raises(HostError, match="no"):
            datapath.reload(fdb_entries=2048)
    assert datapath.fdb_room() == 1024
    datapath.reload(fdb_entries=2048)
    assert datapath.fdb_room() == 2048
    assert known(datapath) == set(range(1, 101))
    assert [one.directory.name for one in place.pins.sets()] == ["v1-1"]
    datapath.reload()
    assert datapath.fdb_room() == 2048
    place.send("a0", 3)
    wait_until(lambda: _drops(datapath) == 3, what="three drops")


def test_a_package_that_was_replaced_under_the_agent_is_not_reloaded(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    datapath = place.opened()
    monkeypatch.setattr("vxagent.datapath.source.abi", lambda: b"another layout")
    with pytest.raises(
        HostError, match=r"another version of vxagent was installed .* `vxagent stop`, then `vxagent up`"
    ):
        datapath.reload()
    assert place.tables.generations() == [1]


def _no(_: object) -> None:
    raise HostError("no")


@pytest.mark.parametrize("sizes", [SIZES, LARGER], ids=["the same tables", "other tables"])
def test_programs_that_fail_their_probe_never_run(
    sizes: maps.Sizes, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.join(first := place.opened(), 1, "a0")
    before = program_ids(place.ifindex["a0"])
    first.close()
    monkeypatch.setattr("vxagent.datapath.renewal.probe", _no)
    with pytest.raises(HostError, match="no"):
        place.datapath(sizes=sizes).open()
    assert program_ids(place.ifindex["a0"]) == before
    assert place.tables.generations() == [1]
    assert [one.directory.name for one in place.pins.sets()] == ["v1"]
    assert not place.pins.unfinished()


def test_the_probe_leaves_nothing(place: Place) -> None:
    place.join(datapath := place.opened(), 1, "a0")
    rows, drops = datapath.rows(), datapath.drops()
    datapath.reload()
    assert (datapath.rows(), datapath.drops()) == (rows, drops)
    assert not any(any(traffic.packets) for traffic in datapath.traffic(range(SIZES.counters)))


# An agent that dies

KILLED = """
import os, signal
from vxagent.datapath import attachments, bpf_datapath, bpf_link, handover, pins, takeover
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
datapath = bpf_datapath.BpfDatapath(root, cache, sizes=bpf_datapath.maps.{sizes})
{moment}
datapath.open()
datapath.take_over()
"""

OLD, NEW = "the old build", "the new build"
MOMENTS = [
    ("while it is filled", OLD, "handover.Handover.fill = die"),
    ("before it may run", NEW, "bpf_datapath.BpfDatapath.take_over = die"),
    ("before links are swapped", OLD, "attachments.TcxAttachments.swap = die"),
    *(
        (
            "between two links",
            build,
            "once, update = iter([True]), bpf_link.Link.update\n"
            "bpf_link.Link.update = lambda self, program: update(self, program) if next(once, False) else die()",
        )
        for build in (OLD, NEW)
    ),
    ("before the grace period", OLD, "import contextlib\ntakeover.grace_period = lambda: contextlib.nullcontext(die)"),
    (
        "among counts",
        NEW,
        "from vxagent.datapath import count_mover\n"
        "once, move = iter([True]), count_mover.CountMover.move\n"
        "count_mover.CountMover.move = lambda *a: move(*a) if next(once, False) else die()",
    ),
    ("before the old one goes", OLD, "pins.SetPins.remove = die"),
]


@pytest.mark.parametrize(("moment", "next_build", "patch"), MOMENTS, ids=[f"{m}, then {b}" for m, b, _ in MOMENTS])
def test_whoever_comes_next_finishes_or_undoes_it(moment: str, next_build: str, patch: str, place: Place) -> None:
    first = place.opened()
    for handle, device in ((1, "a0"), (2, "b0")):
        place.join(first, handle, device)
        place.send(device, 4)
    learn(place, range(1, 101))
    wait_until(lambda: _drops(first) == 8, what="eight drops")
    first.close()
    other = replace(LARGER, drops=128)  # a table that is counted in, and another that is learned in
    child = place.python(KILLED.format(sizes=other, moment=patch))
    assert child.returncode == -signal.SIGKILL, child.stderr
    for device in ("a0", "b0"):
        assert len(program_ids(place.ifindex[device])) == 1
        place.send(device, 3)
    sizes = other if next_build == NEW else SIZES
    second = place.opened(sizes=sizes)
    second.take_over()
    for device in ("a0", "b0"):
        place.send(device, 2)
    wait_until(lambda: _drops(second) == 8 + 6 + 4, what=f"each frame is counted once, not {second.drops()}")
    assert known(second) == set(range(1, 101))
    assert len(place.pins.sets()) == 1
    assert not place.pins.unfinished()
    assert second.fdb_room() == sizes.fdb
    assert len({number for device in ("a0", "b0") for number in program_ids(place.ifindex[device])}) == 1


# Other structs


class Sets:
    """Sets of tables without programs and pins. Close them."""

    def __init__(self) -> None:
        self._made: list[TableSet] = []

    def make(self, what: Description) -> TableSet:
        """A set with maps of its own."""
        pins = SetPins(Path("nowhere"), what.layout, len(self._made))
        made = TableSet(pins, what, {name: Map.create(table.spec) for name, table in what.tables.items()})
        self._made.append(made)
        return made

    def close(self) -> None:
        """Let go of them."""
        for made in self._made:
            made.close()


@pytest.fixture
def sets() -> Iterator[Sets]:
    """Nothing yet."""
    made = Sets()
    yield made
    made.close()


def with_value(what: Description, name: str, value: Members) -> Description:
    """The same, with another struct as the value of one map."""
    table = what.tables[name]
    spec = replace(table.spec, value_size=struct.calcsize("=" + "".join(code for _, code in value)))
    return replace(what, tables={**what.tables, name: replace(table, spec=spec, value=value)})


def put(tables: TableSet, name: str, key: bytes, **values: int) -> None:
    """Write a row by the names of its members; of a per-CPU map on the first CPU."""
    members = tables.description.tables[name].value
    data = abi.Layout(name, **dict(members)).pack(**values)
    tables.maps[name].update(key, data.ljust(tables.maps[name].stride, b"\0"))


def test_rows_are_taken_over_by_name(sets: Sets) -> None:
    ours = description.of_build(SIZES)
    turned = with_value(ours, "fdb", (*reversed(ours.tables["fdb"].value), ("tenant", "Q")))
    turned = with_value(turned, "ports", (("colour", "Q"), *ours.tables["ports"].value))
    old, new = sets.make(turned), sets.make(ours)
    key = struct.pack("=Q", fdb_key(1, 7))
    put(old, "fdb", key, port=3, segment=1, origin=Origin.LEARNED, seen_ns=77, tenant=5)
    put(old, "ports", struct.pack("=I", 3), ifindex=12, handle=3, segment=1, colour=4)
    handover = Handover([old], new)
    handover.fill()
    assert abi.FDB_ENTRY.unpack(new.maps["fdb"].lookup(key) or b"") == {
        "port": 3, "via": 0, "segment": 1, "origin": Origin.LEARNED, "flags": 0, "seen_ns": 77,
    }  # fmt: skip
    assert abi.PORT.unpack(new.maps["ports"].lookup(struct.pack("=I", 3)) or b"")["ifindex"] == 12
    now = time.monotonic_ns()
    put(old, "fdb", key, port=3, segment=1, origin=Origin.LEARNED, seen_ns=now + 10**10)
    handover.catch_up()
    assert abi.FDB_ENTRY.unpack(new.maps["fdb"].lookup(key) or b"")["seen_ns"] == now + 10**10


def test_counts_add_up_by_name_and_are_moved_once(sets: Sets) -> None:
    ours = description.of_build(SIZES)
    turned = with_value(ours, "traffic", (("mirrored", "Q"), ("copies", "Q"), ("bytes", "4Q"), ("packets", "4Q")))
    old, new = sets.make(turned), sets.make(ours)
    key = struct.pack("=I", 5)
    values = struct.pack("=10Q", 99, 3, 40, 41, 42, 43, 4, 5, 6, 7)
    old.maps["traffic"].update(key, values * (old.maps["traffic"].stride // len(values)))
    cpus = old.maps["traffic"].stride // len(values)
    handover = Handover([old], new)
    for _ in range(2):
        handover.move_counts()
    found = [
        sum(column)
        for column in zip(*abi.TRAFFIC.struct.iter_unpack(new.maps["traffic"].lookup(key) or b""), strict=True)
    ]
    assert found == [cpus * value for value in (4, 5, 6, 7, 40, 41, 42, 43, 0, 0, 3)]


def test_drops_of_keys_in_another_order_add_up(sets: Sets) -> None:
    ours = description.of_build(SIZES)
    table = ours.tables["drops"]
    turned = replace(ours, tables={**ours.tables, "drops": replace(table, key=tuple(reversed(table.key)))})
    old, new = sets.make(turned), sets.make(ours)
    counted = struct.pack("=QQ", 2, 128)
    old.maps["drops"].update(struct.pack("=4H", 0, 3, 8, 4), counted.ljust(old.maps["drops"].stride, b"\0"))
    key = abi.DROP_KEY.pack(port=4, segment=8, reason=3)
    new.maps["drops"].update(key, struct.pack("=QQ", 1, 64).ljust(new.maps["drops"].stride, b"\0"))
    Handover([old], new).move_counts()
    values = struct.iter_unpack("=QQ", new.maps["drops"].lookup(key) or b"")
    assert [sum(column) for column in zip(*values, strict=True)] == [3, 192]


def test_what_is_forgotten_meanwhile_does_not_come_back(sets: Sets) -> None:
    ours = description.of_build(SIZES)
    old, new = sets.make(ours), sets.make(ours)
    for port in (4, 5):
        put(old, "drops", abi.DROP_KEY.pack(port=port, segment=8, reason=3), packets=1)
        put(old, "learning", struct.pack("=I", port), limited=7)
    handover = Handover([old], new)
    handover.clear([4], 4, 0)
    handover.move_counts()
    assert [key for batch in new.maps["drops"].batches() for key in abi.DROP_KEY.struct.iter_unpack(batch.keys)] == [
        (5, 8, 3, 0)
    ]
    limited = [
        abi.LEARNING.unpack(new.maps["learning"].lookup(struct.pack("=I", port)) or b"")["limited"] for port in (4, 5)
    ]
    assert limited == [0, 7]


def _put_telling(tables: TableSet, *values: int) -> None:
    tables.maps["telling"].update(struct.pack("=I", 4), abi.TELLING.struct.pack(*values))


def _telling(tables: TableSet) -> tuple[int, ...]:
    return abi.TELLING.struct.unpack(tables.maps["telling"].lookup(struct.pack("=I", 4)) or b"")


def test_events_that_were_not_told_add_up_and_their_buckets_are_the_new_ones_own(sets: Sets) -> None:
    ours = description.of_build(SIZES)
    old, new = sets.make(ours), sets.make(ours)
    kinds = range(len(abi.EventType))
    _put_telling(old, 7, *(11 + kind for kind in kinds))
    _put_telling(new, 1, *(21 + kind for kind in kinds))
    for _ in range(2):
        Handover([old], new).move_counts()
    assert _telling(new) == (8, *(21 + kind for kind in kinds))


def test_events_that_are_forgotten_meanwhile_do_not_come_back(sets: Sets) -> None:
    ours = description.of_build(SIZES)
    old, new = sets.make(ours), sets.make(ours)
    _put_telling(old, 7, *[0] * len(abi.EventType))
    handover = Handover([old], new)
    handover.clear([], 4, 0)
    handover.move_counts()
    assert not any(_telling(new))


def test_a_build_that_counts_no_such_events_hands_over_none(sets: Sets) -> None:
    ours = description.of_build(SIZES)
    old = sets.make(replace(ours, tables={name: table for name, table in ours.tables.items() if name != "telling"}))
    new = sets.make(ours)
    handover = Handover([old], new)
    handover.fill()
    handover.clear([], 4, 0)
    handover.move_counts()
    assert not any(_telling(new))


def test_a_set_that_nothing_describes_is_refused(place: Place) -> None:
    place.opened().close()
    with suppress(FileNotFoundError):
        (place.root / "v1" / "description").unlink()
    (place.root / "v1").rename(place.root / "v7")
    with pytest.raises(HostError, match=r"v7 are of layout 7, which nothing describes; take the switch off"):
        place.datapath().open()


def test_tables_from_before_they_were_described_are_taken_over(place: Place) -> None:
    place.join(first := place.opened(), 1, "a0")
    learn(place, range(1, 11))
    first.close()
    (place.root / "v1" / "description").unlink()
    second = place.opened(sizes=LARGER)
    second.take_over()
    assert known(second) == set(range(1, 11))
