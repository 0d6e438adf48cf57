"""The rounds: who is measured when, and what becomes of one that fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vxagent.bench.cases import CASES, Case
from vxagent.bench.document import Machine
from vxagent.bench.figures import Figures, Round, failed, judge
from vxagent.bench.flows import Flow, flow
from vxagent.bench.lab import Entrants, Lab
from vxagent.bench.ovs import OpenVSwitch
from vxagent.bench.paths import Path
from vxagent.bench.schedule import Effort, order
from vxagent.errors import HostError, VxagentError
from vxagent.lab.namespaces import CommandFailed
from vxagent.lab.signals import Stopped
from vxagent.lab.world import World

FAILURES = (CommandFailed, HostError, OSError, TimeoutError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Where the bench is.

    Attributes:
        case: which one is measured.
        doing: `building`, or the round, such as `round 2 of 5`.
        done, total: slices, of all cases.
    """

    case: str
    doing: str
    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a bench came to."""

    machine: Machine
    rounds: int
    results: tuple[Figures, ...]

    @property
    def valid(self) -> bool:
        """All of it may be believed."""
        return all(one.valid for one in self.results)


class Interrupted(VxagentError):
    """A signal ended the bench; the exit code says which, as shells count."""

    def __init__(self, by: Stopped) -> None:
        self.exit_code = 128 + by.number
        super().__init__(f"interrupted ({by}); the lab is gone")


Tell = Callable[[Step], None]


class Bench:
    """Measures cases one after the other.

    Args:
        lab: where.
        effort: how thoroughly.
        tell: is told where it is.
        cases: which.
    """

    def __init__(self, lab: Lab, effort: Effort, tell: Tell, cases: Sequence[Case] = CASES) -> None:
        self._lab = lab
        self._effort = effort
        self._tell = tell
        self._cases = cases
        self._slice_s = effort.slice_s(lab.count(case) for case in cases)
        self._total = sum((effort.rounds + 1) * lab.count(case) for case in cases)
        self._done = 0
        self._probed_before: set[tuple[str, str]] = set()

    def run(self) -> tuple[Figures, ...]:
        """Every case's result; one that fails does not end the others."""
        return tuple(self._run(case) for case in self._cases)

    def _run(self, case: Case) -> Figures:
        end = self._done + (self._effort.rounds + 1) * self._lab.count(case)
        self._say(case, "building")
        try:
            return self._measure(case, self._lab.entrants(case))
        except FAILURES as exc:
            return failed(case, _line(exc))
        finally:
            self._done = end

    def _measure(self, case: Case, entrants: Entrants) -> Figures:
        sending = flow(case, self._lab.traffic, self._lab.programs)
        paths, left_out = self._probed(case, entrants, sending)
        rounds: list[Round] = []
        total = self._effort.rounds
        for number in range(total + 1):
            self._say(case, f"round {number} of {total}" if number else "warming up")
            found: dict[str, float] = {}
            for name in order(list(paths), number):
                found[name] = self._slice(sending, entrants, name, paths[name])
                self._done += 1
            rounds.append(found)
        return replace(judge(case, rounds[1:], entrants.roles), left_out=tuple(left_out))

    def _slice(self, sending: Flow, entrants: Entrants, name: str, path: Path) -> float:
        """What a contender reached; 0 where one failed that the case does not need."""
        try:
            with entrants.contenders[name].at_work(path):
                return sending.slice(path, self._slice_s).value
        except FAILURES as exc:
            if name in entrants.roles.needed:
                raise HostError(f"{name}: {_line(exc)}") from exc
            return 0.0

    def _probed(self, case: Case, entrants: Entrants, sending: Flow) -> tuple[dict[str, Path], list[str]]:
        """The paths that carry what is to be measured, and who is left out and why. Without a limit or others the
        case is as good."""
        roles, paths, left_out = entrants.roles, {}, []
        for name, contender in entrants.contenders.items():
            try:
                path = paths[name] = contender.path(case)
                with contender.at_work(path):
                    known = name == roles.limit or (name, path.name) in self._probed_before
                    sending.probe(path, stacks=not known)
                self._probed_before.add((name, path.name))
            except FAILURES as exc:
                if name in roles.needed:
                    raise HostError(f"{name}: {_line(exc)}") from exc
                paths.pop(name, None)
                left_out.append(f"{name}: {_line(exc)}")
        return paths, left_out

    def _say(self, case: Case, doing: str) -> None:
        self._tell(Step(case=case.name, doing=doing, done=self._done, total=self._total))


def bench(effort: Effort, tell: Tell, cases: Sequence[Case] = CASES, lab: Callable[[World], Lab] = Lab) -> Outcome:
    """Measure in a lab that is built for it and gone afterwards, also when a signal ends it.

    Raises:
        Refused, HostError: this machine lacks what it takes.
        Interrupted: by a signal.
    """
    try:
        with World() as world:
            results = Bench(lab(world), effort, tell, cases).run()
    except Stopped as exc:
        raise Interrupted(exc) from exc
    except CommandFailed as exc:
        raise HostError(f"the lab cannot be built: {_line(exc)}") from exc
    return Outcome(
        machine=Machine.this(openvswitch=OpenVSwitch.version()),
        rounds=effort.rounds,
        results=results,
    )


def _line(exc: BaseException) -> str:
    return " ".join(str(exc).split())
