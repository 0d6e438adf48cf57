"""Small numbers for things with names: handles, flood slots, counter indices.

A number stays with its owner until that is gone, also over restarts (they are saved), because the kernel's
tables and learned entries hold on to it. The lowest free number is given, so that tables stay dense.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass

from vxagent.errors import Refused
from vxagent.model.ids import MAX_COUNTERS, MAX_MEMBERS, MAX_PORTS, MAX_SEGMENTS

_LIMITS = {"port": (1, MAX_PORTS), "segment": (1, MAX_SEGMENTS), "counter": (1, MAX_COUNTERS)}


@dataclass(frozen=True, slots=True)
class _Space:
    """Numbers below `top` are taken, but for those in `free` (sorted)."""

    top: int
    free: tuple[int, ...] = ()


class Numbers:
    """Which number belongs to whom, by space and owner.

    The spaces: "port", "segment" and "counter", and "slot/SEGMENT" for the flood slots of one segment.
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

    def number(self, space: str, owner: str) -> int:
        """The owner's number, or 0 if it has none (no space gives 0 but slots)."""
        return self.given.get((space, owner), 0)

    def top(self, space: str) -> int:
        """One more than the highest number in use, 0 for an empty slot space."""
        at = self._spaces.get(space)
        return at.top if at is not None else _limits(space)[0]


def _limits(space: str) -> tuple[int, int]:
    return _LIMITS.get(space, (0, MAX_MEMBERS))


def _full(space: str, size: int) -> str:
    kind, _, name = space.partition("/")
    if kind == "slot":
        return f"segment {name} has {size} members already"
    return f"all {size} numbers for a {kind} are taken"
