"""Every map of the switch, declared once: creation, pin checks and the C macros come from here."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from dataclasses import dataclass, fields

from vxagent.datapath import abi
from vxagent.datapath.bpf_map import MapFlag, MapSpec, MapType
from vxagent.errors import Invalid
from vxagent.model.ids import FDB_ENTRIES, check_range

PROGS = "progs"  # made anew for every generation of programs, therefore not among the shared maps

_HANDLES = 1 << 16  # a handle is a u16
_ENTRIES = 1 << 28
_FIRST_SENTINEL = 0x7E000001  # no descriptor is ever that large


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much the maps take, in entries; `events` in bytes.

    `ports` and `segments` count handles, 0 included.

    Raises:
        Invalid: nothing, more handles than 16 bits hold, or a ring that is no power of two of whole pages.
    """

    ports: int = 8192
    segments: int = 8192
    memberships: int = 65536
    fdb: int = FDB_ENTRIES
    moves: int = 65536
    addresses: int = 65536
    neighbours: int = 65536
    groups: int = 65536
    counters: int = 16384
    drops: int = 16384
    events: int = 1024 * 1024

    def __post_init__(self) -> None:
        for field in fields(self):
            handles = field.name in ("ports", "segments")
            check_range(field.name, getattr(self, field.name), 1, _HANDLES if handles else _ENTRIES)
        if self.events % mmap.PAGESIZE or self.events & self.events - 1:
            raise Invalid("events", self.events, f"must be a power of two and at least {mmap.PAGESIZE}")


DEFAULT_SIZES = Sizes()


def declare(sizes: Sizes) -> dict[str, MapSpec]:
    """The shared maps by name.

    What the agent alone inserts takes memory by use (NO_PREALLOC); lookups cost the same. The data plane
    inserts into fdb and drops: fdb must never fail for want of memory, drops is large and mostly empty. An LRU
    hash takes all of its memory at once.
    """
    port, segment, counters, by_use = sizes.ports, sizes.segments, sizes.counters, MapFlag.NO_PREALLOC
    membership = (4, abi.MEMBERSHIP.size, sizes.memberships, by_use)
    specs = (
        _spec("settings", MapType.ARRAY, 4, abi.SETTINGS.size, 1),
        _spec("ports", MapType.ARRAY, 4, abi.PORT.size, port),
        _spec("segments", MapType.ARRAY, 4, abi.SEGMENT.size, segment),
        _spec("limits", MapType.ARRAY, 4, abi.LIMITS.size, port),
        _spec("buckets", MapType.ARRAY, 4, abi.BUCKETS.size, port),
        _spec("devices", MapType.HASH, 4, abi.DEVICE.size, port, by_use),
        _spec("xdp_devices", MapType.DEVMAP, 4, 4, port),
        _spec("vids", MapType.HASH, *membership),
        _spec("members", MapType.HASH, *membership),
        _spec("slots", MapType.HASH, *membership),
        _spec("overlay", MapType.ARRAY, 4, abi.OVERLAY.size, 1),
        _spec("vteps", MapType.ARRAY, 4, abi.VTEP.size, port),
        _spec("tunnels", MapType.HASH, 16, abi.VTEP.size, port, by_use),
        _spec("vnis", MapType.HASH, 4, abi.VNI.size, segment, by_use),
        _spec("fdb", MapType.HASH, 8, abi.FDB_ENTRY.size, sizes.fdb),
        _spec("moves", MapType.LRU_HASH, 8, abi.MOVES_ROW.size, sizes.moves),
        _spec("first", MapType.ARRAY, 4, abi.FIRST.size, port),
        _spec("addresses", MapType.HASH, abi.ADDRESS_KEY.size, abi.ADDRESS.size, sizes.addresses, by_use),
        _spec("prefixes", MapType.LPM_TRIE, abi.ADDRESS_KEY.size, abi.ADDRESS.size, sizes.addresses, by_use),
        _spec("neighbours", MapType.HASH, abi.NEIGHBOUR_KEY.size, abi.NEIGHBOUR.size, sizes.neighbours, by_use),
        _spec("groups", MapType.HASH, abi.GROUP_KEY.size, abi.GROUP.size, sizes.groups, by_use),
        _spec("listening", MapType.ARRAY, 4, abi.LISTENING.size, counters),
        _spec("queriers", MapType.ARRAY, 4, abi.QUERIERS.size, segment),
        _spec("audience", MapType.PERCPU_ARRAY, 4, abi.AUDIENCE_BYTES, 1),
        _spec("traffic", MapType.PERCPU_ARRAY, 4, abi.TRAFFIC.size, counters),
        _spec("drops", MapType.PERCPU_HASH, abi.DROP_KEY.size, abi.DROP_COUNT.size, sizes.drops, by_use),
        _spec("learning", MapType.ARRAY, 4, abi.LEARNING.size, port),
        _spec("forgotten", MapType.ARRAY, 4, 8, port),
        _spec("leases", MapType.ARRAY, 4, 8, port),
        _spec("leases_refused", MapType.ARRAY, 4, 8, port),
        _spec("flows", MapType.PERCPU_ARRAY, 4, abi.FLOW.size, 1 << abi.FLOW_BITS),
        _spec("hops", MapType.ARRAY, 4, abi.HOP.size, port),
        _spec("epochs", MapType.ARRAY, 4, 8, segment),
        _spec("telling", MapType.ARRAY, 4, abi.TELLING.size, port),
        _spec("events", MapType.RINGBUF, 0, 0, sizes.events),
    )
    return {spec.name: spec for spec in specs}


_NUMBER = abi.Layout("__u32", number="I")
_COUNT = abi.Layout("__u64", number="Q")
_OCTETS = abi.Layout("void", octets="16s")
_NONE = abi.Layout("void")

STRUCTS: dict[str, tuple[abi.Layout, abi.Layout]] = {
    "settings": (_NUMBER, abi.SETTINGS),
    "ports": (_NUMBER, abi.PORT),
    "segments": (_NUMBER, abi.SEGMENT),
    "limits": (_NUMBER, abi.LIMITS),
    "buckets": (_NUMBER, abi.BUCKETS),
    "devices": (_NUMBER, abi.DEVICE),
    "xdp_devices": (_NUMBER, _NUMBER),
    "vids": (_NUMBER, abi.MEMBERSHIP),
    "members": (_NUMBER, abi.MEMBERSHIP),
    "slots": (_NUMBER, abi.MEMBERSHIP),
    "overlay": (_NUMBER, abi.OVERLAY),
    "vteps": (_NUMBER, abi.VTEP),
    "tunnels": (_OCTETS, abi.VTEP),
    "vnis": (_NUMBER, abi.VNI),
    "fdb": (_COUNT, abi.FDB_ENTRY),
    "moves": (_COUNT, abi.MOVES_ROW),
    "first": (_NUMBER, abi.FIRST),
    "addresses": (abi.ADDRESS_KEY, abi.ADDRESS),
    "prefixes": (abi.ADDRESS_KEY, abi.ADDRESS),
    "neighbours": (abi.NEIGHBOUR_KEY, abi.NEIGHBOUR),
    "groups": (abi.GROUP_KEY, abi.GROUP),
    "listening": (_NUMBER, abi.LISTENING),
    "queriers": (_NUMBER, abi.QUERIERS),
    "audience": (_NUMBER, abi.Layout("vx_audience", octets=f"{abi.AUDIENCE_BYTES}s")),
    "traffic": (_NUMBER, abi.TRAFFIC),
    "drops": (abi.DROP_KEY, abi.DROP_COUNT),
    "learning": (_NUMBER, abi.LEARNING),
    "forgotten": (_NUMBER, _COUNT),
    "leases": (_NUMBER, _COUNT),
    "leases_refused": (_NUMBER, _COUNT),
    "flows": (_NUMBER, abi.FLOW),
    "hops": (_NUMBER, abi.HOP),
    "epochs": (_NUMBER, _COUNT),
    "telling": (_NUMBER, abi.TELLING),
    "events": (_NONE, abi.EVENT),
}
"""Map → the structs of its key and its value; of a ring buffer that of a record."""

MEANINGS: dict[str, int] = {}
"""Map → which meaning its rows have, where it is not the first: to be raised when a row comes to mean something else
although its struct stays. Where two builds differ in it, each has a map of its own, as if the structs differed."""


def progs_spec() -> MapSpec:
    """The tail-call table of one generation."""
    return _spec(PROGS, MapType.PROG_ARRAY, 4, 4, 8)


def sentinels(further: Iterable[str] = ()) -> dict[str, int]:
    """Map name → the number that stands for its descriptor in bytecode.

    Args:
        further: maps beside those of the switch, such as a test's own.
    """
    names = (*declare(DEFAULT_SIZES), PROGS, *further)
    return {name: _FIRST_SENTINEL + at for at, name in enumerate(names)}


def _spec(name: str, kind: MapType, key: int, value: int, entries: int, flags: MapFlag = MapFlag.NONE) -> MapSpec:
    return MapSpec(name=name, type=kind, key_size=key, value_size=value, max_entries=entries, flags=flags)
