"""All faults, a row for each. Another one is one row more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vxagent.bench.faults import ending, lacking, working
from vxagent.bench.faults.efforts import Effort
from vxagent.bench.faults.lab import FaultLab


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that the agent does or suffers while frames go through the switch.

    Attributes:
        name: in the table and the document.
        times: how often it is done, of an effort.
        strike: does it once, and leaves an agent that is well. Raises Broken where something else than frames goes
            wrong, NotHere where this machine cannot do it, and CommandFailed, HostError, OSError, TimeoutError.
    """

    name: str
    times: Callable[[Effort], int]
    strike: Callable[[FaultLab, Effort], None]

    @property
    def does(self) -> str:
        """What is done, in a sentence."""
        return " ".join((self.strike.__doc__ or "").split())


def _once(_effort: Effort) -> int:
    return 1


def _kills(effort: Effort) -> int:
    return effort.kills


def _reloads(effort: Effort) -> int:
    return effort.reloads


def _upgrades(effort: Effort) -> int:
    return effort.upgrades


def _turns(effort: Effort) -> int:
    return effort.turns


def _shortages(effort: Effort) -> int:
    return effort.shortages


FAULTS: tuple[Fault, ...] = (
    Fault(name="none", times=_once, strike=ending.nothing),
    Fault(name="SIGKILL, up", times=_kills, strike=ending.kill_and_up),
    Fault(name="SIGSTOP, SIGCONT", times=_once, strike=ending.hang),
    Fault(name="stop, up", times=_once, strike=ending.stop_and_up),
    Fault(name="out of memory, up", times=_shortages, strike=ending.out_of_memory),
    Fault(name="reload", times=_reloads, strike=working.reload),
    Fault(name="other build, back", times=_upgrades, strike=ending.other_build),
    Fault(name="broken build, up", times=_shortages, strike=ending.broken_build),
    Fault(name="apply", times=_once, strike=working.apply_many),
    Fault(name="attach, detach", times=_turns, strike=working.neighbours),
    Fault(name="fdb flush", times=_turns, strike=working.flush),
    Fault(name="ageing", times=_once, strike=working.ageing),
    Fault(name="database locked", times=_shortages, strike=lacking.database_locked),
    Fault(name="disk full", times=_shortages, strike=lacking.disk_full),
    Fault(name="bpffs read-only", times=_shortages, strike=lacking.pins_read_only),
    Fault(name="no descriptors", times=_shortages, strike=lacking.no_descriptors),
)
