"""What the data plane reports, as lines in the log, and not more of them than somebody can read."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable

from vxagent.core.state import State
from vxagent.datapath.abi import HOLD_S, EventType
from vxagent.datapath.base import Event
from vxagent.model.ids import int_to_mac
from vxagent.runtime.named import NOBODY, Named, by_handle

log = logging.getLogger(__name__)

LINES_PER_PERIOD = 20
PERIOD_S = 10.0


class Journal:
    """Logs events, at most LINES_PER_PERIOD of a kind in PERIOD_S; how many it left out is a line of its own.

    For each kind apart: a VM that makes many of one hides no other. And the first one of a kind that a port tells in
    the period is always written: a VM that makes many hides none of another port's.
    """

    def __init__(self) -> None:
        self._began = 0.0
        self._written: Counter[int] = Counter()  # by kind
        self._heard: set[tuple[int, int]] = set()  # (kind, port)
        self._left_out = 0

    def write(self, events: Iterable[Event], state: State, now: float) -> None:
        """Log these events; `now` in seconds, of any clock that does not jump."""
        if now - self._began >= PERIOD_S:
            self._flush()
            self._began = now
            self._written.clear()
            self._heard.clear()
        names: tuple[dict[int, Named], dict[int, str]] | None = None
        for event in events:
            source = event.type, event.port
            if self._written[event.type] >= LINES_PER_PERIOD and source in self._heard:
                self._left_out += 1
                continue
            self._heard.add(source)
            names = names or (by_handle(state), state.names("segment"))
            log.info("%s", describe(event, *names, uplinks=state.uplinks))
            self._written[event.type] += 1

    def _flush(self) -> None:
        if self._left_out:
            log.info("%d more events were not written down", self._left_out)
            self._left_out = 0


def describe(event: Event, places: dict[int, Named], segments: dict[int, str], *, uplinks: Collection[str] = ()) -> str:
    """One line; `places` and `segments` are by handle."""
    place, other = places.get(event.port, NOBODY), places.get(event.other_port, NOBODY)
    where = f"segment {segments.get(event.segment, '?')}"
    mac = int_to_mac(event.mac)
    match event.type:
        case EventType.MAC_MOVED:
            return f"MAC {mac} of {where} moved from {other} to {place.short}"
        case EventType.LEARN_LIMITED:
            limits = "fdb_entries" if place.vtep is not None or place.port in uplinks else "--max-macs, --learn-rate"
            return f"{place} may learn no more MACs: {mac} of {where} was not learned ({limits})"
        case EventType.FDB_FULL:
            return f"the FDB is full: {mac} of {where} on {place} was not learned"
        case EventType.MAC_HELD:
            stays = f"for {HOLD_S} s it is learned on {other.short} alone"
            ports = f"ports {other.short} and {place.short}" if place.vtep == other.vtep else f"{other} and {place}"
            return f"MAC {mac} of {where} moved too often between {ports}: {stays}"
        case EventType.LEASE_REFUSED:
            return f"no room for a lease that MAC {mac} of {where} gives to {other}"
        case kind:
            return f"event {kind} of {place} in {where}, MAC {mac}"
