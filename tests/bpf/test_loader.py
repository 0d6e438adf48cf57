"""The loader on real devices: pins, links, generations, and what is left when the agent dies."""

from __future__ import annotations

import itertools
import signal
import threading
from pathlib import Path

import pytest

from support.place import SIZES, Place
from support.tcx import program_ids
from vxagent.core.effects import DeleteRow, PutRow
from vxagent.core.tables import FdbFlag, FdbRow, Origin, SegmentFlag, SegmentRow, SettingsRow, Table, fdb_key
from vxagent.datapath import bpf_link, maps
from vxagent.datapath.bpf_datapath import BpfDatapath
from vxagent.datapath.bpf_link import Link
from vxagent.datapath.bpf_map import Map, MapSpec, MapType
from vxagent.datapath.bpf_prog import AttachType, Program, ProgSpec, ProgType
from vxagent.errors import HostError, MapFull
from vxagent.lab.waiting import wait_until

DROP_ALL = bytes.fromhex("b700000002000000" + "9500000000000000")  # r0 = TC_ACT_SHOT; exit


def _drops(datapath: BpfDatapath) -> int:
    return sum(drop.packets for drop in datapath.drops())


def _counts(place: Place, datapath: BpfDatapath, device: str) -> None:
    """The program on this device sees frames."""
    before = _drops(datapath)
    place.send(device, 3)
    wait_until(lambda: _drops(datapath) == before + 3, what=f"three more drops at {device}")


# Maps and their pins


def test_the_first_open_pins_every_map_and_one_generation(place: Place) -> None:
    place.opened()
    expected = {f"v1/{name}" for name in maps.declare(SIZES)} | {"v1/progs-1", "v1/description"}
    assert {pin for pin in place.listing() if "/" in pin} == expected


def test_rows_are_there_again_at_the_next_open(place: Place) -> None:
    segment = SegmentRow(handle=3, slots=0, mtu=1500, flags=SegmentFlag(0), vni=0, vlan=10)
    static = FdbRow(port=1, segment=3, origin=Origin.STATIC, flags=FdbFlag.LISTED)
    first = place.opened()
    for effect in (
        *place.port(1, "a0"),
        PutRow(table=Table.SETTINGS, key=0, row=SettingsRow(ageing_ns=300)),
        PutRow(table=Table.SEGMENTS, key=3, row=segment),
        PutRow(table=Table.FDB, key=fdb_key(3, 0x020000000001), row=static),
    ):
        first.put(effect)
    rows = first.rows()
    first.close()
    assert len(rows) == 5
    assert place.opened().rows() == rows


def test_a_deleted_row_is_gone(place: Place) -> None:
    datapath = place.opened()
    for put in place.port(1, "a0"):
        datapath.put(put)
        datapath.delete(DeleteRow(table=put.table, key=put.key, old=put.row))
        datapath.delete(DeleteRow(table=put.table, key=put.key, old=put.row))  # absent is no failure
    assert set(datapath.rows()) == {(Table.SETTINGS, 0)}


def test_a_pin_of_another_kind_is_refused(place: Place) -> None:
    place.opened().close()
    pin = place.tables.map("devices")
    pin.unlink()
    alien = MapSpec(name="devices", type=MapType.HASH, key_size=8, value_size=8, max_entries=64)
    Map.open_or_create(pin, alien).close()
    with pytest.raises(HostError, match="devices has key size 8 instead of 4"):
        place.datapath().open()


def test_what_is_to_be_taken_off_may_have_any_sizes(place: Place) -> None:
    place.join(first := place.opened(), 1, "a0")
    first.close()
    other = place.datapath(sizes=maps.Sizes(fdb=4096))
    other.open(replace=False)
    assert other.attached() == {1: place.ifindex["a0"]}
    other.destroy()
    assert program_ids(place.ifindex["a0"]) == []


def test_a_full_map_says_so(place: Place) -> None:
    datapath = place.opened()
    row = FdbRow(port=1, segment=1, origin=Origin.STATIC, flags=FdbFlag(0))
    for mac in range(SIZES.fdb):
        datapath.put(PutRow(table=Table.FDB, key=fdb_key(1, mac), row=row))
    with pytest.raises(MapFull, match=r"map fdb is full \(1024 entries\)"):
        datapath.put(PutRow(table=Table.FDB, key=fdb_key(1, SIZES.fdb), row=row))


def test_a_handle_beyond_its_array_says_so(place: Place) -> None:
    (put, *_) = place.port(64, "a0")
    with pytest.raises(MapFull, match=r"map ports is full \(64 entries\)"):
        place.opened().put(put)


# Links


def test_an_attached_program_sees_frames_and_survives_the_agent(place: Place) -> None:
    place.join(first := place.opened(), 1, "a0")
    _counts(place, first, "a0")
    running = program_ids(place.ifindex["a0"])
    before = _drops(first)
    first.close()
    place.send("a0", 5)
    assert program_ids(place.ifindex["a0"]) == running
    second = place.datapath()
    second.open(replace=False)
    wait_until(lambda: _drops(second) == before + 5, what="the frames sent while no agent lived")


def test_the_switch_comes_before_other_programs(place: Place) -> None:
    ifindex = place.ifindex["a0"]
    with (
        Program.load(ProgSpec(name="other", type=ProgType.SCHED_CLS), DROP_ALL) as other,
        Link.create(other, AttachType.TCX_INGRESS, ifindex),
    ):
        place.join(datapath := place.opened(), 1, "a0")
        assert program_ids(ifindex)[1:] == [other.id]
        _counts(place, datapath, "a0")


def test_attaching_again_swaps_instead_of_adding(place: Place) -> None:
    place.join(datapath := place.opened(), 1, "a0")
    datapath.attach(place.attach(1, "a0"))
    assert len(program_ids(place.ifindex["a0"])) == 1


def test_a_port_moves_to_another_device(place: Place) -> None:
    place.join(datapath := place.opened(), 1, "a0")
    datapath.attach(place.attach(1, "b0"))
    assert program_ids(place.ifindex["a0"]) == []
    assert datapath.attached() == {1: place.ifindex["b0"]}


def test_a_device_belongs_to_one_port(place: Place) -> None:
    place.join(datapath := place.opened(), 1, "a0")
    with pytest.raises(HostError, match="the switch's program runs on a0 already"):
        datapath.attach(place.attach(2, "a0"))
    assert datapath.attached() == {1: place.ifindex["a0"]}


def test_a_device_that_is_not_there_is_named(place: Place) -> None:
    effect = place.attach(1, "a0")
    place.unplug("a")
    with pytest.raises(HostError, match="cannot attach to a0: no such device"):
        place.opened().attach(effect)


def test_detaching_takes_the_program_off_at_once(place: Place) -> None:
    place.join(datapath := place.opened(), 1, "a0")
    datapath.detach(place.detach(1, "a0"))
    assert program_ids(place.ifindex["a0"]) == []
    assert datapath.attached() == {}
    datapath.detach(place.detach(1, "a0"))  # absent is no failure


def test_a_device_that_vanishes_leaves_a_link_without_one(place: Place) -> None:
    place.join(datapath := place.opened(), 1, "a0")
    effect = place.detach(1, "a0")
    place.unplug("a")
    assert datapath.attached() == {1: 0}
    datapath.detach(effect)
    assert datapath.attached() == {}


def test_links_without_a_device_are_dropped_at_the_next_open(place: Place) -> None:
    place.join(first := place.opened(), 1, "a0")
    first.close()
    place.unplug("a")
    assert place.opened().attached() == {}
    assert "links/1" not in place.listing()


def test_a_device_that_comes_back_is_attached_anew(place: Place) -> None:
    place.join(datapath := place.opened(), 1, "a0")
    place.unplug("a")
    place.plug("a")
    place.join(datapath, 1, "a0")
    _counts(place, datapath, "a0")


def test_this_kernel_has_tcx_or_is_older_than_66() -> None:
    major, minor = (int(part) for part in Path("/proc/sys/kernel/osrelease").read_text().split(".")[:2])
    assert bpf_link.has_tcx() == ((major, minor) >= (6, 6))


def test_a_native_xdp_link_runs_on_a_veth(place: Place) -> None:
    place.opened()
    code = bytes.fromhex("b700000002000000" + "9500000000000000")  # XDP_PASS
    spec = ProgSpec(name="pass", type=ProgType.XDP, attach_type=AttachType.XDP)
    with Program.load(spec, code) as program, Link.create(program, AttachType.XDP, place.ifindex["a0"]) as link:
        assert (link.ifindex, link.program_id) == (place.ifindex["a0"], program.id)
        assert "xdp" in place.namespace.ip("link", "show", "a0")


# Generations


def _generations(place: Place) -> list[int]:
    return place.tables.generations()


def test_reload_swaps_every_link_and_leaves_one_generation(place: Place) -> None:
    datapath = place.opened()
    before = []
    for handle, device in ((1, "a0"), (2, "b0")):
        place.join(datapath, handle, device)
        before += program_ids(place.ifindex[device])
    datapath.reload()
    after = [number for device in ("a0", "b0") for number in program_ids(place.ifindex[device])]
    assert len(after) == 2
    assert not set(before) & set(after)
    assert _generations(place) == [2]
    _counts(place, datapath, "a0")


def test_reloading_under_traffic_loses_no_frame(place: Place) -> None:
    place.join(datapath := place.opened(), 1, "a0")
    stop, batches = threading.Event(), itertools.count()

    def send() -> None:
        while not stop.is_set():
            place.send("a0", 100)
            next(batches)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        for _ in range(10):
            datapath.reload()
    finally:
        stop.set()
        sender.join()
    arrived = 100 * next(batches) - place.lost_before("a0")
    wait_until(lambda: _drops(datapath) == arrived, what="each frame that arrived is counted")
    assert place.tables.generations() == [11]


def test_open_without_replace_touches_no_program(place: Place) -> None:
    place.join(first := place.opened(), 1, "a0")
    running = program_ids(place.ifindex["a0"])
    first.close()
    second = place.datapath()
    second.open(replace=False)
    assert program_ids(place.ifindex["a0"]) == running
    assert _generations(place) == [1]
    place.join(second, 2, "b0")
    assert _generations(place) == [1, 2]
    _counts(place, second, "b0")


KILLED = """
import os, signal
from vxagent.datapath import attachments, bpf_datapath, bpf_link, pins
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
datapath = bpf_datapath.BpfDatapath(root, cache, sizes=bpf_datapath.maps.{sizes})
{moment}
datapath.open()
"""


@pytest.mark.parametrize(
    ("moment", "generations", "swapped"),
    [
        ("attachments.TcxAttachments.swap = die", [1, 2], 0),
        (
            "once, update = iter([True]), bpf_link.Link.update\n"
            "bpf_link.Link.update = lambda self, program: update(self, program) if next(once, False) else die()",
            [1, 2],
            1,
        ),
        ("pins.SetPins.remove_generation = die", [1, 2], 2),
    ],
    ids=["before the links are swapped", "between two links", "before the old generation goes"],
)
def test_an_agent_killed_while_it_swaps_leaves_programs_that_run(
    moment: str, generations: list[int], swapped: int, place: Place
) -> None:
    first = place.opened()
    before = {}
    for handle, device in ((1, "a0"), (2, "b0")):
        place.join(first, handle, device)
        before[device] = program_ids(place.ifindex[device])
    first.close()
    child = place.python(KILLED.format(sizes=SIZES, moment=moment))
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert _generations(place) == generations
    after = {device: program_ids(place.ifindex[device]) for device in before}
    assert [len(running) for running in after.values()] == [1, 1]
    assert sum(after[device] != before[device] for device in before) == swapped
    second = place.opened()
    assert _generations(place) == [3]
    for device in ("a0", "b0"):
        _counts(place, second, device)


def test_flooding_survives_an_agent_that_dies(place: Place) -> None:
    """The tail-call table is emptied once only programs refer to it, so its pin must stay."""
    place.join(first := place.opened(), 1, "a0")
    first.close()
    table = Map.open(place.tables.generation(1), maps.progs_spec())
    assert table is not None
    with table:
        assert table.lookup(bytes(4)) is not None


# The end


def test_destroy_leaves_nothing(place: Place) -> None:
    place.join(datapath := place.opened(), 1, "a0")
    datapath.destroy()
    assert program_ids(place.ifindex["a0"]) == []
    assert not place.root.exists()
    assert str(place.root) not in Path("/proc/self/mountinfo").read_text()


def test_of_a_switch_that_was_being_removed_nothing_is_taken_over(place: Place) -> None:
    datapath = place.opened()
    datapath.put(place.port(1, "a0")[0])
    datapath.close()
    gone = place.pins.sets()[0].directory.rename(place.root / "gone-v1")  # and then the agent died
    datapath.open()
    assert [table for table, _ in datapath.rows()] == [Table.SETTINGS]
    assert not gone.exists()


def test_destroy_works_without_open(place: Place) -> None:
    place.join(first := place.opened(), 1, "a0")
    first.close()
    BpfDatapath(place.root, place.cache).destroy()
    assert program_ids(place.ifindex["a0"]) == []
    BpfDatapath(place.root, place.cache).destroy()  # nothing there is no failure


def test_a_data_path_that_is_not_open_says_so(place: Place) -> None:
    with pytest.raises(HostError, match="the data path is not open"):
        place.datapath().rows()
