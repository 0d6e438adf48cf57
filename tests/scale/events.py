"""What a flood of events costs the agent, and whether another port's event is told meanwhile: `make events`, a minute.

Prints a table; it is no test, because a busy machine is not a broken one; its short form is
`tests/netns/test_events.py`. Everything happens in namespaces of its own.
"""

from __future__ import annotations

import statistics
import sys
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from scale.measure import machine
from support.event_flood import Scene, Seen
from support.lan import running_lan
from vxagent.lab.signals import Stopped

ROUNDS, SECONDS = 5, 3.0
NOTHING, FRAMES, EVENTS = "no flood", "a flood of frames", "a flood of events"
HEAD = ("FRAMES/S", "EVENTS/S", "NOT TOLD/S", "COMMAND MS", "WORST MS", "RATIO", "AGENT CPU %")


def line(what: str, seen: Seen, base: Seen) -> str:
    """One line of the table."""
    rates = (f"{count / seen.seconds:,.0f}" for count in (seen.frames, seen.events, seen.events_suppressed))
    times = (
        f"{1000 * seen.command_s:.1f}",
        f"{1000 * max(seen.commands):.1f}",
        f"{seen.command_s / base.command_s:.2f}",
    )
    return row(what, *rates, *times, f"{100 * seen.cpu:.1f}")


def row(what: str, *cells: str) -> str:
    """Its columns."""
    return f"{what:<18}" + "".join(f"{cell:>13}" for cell in cells)


def main() -> None:
    """Print the table."""
    print(machine())
    with running_lan() as lan:
        scene = Scene(lan, ROUNDS)
        states = {what: Seen() for what in (NOTHING, FRAMES, EVENTS)}
        told = []
        for number in range(ROUNDS):
            for what, seen in states.items():
                with nullcontext() if what == NOTHING else scene.flood(events=what == EVENTS):
                    scene.look(seen, SECONDS)
                    if what == EVENTS:
                        told.append(scene.tell(scene.bystanders[number]))
        print(row("", *HEAD))
        for what, seen in states.items():
            print(line(what, seen, states[NOTHING]))
        middle, longest = statistics.median(told), max(told)
        print(f"another port's event is in the log after {middle:.2f} s (p50 of {ROUNDS}), {longest:.2f} s at most")
        print(f"the log has {scene.lines()} lines about the flood")


if __name__ == "__main__":
    try:
        main()
    except Stopped as exc:
        sys.exit(128 + exc.number)
