"""`egress_failed`: frames that the switch handed to a port's device and the device lost."""

from __future__ import annotations

from collections.abc import Iterable

from vxagent.core.effects import Attach, Detach, Effect
from vxagent.core.state import State
from vxagent.errors import HostError
from vxagent.netlink.base import Links


class EgressLosses:
    """The devices' own counters, minus what they showed when the port was attached.

    A port that a previous agent attached counts from the beginning of its device, as long as nobody plugs it in anew.
    """

    def __init__(self, links: Links) -> None:
        self._links = links
        self._before: dict[tuple[int, int], int] = {}  # (handle, ifindex) → frames lost until then

    def follow(self, effects: Iterable[Effect]) -> None:
        """These effects are done. Blocks."""
        for effect in effects:
            match effect:
                case Attach(handle=handle, ifindex=ifindex):
                    self._before[handle, ifindex] = self._lost(ifindex)
                case Detach(handle=handle, ifindex=ifindex):
                    self._before.pop((handle, ifindex), None)

    def _lost(self, ifindex: int) -> int:
        try:
            return self._links.egress_drops(ifindex).get(ifindex, 0)
        except HostError:  # what was attached stays attached, also where nobody can count
            return 0

    def by_port(self, state: State) -> dict[str, int]:
        """Port id → frames lost, of the ports that have a device. Blocks."""
        lost = self._links.egress_drops()
        found: dict[str, int] = {}
        for port_id in state.ports:
            handle = state.handle_of_port(port_id)
            ifindex, _ = state.attached.get(handle, (0, ""))
            if ifindex in lost:
                found[port_id] = max(0, lost[ifindex] - self._before.get((handle, ifindex), 0))
        return found
