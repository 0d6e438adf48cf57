"""What the overlay has room for, and what about it is not as somebody may think."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vxagent.core.state import State
from vxagent.model.ids import MTU_MAX, MTU_MIN
from vxagent.model.segment import DEFAULT_MTU, Segment
from vxagent.model.vtep import Overlay


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Something about the overlay by which frames are lost, or may be; `mend` is what to do.

    lost: frames are lost, whatever they are.
    """

    what: str
    mend: str
    lost: bool = False


def room_for(state: State, segment: Segment) -> int | None:
    """How many bytes of L3 of the segment's frames a tunnel takes; None: no tunnel takes them, or the underlay device
    is not there."""
    if state.overlay is None or segment.vni is None:
        return None
    device = state.devices.get(state.overlay.device)
    return None if device is None else device.mtu - state.overlay.overhead


def fitting_mtu(state: State, segment: Segment) -> int:
    """The MTU of a segment that asks for none: what a tunnel takes, where frames of it go through one."""
    if state.overlay is None or segment.vni is None:
        return DEFAULT_MTU
    room = room_for(state, segment)
    return min(max(room if room is not None else DEFAULT_MTU - state.overlay.overhead, MTU_MIN), MTU_MAX)


def troubles(state: State) -> Iterator[Trouble]:
    """What is wrong about the overlay of this host, as things stand."""
    overlay = state.overlay
    if overlay is None:
        return
    yield from _address(state, overlay.vtep, overlay.device)
    for segment in state.segments.values():
        room = room_for(state, segment)
        if room is not None and segment.mtu > room:
            what = f"segment {segment.name} has MTU {segment.mtu}, the overlay room for {room} bytes on device "
            what += f"{overlay.device}: what is larger is lost there"
            mend = f"`vxagent segment set {segment.name} --mtu {room}`, or "
            mend += f"`ip link set dev {overlay.device} mtu {segment.mtu + overlay.overhead}`"
            yield Trouble(what=what, mend=mend)
    yield from _too_large_to_follow(state, overlay)
    for vtep in state.vteps.values():
        what, _, mend = state.unreachable(vtep).partition("; ")
        if what:
            yield Trouble(what=f"VTEP {what}", mend=mend)


def _too_large_to_follow(state: State, overlay: Overlay) -> Iterator[Trouble]:
    """Segments between hosts by their VLANs, of which frames that follow a VM go through tunnels all the same."""
    device = state.devices.get(overlay.device)
    room = device.mtu - overlay.overhead if device is not None else MTU_MAX
    for segment in state.segments.values():
        if segment.vni is None and state.tunnel_vni(segment) is not None and segment.mtu > room:
            what = f"segment {segment.name} has MTU {segment.mtu}, a tunnel on device {overlay.device} room for {room} "
            what += "bytes: what is larger is lost while one of its VMs migrates"
            yield Trouble(what=what, mend=f"`ip link set dev {overlay.device} mtu {segment.mtu + overlay.overhead}`")


def _address(state: State, vtep: str, ifname: str) -> Iterator[Trouble]:
    device = state.devices.get(ifname)
    if device is None or vtep in device.addresses:
        return
    mend = f"`ip address add {vtep}/{24 if '.' in vtep else 64} dev {ifname}`, with the prefix length of your network"
    holder = next((d.ifname for d in state.devices.values() if vtep in d.addresses), None)
    if holder is None:
        what = f"the host does not have the address {vtep} of its VTEP on device {ifname}: no other host reaches it"
        yield Trouble(what=what, mend=mend, lost=True)
    else:
        what = f"the address {vtep} of the host's VTEP is on device {holder}, not on {ifname}, on which VXLAN comes in"
        yield Trouble(what=what, mend=f"{mend}, or name {holder} in [overlay]")
