"""What the data plane knows of groups, written and read by hand."""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from ipaddress import ip_address

from support.multicast import family, octets
from support.world import BLUE, NANOSECONDS, PORTS, RED, World, counter
from vxagent.core.tables import SegmentFlag
from vxagent.datapath import abi

ROUTER = 9  # the uplink behind which the querier of `with_querier` is
QUERIER_S = 255
MEMBERSHIP_S = 260

IPV4, IPV6 = 0, 1  # places in pairs
Pair = tuple[int, int]


def now_ns() -> int:
    """The programs' clock."""
    return time.monotonic_ns()


@dataclass(frozen=True, slots=True)
class Listening:
    """A row of `listening`."""

    since: int = 0
    router: Pair = (0, 0)
    settled: Pair = (0, 0)
    joins: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class Querier:
    """A row of `queriers`."""

    began: Pair = (0, 0)
    until: Pair = (0, 0)


class Groups:
    """Snooping in a world.

    Args:
        querier: of both families there is one behind `ROUTER`, in blue and red, all ports were asked and had
            the time to answer.
    """

    def __init__(self, world: World, *, querier: bool = True) -> None:
        self.world = world
        for segment in (BLUE, RED):
            world.set_segment(segment, flags=world.segments[segment].flags | SegmentFlag.GROUPS)
        if querier:
            self.know_querier()

    def know_querier(self, *, began_s: float = 100, until_s: float = 100) -> None:
        """A querier since `began_s` ago (or as long as the machine runs), for another `until_s`; all have answered."""
        now = now_ns()
        began, until = (max(1, now + int(seconds * NANOSECONDS)) for seconds in (-began_s, until_s))
        for segment in (BLUE, RED):
            row = abi.QUERIERS.struct.pack(began, began, until, until)
            self.world.rig.maps["queriers"].update(struct.pack("=I", segment), row)
            for port in PORTS:
                router = (until, until) if port == ROUTER else (0, 0)
                self.put_listening(port, segment, Listening(router=router, settled=(began, began)))

    def put_listening(self, port: int, segment: int, row: Listening) -> None:
        """What a place counts as."""
        value = abi.LISTENING.struct.pack(row.since, *row.router, *row.settled, row.joins, row.refused)
        self.world.rig.maps["listening"].update(struct.pack("=I", counter(port, segment)), value)

    def listening(self, port: int, segment: int = BLUE) -> Listening:
        """The same, read."""
        row = self.world.rig.maps["listening"].lookup(struct.pack("=I", counter(port, segment)))
        since, r4, r6, s4, s6, joins, refused = abi.LISTENING.struct.unpack(row or b"")
        return Listening(since, (r4, r6), (s4, s6), joins, refused)

    def querier(self, segment: int = BLUE) -> Querier:
        """What is known of the segment's queriers."""
        row = self.world.rig.maps["queriers"].lookup(struct.pack("=I", segment))
        b4, b6, u4, u6 = abi.QUERIERS.struct.unpack(row or b"")
        return Querier((b4, b6), (u4, u6))

    def join(self, port: int, group: str, *, segment: int = BLUE, left_s: float = 100, since: int = 0) -> None:
        """Somebody behind a port has joined a group, for another `left_s`."""
        key = abi.GROUP_KEY.struct.pack(segment, port, family(group), 0, octets(group))
        expires = now_ns() + int(left_s * NANOSECONDS)
        row = abi.GROUP.struct.pack(segment, port, family(group), 0, octets(group), since, expires)
        self.world.rig.maps["groups"].update(key, row)

    def members(self) -> dict[tuple[int, int, str], float]:
        """(segment, port, group) → seconds left; what has run out is negative."""
        found = {}
        now = now_ns()
        for batch in self.world.rig.maps["groups"].batches():
            rows = abi.GROUP.struct.iter_unpack(batch.values)
            for segment, port, version, _, raw, _, expires in rows:
                text = _address(version, raw)
                found[segment, port, text] = (expires - now) / NANOSECONDS
        return found

    def ports(self, group: str, *, segment: int = BLUE) -> set[int]:
        """The ports with a membership that has not run out."""
        return {port for (at, port, of), left in self.members().items() if (at, of) == (segment, group) and left > 0}


def _address(version: int, raw: bytes) -> str:
    return str(ip_address(raw[:4] if version == 4 else raw))
