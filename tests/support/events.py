"""What the data plane tells the agent."""

from __future__ import annotations

import time

from vxagent.datapath import abi
from vxagent.datapath.ring import RingReader


def told(events: RingReader) -> list[tuple[int, int, int, int, bytes]]:
    """(type, port, other port, segment, MAC) of each event that waits."""
    fields = [abi.EVENT.struct.unpack(record) for record in events.read()]
    assert all(0 <= time.monotonic_ns() - at < 10_000_000_000 for at, *_ in fields)
    return [(kind, port, other, segment, address) for _, kind, port, other, segment, address, _ in fields]
