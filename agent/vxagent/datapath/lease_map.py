"""Leases in the kernel: rows of `neighbours` that the data plane writes. Read them, and remove what is over.

A lease counts only as long as its port is held to its leases and is in the segment, and until it runs out; programs
see to that themselves. The data plane may renew a lease at any time: what is removed here is taken out whole and
looked at again. leases[port] says how many a port holds, and is put right here.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address

from vxagent.core.effects import PutLease
from vxagent.core.tables import NeighbourOrigin, PortFlag, PortRow, Table, member_key, neighbour_key
from vxagent.datapath import abi, codec
from vxagent.datapath.base import Lease
from vxagent.datapath.bpf_map import Map, Update

_NS = 1_000_000_000

_Row = dict[str, int]
_Doomed = Callable[[_Row], bool]


class LeaseMap:
    """The leased rows of neighbours, and the leases map. Methods may be called from several threads at once."""

    def __init__(self, shared: Mapping[str, Map]) -> None:
        self._neighbours = shared[Table.NEIGHBOURS]
        self._ports = shared[Table.PORTS]
        self._members = shared[Table.MEMBERS]
        self._leases = shared["leases"]
        self._lock = threading.Lock()

    def entries(self) -> Iterator[Lease]:
        """Those that count."""
        now = time.monotonic_ns()
        for _, row in self._rows():
            if not self._is_over(row, now):
                yield Lease(
                    segment=row["segment"],
                    port=row["port"],
                    address=_address(row),
                    mac=row["mac"],
                    left_s=(row["expires_ns"] - now) / _NS if row["expires_ns"] else None,
                )

    def put(self, lease: PutLease) -> None:
        """Make one, unless there is a row of that address.

        Raises:
            MapFull: no more rows.
        """
        address = lease.address
        key = codec.encode_key(Table.NEIGHBOURS, neighbour_key(lease.segment, address))
        value = abi.NEIGHBOUR.struct.pack(
            lease.port,
            lease.segment,
            address.version,
            NeighbourOrigin.LEASED,
            address.packed,
            lease.mac,
            0 if lease.left_s is None else time.monotonic_ns() + int(lease.left_s * _NS),
        )
        with self._lock:
            if self._neighbours.update(key, value, Update.NOEXIST):
                self._count(lease.port)

    def end(self, port: int, segment: int | None = None) -> None:
        """Remove those of a port, in one segment or all."""
        with self._lock:
            self._remove(lambda row: row["port"] == port and segment in (None, row["segment"]))
            self._recount()

    def sweep(self) -> None:
        """Remove those that count no more."""
        now = time.monotonic_ns()
        with self._lock:
            self._remove(lambda row: self._is_over(row, now))
            self._recount()

    def _is_over(self, row: _Row, now: int) -> bool:
        return bool(row["expires_ns"] and row["expires_ns"] <= now) or not self._has_place(row["port"], row["segment"])

    def _has_place(self, port: int, segment: int) -> bool:
        """Whether the port is held to its leases, and in the segment."""
        value = self._ports.lookup(codec.encode_key(Table.PORTS, port))
        row = None if value is None else codec.decode(Table.PORTS, value)
        if not isinstance(row, PortRow) or PortFlag.SNOOPED not in row.flags:
            return False
        key = codec.encode_key(Table.MEMBERS, member_key(port, segment))
        return row.segment == segment or self._members.lookup(key) is not None

    def _remove(self, doomed: _Doomed) -> None:
        for key in [key for key, row in self._rows() if doomed(row)]:
            value = self._neighbours.pop(key)
            if value is not None and not (codec.is_leased(value) and doomed(abi.NEIGHBOUR.unpack(value))):
                self._neighbours.update(key, value, Update.NOEXIST)

    def _count(self, port: int) -> None:
        """One more; to recount after each of many would take long."""
        key = codec.U32.pack(port)
        (held,) = codec.U64.unpack(self._leases.lookup(key) or bytes(codec.U64.size))
        self._leases.update(key, codec.U64.pack(held + 1))

    def _recount(self) -> None:
        """Put the count right of every port that came by no lease, and lost none, while they were counted."""
        before = self._counts()
        held = Counter(row["port"] for _, row in self._rows())
        for port, count in self._counts().items():
            if count != held[port] and count == before[port]:
                self._leases.update(codec.U32.pack(port), codec.U64.pack(held[port]))

    def _counts(self) -> dict[int, int]:
        numbers = (number for batch in self._leases.batches() for (number,) in codec.U64.iter_unpack(batch.values))
        return dict(enumerate(numbers))

    def _rows(self) -> Iterator[tuple[bytes, _Row]]:
        """Key → members of every leased row."""
        size = self._neighbours.spec.key_size
        for batch in self._neighbours.batches():
            for at in range(batch.count):
                row = abi.NEIGHBOUR.unpack(batch.value(at))
                if row["origin"] == NeighbourOrigin.LEASED:
                    yield bytes(batch.keys[at * size : (at + 1) * size]), row


def _address(row: Mapping[str, object]) -> IPv4Address | IPv6Address:
    octets, family = row["octets"], row["family"]
    assert isinstance(octets, bytes)
    return ip_address(octets[: 4 if family == 4 else 16])
