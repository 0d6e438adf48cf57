"""Whether a generation of programs does what a switch does, before any frame depends on it.

Two ports that are nobody's, on the loopback device, which has no program, and a segment of their own: frames between
them are run through the programs (BPF_PROG_TEST_RUN), which sends nothing. What was written for that, or counted, is
taken away again; where a process is ended in between, by the next probe: the loopback device's row, written last and
removed last, says so.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from vxagent.core.tables import (
    DeviceRow,
    FdbFlag,
    FdbRow,
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
from vxagent.datapath import abi, codec, programs
from vxagent.datapath.abi import Reason
from vxagent.datapath.bpf_map import Map
from vxagent.datapath.opened import Opened
from vxagent.errors import HostError, MapFull

log = logging.getLogger(__name__)

_LOOPBACK = 1  # its ifindex, in every network namespace; a test run takes the frame to come from there
_TC_SHOT, _TC_REDIRECT = 2, 7  # <linux/pkt_cls.h>
_XDP_PASS = 2  # <linux/bpf.h>
_MTU = 1500
_STATIONS = 0x02767870_0001, 0x02767870_0002  # locally administered
_BYTES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Numbers that nobody has."""

    ports: tuple[int, int]
    counters: tuple[int, int]
    segment: int


def probe(opened: Opened) -> None:
    """Probe the programs of this process by the tables that they were loaded for.

    Raises:
        HostError: they do not do as they should.
        BpfError: the kernel refused.
    """
    _end_what_was_cut_short(opened)
    place = _find_place(opened)
    if place is None:
        log.warning("the new programs are not probed: every port, segment or counter that there can be is in use")
        return
    try:
        for (table, key), row in _rows(place).items():
            opened.maps[table].update(codec.encode_key(table, key), codec.encode(table, row))
        opened.epoch.rise()
        _run(opened, place)
    except MapFull as error:
        log.warning("the new programs are not probed: %s", error)
    finally:
        _take_away(opened, place)


def _take_away(opened: Opened, place: _Place) -> None:
    """What was counted first, while the rows still tell where."""
    opened.counters.clear_traffic(place.counters)
    opened.counters.clear_drops(place.ports[0], 0)
    for table, key in _rows(place):
        _remove(opened.maps[table], table, key)
    opened.epoch.rise()


def _end_what_was_cut_short(opened: Opened) -> None:
    """Take away what a process left that was ended while it probed. No port is ever on the loopback device."""
    value = opened.maps["devices"].lookup(codec.U32.pack(_LOOPBACK))
    if value is None:
        return
    first = abi.DEVICE.unpack(value)["port"]
    port = _port(opened, first)
    receiver = opened.maps["fdb"].lookup(codec.encode_key(Table.FDB, fdb_key(port["segment"], _STATIONS[1])))
    second = abi.FDB_ENTRY.unpack(receiver)["port"] if receiver else first
    counters = port["counter"], _port(opened, second)["counter"]
    _take_away(opened, _Place(ports=(first, second), counters=counters, segment=port["segment"]))


def _port(opened: Opened, handle: int) -> dict[str, int]:
    return abi.PORT.unpack(opened.maps["ports"].lookup(codec.U32.pack(handle)) or bytes(abi.PORT.size))


def _run(opened: Opened, place: _Place) -> None:
    """Known unicast, twice, for the second one goes by a flow; a tag that an access port may not have; XDP, which has
    nowhere to send to."""
    assert opened.generation is not None
    tc, xdp = (opened.generation.programs[spec.name] for spec in (programs.TC, programs.XDP))
    for what in ("a frame to a known station", "the next frame to it"):
        _expect(what, tc.test_run(_frame()).verdict, _TC_REDIRECT)
    (traffic,) = opened.counters.traffic(place.counters[:1])
    _expect("the count of frames forwarded", traffic.packets[0], 2)
    _expect("a tagged frame at an access port", tc.test_run(_frame(struct.pack("!HH", 0x8100, 5))).verdict, _TC_SHOT)
    denied = [drop for drop in opened.counters.drops() if drop.port == place.ports[0]]
    _expect("the reason of its drop", [drop.reason for drop in denied], [Reason.VLAN_DENIED])
    _expect("XDP, without a device to send to", xdp.test_run(_frame()).verdict, _XDP_PASS)


def _expect(what: str, got: object, wanted: object) -> None:
    if got != wanted:
        raise HostError(
            f"the new programs do not pass their probe: {what} gave {got} instead of {wanted}; what ran before goes on",
            "install a version that works",
        )


def _frame(tag: bytes = b"") -> bytes:
    """UDP from the first station to the second."""
    payload = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 46, 0, 0, 64, 17, 0, bytes(4), bytes(4))
    payload += struct.pack("!HHHH", 9, 9, 26, 0)
    sender, receiver = (station.to_bytes(6, "big") for station in _STATIONS)
    return (receiver + sender + tag + b"\x08\x00" + payload).ljust(_BYTES, b"\0")


def _rows(place: _Place) -> dict[tuple[Table, int], Row]:
    """In the order in which they are written: what is looked up last first."""
    found: dict[tuple[Table, int], Row] = {
        (Table.SEGMENTS, place.segment): SegmentRow(
            handle=place.segment, slots=0, mtu=_MTU, flags=SegmentFlag(0), vni=0, vlan=0
        )
    }
    for port, counter, station in zip(place.ports, place.counters, _STATIONS, strict=True):
        found[Table.PORTS, port] = PortRow(
            ifindex=_LOOPBACK,
            flags=PortFlag(0),
            state=PortMode.UP,
            handle=port,
            segment=place.segment,
            counter=counter,
            counter_none=counter,
            max_macs=0,
        )
        found[Table.FDB, fdb_key(place.segment, station)] = FdbRow(
            port=port, segment=place.segment, origin=Origin.STATIC, flags=FdbFlag(0)
        )
    found[Table.DEVICES, _LOOPBACK] = DeviceRow(ifindex=_LOOPBACK, port=place.ports[0])
    return found


def _remove(opened: Map, table: Table, key: int) -> None:
    if table in (Table.SEGMENTS, Table.PORTS):
        opened.update(codec.encode_key(table, key), codec.empty(table))
    else:
        opened.delete(codec.encode_key(table, key))


def _find_place(opened: Opened) -> _Place | None:
    ports, segments = _unused(opened.maps["ports"]), _unused(opened.maps["segments"])
    counters = _unused(opened.maps["traffic"])
    if opened.maps["devices"].lookup(codec.U32.pack(_LOOPBACK)) is not None:
        return None
    try:
        return _Place(
            ports=(next(ports), next(ports)), counters=(next(counters), next(counters)), segment=next(segments)
        )
    except StopIteration:
        return None


def _unused(array: Map) -> Iterator[int]:
    """Indices of rows in which nothing is, from the end of an array; handles begin at 1."""
    for index in range(array.spec.max_entries - 1, 0, -1):
        if not any(array.lookup(codec.U32.pack(index)) or b"\1"):
            yield index
