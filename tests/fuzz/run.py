"""Hypothesis draws settings and numbers of frames, plays them, and shrinks what differs."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, given, seed
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fuzz.bench import Bench
from fuzz.drawn import eager, rarely, settings
from fuzz.grammar import CROWD, FLAP, GROUPS, LEASES, PLAIN, QUESTIONS, TRAFFIC, Cast, shoot
from fuzz.literal import as_code
from fuzz.play import Differs, Game, play
from fuzz.tally import Tally

MOST_FRAMES = 150  # of one setting

GAMES = 40  # of one round: hypothesis remembers all of them
_HOW_MANY = st.sampled_from([1, *[MOST_FRAMES] * 9]) | st.integers(1, MOST_FRAMES)  # shrinks to few


@st.composite
def games(draw: st.DrawFn) -> Game:
    """A setting and frames."""
    setting = draw(settings())
    mute = draw(rarely()) and not setting.vteps  # there is no way to VTEPs but the one that is read
    numbers = [draw(st.integers(0, (1 << 32) - 1)) for _ in range(draw(_HOW_MANY))]
    special = [TRAFFIC, TRAFFIC]
    special += [GROUPS] * any(segment.multicast_snooping for segment in setting.segments)
    special += [QUESTIONS] * any(len(port.macs) == 1 and port.ips for port in setting.ports)
    special += [LEASES, LEASES] * any(port.dhcp_snoop for port in setting.ports)
    theme = draw(st.sampled_from([PLAIN, PLAIN, CROWD, FLAP, *special, *special]))
    if theme == CROWD and draw(st.booleans()):
        setting = eager(setting)
    cast = Cast(setting, mute=mute, theme=theme)
    return Game(setting, tuple(shoot(cast, number) for number in numbers), mute)


def fuzz(bench: Bench, tally: Tally, *, start: int, frames: int, most: int = 0) -> None:
    """Play until the tally has so many frames; raises Differs for the smallest game that differs.

    Args:
        start: the seed of the first round; each further one has the next number. A round that failed is run again by
            starting with its own seed.
        most: go on up to so many frames for what has not been reached.
    """
    while tally.frames < frames or (tally.frames < most and tally.missed()):
        try:
            _round(bench, tally, start)
        except Differs as exc:
            exc.add_note(f"run it again with the seed {start}")
            raise
        start += 1


def _round(bench: Bench, tally: Tally, number: int) -> None:

    @seed(number)
    @hypothesis_settings(
        max_examples=GAMES,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        print_blob=False,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(games())
    def agree(game: Game) -> None:
        try:
            play(bench, game, tally)
        except Differs as exc:
            exc.add_note(f"for fuzz/rows.py: {as_code(game)}")
            raise

    agree()
