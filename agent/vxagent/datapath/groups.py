"""Memberships in multicast groups, which the data plane writes: shown here, cleared away when they have run out.

A place (a port in a segment) has a counter, and so a row of `listening`. With a beginning written there a place
disowns all that `groups` holds of an earlier one with the same numbers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address

from vxagent.datapath import abi, codec
from vxagent.datapath.base import Group, Multicast
from vxagent.datapath.bpf_map import Map, Update

_NS = 1_000_000_000


class GroupMaps:
    """The groups, listening and queriers maps."""

    def __init__(self, shared: Mapping[str, Map]) -> None:
        self._groups = shared["groups"]
        self._listening = shared["listening"]
        self._queriers = shared["queriers"]

    def begin_place(self, counter: int) -> None:
        """A port comes into a segment: nobody has asked yet what it has joined."""
        row = abi.LISTENING.struct.pack(time.monotonic_ns(), *(0,) * 6)
        self._listening.update(codec.U32.pack(counter), row)

    def begin_segment(self, segment: int) -> None:
        """A segment begins to be snooped: what was heard before may not be so any more."""
        self._queriers.update(codec.U32.pack(segment), bytes(abi.QUERIERS.size))

    def sweep(self) -> None:
        """Remove what has run out; a row that was refreshed since it was read goes back."""
        now = time.monotonic_ns()
        for key, (*_, expires_ns) in self._raw():
            if expires_ns > now:
                continue
            value = self._groups.pop(key)
            if value is not None and abi.GROUP.struct.unpack(value)[-1] > now:
                self._groups.update(key, value, Update.NOEXIST)

    def read(self, places: Mapping[tuple[int, int], int]) -> Multicast:
        """What is known of groups; see `Datapath.multicast`."""
        now = time.monotonic_ns()
        since: dict[tuple[int, int], int] = {}
        routers: set[tuple[int, int]] = set()
        refused: dict[tuple[int, int], int] = {}
        for place, counter in places.items():
            row = self._listening.lookup(codec.U32.pack(counter)) or bytes(abi.LISTENING.size)
            since[place], ipv4_ns, ipv6_ns, *_, refused[place] = abi.LISTENING.struct.unpack(row)
            if max(ipv4_ns, ipv6_ns) > now:
                routers.add(place)
        groups = [
            Group(segment=segment, port=port, group=_address(family, octets), expires_s=(expires_ns - now) / _NS)
            for _, (segment, port, family, _, octets, since_ns, expires_ns) in self._raw()
            if expires_ns > now and since.get((segment, port)) == since_ns
        ]
        queriers = {segment: self._querier(segment, now) for segment in {segment for segment, _ in places}}
        return Multicast(groups=groups, routers=routers, refused=refused, queriers=queriers)

    def _querier(self, segment: int, now: int) -> tuple[float, float]:
        row = self._queriers.lookup(codec.U32.pack(segment)) or bytes(abi.QUERIERS.size)
        *_, ipv4_ns, ipv6_ns = abi.QUERIERS.struct.unpack(row)
        return max(0, ipv4_ns - now) / _NS, max(0, ipv6_ns - now) / _NS

    def _raw(self) -> Iterator[tuple[bytes, tuple[int, int, int, int, bytes, int, int]]]:
        """Key → segment, port, family, reserved, octets, since_ns, expires_ns of every row."""
        size = abi.GROUP_KEY.size
        for batch in self._groups.batches():
            for at, members in enumerate(abi.GROUP.struct.iter_unpack(batch.values)):
                yield bytes(batch.keys[at * size : (at + 1) * size]), members


def _address(family: int, octets: bytes) -> IPv4Address | IPv6Address:
    return IPv4Address(octets[:4]) if family == IPv4Address(0).version else IPv6Address(octets)
