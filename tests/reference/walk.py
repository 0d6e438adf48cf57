"""One frame on its way through the table, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from reference import guards, headers
from reference.choices import TAGS_OF_ETHERNET
from reference.headers import C_TAG
from reference.rates import Load, weigh
from reference.tables import Port


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a frame.

    Attributes:
        fate: the verdict, or the reason of a drop.
        segment: for which it is counted, 0 for none.
        copies: (port, frame) of each copy.
        lost: (port, bytes) of copies that a port did not get for its rate.
        shadowed: (segment, reason) for which it would have been dropped.
        spared: ports that were not sent a copy, because they have not joined the group.
    """

    fate: str
    segment: int
    copies: tuple[tuple[int, bytes], ...] = ()
    lost: tuple[tuple[int, int], ...] = ()
    shadowed: tuple[tuple[int, str], ...] = ()
    spared: int = 0


class Decided(Exception):
    """The frame's walk ends here."""

    def __init__(self, fate: str) -> None:
        self.fate = fate


@dataclass(slots=True)
class Walk:
    """One frame on its way."""

    port: Port
    octets: bytes
    gso_size: int
    now: int
    segment: int = 0
    ethernet: headers.Ethernet = field(init=False)
    seen: guards.Inspected | None = None
    unreadable: bool = False
    refused: bool = False  # by a guard, in shadow
    l3_bytes: int = 0
    shadowed: list[tuple[int, str]] = field(default_factory=list)

    @property
    def destination(self) -> int:
        return self.ethernet.destination

    @property
    def source(self) -> int:
        return self.ethernet.source

    @property
    def tci(self) -> int:
        return self.ethernet.tags[0][1] if self.ethernet.tags else 0

    @property
    def followed_by_tag(self) -> bool:
        return len(self.ethernet.tags) > 1

    def copy(self, vid: int) -> bytes:
        """The frame as it leaves: with the priority that it came with."""
        inside = self.octets[12 + 4 * bool(self.ethernet.tags) :]
        tag = (C_TAG << 16 | self.tci & 0xF000 | vid).to_bytes(4, "big") if vid else b""
        return self.octets[:12] + tag + inside

    def load(self) -> Load:
        tags = min(len(self.ethernet.tags), TAGS_OF_ETHERNET)
        outermost = 4 * bool(tags)
        return weigh(len(self.octets) - outermost, self.l3_bytes, 14 + 4 * tags - outermost, self.gso_size)
