"""What the switch tells: of each kind a port a few at once, and then one a second."""

from __future__ import annotations

from reference.choices import EVENT_TICKS, EVENTS_AT_ONCE
from reference.rates import Bucket

Event = tuple[str, int, int, int, int]  # type, port, other port, segment, MAC


KINDS = ("mac_moved", "learn_limited", "fdb_full", "mac_held", "lease_refused", "announced")


class Events(list[Event]):
    """Those that are told.

    Attributes:
        buckets: by (port, type).
        suppressed: by port, how many were not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.buckets: dict[tuple[int, str], Bucket] = {}
        self.suppressed: dict[int, int] = {}

    def tell(self, event: Event, now: int) -> None:
        """It is told, if its port may."""
        kind, port, *_ = event
        bucket = self.buckets.setdefault((port, kind), Bucket())
        if bucket.has(EVENT_TICKS, EVENTS_AT_ONCE * EVENT_TICKS, now):
            bucket.take(EVENT_TICKS, now)
            self.append(event)
        else:
            self.suppressed[port] = self.suppressed.get(port, 0) + 1
