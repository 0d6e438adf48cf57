"""A setting and its frames, on the reference and on the bench, and what differs."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from typing import TypeVar

from hypothesis.vendor.pretty import RepresentationPrinter

from fuzz.bench import BEGIN_NS, Bench, Counted
from fuzz.grammar import Shot, Way
from fuzz.setting import OUTSIDE, Setting
from fuzz.tally import Tally
from reference.choices import TICKS_PER_NS
from reference.switch import Switch
from reference.walk import Outcome
from support import frames
from support.outcome import TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC

K = TypeVar("K")


class Differs(AssertionError):
    """The programs do not do what the reference does."""


@dataclass(frozen=True)
class Game:
    """A setting and the frames that come in, one after the other. mute: nobody hears the copies."""

    setting: Setting
    shots: tuple[Shot, ...]
    mute: bool = False

    def _repr_pretty_(self, printer: RepresentationPrinter, _cycle: bool) -> None:
        """For hypothesis, which would print every default; `fuzz.run` adds the row."""
        printer.text(f"<{len(self.shots)} frames>")


def play(bench: Bench, game: Game, tally: Tally) -> None:
    """Send the frames through both; raises Differs."""
    setting, mute = game.setting, game.mute
    bench.load(setting, mute=mute)
    switch = setting.reference(BEGIN_NS)
    expected = Counted()
    hears: dict[int, list[bytes]] = {}
    now = BEGIN_NS
    tally.settings += 1
    for shot in game.shots:
        now += shot.after_ns
        outcome = _receive(switch, setting, shot, now)
        _add(expected, shot, outcome, setting)
        done = bench.shoot(shot)
        last = _check_run(shot, outcome, *done) if done else None
        for to, octets in outcome.copies:
            if not mute and (to, octets) != last:
                hears.setdefault(to, []).append(setting.in_tunnel(to, outcome.segment) + octets)
        tally.add(shot, outcome)
    _remember(expected, switch, now)
    tally.remember(switch)
    tally.heard += sum(map(len, hears.values()))
    _compare("frames that arrive", hears, bench.heard())
    counted = bench.counted()
    for what in fields(Counted):
        _compare(what.name, getattr(expected, what.name), getattr(counted, what.name))


def _receive(switch: Switch, setting: Setting, shot: Shot, now: int) -> Outcome:
    if _is_the_hosts(setting, shot):
        return Outcome("to_host", 0)
    place = 0 if shot.place in setting.deviceless else shot.place
    return switch.receive(place, shot.octets, now, shot.gso_size, setting.vnis.get(shot.vni, 0))


def _is_the_hosts(setting: Setting, shot: Shot) -> bool:
    return bool(shot.vni) and shot.vni not in setting.vnis


def _add(expected: Counted, shot: Shot, outcome: Outcome, setting: Setting) -> None:
    """What one frame adds to the counters; promise 5 is that nothing else does."""
    place = 0 if shot.place in setting.deviceless else shot.place
    if _is_the_hosts(setting, shot):
        place = setting.underlay
    packet = OUTSIDE if shot.vni and outcome.fate in ("vtep_denied", "to_host") else 0
    _count(expected.frames, (place, outcome.segment, outcome.fate), len(shot.octets) + packet)
    for to, octets in outcome.copies:
        _count(expected.sent, (to, outcome.segment), len(octets) + OUTSIDE * bool(setting.vtep(to)))
    for segment, reason in outcome.shadowed:
        _count(expected.shadowed, (place, segment, reason), len(shot.octets))
    for to, size in outcome.lost:
        _count(expected.lost, (to, outcome.segment), size)
    if outcome.copies:
        made = place, outcome.segment
        expected.copies[made] = expected.copies.get(made, 0) + len(outcome.copies)


def _count(counter: dict[K, tuple[int, int]], key: K, octets: int) -> None:
    packets, before = counter.get(key, (0, 0))
    counter[key] = packets + 1, before + octets


def _remember(expected: Counted, switch: Switch, now: int) -> None:
    """What the reference remembers in the end."""
    expected.fdb = {key: (entry.port, entry.origin, entry.seen) for key, entry in switch.fdb.items()}
    expected.moves = {key: (m.home, m.began, m.count, m.held) for key, m in switch.fdb.moves.items()}
    expected.neighbours = {key: astuple(neighbour) for key, neighbour in switch.neighbours.items()}
    expected.leases = {number: held for number, held in switch.neighbours.held.items() if held}
    expected.refused = {number: refused for number, refused in switch.neighbours.refused.items() if refused}
    expected.members = switch.groups.members
    for place, there in switch.groups.listening.items():
        row = (*there.router.values(), *there.settled.values(), there.joins.full_at, there.refused)
        if any(row):
            expected.listening[place] = row
    expected.queriers = {at: (*q.began.values(), *q.until.values()) for at, q in switch.groups.queriers.items()}
    for number, learning in switch.fdb.learning.items():
        values = astuple(learning)
        if any(values):
            expected.learning[number] = values
    for key, bucket in switch.rates.items():
        if bucket.full_at > now * TICKS_PER_NS:
            expected.buckets[key] = bucket.full_at
    expected.events = switch.events
    expected.suppressed = switch.events.suppressed
    for source, bucket in switch.events.buckets.items():
        if bucket.full_at > now * TICKS_PER_NS:
            expected.telling[source] = bucket.full_at


def _check_run(shot: Shot, outcome: Outcome, action: int, data: bytes) -> tuple[int, bytes] | None:
    """What a test run returned. The last copy is not sent but handed back, without its tag; it is the answer."""
    if outcome.copies:
        _compare("action", TC_ACT_REDIRECT, action)
        last = max(outcome.copies, key=lambda copy: copy[0])
        _compare("frame handed on", frames.untag(last[1]), data)
        return last
    _compare("action", TC_ACT_UNSPEC if outcome.fate == "to_host" else TC_ACT_SHOT, action)
    if outcome.fate == "to_host":
        _compare("frame for the host", frames.untag(shot.octets) if shot.way is Way.METADATA else shot.octets, data)
    return None


def _compare(what: str, expected: object, got: object) -> None:
    if expected == got:
        return
    if isinstance(expected, dict) and isinstance(got, dict):
        expected, got = (
            {key: value for key, value in side.items() if other.get(key) != value}
            for side, other in ((expected, got), (got, expected))
        )
    raise Differs(f"{what}\n  reference: {expected!r}\n  programs:  {got!r}")
