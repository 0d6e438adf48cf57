"""The switch of `vxagent bench --faults`, and beside its streams what a user can do something with.

far       far             far
x0 … x5   w0 (an uplink)  many, spare, and the streams' as `vxagent.bench.faults.lab` draws them
"""

from __future__ import annotations

from pathlib import Path

from support.kernel_objects import KernelObjects, switch_objects
from vxagent.bench.faults.lab import AGEING_S, RATE, FaultLab, config
from vxagent.lab.world import World
from vxagent_cli.client import Client

DEVICES = tuple(f"x{n}" for n in range(6))
UPLINK = "w0"


class SoakLab(FaultLab):
    """A FaultLab with devices for operations.

    Attributes:
        client: asks the agent without the start of a process for each call.
        canonical: the document that it begins with.
    """

    def __init__(self, world: World, rate: int = RATE) -> None:
        super().__init__(world, rate)
        for name in (*DEVICES, UPLINK):
            self.veth(name)
        self.client = Client(self.agent.run_dir)
        self._programs: set[int] = set()
        self._maps: set[int] = set()
        self.canonical = self._begin()

    def note(self) -> None:
        """Remember the programs and maps that the switch has now."""
        now = switch_objects(self.agent.pid, self.agent.run_dir / "bpf")
        self._programs |= now.programs
        self._maps |= now.maps

    def left_over(self) -> list[str]:
        """Programs and maps that it had and has no more, and that the kernel still has."""
        now = switch_objects(self.agent.pid, self.agent.run_dir / "bpf")
        gone = KernelObjects(programs=frozenset(self._programs - now.programs), maps=frozenset(self._maps - now.maps))
        left = gone.left()
        self._programs, self._maps = set(now.programs), set(now.maps)
        self._programs |= {int(one.split()[1]) for one in left if one.startswith("program")}
        self._maps |= {int(one.split()[1]) for one in left if one.startswith("map")}
        return sorted(left)

    def back(self) -> None:
        """Put everything back to where it began: devices, settings, desired state, what was learned beside the streams.

        Raises:
            Broken, CommandFailed: it does not go back.
        """
        there = self.switch.devices()
        for name in (*DEVICES, UPLINK):
            if name not in there:
                self.veth(name)
        self.agent.config_file.write_text(config(AGEING_S))
        self.agent.cli("reload")
        self.agent.cli("apply", str(self.canonical), "--prune")
        self.agent.cli("fdb", "flush", "--segment", "grey")
        self.well()

    def exported(self) -> str:
        """The desired state as a document."""
        return self.agent.cli("export").stdout

    def _begin(self) -> Path:
        """What the switch begins with, as a document."""
        file = self.world.directory() / "canonical.toml"
        file.write_text(self.exported())
        return file
