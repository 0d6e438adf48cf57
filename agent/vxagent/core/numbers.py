"""Small numbers for things with names: handles, flood slots, counter indices.

A number stays with its owner until that is gone, also over restarts (they are saved), because the kernel's
tables and learned entries hold on to it. The lowest free number is given, so that tables stay dense.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass

from vxagent.core.tables import VTEP_SLOT
from vxagent.errors import Refused
from vxagent.model.fdb import StaticEntry
from vxagent.model.ids import MAX_COUNTERS, MAX_MEMBERS, MAX_PORTS, MAX_SEGMENTS, MAX_VTEPS

VTEP, UNDERLAY = "vtep/", "underlay/"
"""Names of owners in the space "port" that are neither a port nor an uplink begin so: the VTEP of another host, and a
device that is the underlay alone. Names of ports and devices have no slash."""

_LIMITS = {"port": (1, MAX_PORTS), "segment": (1, MAX_SEGMENTS), "counter": (1, MAX_COUNTERS)}


@dataclass(frozen=True, slots=True)
class _Space:
    """Numbers below `top` are taken, but for those in `free` (sorted)."""

    top: int
    free: tuple[int, ...] = ()


class Numbers:
    """Which number belongs to whom, by space and owner.

    The spaces: "port", "segment" and "counter", and for the flood slots of one segment "slot/SEGMENT" and, of VTEPs,
    "vtep-slot/SEGMENT". The owners in "port" are port ids, uplinks' devices, VTEPs (`vtep_owner`) and the underlay
    (`underlay_owner`).
    """

    def __init__(self, given: dict[tuple[str, str], int] | None = None) -> None:
        self.given: dict[tuple[str, str], int] = dict(given or {})
        self._spaces: dict[str, _Space] = {}
        used: dict[str, set[int]] = {}
        for (space, _), number in self.given.items():
            used.setdefault(space, set()).add(number)
        for space, numbers in used.items():
            first, _ = _limits(space)
            top = max(numbers) + 1
            self._spaces[space] = _Space(top, tuple(n for n in range(first, top) if n not in numbers))

    def copy(self) -> Numbers:
        """A copy that can change on its own."""
        other = Numbers.__new__(Numbers)
        other.given = dict(self.given)
        other._spaces = dict(self._spaces)
        return other

    def take(self, space: str, owner: str) -> int:
        """The owner's number, given now if it has none.

        Raises:
            Refused: the space is used up.
        """
        number = self.given.get((space, owner))
        if number is not None:
            return number
        first, limit = _limits(space)
        at = self._spaces.get(space, _Space(first))
        if at.free:
            number, at = at.free[0], _Space(at.top, at.free[1:])
        elif at.top < limit:
            number, at = at.top, _Space(at.top + 1, at.free)
        else:
            raise Refused(_full(space, limit - first), "remove what is no longer needed")
        self._spaces[space] = at
        self.given[space, owner] = number
        return number

    def release(self, space: str, owner: str) -> None:
        """Take the owner's number back, if it has one."""
        number = self.given.pop((space, owner), None)
        if number is None:
            return
        at = self._spaces[space]
        free = list(at.free)
        insort(free, number)
        top = at.top
        while free and free[-1] == top - 1:
            top = free.pop()
        self._spaces[space] = _Space(top, tuple(free))

    def rename(self, space: str, owner: str, new: str) -> None:
        """Give the owner's number to another one, who has none."""
        self.given[space, new] = self.given.pop((space, owner))

    def number(self, space: str, owner: str) -> int:
        """The owner's number, or 0 if it has none (no space gives 0 but that of slots)."""
        return self.given.get((space, owner), 0)

    def top(self, space: str) -> int:
        """One more than the highest number in use, the first one for an empty space."""
        at = self._spaces.get(space)
        return at.top if at is not None else _limits(space)[0]


def vtep_owner(address: str) -> str:
    """Under which name the VTEP of another host has its numbers."""
    return VTEP + address


def underlay_owner(device: str) -> str:
    """Under which name a device that is the underlay, and no uplink, has its numbers."""
    return UNDERLAY + device


def owner_of(entry: StaticEntry) -> str:
    """The owner in the space "port" that a static entry names."""
    return vtep_owner(entry.vtep) if entry.vtep is not None else entry.port or ""


def slots_of(segment: str, *, vteps: bool = False) -> str:
    """The space of the flood slots of a segment."""
    return f"{'vtep-slot' if vteps else 'slot'}/{segment}"


def slots_for(name: str, segment: str) -> str:
    """The space in which this owner has its flood slot of a segment."""
    return slots_of(segment, vteps=name.startswith(VTEP))


def _limits(space: str) -> tuple[int, int]:
    if space.startswith("vtep-slot/"):
        return VTEP_SLOT, VTEP_SLOT + MAX_VTEPS
    return _LIMITS.get(space, (0, MAX_MEMBERS))


def _full(space: str, size: int) -> str:
    kind, _, name = space.partition("/")
    if kind in ("slot", "vtep-slot"):
        return f"segment {name} has {size} {'members' if kind == 'slot' else 'VTEPs'} already"
    return f"all {size} numbers for a {kind} are taken"
