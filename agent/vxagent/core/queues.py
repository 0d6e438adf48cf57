"""How many frames a tap keeps for a VM that is on its way.

A tap has a ring of txqueuelen frames for each of its queues, and drops what comes when that is full. While a port holds
nobody reads it. When the length changes the kernel keeps what is in it, as far as it fits. A veth keeps nothing.
"""

from __future__ import annotations

from dataclasses import replace

from vxagent.core.effects import SetQueue
from vxagent.core.state import Before, State
from vxagent.core.tables import PortMode
from vxagent.model.device import Device

WAITING_FRAMES = 16_384
"""20,000 frames/s for 0.8 s, or 50,000 for the 0.3 s that QEMU lets a VM stand still unless it is told otherwise
(downtime-limit). The ring takes 8 bytes for each."""

_WAITS = (PortMode.STANDBY, PortMode.HOLDING)


def lengthen(state: State, name: str, device: Device) -> list[SetQueue]:
    """What has the device of this owner in the space "port" keep enough for a VM that is to come. Once: who makes the
    queue shorter again wants it so."""
    known = state.before.get(device.ifname)
    if known is None or known.txqueuelen is not None or not device.is_tap or device.txqueuelen >= WAITING_FRAMES:
        return []
    if name not in state.ports or state.placement(name).mode not in _WAITS:
        return []
    state.before[device.ifname] = replace(known, txqueuelen=device.txqueuelen)
    return [_set(state, device, WAITING_FRAMES)]


def put_back(state: State, before: Before, device: Device) -> list[SetQueue]:
    """What gives a device the queue that it had, unless somebody has wanted another one meanwhile."""
    if before.txqueuelen is None or device.txqueuelen != WAITING_FRAMES:
        return []
    return [_set(state, device, before.txqueuelen)]


def _set(state: State, device: Device, frames: int) -> SetQueue:
    """Netlink will show it: it is known now."""
    state.devices[device.ifname] = replace(state.devices[device.ifname], txqueuelen=frames)
    return SetQueue(ifindex=device.ifindex, ifname=device.ifname, frames=frames, old=device.txqueuelen)
