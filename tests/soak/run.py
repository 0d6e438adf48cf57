"""Rounds of operations under the streams, and after each the way back and a sample."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from soak.lab import SoakLab
from soak.operations import Operations
from soak.sample import Sample, differences, growth, take
from vxagent.bench.faults.figures import Figures, judge
from vxagent.errors import VxagentError
from vxagent.lab.namespaces import CommandFailed
from vxagent.lab.waiting import wait_until

SETTLED_WITHIN_S = 30.0
ROUNDS = 20
SHORTEST_S, LONGEST_S = 5.0, 90.0  # of a round
FAILURES = (CommandFailed, VxagentError, OSError, TimeoutError, subprocess.TimeoutExpired)

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What came of one.

    Attributes:
        name: its number, or what it was for.
        operations: how many.
        figures: of the streams.
        sample: afterwards, in the configuration that the soak began with; None: it did not come that far.
        wrong: what is not as it should be; empty if all is well.
    """

    name: str
    operations: int
    figures: Figures
    sample: Sample | None
    wrong: tuple[str, ...]


class Soak:
    """A soak in a lab.

    Args:
        lab: a new one.
        seed: decides the operations.
        lacks: see Operations.

    Attributes:
        warm: what the agent has once it has done everything once.
    """

    warm: Sample

    def __init__(self, lab: SoakLab, seed: str, *, lacks: bool = True) -> None:
        self._lab = lab
        self.operations = Operations(lab, seed, lacks=lacks)

    def warm_up(self) -> Round:
        """Each kind of operation once; what there is then is what there must be from then on."""

        def act() -> None:
            self.operations.once()
            self._lab.back()
            self._lab.note()
            wait_until(lambda: take(self._lab).counted == take(self._lab).counted, what="the switch rests")
            self.warm = take(self._lab)

        return self._round("warm", act)

    def round(self, name: str, seconds: float, *, restarts: bool) -> Round:
        """Operations for so long, then back and a sample, all of it under the streams."""

        def act() -> None:
            self.operations.some(time.monotonic() + seconds, restarts=restarts)
            self._lab.back()

        return self._round(name, act)

    def fresh(self) -> Round:
        """`stop`, `up`: a new agent has the same as the one that has done all that."""

        def act() -> None:
            self._lab.agent.cli("stop")
            self._lab.agent.up()
            self._lab.back()

        return self._round("fresh", act)

    def rounds(self, seconds: float) -> Iterator[Round]:
        """The whole soak: some `seconds` of operations, in whose second half the agent lives on all the time, and must
        not grow; the last of these rounds says whether it has."""
        each = min(max(seconds / ROUNDS, SHORTEST_S), LONGEST_S)
        count = max(round(seconds / each), 2)
        yield self.warm_up()
        steady: list[Sample] = []
        for number in range(1, count + 1):
            restarts = number <= count // 2
            done = self.round(str(number), each, restarts=restarts)
            if not restarts and done.sample is not None:
                steady.append(done.sample)
            yield replace(done, wrong=(*done.wrong, *growth(steady))) if number == count else done
        yield self.fresh()

    def sample(self, within: float = SETTLED_WITHIN_S) -> tuple[Sample, list[str]]:
        """What there is, and how it differs from what there should be; it may take so many seconds to become so."""
        deadline = time.monotonic() + within
        while True:
            sample = take(self._lab)
            wrong = differences(sample, self.warm)
            if not wrong:
                wrong = [f"{one} is no longer the switch's, and still there" for one in self._lab.left_over()]
            if not wrong or time.monotonic() > deadline:
                return sample, wrong

    def _round(self, name: str, act: Callable[[], None]) -> Round:
        wrong: list[str] = []
        sample: Sample | None = None
        before = self.operations.done.total()
        lab = self._lab
        with lab.overflow() as overflow, lab.streams.running() as streams:
            with _failures(wrong):
                act()
                sample, found = self.sample()
                wrong += found
            sent, taken = streams.end()
        taken = replace(taken, overflow=taken.overflow + overflow.frames)
        figures = judge(name, 1, lab.streams.names, sent, taken)
        if not figures.good:
            wrong.append(figures.why)
        operations = self.operations.done.total() - before
        return Round(name=name, operations=operations, figures=figures, sample=sample, wrong=tuple(wrong))


@contextmanager
def _failures(wrong: list[str]) -> Iterator[None]:
    """What does not work is one more thing that is wrong."""
    try:
        yield
    except FAILURES as exc:
        wrong.append(" ".join(str(exc).split()) or type(exc).__name__)


TITLES = (
    *("ROUND", "OPS", "SENT", "LOST", "DUP", "REORD", "ASTRAY", "RSS MiB", "FDS", "PROGS", "MAPS", "LINKS", "PINS"),
    *("ENTRIES", "DEVS", "NETNS", "FILES", "ROWS", "DB KiB", "THREADS", "CHILDREN"),
)


def row(one: Round) -> list[str]:
    """A line of the table, under TITLES. Pure."""
    harm = one.figures
    counts = (harm.sent, harm.lost, harm.duplicated, harm.reordered, harm.astray)
    cells = [one.name, f"{one.operations:,}", *(f"{count:,}" for count in counts)]
    if (sample := one.sample) is None:
        return [*cells, *["-"] * (len(TITLES) - len(cells))]
    exact = sample.exact
    return [
        *cells,
        f"{sample.rss_kib / 1024:.1f}",
        *(str(exact[name]) for name in ("fds", "programs", "maps", "links", "pins")),
        str(sum(sample.entries.values())),
        *(str(exact[name]) for name in ("devices", "namespaces", "files", "rows")),
        *(f"{sample.database_kib:,}", str(sample.threads), str(exact["children"])),
    ]


def line(cells: list[str] | tuple[str, ...]) -> str:
    """Columns of fixed width."""
    widths = [max(len(title), 11 if at == 2 else 0) for at, title in enumerate(TITLES)]
    return " ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
