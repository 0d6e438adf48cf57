"""The XDP entry: what it cannot finish it passes up untouched and uncounted, and tc decides."""

from __future__ import annotations

import pytest

from support.frames import BROADCAST, LINK_LOCAL, ethernet, mac, vlan
from support.world import BLUE, World

XDP_PASS = 2  # <linux/bpf.h>

FRAMES = {
    "known unicast": ethernet(mac(2), mac(1)),
    "a broadcast": ethernet(BROADCAST, mac(1)),
    "a tag": ethernet(mac(2), mac(1), None, vlan(10)),
    "what tc will drop": ethernet(LINK_LOCAL, mac(1)),
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_passes_up_without_a_trace(world: World, frame: bytes) -> None:
    world.learn(BLUE, mac(2), 2)
    before = world.counts()
    with world.wires.inside():
        run = world.rig.xdp(frame, world.ports[1].ifindex)
    assert (run.verdict, run.data) == (XDP_PASS, frame)
    assert world.counts() == before
    assert world.entry(BLUE, mac(1)) is None
