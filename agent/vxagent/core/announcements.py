"""Who has to hear where a VM is, when it comes to this host."""

from __future__ import annotations

from collections.abc import Iterator

from vxagent.core.effects import Announce
from vxagent.core.remote import NOBODY_LEAVES
from vxagent.core.state import State


def announcements(state: State, port: str) -> Iterator[Announce]:
    """What teaches the fabric where the frames of a port's VM have to go: on the uplinks that carry its segments.
    Nothing where the VM neither is nor is awaited, as when its migration is over by then."""
    told = state.remote.ports.get(port)
    if told is None or state.host not in (told.owner if told.phase in NOBODY_LEAVES else None, told.next):
        return
    for device in (state.devices[ifname] for ifname in state.uplinks if ifname in state.devices):
        vids = dict(state.memberships(device.ifname))
        for segment, _ in state.ports[port].memberships:
            for mac in state.ports[port].macs if segment in vids else ():
                yield Announce(ifindex=device.ifindex, vid=vids[segment], mac=mac)
