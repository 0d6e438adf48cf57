"""One fault after the other, each with streams of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vxagent.bench.document import Machine
from vxagent.bench.faults.efforts import Effort
from vxagent.bench.faults.figures import Figures, judge
from vxagent.bench.faults.lab import RATE, FaultLab, NotHere
from vxagent.bench.faults.table import FAULTS, Fault
from vxagent.bench.run import Interrupted, Step, Tell
from vxagent.errors import HostError
from vxagent.lab.namespaces import CommandFailed
from vxagent.lab.signals import Stopped
from vxagent.lab.world import World

FAILURES = (CommandFailed, HostError, OSError, TimeoutError, subprocess.TimeoutExpired)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run came to.

    Attributes:
        rate: frames that were to be sent in a second.
    """

    machine: Machine
    rate: int
    results: tuple[Figures, ...]

    @property
    def good(self) -> bool:
        """Nothing happened to any frame, and every refusal was one."""
        return all(one.good for one in self.results)


class Faults:
    """Does faults in a lab and counts.

    Args:
        lab: where.
        effort: how thoroughly.
        tell: is told where it is.
        faults: which.
    """

    def __init__(self, lab: FaultLab, effort: Effort, tell: Tell, faults: Sequence[Fault] = FAULTS) -> None:
        self._lab = lab
        self._effort = effort
        self._tell = tell
        self._faults = faults

    def run(self) -> tuple[Figures, ...]:
        """Every fault's result; one that goes wrong does not end the others.

        Raises:
            HostError, CommandFailed, OSError, TimeoutError: the streams do not run, or no agent starts any more.
        """
        return tuple(self._measure(number, fault) for number, fault in enumerate(self._faults))

    def _measure(self, number: int, fault: Fault) -> Figures:
        lab = self._lab
        lab.said.clear()
        with lab.overflow() as overflow, lab.streams.running() as streams:
            times, broken, not_here = self._strike(number, fault)
            sent, taken = streams.end()
        if broken or not_here:
            lab.revive()
        if not_here:
            return Figures(fault=fault.name, not_here=not_here)
        taken = replace(taken, overflow=taken.overflow + overflow.frames)
        found = judge(fault.name, times, lab.streams.names, sent, taken)
        return replace(found, broken=broken, said=tuple(dict.fromkeys(lab.said)))

    def _strike(self, number: int, fault: Fault) -> tuple[int, str, str]:
        """Do it; how often it was done, what went wrong, and why it cannot be done here."""
        total = fault.times(self._effort)
        for times in range(total):
            doing = f"{times + 1} of {total}"
            self._tell(Step(case=fault.name, doing=doing, done=number, total=len(self._faults)))
            try:
                fault.strike(self._lab, self._effort)
                self._lab.well()
            except NotHere as exc:
                return times, "", _line(exc)
            except FAILURES as exc:
                return times, _line(exc), ""
        return total, "", ""


def run_faults(
    effort: Effort,
    tell: Tell,
    *,
    rate: int = RATE,
    faults: Sequence[Fault] = FAULTS,
    other: Path | None = None,
    broken: Sequence[Path] = (),
) -> Outcome:
    """Do them in a lab that is built for it and gone afterwards, also when a signal ends it.

    `other`: the directory of another build's package `vxagent`; `broken`: of builds that do not work.

    Raises:
        HostError: this machine lacks what it takes.
        Interrupted: by a signal.
    """
    tell(Step(case="lab", doing="building", done=0, total=len(faults)))
    try:
        with World() as world:
            results = Faults(FaultLab(world, rate, other, broken), effort, tell, faults).run()
    except Stopped as exc:
        raise Interrupted(exc) from exc
    except CommandFailed as exc:
        raise HostError(f"the lab does not work: {_line(exc)}") from exc
    return Outcome(machine=Machine.this(), rate=rate, results=results)


def _line(exc: BaseException) -> str:
    return " ".join(str(exc).split())
