"""By which MACs packets go to a VTEP: as the kernel has said of one of them, and for how long (bpf/hop.h)."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator

import pytest

from support.frames import ethernet, ipv4, mac, udp
from support.outcome import FORWARDED
from support.overlay import UNDERLAY, Overlay, address, next_hop
from support.vxlan import VXLAN_PORT, read_packet
from support.world import BLUE, World
from vxagent.core.tables import Table, VtepRow, address_octets
from vxagent.lab.waiting import wait_until

FRAME = ethernet(mac(21), mac(1), ipv4(udp(b"x" * 40)))
OTHERS = bytes.fromhex("0a00000000010a0000000002")  # MACs that the kernel never says
HOP_NS = 100_000_000  # VX_HOP_NS


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def overlay(request: pytest.FixtureRequest, world: World) -> Iterator[Overlay]:
    made = Overlay(world, request.param)
    world.learn(BLUE, mac(21), 21)
    world.learn(BLUE, mac(22), 22)
    with made.resolved(21):
        yield made


def macs(overlay: Overlay) -> bytes:
    """By which the one packet to VM 21 has left; nothing: there was none."""
    outcome = overlay.world.send(1, FRAME)
    assert outcome.fate == FORWARDED
    left = [data for data in outcome.frames.get(UNDERLAY, []) if read_packet(data)]
    return left[0][:12] if left else b""


def row(overlay: Overlay, vtep: int = 21) -> tuple[int, bytes]:
    """Until when it is remembered, and the MACs."""
    until_ns, _, macs = struct.unpack("=QQ12s4x", overlay.rig.maps["hops"].lookup(struct.pack("=I", vtep)) or b"")
    return until_ns, macs


def remember(overlay: Overlay, until_ns: int) -> None:
    """MACs of the test's own are remembered."""
    (epoch,) = struct.unpack("=Q", overlay.rig.maps["epochs"].lookup(bytes(4)) or b"")
    value = struct.pack("=QQ", until_ns, epoch) + OTHERS + bytes(4)
    overlay.rig.maps["hops"].update(struct.pack("=I", 21), value)


def by_kernel(overlay: Overlay, number: int = 21) -> bytes:
    """The MACs that the kernel says."""
    shown = overlay.world.wires.namespace.ip("-o", "link", "show", "dev", f"p{UNDERLAY}")
    return bytes.fromhex((next_hop(number) + shown.split("link/ether ")[1].split()[0]).replace(":", ""))


def test_packets_leave_by_the_macs_that_the_kernel_says(overlay: Overlay) -> None:
    assert row(overlay)[0] == 0
    for _ in range(3):  # the first without a flow, the second with one
        assert macs(overlay) == by_kernel(overlay)
    until_ns, remembered = row(overlay)
    assert remembered == by_kernel(overlay)
    assert until_ns - time.clock_gettime_ns(time.CLOCK_MONOTONIC) <= HOP_NS


def test_what_is_remembered_is_used(overlay: Overlay) -> None:
    remember(overlay, 1 << 62)
    for _ in range(2):
        assert macs(overlay) == OTHERS


def test_beyond_its_time_the_kernel_is_asked_again(overlay: Overlay) -> None:
    remember(overlay, 1)
    assert macs(overlay) == by_kernel(overlay)
    assert row(overlay)[1] == by_kernel(overlay)


def test_what_the_kernel_says_now_is_followed(overlay: Overlay) -> None:
    assert macs(overlay) == by_kernel(overlay)
    name, far = f"p{UNDERLAY}", str(address(21, overlay.family))
    words = ("neigh", "replace", far, "lladdr", next_hop(77), "nud", "permanent", "dev", name)
    overlay.world.wires.namespace.ip(*words)
    wait_until(lambda: macs(overlay) == by_kernel(overlay, 77), what="packets leave by the new next hop")


def test_after_a_change_by_the_agent_the_kernel_is_asked(overlay: Overlay) -> None:
    remember(overlay, 1 << 62)
    overlay.rig.changed()
    assert macs(overlay) == by_kernel(overlay)


def test_a_handle_that_another_vtep_has_now_has_its_next_hop(overlay: Overlay) -> None:
    assert macs(overlay) == by_kernel(overlay)
    moved = VtepRow(port=21, family=overlay.family, octets=address_octets(address(23, overlay.family)))
    with overlay.neighbour(23):
        overlay.rig.put(Table.VTEPS, 21, moved)
        assert macs(overlay) == by_kernel(overlay, 23)


def test_of_a_vtep_that_does_not_answer_nothing_is_remembered(overlay: Overlay) -> None:
    for _ in range(2):
        outcome = overlay.world.send(1, ethernet(mac(22), mac(1), ipv4(udp(b"x"))))
        assert outcome.fate == FORWARDED
    assert row(overlay, 22) == (0, bytes(12))


def test_the_host_s_own_packets_tell_nothing(overlay: Overlay) -> None:
    with overlay.world.wires.namespace.entered():
        sock = socket.socket(socket.AF_INET if overlay.family == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    with sock:
        sock.sendto(bytes(16), (str(address(21, overlay.family)), VXLAN_PORT))
    wait_until(lambda: overlay.world.wires.read(UNDERLAY, 1), what="it leaves")
    assert row(overlay) == (0, bytes(12))
