"""Who gets which multicast where segments follow IGMP and MLD: what the data plane has noted, by name."""

from __future__ import annotations

from collections.abc import Iterable

from vxagent.core.state import State
from vxagent.datapath.base import Datapath, Multicast
from vxagent.protocol.answers import GroupView
from vxagent.runtime.named import Named, by_handle

FAMILIES = ("ipv4", "ipv6")


def read_multicast(state: State, datapath: Datapath, segments: Iterable[str]) -> Multicast:
    """What is known of groups in these segments."""
    handles = {name: state.numbers.number("segment", name) for name in segments}
    places = {
        (handles[segment], state.numbers.number("port", name)): counter
        for name in (*state.ports, *state.between)
        for segment, counter in state.counters_of(name).items()
        if segment in handles
    }
    return datapath.multicast(places)


def snooped(state: State) -> list[str]:
    """The segments that follow IGMP and MLD."""
    return [name for name, segment in state.segments.items() if segment.multicast_snooping]


def group_views(state: State, known: Multicast) -> list[GroupView]:
    """The memberships, by group and port."""
    places = by_handle(state)
    found = sorted(known.groups, key=lambda group: (group.group.version, group.group, str(places[group.port])))
    return [
        GroupView(
            group=str(group.group),
            port=places[group.port].port,
            vtep=places[group.port].vtep,
            expires_s=round(group.expires_s, 1),
        )
        for group in found
    ]


def router_places(state: State, known: Multicast) -> list[Named]:
    """Ports, uplinks and VTEPs with a multicast router behind them."""
    places = by_handle(state)
    return [places[port] for _, port in known.routers]


def queriers(known: Multicast, segment: int) -> dict[str, float | None]:
    """Family → seconds for which its querier still counts as alive; None: there is none."""
    left = known.queriers.get(segment, (0.0, 0.0))
    return {family: round(s, 1) if s else None for family, s in zip(FAMILIES, left, strict=True)}
