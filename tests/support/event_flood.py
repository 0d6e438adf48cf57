"""Two VMs that make as many events as they can, and what the agent is good for meanwhile.

   a              b              c, d …
┌──────┐       ┌──────┐       ┌──────┐
│ eth0 │       │ eth0 │       │ eth0 │    a and b claim the same 100,000 MACs, over and over: more than the switch
└──┬───┘       └──┬───┘       └──┬───┘    counts moves of, so none is held and nearly each frame is an event
┌──┴──────────────┴──────────────┴───┐
│  no limit of learning              │    c, d … are pairs of bystanders, in a segment of their own
└────────────────────────────────────┘
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support.hearing import frame
from support.lan import Lan
from vxagent.lab.frames import BROADCAST
from vxagent.lab.namespaces import Namespace
from vxagent.lab.traffic import send_frames
from vxagent.lab.vm import NIC, VethVm
from vxagent.lab.waiting import wait_until

MACS = 100_000
FEW = 1000  # MACs of each flooder when it makes no events
PAUSE_S = 0.01
SAME, OWN = "02ee00", ("02ea00", "02eb00")  # what the MACs of floods begin with


@dataclass(slots=True)
class Seen:
    """What was seen in one state of things, which may be looked at several times.

    Attributes:
        commands: seconds that each command took.
        cpu_s, seconds: CPU of the agent, and how long that was.
        frames: of both flooders.
        events: MACs that moved, and holds that began.
        events_suppressed: those that were not told.
    """

    commands: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    seconds: float = 0.0
    frames: int = 0
    events: int = 0
    events_suppressed: int = 0

    @property
    def command_s(self) -> float:
        """Median."""
        return statistics.median(self.commands)

    @property
    def cpu(self) -> float:
        """The agent's share of a CPU."""
        return self.cpu_s / self.seconds


class Scene:
    """The drawing.

    Args:
        pairs: of bystanders; each may tell of itself once.
    """

    def __init__(self, lan: Lan, pairs: int) -> None:
        self.lan = lan
        segment = lan.new_segment()
        self.flooders = lan.veths(segment, 2)
        self._to = [f"02ef0000000{n}" for n, _ in enumerate(self.flooders)]
        for vm, to in zip(self.flooders, self._to, strict=True):
            lan.client.change("PATCH", "v1", "ports", vm.port, body={"learn_rate": 0, "max_macs": MACS + 2 * FEW})
            lan.agent.cli("fdb", "add", _colons(to), "--segment", segment, "--port", vm.port)
        self.quiet = lan.new_segment()
        self.bystanders = [
            (lan.veth(lan.unique("c"), self.quiet), lan.veth(lan.unique("d"), self.quiet)) for _ in range(pairs)
        ]

    @contextmanager
    def flood(self, *, events: bool) -> Iterator[None]:
        """Meanwhile both send as fast as they can, to a station of their own: a frame is learned from, then dropped
        as `hairpin`. events: with the same MACs; else each with its own."""
        prefixes, count = ((SAME, SAME), MACS) if events else (OWN, FEW)
        with ExitStack() as running:
            for vm, prefix, to in zip(self.flooders, prefixes, self._to, strict=True):
                running.enter_context(_sending(vm.namespace, prefix, count, to))
            self._wait_for_the_flood(events=events)
            yield

    def look(self, seen: Seen, seconds: float) -> None:
        """Give commands, and see what they and the agent take."""
        pid, client = self.lan.agent.pid, self.lan.client
        port = self.bystanders[0][0].port
        before, cpu, begun = self._counts(), _cpu_s(pid), time.perf_counter()
        while time.perf_counter() < begun + seconds:
            asked = time.perf_counter()
            client.change("PATCH", "v1", "ports", port, body={"max_macs": 1000 + len(seen.commands) % 2})
            seen.commands.append(time.perf_counter() - asked)
            time.sleep(PAUSE_S)
        seen.cpu_s += _cpu_s(pid) - cpu
        seen.seconds += time.perf_counter() - begun
        frames, events, suppressed = (now - then for now, then in zip(self._counts(), before, strict=True))
        seen.frames += frames
        seen.events += events
        seen.events_suppressed += suppressed

    def tell(self, pair: tuple[VethVm, VethVm]) -> float:
        """A bystander claims its neighbour's MAC; seconds until the log says so."""
        claimant, owner = pair
        for vm in (owner, claimant):
            send_frames(vm.namespace, NIC, frame(BROADCAST, owner.mac))
        begun = time.perf_counter()
        line = f"MAC {owner.mac} of segment {self.quiet} moved from port {owner.port} to {claimant.port}"
        wait_until(lambda: line in self.lan.agent.log(), what="another port's event is told", within=30)
        return time.perf_counter() - begun

    def lines(self) -> int:
        """Lines of the log about what the flooders did."""
        ends = tuple(f" to {vm.port}" for vm in self.flooders)
        return sum(line.endswith(ends) for line in self.lan.agent.log().splitlines())

    def _counts(self) -> tuple[int, int, int]:
        """Frames, events and those that were not told, of both flooders."""
        shown = [self.lan.show(vm.port) for vm in self.flooders]
        frames, moved, held, suppressed = (
            sum(int(row[name]) for row in shown) for name in ("rx_packets", "moved", "held", "events_suppressed")
        )
        return frames, moved + held, suppressed

    def _wait_for_the_flood(self, *, events: bool) -> None:
        at = 1 if events else 0
        before = self._counts()[at]
        wait_until(lambda: self._counts()[at] > before + FEW, what="the flood runs", within=60)


def _colons(mac: str) -> str:
    return bytes.fromhex(mac).hex(":")


def _cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _sending(sender: Namespace, prefix: str, count: int, to: str) -> Iterator[None]:
    script = Path(__file__).with_name("many_macs.py")
    process = sender.start(sys.executable, str(script), NIC, prefix, str(count), to)
    try:
        yield
    finally:
        process.kill()
        process.communicate()
