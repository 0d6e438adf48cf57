"""Step 18, where multicast follows IGMP and MLD: who is in which group, and who gets a frame (RFC 4541)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from reference import multicast
from reference.choices import (
    JOINS,
    JOINS_UPLINK,
    LEAVE_NS,
    MEMBERSHIP_NS,
    MOST_RECORDS,
    QUERIER_NS,
    REFRESH_NS,
    TICKS_PER_NS,
)
from reference.headers import Malformed, number, read
from reference.multicast import DATA, HELLO, QUERY, REPORT, Multicast
from reference.rates import Bucket
from reference.tables import Port

Place = tuple[int, int]  # port, segment
IN, EX, TO_IN, TO_EX, ALLOW = range(1, 6)  # RFC 3376, 4.2.12


@dataclass(slots=True)
class Listening:
    """Of a place, by family: until when it has a router, and since when all that it joined is known (0: it was never
    asked). joins: what it may add. refused: what there was no room for."""

    router: dict[int, int] = field(default_factory=lambda: {4: 0, 6: 0})
    settled: dict[int, int] = field(default_factory=lambda: {4: 0, 6: 0})
    joins: Bucket = field(default_factory=Bucket)
    refused: int = 0


@dataclass(slots=True)
class Querier:
    """Of a segment, by family: since when, and until when there is one."""

    began: dict[int, int] = field(default_factory=lambda: {4: 0, 6: 0})
    until: dict[int, int] = field(default_factory=lambda: {4: 0, 6: 0})


class Groups:
    """capacity: memberships that there is room for. members: (segment, port, group) → until when."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.members: dict[tuple[int, int, bytes], int] = {}
        self.listening: dict[Place, Listening] = {}
        self.queriers: dict[int, Querier] = {}

    def at(self, port: Port, segment: int) -> Listening:
        """What is known of a place."""
        return self.listening.setdefault((port.number, segment), Listening())

    def hear(self, message: Multicast, port: Port, segment: int, now: int) -> None:
        """Take note of what a frame says about its sender."""
        if message.kind in (QUERY, HELLO):
            self.at(port, segment).router[message.family] = now + QUERIER_NS
        match message.kind:
            case multicast.REPORT:
                self._join(port, segment, message.group, now)
            case multicast.LEAVE:
                self._leave(port, segment, message.group, now)
            case multicast.RECORDS:
                self._take_records(message, port, segment, now)
            case multicast.QUERY:
                querier = self.queriers.setdefault(segment, Querier())
                if querier.until[message.family] <= now:
                    querier.began[message.family] = now
                querier.until[message.family] = now + QUERIER_NS

    def gets(self, message: Multicast, to: Port, segment: int, now: int) -> bool:
        """Whether a port gets a frame of another one."""
        querier, family = self.queriers.get(segment, Querier()), message.family
        if message.kind not in (DATA, REPORT) or querier.until[family] <= now:
            return True
        there = self.at(to, segment)
        if there.router[family] > now:
            return True
        settled = querier.began[family] <= there.settled[family] <= now
        member = self.members.get((segment, to.number, message.group), 0) > now
        return message.kind == DATA and (member or not settled)

    def asked(self, message: Multicast, to: Port, segment: int, now: int) -> None:
        """A port has got this: the first general query of a querier begins the time that it has to answer."""
        if message.kind != QUERY:
            return
        settled, family = self.at(to, segment).settled, message.family
        if settled[family] < self.queriers[segment].began[family]:
            settled[family] = now + message.response

    def _join(self, port: Port, segment: int, group: bytes, now: int) -> None:
        key, place = (segment, port.number, group), self.at(port, segment)
        until = now + MEMBERSHIP_NS
        holds = MEMBERSHIP_NS * TICKS_PER_NS
        ticks = holds // (JOINS_UPLINK if port.uplink else JOINS)
        if key in self.members:
            if self.members[key] + REFRESH_NS <= until:
                self.members[key] = until
            return
        if not place.joins.has(ticks, holds, now):
            self._unsettle(place, group, now)
            return
        place.joins.take(ticks, now)
        if len(self.members) < self.capacity:
            self.members[key] = until
        else:
            self._unsettle(place, group, now)

    def _leave(self, port: Port, segment: int, group: bytes, now: int) -> None:
        key = segment, port.number, group
        if self.members.get(key, 0) > now + LEAVE_NS:
            self.members[key] = now + LEAVE_NS

    def _unsettle(self, place: Listening, group: bytes, now: int) -> None:
        place.settled[4 if len(group) == 4 else 6] = now + MEMBERSHIP_NS
        place.refused += 1

    def _take_records(self, message: Multicast, port: Port, segment: int, now: int) -> None:
        if number(message.body, 6) > MOST_RECORDS:
            self._unsettle(self.at(port, segment), message.group, now)
            return
        try:
            records = list(_records(message))
        except Malformed:
            return
        for kind, sources, group in records:
            if not multicast.is_prunable(group):
                continue
            if kind in (IN, TO_IN) and not sources:
                self._leave(port, segment, group, now)
            elif kind in (EX, TO_EX) or (kind in (IN, TO_IN, ALLOW) and sources):
                self._join(port, segment, group, now)


def _records(message: Multicast) -> Iterator[tuple[int, int, bytes]]:
    """(type, number of sources, group) of each; RFC 3376, 4.2, and RFC 3810, 5.2."""
    at, width = 8, 4 if message.family == 4 else 16
    for _ in range(number(message.body, 6)):
        head = read(message.body, at, 4 + width)
        sources = number(head, 2)
        yield head[0], sources, head[4:]
        at += 4 + width + sources * width + 4 * head[1]
        read(message.body, 0, at)
