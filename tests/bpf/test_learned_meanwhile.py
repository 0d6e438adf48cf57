"""What is learned while tables take over from tables: by old programs, after the last copy before links are swapped.

a1 ═══ a0 (port 1, segment 1)      frames with MACs that nobody has heard of before
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest

from support.place import SIZES, Place
from vxagent.core.effects import PutRow
from vxagent.core.tables import (
    DeviceRow,
    LimitsRow,
    Origin,
    PortFlag,
    PortMode,
    PortRow,
    Row,
    SegmentFlag,
    SegmentRow,
    Table,
    fdb_key,
)
from vxagent.datapath import abi, grace
from vxagent.datapath.bpf_datapath import BpfDatapath
from vxagent.datapath.bpf_map import Map
from vxagent.lab.waiting import wait_until
from vxagent.netlink.links import NetlinkLinks

LARGER = replace(SIZES, fdb=4096)
EARLY, LATE = 20, 30
ROUNDS = 6
PAUSE_S = 0.0002
ROOM = 65536


def learn(table: Map, mac: int) -> None:
    """As a program does."""
    value = abi.FDB_ENTRY.pack(port=1, segment=1, origin=Origin.LEARNED, seen_ns=time.monotonic_ns())
    table.update(struct.pack("=Q", fdb_key(1, mac)), value)


def known(datapath: BpfDatapath) -> set[int]:
    return {entry.mac for entry in datapath.fdb()}


class Between(NetlinkLinks):
    """Does something when a program is put on a device, before that is done."""

    def __init__(self, do: Callable[[], None]) -> None:
        super().__init__()
        self._do = do

    def attach_clsact(self, ifindex: int, program_fd: int, *, egress: bool = False) -> None:
        self._do()
        super().attach_clsact(ifindex, program_fd, egress=egress)


def test_what_old_programs_learn_behind_the_last_copy_has_a_second_look(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One station just before the swap, one by a program that was in the midst of its run when it was swapped."""
    with closing(NetlinkLinks()) as links:
        place.join(first := place.opened(clsact=links), 1, "a0")
        first.close()
    old = place.map("fdb")
    unknown: list[bool] = []

    def at_the_swap() -> None:
        learn(old, EARLY)
        unknown.append(EARLY not in known(second))

    @contextmanager
    def grace_period() -> Iterator[Callable[[], object]]:
        with grace.grace_period() as wait:

            def wait_for_a_late_one() -> None:
                unknown.append(EARLY not in known(second))
                learn(old, LATE)
                wait()

            yield wait_for_a_late_one

    monkeypatch.setattr("vxagent.datapath.takeover.grace_period", grace_period)
    with closing(Between(at_the_swap)) as between:
        second = place.datapath(sizes=LARGER, clsact=between)
        second.open()
        second.take_over()
        assert unknown == [True, False], "it was no part of the last copy before the swap, and of the one behind it"
        assert known(second) == {EARLY, LATE}
        assert second.learning([1])[0].entries == 2


def learning_port(place: Place) -> list[PutRow]:
    ifindex = place.ifindex["a0"]
    rows: dict[tuple[Table, int], Row] = {
        (Table.SEGMENTS, 1): SegmentRow(handle=1, slots=0, mtu=1500, flags=SegmentFlag(0), vni=0, vlan=0),
        (Table.LIMITS, 1): LimitsRow(),
        (Table.PORTS, 1): PortRow(
            ifindex=ifindex,
            flags=PortFlag(0),
            state=PortMode.UP,
            handle=1,
            segment=1,
            counter=1,
            counter_none=2,
            max_macs=ROOM,
        ),
        (Table.DEVICES, ifindex): DeviceRow(ifindex=ifindex, port=1),
    }
    return [PutRow(table=table, key=key, row=row) for (table, key), row in rows.items()]


class Newcomers:
    """Sends frames, each of which has a MAC of its own, until it is ended."""

    def __init__(self, place: Place) -> None:
        self.sent = 0
        self._end = threading.Event()
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._socket.bind(("a1", 0))
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def end(self) -> set[int]:
        """The MACs that it sent."""
        self._end.set()
        self._thread.join()
        self._socket.close()
        return set(range(1, self.sent + 1))

    def _send(self) -> None:
        while not self._end.wait(PAUSE_S):
            self.sent += 1
            self._socket.send(b"\xff" * 6 + self.sent.to_bytes(6, "big") + b"\x88\xb5" + bytes(46))


def test_no_station_is_forgotten_while_tables_take_over_again_and_again(place: Place) -> None:
    """Each is heard once, by whichever programs run just then: who forgets it does not hear of it again."""
    datapath = place.opened(sizes=replace(SIZES, fdb=ROOM))
    for effect in learning_port(place):
        datapath.put(effect)
    datapath.attach(place.attach(1, "a0"))
    newcomers = Newcomers(place)
    try:
        for turn in range(ROUNDS):
            before = newcomers.sent
            datapath.reload(fdb_entries=ROOM + 1 + turn)
            assert newcomers.sent > before
    finally:
        sent = newcomers.end()
    assert place.lost_before("a0") == 0
    wait_until(lambda: known(datapath) == sent, what=f"all {len(sent)} are known")
    assert datapath.fdb_room() == ROOM + ROUNDS
    datapath.age()  # puts right what was counted in old and new tables at once
    assert datapath.learning([1])[0].entries == len(sent)
