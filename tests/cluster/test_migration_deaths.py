"""An agent of a migration dies at any step that it takes. In the end all is as if it had not.

See support/journeys.py for who sends what meanwhile. `make deaths` tries every step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest

from support.choosing import spread
from support.clustered import Clustered
from support.journeys import Journey
from support.perils import Perils
from support.picture import Picture

pytestmark = pytest.mark.alone  # streams in real-time priority: others would starve, and be blamed for it

RATE = 1_000  # frames a second, in each stream: what is held while an agent starts has room in a tap that waits


@dataclass(frozen=True, kw_only=True)
class Way:
    """A migration, or one that is cancelled.

    Attributes:
        do: takes its steps; returns how many frames were held for a VM that has not come.
        loses: what comes for it after the switchover.
    """

    name: str
    do: Callable[[Perils], int]
    loses: bool = False


def there(perils: Perils) -> int:
    perils.prepare()
    perils.switch_over()
    perils.activate()
    return 0


def cancelled_at_once(perils: Perils) -> int:
    perils.prepare()
    return perils.cancel(perils.journey.other)


def cancelled_by_its_host(perils: Perils) -> int:
    perils.prepare()
    perils.switch_over()
    return perils.cancel(perils.journey.at)


def cancelled_by_the_next(perils: Perils) -> int:
    perils.prepare()
    perils.switch_over()
    return perils.cancel(perils.journey.other)


WAYS = (
    Way(name="there", do=there),
    Way(name="cancelled at once", do=cancelled_at_once),
    Way(name="cancelled by its host", do=cancelled_by_its_host, loses=True),
    Way(name="cancelled by the next", do=cancelled_by_the_next, loses=True),
)


@pytest.fixture(scope="module")
def perils(fleet: Clustered) -> Perils:
    made = Perils(Journey(fleet, rate=RATE))
    for _ in range(2):  # numbers that nobody had before are given as they will be
        there(made)
    return made


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_a_migration_ends_as_it_should_whoever_dies(perils: Perils, way: Way) -> None:
    journey, turn = perils.journey, WAYS.index(way)
    wanted: dict[str, dict[str, Picture]] = {}
    counts: dict[str, dict[str, int]] = {}
    while journey.at.name not in wanted:  # from either host: they are not numbered alike
        start = journey.at.name
        counts[start] = perils.steps_of(partial(way.do, perils))
        wanted[start] = perils.pictures()
    held = 0

    def do() -> None:
        nonlocal held
        held += way.do(perils)

    with journey.streaming(way.name) as found, perils.watched():
        for victim in ("at", "other"):
            start = journey.at.name
            count = counts[start][getattr(journey, victim).name]
            for after in spread(count, [turn], len(WAYS)):
                start, host = journey.at.name, getattr(journey, victim)
                perils.dying(host, after, do)
                when = f"{way.name}, from {start}: {host.name} dead after {after} of {counts[start][host.name]}"
                perils.assert_like(wanted[start], when)
    (figures,) = found
    own = (figures.streams or {})["VM → host 3"]
    assert own[1:] == (0, 0, 0), figures.why
    assert figures.duplicated == 0
    assert figures.lost >= held if way.loses else figures.lost == 0, (figures.why, held)
