"""Two VMs make as many events as they can; `tests/support/event_flood.py` draws them. Its long form: `make events`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.event_flood import FEW, Scene, Seen
from support.lan import running_lan

pytestmark = pytest.mark.alone  # it measures

SECONDS = 2.0
ROUNDS = 2
MARGIN = 4.0  # the machine has other things to do, and not the same in each round


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """One switch for the tests of this file."""
    with running_lan() as lan:
        yield Scene(lan, ROUNDS)


def test_a_flood_of_events_starves_nobody(scene: Scene) -> None:
    """Commands take no longer than by a flood of frames that are no events, which takes CPU as well; what another port
    tells is told; and of the flood most is counted, not told."""
    frames, events = Seen(), Seen()
    for pair in scene.bystanders:
        with scene.flood(events=False):
            scene.look(frames, SECONDS)
        with scene.flood(events=True):
            scene.look(events, SECONDS)
            scene.tell(pair)
    assert frames.events == 0
    assert events.events > 10 * FEW
    assert events.events_suppressed > 0.9 * events.events
    assert events.command_s < MARGIN * frames.command_s
    assert 0 < scene.lines() < events.events / 10
    assert scene.lan.show(scene.bystanders[0][0].port)["events_suppressed"] == 0


def test_a_port_that_comes_later_has_suppressed_nothing(scene: Scene) -> None:
    """It gets the number of one that is gone, not its counts."""
    lan, gone = scene.lan, scene.flooders[0]
    with scene.flood(events=True):
        pass
    assert lan.show(gone.port)["events_suppressed"] > 0
    lan.agent.cli("port", "detach", gone.port)
    lan.attach(gone.port, scene.quiet)
    assert lan.show(gone.port)["events_suppressed"] == 0
