"""Where a port's or uplink's frames are looked at, and why not earlier.

tc sees every frame and decides. On devices where it wins, XDP runs in front of it and finishes plain frames
(bpf/README.md); that pays off only towards devices that take frames from XDP as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from vxagent.core.effects import Xdp
from vxagent.core.numbers import UNDERLAY
from vxagent.core.state import State
from vxagent.model.device import Device
from vxagent.model.port import Hook

_HARDWARE = ""  # the kind of a device that a driver made, not `ip link add`
_UNSEEN = "the agent cannot see; give it CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What XDP is to do at a device, and why its program does not run there; "" where it does."""

    xdp: Xdp
    why: str


def choose(state: State, name: str, device: Device) -> Choice:
    """What XDP is to do at the device of this owner in the space "port"."""
    if name.startswith(UNDERLAY):
        return Choice(xdp=Xdp.NONE, why="most of what comes on the underlay is the host's")
    uplink = state.uplinks.get(name)
    hook = state.ports[name].hook if uplink is None else uplink.hook
    why = "asked for by --hook tc" if hook is Hook.TC else _obstacle(device)
    xdp = Xdp.NONE if why else Xdp.SENDS
    if uplink is None and _receives(state, name, device):
        xdp |= Xdp.RECEIVES
    return Choice(xdp=xdp, why=why)


def _obstacle(device: Device) -> str:
    """Why XDP must not run on it, or would cost more than it saves."""
    if device.kind != _HARDWARE and not device.is_tap:
        return f"a device of kind {device.kind}: tc is the faster hook there"
    obstacles = (
        (
            device.is_tap and device.queues > 1,
            "a tap of several queues, of which XDP and tc choose differently",
        ),
        (device.vhost, "a VM with vhost-net, where frames that XDP finishes would overtake others"),
        (device.unseen, f"perhaps a VM with vhost-net: who holds the tap {_UNSEEN}"),
        (device.lro, f"it merges frames that it receives; `ethtool -K {device.ifname} lro off`"),
        (device.rxvlan, "its driver takes VLAN tags out of frames and cannot be told not to (rxvlan)"),
    )
    return next((why for there, why in obstacles if there), "")


def _receives(state: State, name: str, device: Device) -> bool:
    """Whether XDP on other devices may send to it. There, what is too long for it or finds nobody would be lost without
    being counted; tc has a counter for both."""
    mtu = max((state.segments[segment].mtu for segment, _ in state.ports[name].memberships), default=0)
    return device.is_tap and device.queues == 1 and device.up and device.carrier and device.mtu >= mtu
