"""Events of the data plane as lines, and not too many."""

from __future__ import annotations

import logging

import pytest

from vxagent.core.numbers import Numbers, vtep_owner
from vxagent.core.state import State
from vxagent.datapath.abi import EventType
from vxagent.datapath.base import Event
from vxagent.model.port import Uplink
from vxagent.runtime.journal import LINES_PER_PERIOD, PERIOD_S, Journal

NUMBERS = {"tap0": 1, "tap1": 2, vtep_owner("192.0.2.9"): 3, "eth1": 4}
STATE = State(
    numbers=Numbers({**{("port", name): number for name, number in NUMBERS.items()}, ("segment", "blue"): 5}),
    uplinks={"eth1": Uplink(ifname="eth1")},
)


def event(kind: int, *, port: int = 1, other_port: int = 0, segment: int = 5) -> Event:
    return Event(time_ns=0, type=kind, port=port, other_port=other_port, segment=segment, mac=0x02_00_00_00_00_01)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (
            event(EventType.MAC_MOVED, other_port=2),
            "MAC 02:00:00:00:00:01 of segment blue moved from port tap1 to tap0",
        ),
        (
            event(EventType.LEARN_LIMITED),
            "port tap0 may learn no more MACs: 02:00:00:00:00:01 of segment blue was not learned (--max-macs, ",
        ),
        (event(EventType.LEARN_LIMITED, port=3), "VTEP 192.0.2.9 may learn no more MACs: 02:00:00:00:00:01 of"),
        (event(EventType.LEARN_LIMITED, port=4), "of segment blue was not learned (fdb_entries)"),
        (
            event(EventType.MAC_HELD, other_port=2),
            "MAC 02:00:00:00:00:01 of segment blue moved too often between ports tap1 and tap0: "
            "for 60 s it is learned on tap1 alone",
        ),
        (event(EventType.FDB_FULL), "the FDB is full: 02:00:00:00:00:01 of segment blue on port tap0"),
        (
            event(EventType.LEASE_REFUSED, other_port=2),
            "no room for a lease that MAC 02:00:00:00:00:01 of segment blue gives to port tap1",
        ),
        (event(EventType.FDB_FULL, port=9, segment=9), "of segment ? on port ?"),
        (event(99), "event 99 of port tap0 in segment blue, MAC 02:00:00:00:00:01"),
    ],
)
def test_every_event_is_a_line(caplog: pytest.LogCaptureFixture, said: Event, line: str) -> None:
    with caplog.at_level(logging.INFO):
        Journal().write([said], STATE, 1000.0)
    assert line in caplog.text


def test_a_flood_of_events_is_cut_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal()
    with caplog.at_level(logging.INFO):
        journal.write([event(EventType.MAC_MOVED)] * 500, STATE, 1000.0)
        journal.write([event(EventType.MAC_MOVED)] * 500, STATE, 1000.0 + PERIOD_S / 2)
        assert len(caplog.records) == LINES_PER_PERIOD
        journal.write([event(EventType.MAC_MOVED)], STATE, 1000.0 + PERIOD_S)
    assert len(caplog.records) == LINES_PER_PERIOD + 2
    assert f"{1000 - LINES_PER_PERIOD} more events were not written down" in caplog.text


def test_a_flood_of_one_port_hides_none_of_another(caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal()
    with caplog.at_level(logging.INFO):
        for at in (1000.0, 1001.0):
            journal.write([event(EventType.MAC_MOVED, other_port=2)] * 500, STATE, at)
        journal.write([event(EventType.MAC_MOVED, port=2, other_port=1)] * 3, STATE, 1002.0)
        assert [record.message.endswith("to tap1") for record in caplog.records] == [False] * LINES_PER_PERIOD + [True]
        journal.write([event(EventType.MAC_MOVED, port=2, other_port=1)], STATE, 1000.0 + PERIOD_S)
    assert f"{1002 - LINES_PER_PERIOD} more events were not written down" in caplog.text


def test_a_flood_of_one_kind_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        Journal().write([event(EventType.MAC_MOVED)] * 500 + [event(EventType.MAC_HELD)], STATE, 1000.0)
    assert "moved too often" in caplog.text
