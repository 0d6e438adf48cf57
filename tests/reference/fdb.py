"""The forwarding entries, and step 13: where a MAC is learned, and where not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from reference.choices import HOLD_NS, MOVES, MOVES_NS, REFRESH_NS
from reference.events import Event, Events
from reference.tables import Port

STATIC, LEARNED, CLUSTER = "static", "learned", "cluster"
Key = tuple[int, int]  # segment, MAC


@dataclass(slots=True, kw_only=True)
class Entry:
    """port 0: behind a VTEP. listed: the port itself lists the MAC. seen: nanoseconds."""

    port: int
    origin: str = STATIC
    listed: bool = False
    seen: int = 0


@dataclass(slots=True)
class Learning:
    """Of one port: entries that it holds; frames whose sender was not learned for the quota or the rate; MACs that came
    from another port; frames that found the FDB full; holds on MACs for which it contended."""

    learned: int = 0
    limited: int = 0
    moved: int = 0
    full: int = 0
    held: int = 0


@dataclass(slots=True)
class Moves:
    """Of a MAC, since `began`: how often it moved, and from where at first. Until `held` it is learned there alone."""

    home: int
    began: int
    count: int = 0
    held: int = 0


class Fdb(dict[Key, Entry]):
    """The entries by segment and MAC.

    Attributes:
        ageing: nanoseconds; 0: never.
        capacity: entries that there can be.
        learning: by port.
        events: what it tells.
    """

    def __init__(self, ports: dict[int, Port], ageing: int, capacity: int, events: Events) -> None:
        super().__init__()
        self.ports = ports
        self.ageing = ageing
        self.capacity = capacity
        self.learning = {number: Learning() for number in ports}
        self.moves: dict[Key, Moves] = {}
        self.events = events

    def find(self, key: Key, now: int) -> Entry | None:
        """The entry of a station unless it has aged out; group addresses have none."""
        entry = self.get(key)
        if entry is None or is_group(key[1]):
            return None
        aged = entry.origin == LEARNED and self.ageing and now - entry.seen > self.ageing
        return None if aged else entry

    def learn(self, key: Key, port: Port, now: int, take: Callable[[], bool]) -> None:
        """The sender is here. take: takes a token of the port's rate of learning."""
        entry = self.get(key)
        if entry and entry.origin != LEARNED:
            return
        if entry and entry.port == port.number:
            if now - entry.seen >= REFRESH_NS:
                entry.seen = now
            return
        live = self.find(key, now) is not None
        flaps = entry is not None and live and not port.migrating and not self.ports[entry.port].migrating
        mine = self.learning[port.number]
        if entry and flaps and self._held(key, entry, port, now):
            return
        if mine.learned >= port.max_macs or not take():
            mine.limited = self._tell(mine.limited, ("learn_limited", port.number, 0, *key), now)
            return
        if entry and flaps and not self._move(key, entry, port, now):
            return
        if entry is None and len(self) >= self.capacity:
            mine.full = self._tell(mine.full, ("fdb_full", port.number, 0, *key), now)
            return
        mine.learned += 1
        if entry:
            self.learning[entry.port].learned -= 1
        if entry and live:
            mine.moved += 1
            self.events.tell(("mac_moved", port.number, entry.port, *key), now)
        self[key] = Entry(port=port.number, origin=LEARNED, seen=now)

    def _held(self, key: Key, entry: Entry, port: Port, now: int) -> bool:
        """Whether a MAC that is about to move has moved too often; what was long ago is forgotten."""
        moves = self.moves.get(key)
        if moves is None or (now >= moves.held and now - moves.began >= MOVES_NS):
            return False
        return now < moves.held and port.number != moves.home

    def _move(self, key: Key, entry: Entry, port: Port, now: int) -> bool:
        """Counts the move; the one too many begins a hold, and is made only if it leads home."""
        moves = self.moves.get(key)
        if moves is None or (now >= moves.held and now - moves.began >= MOVES_NS):
            moves = self.moves[key] = Moves(home=entry.port, began=now)
        if now < moves.held:
            return True
        moves.count += 1
        if moves.count <= MOVES:
            return True
        moves.held = now + HOLD_NS
        rival = entry.port if port.number == moves.home else port.number
        self.learning[rival].held += 1
        self.events.tell(("mac_held", rival, moves.home, *key), now)
        return port.number == moves.home

    def _tell(self, count: int, event: Event, now: int) -> int:
        """One more; told at powers of two, so that nobody can fill the log."""
        if count & (count + 1) == 0:
            self.events.tell(event, now)
        return count + 1


def is_group(mac: int) -> bool:
    """I/G bit, IEEE 802-2014, 8.2.2."""
    return bool(mac >> 40 & 1)
