"""Flows of frames from VTEPs: what is remembered of one is said of no other that only looks like it."""

from __future__ import annotations

import pytest

from support.dhcp import ACK, dhcp
from support.frames import ethernet, ipv4, ipv6, mac, payload, tcp, udp, vlan
from support.outcome import FLOODED, FORWARDED, Outcome
from support.overlay import UNDERLAY, VNIS, Overlay
from support.world import BLUE, RED, World
from vxagent.core.tables import Table, VniRow

BODY = ipv4(udp(b"x" * 40))
FRAME = ethernet(mac(6), mac(21), BODY)
IN_BLUE, IN_RED = (ethernet(mac(6), mac(21), BODY, vlan(vid)) for vid in (110, 120))


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def overlay(request: pytest.FixtureRequest, world: World) -> Overlay:
    """VM 6, which is in both segments, has got a frame from VM 21 in blue."""
    made = Overlay(world, request.param)
    for segment in (BLUE, RED):
        world.learn(segment, mac(6), 6)
    for _ in range(2):
        outcome = sent(made, FRAME)
        assert (outcome.fate, outcome.where, outcome.frames[6]) == (FORWARDED, (21, BLUE), [IN_BLUE])
        assert outcome.octets == len(FRAME)
    return made


def sent(overlay: Overlay, frame: bytes, **how: int) -> Outcome:
    """A frame comes by VXLAN."""
    return overlay.world.send(UNDERLAY, overlay.packet(frame, **how))


def test_the_same_from_another_vtep_has_moved(overlay: Overlay) -> None:
    outcome = sent(overlay, FRAME, sender=22)
    assert (outcome.fate, outcome.where) == (FORWARDED, (22, BLUE))
    assert overlay.world.whereabouts(BLUE, mac(21)) == 22


def test_the_same_from_a_stranger_is_denied(overlay: Overlay) -> None:
    assert sent(overlay, FRAME, sender=99).fate == "vtep_denied"


def test_the_same_in_another_vni_is_another_segment_s(overlay: Overlay) -> None:
    for _ in range(2):
        outcome = sent(overlay, FRAME, vni=VNIS[RED])
        assert (outcome.where, outcome.frames[6]) == ((21, RED), [IN_RED])
    assert sent(overlay, FRAME).frames[6] == [IN_BLUE]


def test_vnis_count_with_all_their_bits(overlay: Overlay) -> None:
    alike = VNIS[BLUE] | 1 << 16
    overlay.rig.put(Table.VNIS, alike, VniRow(vni=alike, segment=RED))
    for _ in range(2):
        assert sent(overlay, FRAME).frames[6] == [IN_BLUE]
        assert sent(overlay, FRAME, vni=alike).frames[6] == [IN_RED]


def test_a_vtep_that_has_the_vni_no_more_is_denied(overlay: Overlay) -> None:
    overlay.leave(21, BLUE)
    assert sent(overlay, FRAME).fate == "vtep_denied"


def test_what_a_frame_brings_is_looked_at_each_time(overlay: Overlay) -> None:
    assert sent(overlay, ethernet(mac(6), mac(21), BODY, vlan(5))).fate == "vlan_denied"
    assert sent(overlay, ethernet(mac(6), mac(21), payload(length=1501))).fate == "mtu_exceeded"
    assert sent(overlay, ethernet(mac(6), mac(21), payload(length=1500))).fate == FORWARDED
    assert sent(overlay, FRAME[:13]).fate == "malformed"
    assert sent(overlay, ethernet(mac(77), mac(21), BODY)).fate == FLOODED


@pytest.mark.parametrize("inside", [ipv6(tcp(b"x")), payload(length=20), payload(length=46)])
def test_whatever_is_in_it_comes_out_as_it_was(overlay: Overlay, inside: object) -> None:
    frame = ethernet(mac(6), mac(21), inside)  # type: ignore[arg-type]  # an L3
    (arrived,) = sent(overlay, frame).frames[6]
    assert arrived[:12] + arrived[16:][: len(frame) - 12] == frame  # the tag is between
    assert not arrived[len(frame) + 4 :].strip(b"\0")


def test_leases_are_seen_between_frames_of_a_flow(overlay: Overlay) -> None:
    world = overlay.world
    world.snoop(1)
    world.learn(BLUE, mac(1), 1)
    for _ in range(2):
        assert sent(overlay, ethernet(mac(1), mac(21), BODY)).frames[1] == [ethernet(mac(1), mac(21), BODY)]
    ack = ipv4(dhcp(ACK, mac(1), yours="10.0.0.77", seconds=600))
    assert sent(overlay, ethernet(mac(1), mac(21), ack)).fate == FORWARDED
    assert world.leases(1) == 1
