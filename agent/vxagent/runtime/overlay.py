"""The overlay as it is shown: this host's VTEP, those of others, and what is wrong about them."""

from __future__ import annotations

import logging

from vxagent.core.numbers import vtep_owner
from vxagent.core.overlay import Trouble, troubles
from vxagent.core.state import State
from vxagent.datapath.base import Datapath
from vxagent.model.port import PortState
from vxagent.model.vtep import Vtep, number
from vxagent.protocol.answers import OverlayView, VtepView
from vxagent.runtime.views import Sums, drops_by_port, sums_of

log = logging.getLogger(__name__)


def overlay_view(state: State) -> OverlayView | None:
    """This host's part in the overlay; None: it has none."""
    if state.overlay is None:
        return None
    is_, why = state.overlay_state()
    return OverlayView(vtep=state.overlay.vtep, device=state.overlay.device, state=is_, why=why)


def vtep_state(state: State, vtep: Vtep) -> tuple[PortState, str]:
    """Whether frames can go to a VTEP and come from it, and why not: `pending` where there is no tunnel to it."""
    why = state.unreachable(vtep)
    return (PortState.PENDING, why) if why else state.overlay_state()


def tunnel_note(state: State, address: str | None) -> str:
    """What to say to somebody who has just named a VTEP (None: nobody has; or it is gone by now): why no tunnel goes to
    it, "" where one does."""
    vtep = state.all_vteps.get(address or "")
    is_, why = vtep_state(state, vtep) if vtep is not None else (PortState.UP, "")
    return why if is_ is PortState.PENDING else ""


def vtep_views(state: State, datapath: Datapath) -> list[VtepView]:
    """All VTEPs that were stated, and those of the cluster, by address."""
    vteps = sorted(state.all_vteps.values(), key=lambda vtep: (vtep.family, number(vtep.address)))
    names = [vtep_owner(vtep.address) for vtep in vteps]
    suppressed = datapath.suppressed_events([state.numbers.number("port", name) for name in names])
    every_sums = sums_of(state, datapath, names, drops_by_port(datapath.drops()))
    return [
        _vtep(state, vtep, name, sums, events)
        for vtep, name, sums, events in zip(vteps, names, every_sums, suppressed, strict=True)
    ]


def _vtep(state: State, vtep: Vtep, name: str, sums: Sums, suppressed: int) -> VtepView:
    is_, why = vtep_state(state, vtep)
    segments = sorted(segment for segment, _ in state.memberships(name))
    vnis = {*vtep.vnis, *(vni for segment in segments if (vni := state.segments[segment].vni) is not None)}
    return VtepView(
        address=vtep.address,
        host=next((host for host, peer in state.remote.peers.items() if peer.vtep == vtep.address), None),
        vnis=sorted(vnis),
        segments=segments,
        state=is_,
        rx_packets=sums.rx_packets,
        tx_packets=sums.tx_packets,
        rx_bytes=sums.rx_bytes,
        tx_bytes=sums.tx_bytes,
        drops=sums.drops,
        events_suppressed=suppressed,
        why=why,
    )


class OverlayWatch:
    """Tells the log what is wrong about the overlay: each thing when it begins, and when it has ended."""

    def __init__(self) -> None:
        self._state: State | None = None
        self._known: frozenset[Trouble] = frozenset()

    def look(self, state: State) -> None:
        """The switch is so now."""
        if state is self._state:
            return
        self._state = state
        now = frozenset(troubles(state))
        for new in sorted(now - self._known, key=str):
            log.warning("%s; %s", new.what, new.mend)
        for old in sorted(self._known - now, key=str):
            log.info("no longer so: %s", old.what)
        self._known = now
