"""Who has to hear where a VM is, when it comes to this host."""

from __future__ import annotations

from collections.abc import Iterator

from vxagent.core.effects import Announce
from vxagent.core.state import State


def announcements(state: State, port: str) -> Iterator[Announce]:
    """What teaches the fabric where the frames of a port's VM have to go: on the uplinks that carry its segments."""
    for device in (state.devices[ifname] for ifname in state.uplinks if ifname in state.devices):
        vids = dict(state.memberships(device.ifname))
        for segment, _ in state.ports[port].memberships:
            for mac in state.ports[port].macs if segment in vids else ():
                yield Announce(ifindex=device.ifindex, vid=vids[segment], mac=mac)
