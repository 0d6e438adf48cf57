"""Tables in memory, and what the programs find in them."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from vxagent.core.tables import (
    FdbRow,
    OverlayRow,
    PortRow,
    Row,
    Rows,
    SettingsRow,
    Table,
    VtepRow,
    fdb_key,
)
from vxagent.datapath.base import Lease

_NS = 1_000_000_000


@dataclass(slots=True)
class Learned:
    """An entry of the FDB that a frame made: at which port, and when one was last seen there."""

    port: int
    seen_s: float


class FakeTables:
    """What the programs look at, and what they find there.

    Attributes:
        now_s: the time; a test moves it.
        table: rows that the agent wrote.
        learned: by FDB key.
        programs: port handle → ifindex at which its program runs.
        programs_out: handles of ports at the egress of whose devices one runs.
        drop_counts: (port, segment, reason) → frames.
        given: by neighbour key; `left_s` of these is a time.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self.table: Rows = {}
        self.learned: dict[int, Learned] = {}
        self.programs: dict[int, int] = {}
        self.programs_out: set[int] = set()
        self.drop_counts: dict[tuple[int, int, int], int] = {}
        self.given: dict[int, Lease] = {}

    def _underlay(self) -> int:
        """The handle of the underlay device; 0: there is no overlay."""
        row = self.table.get((Table.OVERLAY, 0))
        return row.port if isinstance(row, OverlayRow) else 0

    def _vtep(self, handle: int) -> str | None:
        """The address of the VTEP that has this handle."""
        row = self.table.get((Table.VTEPS, handle))
        return str(ip_address(row.octets[: 4 if row.family == 4 else 16])) if isinstance(row, VtepRow) else None

    def _entry(self, segment: int, mac: int) -> FdbRow | None:
        """What the agent wrote about a MAC."""
        row = self.table.get((Table.FDB, fdb_key(segment, mac)))
        return row if isinstance(row, FdbRow) else None

    def _lookup(self, segment: int, mac: int) -> int | None:
        row = self._entry(segment, mac)
        if row is not None:
            return row.port
        entry = self.learned.get(fdb_key(segment, mac))
        return entry.port if entry is not None and not self._aged(entry) else None

    def _port(self, handle: int) -> PortRow | None:
        row: Row | None = self.table.get((Table.PORTS, handle))
        return row if isinstance(row, PortRow) else None

    def _held(self, handle: int) -> int:
        return sum(entry.port == handle for entry in self.learned.values())

    def _aged(self, entry: Learned) -> bool:
        row = self.table.get((Table.SETTINGS, 0))
        ageing_ns = row.ageing_ns if isinstance(row, SettingsRow) else 0
        return bool(ageing_ns) and (self.now_s - entry.seen_s) * _NS > ageing_ns
