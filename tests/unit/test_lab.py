"""The lab's parts that need no device."""

from __future__ import annotations

import io
import os
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vxagent.lab.frames import ARP, BROADCAST, EXPERIMENTAL, IPV4, Frame, ethernet
from vxagent.lab.numbered import Heard
from vxagent.lab.ping import Pings, checksum
from vxagent.lab.pump import NEEDS_CSUM, VNET_HDR, pop_tag, push_tag
from vxagent.lab.report import Report
from vxagent.lab.signals import Stopped, stoppable, undisturbed
from vxagent.lab.waiting import wait_until

MAC = "02:00:00:00:00:01"
UNTAGGED = ethernet(BROADCAST, MAC, EXPERIMENTAL, b"payload")
IP_HEADER = bytes.fromhex("45000054000040004001000000000000") + bytes([10, 0, 0, 2])

headers = st.builds(
    VNET_HDR.pack,
    st.sampled_from([0, NEEDS_CSUM]),
    st.sampled_from([0, 1, 4]),  # none, TCPv4, TCPv6
    st.integers(0, 200),
    st.integers(0, 9000),
    st.integers(0, 200),
    st.integers(0, 40),
)


@given(header=headers, vid=st.integers(1, 4094))
def test_popping_undoes_pushing(header: bytes, vid: int) -> None:
    assert pop_tag(push_tag(header + UNTAGGED, 0x8100, vid)) == (vid, header + UNTAGGED)


def test_pushing_moves_the_offsets_that_are_in_use() -> None:
    header = VNET_HDR.pack(NEEDS_CSUM, 1, 54, 1448, 34, 16)
    assert VNET_HDR.unpack_from(push_tag(header + UNTAGGED, 0x8100, 10)) == (NEEDS_CSUM, 1, 58, 1448, 38, 16)
    assert VNET_HDR.unpack_from(push_tag(bytes(10) + UNTAGGED, 0x8100, 10)) == (0, 0, 0, 0, 0, 0)


def test_other_tpids_are_left_in_the_frame() -> None:
    frame = bytes(10) + ethernet(BROADCAST, MAC, EXPERIMENTAL, b"", tags=((0x88A8, 10),))
    assert pop_tag(frame) == (0, frame)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (UNTAGGED, f"untagged  {MAC} > {BROADCAST}  EtherType 0x88b5"),
        (
            ethernet(BROADCAST, MAC, IPV4, IP_HEADER + b"\x08", tags=((0x8100, 0x600A),)),
            f"vlan 10  {MAC} > {BROADCAST}  0.0.0.0 > 10.0.0.2 ICMP echo request",
        ),
        (
            ethernet(
                BROADCAST, MAC, ARP, bytes.fromhex("0001080006040001 020000000001 0a000001 000000000000 0a000002")
            ),
            f"untagged  {MAC} > {BROADCAST}  ARP who has 10.0.0.2, tell 10.0.0.1",
        ),
        (
            ethernet(
                BROADCAST, MAC, ARP, bytes.fromhex("0001080006040002 020000000001 0a000001 020000000002 0a000002")
            ),
            f"untagged  {MAC} > {BROADCAST}  ARP 10.0.0.1 is at {MAC}",
        ),
        (b"\xff" * 13, "untagged  ff:ff:ff:ff:ff:ff > ff:ff:ff:ff:ff:ff  EtherType 0x00ff"),
    ],
)
def test_a_frame_tells_what_it_is(data: bytes, told: str) -> None:
    assert str(Frame(data=data)) == told


def test_the_checksum_is_that_of_rfc_1071() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D  # the complement of section 3's ddf2


def test_what_was_not_answered_was_lost() -> None:
    pings = Pings(sent=4, rtts_s={0: 0.1, 2: 0.1})
    assert pings.received == 2
    assert pings.lost == [1, 3]


def test_a_stream_says_what_became_of_it() -> None:
    heard = Heard(sent=6, arrivals=[(0, 1.0), (1, 1.1), (3, 1.5), (2, 1.6), (3, 1.7)])
    assert (heard.lost, heard.duplicated, heard.reordered) == (2, 1, 1)
    assert [heard.amiss(first, first + 2) for first in (0, 2, 4)] == [0, 1, 2]
    assert heard.around(1.1) == (1.1, 1.5)
    for moment in (0.9, 1.7):
        with pytest.raises(ValueError, match="on one side"):
            heard.around(moment)


def test_a_report_counts_what_was_not_as_expected() -> None:
    out = io.StringIO()
    report = Report(out)
    report.heading("Pings")
    report.finding(True, "answered")
    report.finding(False, "answered too late")
    report.end()
    assert out.getvalue() == "\nPings\n  ✓ answered\n  ✗ answered too late\n\n1 not as expected, in 0 s\n"


def test_a_signal_waits_for_what_must_not_be_disturbed() -> None:
    done = []

    def work() -> None:
        with undisturbed():
            with undisturbed():
                os.kill(os.getpid(), signal.SIGTERM)
            done.append("what must be done")
        done.append("more")

    with stoppable(), pytest.raises(Stopped) as stopped:
        work()
    assert done == ["what must be done"]
    assert stopped.value.number == signal.SIGTERM


def test_waiting_ends_with_the_condition_or_the_time() -> None:
    values = iter([0, 0, 7])
    assert wait_until(lambda: next(values)) == 7
    with pytest.raises(TimeoutError, match=r"not within 0.01 s: rain"):
        wait_until(lambda: False, within=0.01, what="rain")
