"""Processes of simulated hosts, as whoever measures sees them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.spread import Spread
from support.swarm_layout import Layout
from support.swarm_process import setup_line

Start = Callable[..., "subprocess.Popen[str]"]
"""Starts a process with these words and options of Popen's, as `Namespace.start`."""

HEARD_S = 60.0


@dataclass
class Changes:
    """What became of changes at one rate.

    Attributes:
        asked: from when a port was due until it was granted; told: until another host knew of it; last: until the last
            of those did.
        done: changes that were made in the time, late: after it.
        failed: by error.
        unheard: deliveries that never came, or not in time.
    """

    asked: Spread = field(default_factory=Spread)
    told: Spread = field(default_factory=Spread)
    last: Spread = field(default_factory=Spread)
    done: int = 0
    late: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    unheard: int = 0


class Swarms:
    """All hosts of a layout, in several processes.

    Attributes:
        layout: theirs.
    """

    def __init__(self, layout: Layout, children: list[subprocess.Popen[str]]) -> None:
        self.layout = layout
        self._children = children

    def all(self, do: str, **asked: Any) -> list[dict[str, Any]]:
        """Have each process do it; what they say."""
        for child in self._children:
            assert child.stdin is not None
            child.stdin.write(json.dumps({"do": do, **asked}) + "\n")
            child.stdin.flush()
        return [_said(child) for child in self._children]

    def converge(self, within_s: float) -> list[float]:
        """When each host was ready, by `time.monotonic`. Raises TimeoutError: one was not."""
        ready_at = [at for said in self.all("converge", within_s=within_s) for at in said["ready_at"]]
        if late := ready_at.count(0.0):
            raise TimeoutError(f"{late} of {len(ready_at)} hosts do not know everything after {within_s:.0f} s")
        return ready_at

    def change(self, rate: float, seconds: float) -> Changes:
        """Have ports come and go, so many changes a second, and wait until all have heard of them."""
        found = Changes()
        to_hear = 0
        for said in self.all("change", rate=rate / len(self._children), seconds=seconds):
            found.asked.take(Spread(said["asked"]))
            found.done += said["done"]
            found.late += said["late"]
            found.failed.update(said["failed"])
            to_hear += said["to_hear"]
        deadline = time.monotonic() + HEARD_S
        while True:
            heard = self.all("heard")
            told = Spread()
            for said in heard:
                told.take(Spread(said["told"]))
            if len(told) >= to_hear or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        last: dict[str, int] = {}
        for said in heard:
            for port, us in said["last"].items():
                last[port] = max(us, last.get(port, 0))
        for us in last.values():
            found.last.add(us)
        found.told, found.unheard = told, to_hear - len(told)
        self.all("tidy")
        return found

    def mistakes(self) -> list[str]:
        """What is known otherwise than it is: some of it, and how much it is in all."""
        found = self.all("check")
        shown = [mistake for said in found for mistake in said["shown"]]
        count = sum(said["mistakes"] for said in found)
        return [f"{count} mistakes", *shown] if count else []

    def used(self) -> tuple[float, int]:
        """Seconds of CPU so far, and memory at most in bytes, of all processes together."""
        found = self.all("used")
        return sum(said["cpu_s"] for said in found), sum(said["rss"] for said in found)

    def said(self) -> Counter[str]:
        """How often hosts have said what in their logs, as warnings."""
        total: Counter[str] = Counter()
        for said in self.all("used"):
            total.update(said["said"])
        return total


@contextmanager
def running_swarms(
    layout: Layout,
    endpoints: list[str],
    cluster: str,
    *,
    processes: int = 2,
    others: int = 0,
    at_once: int = 40,
    start: Start | None = None,
) -> Iterator[Swarms]:
    """The hosts of a layout, not started yet; gone at the end.

    Args:
        others: hosts of the cluster besides.
        at_once: hosts that start at the same time.
        start: how to start a process; None: here.
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    words = ("setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "support.swarm_process")
    children: list[subprocess.Popen[str]] = []
    try:
        for number in range(processes):
            options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": environment}
            child = start(*words, **options) if start else subprocess.Popen(words, text=True, **options)
            children.append(child)
            assert child.stdin is not None
            more = {"endpoints": endpoints, "cluster": cluster, "others": others, "at_once": at_once // processes}
            child.stdin.write(setup_line(layout, range(number, layout.hosts, processes), **more))
            child.stdin.flush()
        for child in children:
            _said(child)
        yield Swarms(layout, children)
    finally:
        for child in children:
            child.kill()
            child.communicate()


def _said(child: subprocess.Popen[str]) -> dict[str, Any]:
    assert child.stdout is not None
    line = child.stdout.readline()
    assert line, f"a process of simulated hosts ended with {child.poll()}"
    said: dict[str, Any] = json.loads(line)
    return said
