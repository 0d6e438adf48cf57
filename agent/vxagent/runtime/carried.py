"""What a port has counted, and what its VM was leased, as it goes along with the port to its next host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from vxagent.core.effects import AddCounts, PutLease
from vxagent.core.leases import leases_to_put
from vxagent.core.state import State
from vxagent.datapath import base
from vxagent.datapath.base import Datapath, Traffic
from vxagent.model.lease import Lease
from vxagent.runtime.leases import by_port

_TX_PACKETS = 8  # of the eleven numbers


class CarriedDrop(msgspec.Struct, frozen=True, array_like=True):
    """One drop counter. segment "": frames that belong to none."""

    segment: str
    reason: int
    kind: int
    packets: int
    bytes: int


class CarriedLease(msgspec.Struct, frozen=True):
    """One lease. left_s: seconds that were left of it, for hosts' clocks differ; None: it has no end."""

    segment: str
    ip: str
    mac: str
    left_s: int | None


class Counts(msgspec.Struct, frozen=True):
    """All counters of a port.

    Attributes:
        traffic: segment ("": none) → the eleven numbers of struct vx_traffic.
        drops: those that are not 0.
    """

    traffic: dict[str, tuple[int, ...]] = {}
    drops: tuple[CarriedDrop, ...] = ()

    @property
    def given(self) -> int:
        """Frames that its device was given."""
        return sum(numbers[_TX_PACKETS] for numbers in self.traffic.values())


def counts_of(state: State, datapath: Datapath, port: str) -> Counts:
    """What a port of this host has counted. Blocks. Raises NotFound, HostError."""
    handle = state.handle_of_port(port)
    counters = state.counters_of(port)
    segments = state.names("segment")
    rows = datapath.traffic(list(counters.values()))
    return Counts(
        traffic={segment or "": _numbers(row) for segment, row in zip(counters, rows, strict=True)},
        drops=tuple(
            CarriedDrop(segments.get(drop.segment, ""), drop.reason, drop.kind, drop.packets, drop.bytes)
            for drop in datapath.drops()
            if drop.port == handle
        ),
    )


def effects_of(state: State, port: str, counts: Counts) -> Iterator[AddCounts]:
    """What adds them to those of the same port on this host."""
    handle, counters = state.handle_of_port(port), state.counters_of(port)
    for segment, numbers in counts.traffic.items():
        index = counters.get(segment or None)
        if index and any(numbers):
            yield AddCounts(counter=index, traffic=numbers)
    for drop in counts.drops:
        if not drop.segment or drop.segment in state.segments:
            at = state.handle_of_segment(drop.segment) if drop.segment else 0
            yield AddCounts(drop=(handle, at, drop.reason, drop.kind), dropped=(drop.packets, drop.bytes))


def left_of(state: State, leases: Iterable[base.Lease], port: str) -> tuple[CarriedLease, ...]:
    """Of the kernel's leases those of a port."""
    return tuple(
        CarriedLease(segment=lease.segment, ip=lease.ip, mac=lease.mac, left_s=lease.expires)
        for lease in by_port(state, leases, 0.0).get(port, ())
    )


def puts_of(state: State, port: str, leases: Iterable[CarriedLease], age_s: float) -> Iterator[PutLease]:
    """What makes them good for the same port on this host, so long after they were packed."""
    ends = [Lease(segment=lease.segment, ip=lease.ip, mac=lease.mac, expires=lease.left_s) for lease in leases]
    return leases_to_put(state, port, ends, age_s)


def _numbers(row: Traffic) -> tuple[int, ...]:
    return (*row.packets, *row.bytes, row.tx_packets, row.tx_bytes, row.copies)
