"""What the kernel shows, against what it should: which things have drifted, and what puts each right.

Nothing here looks at the kernel. What the data plane owns (learned entries, leases, groups, counters) is no row and
cannot drift. Whoever else has a place of ours is left there: the effect that would take it is refused by the kernel.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from functools import partial

from vxagent.core.effects import Attach, DeleteRow, Effect, Mend, PutRow, SetDevice, SetXdp, Xdp
from vxagent.core.migration import has_come_up
from vxagent.core.numbers import UNDERLAY
from vxagent.core.state import Owner, State
from vxagent.core.tables import RANK, Row, RowKey, Rows, Table


class Thing(StrEnum):
    """What can drift beside the rows of a `Table`."""

    BPFFS = "bpffs"  # the file system of the pins
    PIN = "pin"
    TAIL_CALL = "tail_call"
    PROGRAM = "program"  # the switch's tc program at a device
    XDP = "xdp"  # what XDP does at a device, and what other devices send to it
    DEVICE = "device"  # what the switch has set on it


Kind = Thing | Table
KINDS: tuple[Kind, ...] = (*Thing, *Table)

OF_DEVICES = frozenset({Thing.PROGRAM, Thing.XDP, Thing.DEVICE})
"""What a device takes along when it goes, or brings when it comes: an event may be on its way that tells of it."""

HARMLESS = frozenset({Thing.BPFFS, Thing.PIN, Table.SETTINGS, Table.LIMITS})
"""By these no frame comes to anybody who must not have it, whatever is wrong with them. See `Drift.urgent`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something of its own that the data path lost. name: its own name for it."""

    thing: Thing
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class XdpAt:
    """What XDP does at a device.

    Attributes:
        sends: the switch's program, of the generation that is in use, runs there.
        receives: ifindex to which frames for the port go, 0: nowhere.
    """

    sends: bool = False
    receives: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What was seen at one look. A table or port that it does not have was not looked at.

    Attributes:
        rows: of the tables that are not as they were when they were right.
        running: port handle → the switch's tc program, of the generation in use, runs on the port's device.
        xdp: port handle → what XDP does there.
        refused: handles of ports whose devices did not take the XDP program, and would not now.
        faults: what the data path lost.
    """

    rows: Mapping[Table, Rows] = field(default_factory=dict)
    running: Mapping[int, bool] = field(default_factory=dict)
    xdp: Mapping[int, XdpAt] = field(default_factory=dict)
    refused: Collection[int] = ()
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One thing that is not as it should be.

    Attributes:
        kind: what it is.
        name: which one.
        what: how it is, for people.
        repair: puts it right.
        urgent: as long as it is so a frame may come to somebody who must not have it, or the host and a VM may meet; it
            is put right at every look, however often somebody undoes that.
    """

    kind: Kind
    name: str
    what: str
    repair: Effect
    urgent: bool = True

    @property
    def thing(self) -> str:
        """Which one, among all kinds."""
        return f"{self.kind} {self.name}"


def examine(state: State, sight: Sight) -> list[Drift]:
    """What has drifted, in the order in which it is put right: pins, rows, then programs, as in a plan."""
    names = state.names("port")
    return [
        *(_fault(fault) for fault in sight.faults),
        *_rows(state, sight.rows),
        *_programs(state, names, sight.running),
        *_xdp(state, names, sight),
        *_devices(state, names),
    ]


def expected(state: State) -> dict[Table, Rows]:
    """The rows that the kernel should hold, by table."""
    found: dict[Table, Rows] = {table: {} for table in Table}
    for (table, key), row in state.rows.items():
        found[table][table, key] = row
    return found


def tables_changed(before: Rows, now: Rows) -> set[Table]:
    """The tables of which other rows are expected than before."""
    if before is now:
        return set()
    other = {rowkey for rowkey in before.keys() | now.keys() if before.get(rowkey) is not now.get(rowkey)}
    return {rowkey[0] for rowkey in other if before.get(rowkey) != now.get(rowkey)}


def _fault(fault: Fault) -> Drift:
    what = {Thing.BPFFS: "was unmounted", Thing.PIN: "was removed or replaced"}.get(fault.thing, "was changed")
    repair = Mend(thing=fault.thing, name=fault.name)
    return Drift(kind=fault.thing, name=fault.name, what=what, repair=repair, urgent=fault.thing not in HARMLESS)


def _rows(state: State, seen: Mapping[Table, Rows]) -> list[Drift]:
    """What goes comes first, the last table first, as in a plan."""
    wanted = expected(state) if seen else {}
    owners: dict[RowKey, Owner] | None = None
    gone: list[Drift] = []
    put: list[Drift] = []
    for table in sorted(seen, key=RANK.__getitem__):
        there, should = seen[table], wanted[table]
        if there == should:
            continue
        owners = owners or {rowkey: owner for owner, rows in state.owned.items() for rowkey in rows}
        for key in sorted(
            key for _, key in there.keys() | should.keys() if there.get((table, key)) != should.get((table, key))
        ):
            row, old = should.get((table, key)), there.get((table, key))
            if has_come_up(row, old):
                continue
            drift = partial(
                Drift,
                kind=table,
                name=_row_name(table, key, owners.get((table, key))),
                urgent=table not in HARMLESS,
            )
            if row is not None:
                effect = PutRow(table=table, key=key, row=row, old=old)
                put.append(drift(what=_difference(old, row), repair=effect))
            elif old is not None:
                gone.append(drift(what="belongs to nothing", repair=DeleteRow(table=table, key=key, old=old)))
    return [*reversed(gone), *put]


def _row_name(table: Table, key: int, owner: Owner | None) -> str:
    return f"{table}[{key:#x}]" + (f" of {' '.join(owner).rstrip()}" if owner is not None else "")


def _difference(there: Row | None, should: Row) -> str:
    """What of a row is not as it should be."""
    if there is None:
        return "was removed"
    names = [f.name for f in fields(should) if getattr(there, f.name, None) != getattr(should, f.name)]
    return ", ".join(
        f"{name} was {_shown(getattr(there, name))} instead of {_shown(getattr(should, name))}" for name in names
    )


def _shown(value: object) -> str:
    return str(int(value)) if isinstance(value, int) else repr(value)


def _programs(state: State, names: Mapping[int, str], running: Mapping[int, bool]) -> Iterator[Drift]:
    for handle, (ifindex, ifname) in state.attached.items():
        if not running.get(handle, True):
            effect = Attach(handle=handle, ifindex=ifindex, ifname=ifname)
            name = f"of port {names.get(handle, handle)}"
            yield Drift(kind=Thing.PROGRAM, name=name, what=f"did not run on {ifname}", repair=effect)


def _xdp(state: State, names: Mapping[int, str], sight: Sight) -> Iterator[Drift]:
    """tc does what XDP does not, so only frames that XDP sends to another port's device are urgent."""
    for handle, (ifindex, ifname) in state.attached.items():
        there = sight.xdp.get(handle)
        if there is None:
            continue
        wanted = state.xdp.get(handle, Xdp.NONE)
        sends = Xdp.SENDS in wanted
        receives = ifindex if Xdp.RECEIVES in wanted else 0
        wrong = []
        if there.sends != sends and not (sends and handle in sight.refused):
            wrong.append("did not run" if sends else "ran")
        if there.receives != receives:
            wrong.append(f"frames went to ifindex {there.receives} instead of {receives} (0: none)")
        if wrong:
            old = (Xdp.SENDS if there.sends else Xdp.NONE) | (Xdp.RECEIVES if there.receives else Xdp.NONE)
            effect = SetXdp(handle=handle, ifindex=ifindex, ifname=ifname, xdp=wanted, old=old)
            yield Drift(
                kind=Thing.XDP,
                name=f"of port {names.get(handle, handle)}",
                what=f"on {ifname}: {', '.join(wrong)}",
                repair=effect,
                urgent=there.receives not in (0, ifindex),
            )


def _devices(state: State, names: Mapping[int, str]) -> Iterator[Drift]:
    """Of a port, the host's stack and the VM must not meet; an uplink has to hear frames for its VMs."""
    for handle, (ifindex, ifname) in state.attached.items():
        device = state.devices.get(ifname)
        if device is None or device.ifindex != ifindex:
            continue
        name = names.get(handle, "")
        if name.startswith(UNDERLAY):  # the host's own
            continue
        wanted: dict[str, bool] = {"promisc": True} if name in state.uplinks else {"arp": False, "ipv6": False}
        wrong = {name: value for name, value in wanted.items() if getattr(device, name) != value}
        if wrong:
            what = ", ".join(f"{name} was {'off' if value else 'on'}" for name, value in wrong.items())
            effect = replace(SetDevice(ifindex=ifindex, ifname=ifname), **wrong)  # type: ignore[arg-type]  # by name
            yield Drift(kind=Thing.DEVICE, name=ifname, what=what, repair=effect, urgent=name not in state.uplinks)
