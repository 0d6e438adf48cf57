"""What the data path sees of drift on real objects, and how it mends what it lost of its own, under traffic."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from support.kernel_objects import KernelObjects, pinned_below
from support.place import Place
from support.tcx import program_ids
from vxagent.core.audit import Thing, XdpAt
from vxagent.core.effects import DeleteRow, Mend, PutRow, SetXdp, Xdp
from vxagent.core.tables import FdbFlag, FdbRow, Origin, Table, fdb_key
from vxagent.datapath import abi, bpf, maps
from vxagent.datapath.bpf_datapath import BpfDatapath
from vxagent.datapath.bpf_link import Link
from vxagent.datapath.bpf_map import Map
from vxagent.datapath.bpf_prog import Program, ProgSpec, ProgType
from vxagent.lab.namespaces import run
from vxagent.lab.waiting import wait_until

PASS = bytes.fromhex("b7000000000000009500000000000000")  # r0 = 0; exit
THEIRS = ProgSpec(name="theirs", type=ProgType.SCHED_CLS)


@pytest.fixture
def datapath(place: Place) -> BpfDatapath:
    """Ports 1 and 2 on a0 and b0."""
    made = place.opened()
    place.join(made, 1, "a0")
    place.join(made, 2, "b0")
    return made


@pytest.fixture
def wanted(place: Place, datapath: BpfDatapath) -> dict[int, int]:
    return {1: place.ifindex["a0"], 2: place.ifindex["b0"]}


def drops(datapath: BpfDatapath) -> int:
    return sum(drop.packets for drop in datapath.drops())


def mend(datapath: BpfDatapath) -> list[tuple[Thing, str]]:
    """Mend all; what there was to mend."""
    lost = datapath.faults()
    for fault in lost:
        datapath.mend(Mend(thing=fault.thing, name=fault.name))
    assert datapath.faults() == []
    return [(fault.thing, fault.name) for fault in lost]


def open_link(place: Place, handle: int) -> Link:
    link = Link.open(place.pins.links / str(handle))
    assert link is not None
    return link


# Pins


def test_nothing_is_lost_of_a_switch_that_nobody_touches(place: Place, datapath: BpfDatapath) -> None:
    assert datapath.faults() == []
    datapath.reload()
    assert datapath.faults() == []
    datapath.detach(place.detach(1, "a0"))
    assert datapath.faults() == []
    datapath.attach(place.attach(1, "a0"))
    assert datapath.faults() == []


@pytest.mark.parametrize("name", ["v1/fdb", "v1/progs-1", "links/1"])
def test_a_pin_that_was_removed_is_made_anew(place: Place, datapath: BpfDatapath, name: str) -> None:
    before, objects = place.listing(), pinned_below(place.root)
    (place.root / name).unlink()
    assert mend(datapath) == [(Thing.PIN, name)]
    assert place.listing() == before
    assert pinned_below(place.root) == objects


def test_a_pin_that_was_replaced_is_made_anew(place: Place, datapath: BpfDatapath) -> None:
    objects, pin = pinned_below(place.root), place.pins.sets()[0].map("ports")
    pin.unlink()
    with Map.create(maps.declare(maps.DEFAULT_SIZES)["ports"]) as theirs:
        bpf.pin(theirs.fd, pin)
    assert mend(datapath) == [(Thing.PIN, "v1/ports")]
    assert pinned_below(place.root) == objects


def pinned_alone(pin: Path) -> KernelObjects:
    """A map that only this pin holds."""
    with Map.create(maps.declare(maps.DEFAULT_SIZES)["ports"]) as made:
        bpf.pin(made.fd, pin)
        return KernelObjects(programs=frozenset(), maps=frozenset({made.id}))


def test_a_bpffs_that_was_unmounted_is_mounted_anew_and_nothing_ends(
    place: Place, datapath: BpfDatapath, wanted: dict[int, int]
) -> None:
    before, objects = place.listing(), pinned_below(place.root)
    running, lost = program_ids(wanted[1]), place.lost_before("a0")
    counted = drops(datapath)
    place.send("a0")  # what the kernel would still do for a link that has gone
    unheld = pinned_alone(place.root / "unheld")
    run("umount", str(place.root))
    assert place.listing() == set()
    place.send("a0", 5)
    wait_until(lambda: not unheld.left(), what="the kernel lets go of what nobody holds")
    place.send("a0", 5)
    assert program_ids(wanted[1]) == running
    assert datapath.runs(wanted) == {1: True, 2: True}
    mended = mend(datapath)
    assert mended[0] == (Thing.BPFFS, str(place.root))
    ours = {name for name in before if "/" in name}  # the kernel puts two files into each bpffs
    assert {name for _, name in mended[1:]} == ours
    assert place.listing() == before
    assert pinned_below(place.root) == objects
    wait_until(
        lambda: drops(datapath) - counted + place.lost_before("a0") - lost == 11, what="each frame sent is decided upon"
    )


def test_what_was_pinned_anew_outlives_the_agent(place: Place, datapath: BpfDatapath, wanted: dict[int, int]) -> None:
    run("umount", str(place.root))
    mend(datapath)
    rows = datapath.rows()
    datapath.close()
    again = place.opened()
    assert again.rows() == rows
    assert again.runs(wanted) == {1: True, 2: True}


def test_a_port_whose_pin_is_gone_can_be_detached(place: Place, datapath: BpfDatapath, wanted: dict[int, int]) -> None:
    run("umount", str(place.root))
    datapath.detach(place.detach(1, "a0"))
    assert program_ids(wanted[1]) == []
    mend(datapath)
    assert "links/1" not in place.listing()


def test_descriptors_are_given_back(place: Place, datapath: BpfDatapath) -> None:
    datapath.detach(place.detach(1, "a0"))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        datapath.attach(place.attach(1, "a0"))
        datapath.reload()
        datapath.detach(place.detach(1, "a0"))
    assert len(os.listdir("/proc/self/fd")) == before


# Programs


def test_a_link_that_somebody_detached_is_seen_and_the_program_put_back(
    place: Place, datapath: BpfDatapath, wanted: dict[int, int]
) -> None:
    with open_link(place, 1) as link:
        link.detach()
    assert program_ids(wanted[1]) == []
    assert datapath.runs(wanted) == {1: False, 2: True}
    datapath.attach(place.attach(1, "a0"))
    assert datapath.runs(wanted) == {1: True, 2: True}
    assert datapath.faults() == []


def test_a_program_that_somebody_put_into_a_link_is_seen_and_replaced(
    place: Place, datapath: BpfDatapath, wanted: dict[int, int]
) -> None:
    running = program_ids(wanted[1])
    with Program.load(THEIRS, PASS) as theirs, open_link(place, 1) as link:
        assert link.update(theirs)
    assert program_ids(wanted[1]) != running
    assert datapath.runs(wanted) == {1: False, 2: True}
    datapath.attach(place.attach(1, "a0"))
    assert program_ids(wanted[1]) == running


def test_the_program_of_a_port_on_another_device_is_seen(datapath: BpfDatapath, wanted: dict[int, int]) -> None:
    assert datapath.runs({1: wanted[2], 3: wanted[1]}) == {1: False, 3: False}


def test_links_that_are_not_held_are_seen_as_well(
    place: Place, datapath: BpfDatapath, wanted: dict[int, int], few_descriptors: Callable[[], None]
) -> None:
    few_descriptors()
    datapath.detach(place.detach(1, "a0"))
    datapath.attach(place.attach(1, "a0"))
    assert datapath.runs(wanted) == {1: True, 2: True}
    with open_link(place, 1) as link:
        link.detach()
    assert datapath.runs(wanted) == {1: False, 2: True}
    datapath.attach(place.attach(1, "a0"))
    assert datapath.runs(wanted) == {1: True, 2: True}


@pytest.fixture
def few_descriptors(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Leave no room to hold links."""
    return lambda: monkeypatch.setattr("vxagent.datapath.pinned_links._SHARE", 1 << 30)


def test_tail_calls_that_somebody_changed_lead_where_they_should(place: Place, datapath: BpfDatapath) -> None:
    with Map.open(place.pins.sets()[0].generation(1), maps.progs_spec()) as progs:  # type: ignore[union-attr]  # it is there
        before = [progs.lookup(struct.pack("=I", slot)) for slot in range(8)]
        progs.delete(struct.pack("=I", abi.Prog.WALK))
        with Program.load(THEIRS, PASS) as theirs:
            progs.update(struct.pack("=I", abi.Prog.FLOOD), struct.pack("=I", theirs.fd))
        assert sorted(mend(datapath)) == [(Thing.TAIL_CALL, "vx_flood"), (Thing.TAIL_CALL, "vx_walk")]
        assert [progs.lookup(struct.pack("=I", slot)) for slot in range(8)] == before


def test_what_xdp_sends_to_is_seen(place: Place, datapath: BpfDatapath, wanted: dict[int, int]) -> None:
    at = wanted[1]
    datapath.set_xdp(SetXdp(handle=1, ifindex=at, ifname="a0", xdp=Xdp.SENDS | Xdp.RECEIVES, old=Xdp.NONE))
    assert datapath.xdp_at(wanted) == {1: XdpAt(sends=True, receives=at), 2: XdpAt()}
    place.map("xdp_devices").update(struct.pack("=I", 1), struct.pack("=I", wanted[2]))
    link = Link.open(place.pins.xdp / "1")
    assert link is not None
    with link:
        link.detach()
    assert datapath.xdp_at(wanted)[1] == XdpAt(sends=False, receives=wanted[2])
    datapath.set_xdp(SetXdp(handle=1, ifindex=at, ifname="a0", xdp=Xdp.SENDS | Xdp.RECEIVES, old=Xdp.RECEIVES))
    assert datapath.xdp_at(wanted)[1] == XdpAt(sends=True, receives=at)


# Tables


def test_a_table_is_the_same_until_a_row_changes(place: Place, datapath: BpfDatapath) -> None:
    before = {table: datapath.contents(table).digest for table in Table}
    for put in place.port(3, "a1"):
        datapath.put(put)
    changed = {table for table in Table if datapath.contents(table).digest != before[table]}
    assert changed == {Table.PORTS, Table.DEVICES}
    for put in reversed(place.port(3, "a1")):
        datapath.delete(DeleteRow(table=put.table, key=put.key, old=put.row))
    assert {table: datapath.contents(table).digest for table in Table} == before


def test_learned_entries_do_not_change_the_fdb_of_the_agent(place: Place, datapath: BpfDatapath) -> None:
    static = FdbRow(port=1, segment=1, origin=Origin.STATIC, flags=FdbFlag(0))
    for mac in range(1, 4):
        datapath.put(PutRow(table=Table.FDB, key=fdb_key(1, mac), row=static))
    before = datapath.contents(Table.FDB)
    fdb = place.map("fdb")
    for mac in range(100, 600):
        value = abi.FDB_ENTRY.pack(port=2, segment=1, origin=Origin.LEARNED, seen_ns=mac)
        fdb.update(struct.pack("=Q", fdb_key(1, mac)), value)
    after = datapath.contents(Table.FDB)
    assert after.rows() == before.rows() == {(Table.FDB, fdb_key(1, mac)): static for mac in range(1, 4)}
    fdb.update(struct.pack("=Q", fdb_key(1, 7)), abi.FDB_ENTRY.pack(port=2, segment=1, origin=77))
    row = datapath.contents(Table.FDB).rows()[Table.FDB, fdb_key(1, 7)]
    assert isinstance(row, FdbRow)
    assert (row.origin, int(row.origin)) == (Origin(77), 77)
