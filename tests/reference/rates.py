"""Steps 11, 13 and 15: token buckets, and what a frame weighs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from reference.choices import (
    BURST_BITS,
    BURST_PACKETS,
    BURST_TICKS,
    LEARN_TICKS,
    STORM_TICKS,
    TICKS_PER_NS,
    TICKS_PER_S,
)
from reference.tables import Port


def _burst(least: int, rate: int) -> int:
    return max(least * TICKS_PER_S // rate, BURST_TICKS)


BUCKETS: dict[str, Callable[[int], int]] = {
    "in_bits": lambda rate: _burst(BURST_BITS, rate),
    "in_packets": lambda rate: _burst(BURST_PACKETS, rate),
    "out_bits": lambda rate: _burst(BURST_BITS, rate),
    "out_packets": lambda rate: _burst(BURST_PACKETS, rate),
    "broadcast": lambda _: STORM_TICKS,
    "multicast": lambda _: STORM_TICKS,
    "unknown": lambda _: STORM_TICKS,
    "learn": lambda _: LEARN_TICKS,
}
"""Limit → what its bucket holds at a rate, in ticks."""


@dataclass(slots=True)
class Bucket:
    """full_at: ticks at which it is full if nothing is taken any more."""

    full_at: int = 0

    def missing(self, now: int) -> int:
        """Ticks until it is full; now in nanoseconds."""
        return max(self.full_at - now * TICKS_PER_NS, 0)

    def has(self, ticks: int, holds: int, now: int) -> bool:
        """Whether as much can be taken out of it; one that owes twice what it holds is from now on only empty."""
        missing = self.missing(now)
        if missing > 2 * holds and missing + ticks > holds:
            self.full_at = now * TICKS_PER_NS + holds
        return missing + ticks <= holds

    def take(self, ticks: int, now: int) -> None:
        """Take it out."""
        self.full_at = now * TICKS_PER_NS + self.missing(now) + ticks


@dataclass(slots=True)
class Load:
    """What a frame puts on the wire, without the classifying tag."""

    frames: int
    octets: int

    def bits(self, *, tagged: bool) -> int:
        """With a tag on each frame, if it has one."""
        return 8 * (self.octets + (4 * self.frames if tagged else 0))


def weigh(octets: int, l3_bytes: int, ethernet: int, gso_size: int) -> Load:
    """A frame of so many bytes without its classifying tag, `ethernet` of them in front of L3; of a GSO frame
    l3_bytes is of one segment."""
    headers = ethernet + l3_bytes - gso_size
    if gso_size in (0, 0xFFFF) or octets <= headers:
        return Load(1, octets)
    segments = -(-(octets - headers) // gso_size)
    return Load(segments, octets + (segments - 1) * headers)


class Rates(dict[tuple[int, str], Bucket]):
    """The buckets, by (port, limit)."""

    def take(self, port: Port, amounts: Mapping[str, int], now: int) -> bool:
        """Whether all of these limits of a port allow as much; if not, none is charged."""
        taken = []
        for name, amount in amounts.items():
            if rate := port.limits.get(name):
                bucket, ticks = self.setdefault((port.number, name), Bucket()), amount * TICKS_PER_S // rate
                if not bucket.has(ticks, BUCKETS[name](rate), now):
                    return False
                taken.append((bucket, ticks))
        for bucket, ticks in taken:
            bucket.take(ticks, now)
        return True
