"""What the agent asks of the data path; `bpf_datapath` does it with the kernel, `fake` in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from vxagent.core.audit import Fault, XdpAt
from vxagent.core.effects import (
    AddCounts,
    Announce,
    Attach,
    ClearCounters,
    DeleteRow,
    Detach,
    EndLeases,
    FlushFdb,
    Mend,
    PutLease,
    PutRow,
    SetXdp,
    Xdp,
)
from vxagent.core.tables import Origin, Rows, Table
from vxagent.datapath.abi import DropKind


@dataclass(frozen=True, slots=True, kw_only=True)
class FdbEntry:
    """One entry of the FDB as the kernel holds it. age_s is None for static and cluster entries.

    held_s: for so long a MAC that moved too often is learned nowhere else; None: it is not held.
    """

    segment: int
    mac: int
    port: int
    origin: Origin
    age_s: float | None
    held_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Sums over all CPUs of one index of `traffic`; the tuples are by verdict (abi.h)."""

    packets: tuple[int, int, int, int] = (0, 0, 0, 0)
    bytes: tuple[int, int, int, int] = (0, 0, 0, 0)
    tx_packets: int = 0
    tx_bytes: int = 0
    copies: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """Frames dropped for one reason; port and segment 0 where there was none.

    kind: what it is that counts.
    """

    port: int
    segment: int
    reason: int
    packets: int
    bytes: int
    kind: DropKind = DropKind.FRAME


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """What one port has learned; `entries` is what it holds now.

    Attributes:
        limited: frames whose source was not learned for the quota or the rate.
        moved: MACs that came from another port.
        full: frames whose source was not learned because the FDB was full.
        held: MACs that it contended for, until they were held where they had been.
    """

    entries: int = 0
    limited: int = 0
    moved: int = 0
    full: int = 0
    held: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """An address that a DHCP server has given to a port. left_s: how long it lasts; None: for ever."""

    segment: int
    port: int
    address: IPv4Address | IPv6Address
    mac: int
    left_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Somebody behind a port has joined a group of a segment."""

    segment: int
    port: int
    group: IPv4Address | IPv6Address
    expires_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Multicast:
    """What IGMP, MLD and PIM have told.

    Attributes:
        groups: memberships that have not run out.
        routers: (segment, port): a multicast router is behind it.
        refused: (segment, port) → joins for which there was no room.
        queriers: segment → seconds for which one still counts as alive (0: none), for IPv4 and for IPv6.
    """

    groups: list[Group]
    routers: set[tuple[int, int]]
    refused: dict[tuple[int, int], int]
    queriers: dict[int, tuple[float, float]]


EVENTS_AT_ONCE = 1024
"""Records of the event ring that are taken in one go: some milliseconds of work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A record of the event ring; `type` is an `abi.EventType`, `time_ns` of bpf_ktime_get_ns."""

    time_ns: int
    type: int
    port: int
    other_port: int
    segment: int
    mac: int


class TableContents(Protocol):
    """What the kernel holds of one table, of the agent's rows."""

    @property
    def digest(self) -> bytes:
        """The same for the same contents."""

    def rows(self) -> Rows:
        """As values."""


class Datapath(Protocol):
    """The kernel's side. All methods may block; they are called off the event loop.

    Raises (all methods): HostError, and its MapFull where a map takes no more entries.
    """

    def open(self, *, replace: bool = True) -> None:
        """Create or open the pinned maps and load the programs; `replace` swaps the program of every link
        that a previous agent left (under traffic, without a lost frame)."""

    def take_over(self) -> None:
        """Have the tables and programs that `open` has prepared beside those that run take over from them."""

    def reload(self, *, fdb_entries: int | None = None) -> None:
        """Load the programs anew and swap them everywhere; with as much room in the FDB (None: as there is)."""

    def close(self) -> None:
        """Let go of all descriptors. The kernel goes on forwarding."""

    def destroy(self) -> None:
        """Remove every link, pin, map and mount. Programs are off afterwards."""

    def put(self, effect: PutRow) -> None:
        """Write one row."""

    def delete(self, effect: DeleteRow) -> None:
        """Remove one row; one that is absent is no failure, and a lease in its place stays."""

    def attach(self, effect: Attach) -> None:
        """Run the program on a device."""

    def detach(self, effect: Detach) -> None:
        """Take it off."""

    def set_xdp(self, effect: SetXdp) -> None:
        """Have XDP do this at the device; what the device does not take is noted and left to tc."""

    def flush(self, effect: FlushFdb) -> int:
        """Remove learned entries and lift holds on them; return how many entries."""

    def put_lease(self, effect: PutLease) -> None:
        """Make a lease, unless there is a row of that address."""

    def end_leases(self, effect: EndLeases) -> None:
        """Remove a port's leases."""

    def add_counts(self, effect: AddCounts) -> None:
        """Add what a port has counted elsewhere."""

    def announce(self, effect: Announce) -> None:
        """Tell a network where a MAC is."""

    def clear_counters(self, effect: ClearCounters) -> None:
        """Forget a port's counters."""

    def age(self) -> int:
        """Remove learned entries that are older than settings.ageing_ns, leases that count no more and memberships that
        have run out, and put each port's counts of the first two right; return how many entries were removed."""

    def rows(self) -> Rows:
        """The rows that the kernel holds (of `fdb` and `neighbours` those of the agent's)."""

    def contents(self, table: Table) -> TableContents:
        """One table's rows of the agent's."""

    def runs(self, wanted: Mapping[int, int]) -> dict[int, bool]:
        """Port handle → whether the tc program in use runs on that device (`wanted`: handle → ifindex). Of what is
        costly to look at a part is left out, another each time."""

    def xdp_at(self, wanted: Mapping[int, int]) -> dict[int, XdpAt]:
        """Port handle → what XDP does at that device now; SENDS is that of the program in use."""

    def faults(self) -> list[Fault]:
        """What of its own it has lost: pins, their file system, the table of tail calls."""

    def mend(self, effect: Mend) -> None:
        """Put right one of these; nothing that forwards is touched."""

    def attached(self) -> dict[int, int]:
        """Port handle → ifindex of every program that runs; ifindex 0: its device is gone."""

    def xdp(self) -> dict[int, Xdp]:
        """Port handle → what XDP does there, where it does anything."""

    def xdp_refused(self) -> dict[int, str]:
        """Port handle → why its device did not take the program, where it was to run."""

    def xdp_taken(self) -> set[int]:
        """Those of them where that was because of somebody else's program there."""

    def foreign(self, ifindexes: Iterable[int]) -> dict[int, list[int]]:
        """Ifindex → the kernel's numbers of the programs of others at tcx ingress, of those devices that have any."""

    def fdb(self, *, segment: int | None = None) -> Iterator[FdbEntry]:
        """The FDB, read in batches; entries aged out already are left out."""

    def fdb_room(self) -> int:
        """How many entries the FDB can hold."""

    def fdb_count(self) -> int:
        """How many entries the FDB holds, those aged out but not yet removed included."""

    def traffic(self, counters: Sequence[int]) -> list[Traffic]:
        """Sums for these indices of `traffic`, in that order."""

    def drops(self) -> list[Drop]:
        """All drop counters."""

    def learning(self, handles: Sequence[int]) -> list[Learning]:
        """What these ports have learned, in that order."""

    def leases(self) -> list[Lease]:
        """The leases of all ports that have not run out."""

    def suppressed_events(self, handles: Sequence[int]) -> list[int]:
        """How many events of these ports were not told, for their rate or a full ring, in that order."""

    def refused_leases(self, handles: Sequence[int]) -> list[int]:
        """How many leases there was no room for, of these ports, in that order."""

    def multicast(self, places: Mapping[tuple[int, int], int]) -> Multicast:
        """What is known of groups; `places`: (segment, port) → index into `traffic`, of all ports to be told of."""

    def events_fd(self) -> int | None:
        """A descriptor that can be read when there are events that must not wait; None: look from time to time."""

    def events(self) -> list[Event]:
        """Take the records that wait in the event ring, oldest first, at most EVENTS_AT_ONCE."""
