"""What is to be done to the kernel and the store, as values.

`core` returns a list of effects, the executor applies them in order and, when one fails, applies the
`inverse` of those already done in reverse. An effect carries what its inverse needs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntFlag
from ipaddress import IPv4Address, IPv6Address

from vxagent.core.tables import Row, Table

Document = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Save:
    """Change the state database in one transaction.

    Attributes:
        put: (kind, name) → document (JSON-able).
        delete: (kind, name) that go.
        old: what stood there before, None where nothing did.
    """

    put: dict[tuple[str, str], Document] = field(default_factory=dict)
    delete: tuple[tuple[str, str], ...] = ()
    old: dict[tuple[str, str], Document | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """Forget what `Save` kept for a start after a crash (`core.unfinished`): it is all done. Comes last, has no
    inverse, and cannot fail: what it leaves behind goes with the next `Save`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PutRow:
    """Make table[key] = row. `old` is the row that stood there, or None."""

    table: Table
    key: int
    row: Row
    old: Row | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteRow:
    """Remove table[key], which is `old`."""

    table: Table
    key: int
    old: Row


@dataclass(frozen=True, slots=True, kw_only=True)
class InternalPair:
    """The veth pair of an internal port: `ifname` with `mac` for the host, `peer` for the switch.

    mtu: bytes of L3.
    """

    ifname: str
    peer: str
    mac: str
    mtu: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeInternal:
    """Make the pair; one that is there gets its MAC and MTU. `old`: what was there, or None."""

    pair: InternalPair
    old: InternalPair | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveInternal:
    """Remove the pair; absent is no failure."""

    pair: InternalPair


class Xdp(IntFlag):
    """What XDP does at a port's device."""

    NONE = 0
    SENDS = 1  # the switch's program runs there, in front of tc
    RECEIVES = 2  # what it finishes elsewhere goes straight there


@dataclass(frozen=True, slots=True, kw_only=True)
class SetDevice:
    """Set what is not None on a device; a device that is gone is no failure.

    Attributes:
        ifindex, ifname: which one; the name must still be that of the index.
        up, arp, ipv6, promisc, rxvlan: as in `model.device.Device`.
        undo: the opposite, applied as inverse.
    """

    ifindex: int
    ifname: str
    up: bool | None = None
    arp: bool | None = None
    ipv6: bool | None = None
    promisc: bool | None = None
    rxvlan: bool | None = None
    undo: tuple[bool | None, ...] = (None,) * 5


@dataclass(frozen=True, slots=True, kw_only=True)
class SetQueue:
    """Have a device keep so many frames for who reads it; a device that is gone is no failure. What does not fit into a
    shorter queue is lost. `old`: how many it kept before."""

    ifindex: int
    ifname: str
    frames: int
    old: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attach:
    """Run the switch's program on a device, for the port with this handle. Attached already: replace it.

    Where the tables say that the device is the underlay, another runs at its egress.
    again: it is attached, and has become the underlay, or is it no longer. Has no inverse: what one that is undone
        leaves at an egress passes all that comes, and what it does not the audit finds.
    """

    handle: int
    ifindex: int
    ifname: str
    again: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Detach:
    """Take the program off again; a device that is gone is no failure."""

    handle: int
    ifindex: int
    ifname: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetXdp:
    """Have XDP do this at a device where the switch's program runs; tc goes on as it does. Where the device takes no
    program that is noted, and no failure: tc does it all. `old`: what it did before.
    """

    handle: int
    ifindex: int
    ifname: str
    xdp: Xdp
    old: Xdp


@dataclass(frozen=True, slots=True, kw_only=True)
class FlushFdb:
    """Remove learned entries, of one segment, one port, both (and) or, with neither, all. Has no inverse:
    what is gone is learned again."""

    segment: int | None = None
    port: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PutLease:
    """Put a kept lease back, unless the address has a row. Has no inverse: it is put back when nothing is there yet.

    left_s: how long it lasts; None: for ever.
    """

    segment: int
    port: int
    address: IPv4Address | IPv6Address
    mac: int
    left_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndLeases:
    """Remove the leases of a port, in one segment or all. Has no inverse: the VM asks its server again."""

    port: int
    segment: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Announce:
    """Tell the network behind a device that a MAC is here, in this VLAN (0: untagged). A device that is gone hears
    nothing. Has no inverse."""

    ifindex: int
    vid: int
    mac: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AddCounts:
    """Add what a port has counted on the host that it came from. Has no inverse.

    Attributes:
        counter: index into traffic; traffic: its members as in abi.h, eleven numbers.
        drop: port, segment, reason and kind; dropped: frames and bytes. Reason 0: no drop.
    """

    counter: int = 0
    traffic: tuple[int, ...] = (0,) * 11
    drop: tuple[int, int, int, int] = (0, 0, 0, 0)
    dropped: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearCounters:
    """Forget what objects that are gone have counted, so that who gets their numbers next starts at zero.
    Has no inverse; therefore it comes last.

    Attributes:
        port: a handle, or 0.
        segment: a handle, or 0. Drops go that match all of port and segment that are given; with the port
            alone its learning, forgotten and telling counts go too, and its buckets are full; with neither, no drops
            go.
        counters: indices into traffic.
    """

    port: int = 0
    segment: int = 0
    counters: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mend:
    """Put right one thing that the data path found to be lost of its own, by the name that it gave it: a pin, the file
    system of the pins, an entry of the table of tail calls. Has no inverse: what was there before was wrong."""

    thing: str
    name: str


Effect = (
    Save
    | Finish
    | PutRow
    | DeleteRow
    | MakeInternal
    | RemoveInternal
    | SetDevice
    | SetQueue
    | Attach
    | Detach
    | SetXdp
    | FlushFdb
    | PutLease
    | EndLeases
    | AddCounts
    | Announce
    | ClearCounters
    | Mend
)


def inverse(effect: Effect) -> Effect | None:  # noqa: PLR0911  # one row for each effect
    """The effect that undoes this one, or None where nothing needs undoing."""
    match effect:
        case Save(put=put, old=old):
            return Save(
                put={k: v for k, v in old.items() if v is not None},
                delete=tuple(k for k in put if old.get(k) is None),
                old=dict(put),
            )
        case PutRow(table=table, key=key, row=row, old=None):
            return DeleteRow(table=table, key=key, old=row)
        case PutRow(table=table, key=key, row=row, old=old) if old is not None:
            return PutRow(table=table, key=key, row=old, old=row)
        case DeleteRow(table=table, key=key, old=old):
            return PutRow(table=table, key=key, row=old)
        case MakeInternal(pair=pair, old=None):
            return RemoveInternal(pair=pair)
        case MakeInternal(pair=pair, old=old) if old is not None:
            return MakeInternal(pair=old, old=pair)
        case RemoveInternal(pair=pair):
            return MakeInternal(pair=pair)
        case SetDevice(undo=(up, arp, ipv6, promisc, rxvlan)):
            return SetDevice(
                ifindex=effect.ifindex,
                ifname=effect.ifname,
                up=up,
                arp=arp,
                ipv6=ipv6,
                promisc=promisc,
                rxvlan=rxvlan,
                undo=(effect.up, effect.arp, effect.ipv6, effect.promisc, effect.rxvlan),
            )
        case SetQueue(frames=frames, old=old):
            return replace(effect, frames=old, old=frames)
        case Attach(handle=handle, ifindex=ifindex, ifname=ifname, again=False):
            return Detach(handle=handle, ifindex=ifindex, ifname=ifname)
        case Detach(handle=handle, ifindex=ifindex, ifname=ifname):
            return Attach(handle=handle, ifindex=ifindex, ifname=ifname)
        case SetXdp(xdp=xdp, old=old):
            return replace(effect, xdp=old, old=xdp)
    return None
