"""The lab of a bench: its contenders, and who takes part in which case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial

from vxagent.bench import contenders
from vxagent.bench.cases import Case
from vxagent.bench.contenders import Contender, LargeFdb, Limit, LinuxBridge, Vxagent
from vxagent.bench.figures import Roles
from vxagent.bench.flows import announce
from vxagent.bench.paths import Builder
from vxagent.bench.programs import Programs
from vxagent.bench.traffic import Traffic
from vxagent.lab.world import World


@dataclass(frozen=True, kw_only=True)
class Entrants:
    """Who takes part in a case, by name, and as what."""

    contenders: Mapping[str, Contender]
    roles: Roles


class Lab:
    """Everything that a bench needs, in one world.

    Attributes:
        world, traffic, programs, builder: as their classes say.

    Raises:
        HostError: no C compiler or no BCC, or the kernel refuses.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        directory = world.directory()
        self.traffic = Traffic(directory)
        self.programs = Programs(directory, world.cleanup)
        self.builder = Builder(world, self.programs)

    def entrants(self, case: Case) -> Entrants:
        """Who takes part; what they need is built when their path is asked for."""
        if case.spread is not None:
            few, many = (self._large(entries) for entries in case.spread)
            found: dict[str, Contender] = {few.name: few, many.name: many, f"{many.name} again": many}
            return Entrants(
                contenders=found,
                roles=Roles(base=many.name, again=f"{many.name} again", tested=few.name, limit=None),
            )
        limit = {"limit": self._limit} if case.bare is not None else {}
        roles = Roles(limit="limit" if limit else None, others=tuple(self._others))
        found = {roles.base: self._bridge, roles.tested: self._switch, roles.again: self._again}
        return Entrants(contenders=found | limit | dict(self._others), roles=roles)

    def count(self, case: Case) -> int:
        """How many take part in a case."""
        return 3 if case.spread is not None else 3 + (case.bare is not None) + len(self._others)

    @cached_property
    def _bridge(self) -> Contender:
        return LinuxBridge(self.world, self.builder, "bridge")

    @cached_property
    def _again(self) -> Contender:
        return LinuxBridge(self.world, self.builder, "bridge again")

    @cached_property
    def _switch(self) -> Contender:
        return Vxagent(self.world, self.builder, "vxagent")

    @cached_property
    def _limit(self) -> Contender:
        return Limit(self.world, self.builder, "limit", self.programs)

    @cached_property
    def _others(self) -> Mapping[str, Contender]:
        return contenders.others(self.world, self.builder)

    def _large(self, entries: int) -> LargeFdb:
        return LargeFdb(self.world, self.builder, f"{entries} MACs", entries, partial(announce, self.traffic))
