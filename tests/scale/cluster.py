"""How many hosts one etcd serves, on this machine: the second part of `make scale`.

Prints tables; it is no test, because a busy machine is not a broken one. Hosts are simulated (support/swarm.py), but
for two real agents, each in a namespace of its own.

    real host 1   real host 2         processes of simulated hosts
        └─ underlay ───┴── etcd, 192.0.2.200 ──┘
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

from scale.beside import Beside, Taken
from scale.measure import machine
from support.clustered import CLUSTER, Clustered
from support.gauges import Used, cpu_s, read_etcd, resident
from support.swarm_layout import Layout
from support.swarms import Changes, Swarms, running_swarms
from vxagent.lab.etcd import binary
from vxagent.lab.signals import Stopped
from vxagent.lab.world import World

REAL = 2
RATES = (10, 100, 200, 300, 500, 1000)
ALWAYS = (10, 100, 500)  # also when a lower rate was too much
REACHED = 0.9  # of a rate, in the time: it is not too much
CONVERGE_S = 3600.0
RIGHT_S = 180.0  # for what was too much to be put right
MB = 1e6
SHOWN = 5  # warnings


class Columns:
    """A table: how wide each column is, and the two lines above it."""

    def __init__(self, *columns: tuple[int, str, str]) -> None:
        self._format = "".join(f"{{:{'>' if unit else '<'}{width}}}" for width, _, unit in columns)
        self.head = "\n".join(self.row(*(column[line] for column in columns)) for line in (1, 2))

    def row(self, *figures: object) -> str:
        """One line."""
        return self._format.format(*figures)


PHASE = Columns(
    *((40, "", ""), (8, "", "s"), (9, "etcd:", "CPU s"), (9, "resident", "MB"), (8, "file", "MB")),
    *((8, "got", "MB"), (9, "sent", "MB"), (10, "simulated", "CPU s"), (8, "others", "CPU s")),
)
RATE = Columns(
    *((7, "asked", "/s"), (8, "made", "/s"), (9, "lost or", "failed"), (9, "until a", "peer p50"), (8, "", "p99")),
    *((9, "until", "all p50"), (8, "", "p99"), (8, "real", "p50"), (8, "", "max")),
    *((8, "etcd", "cores"), (7, "sim.", "cores"), (8, "others", "cores"), (7, "etcd", "ms"), (8, "sent", "kB")),
)


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Between two moments.

    Attributes:
        seconds: of the clock.
        etcd: what that used.
        simulated_s, real_s, others_s: seconds of CPU of simulated hosts, of real agents, and of what is none of ours.
    """

    seconds: float
    etcd: Used
    simulated_s: float
    real_s: float
    others_s: float


class Stage:
    """All that takes part."""

    def __init__(self, fleet: Clustered, swarms: Swarms, beside: Beside) -> None:
        self.fleet, self.swarms, self.beside = fleet, swarms, beside
        self._before = self._read()

    def begin(self) -> None:
        """What is spent counts from now on."""
        self._before = self._read()

    def spent(self) -> Spent:
        """Since `begin`."""
        at, etcd, simulated, real, own = self._before
        now, etcd_now, simulated_now, real_now, own_now = self._read()
        used = etcd_now.since(etcd)
        ours = used.cpu_s + (simulated_now - simulated) + (real_now - real) + (own_now - own)
        return Spent(
            seconds=now - at,
            etcd=used,
            simulated_s=simulated_now - simulated,
            real_s=real_now - real,
            others_s=max(0.0, used.busy_s - ours),
        )

    def _read(self) -> tuple[float, Used, float, float, float]:
        simulated, _ = self.swarms.used()
        etcd = self.fleet.etcd
        with self.fleet.underlay.namespace.entered(), urllib.request.urlopen(f"{etcd.url}/metrics", timeout=30) as page:
            metrics = page.read().decode()
        real = sum(map(cpu_s, self.beside.pids()))
        return time.monotonic(), read_etcd(etcd.pid, metrics), simulated, real, cpu_s(os.getpid())


def say(line: str = "") -> None:
    print(line, flush=True)


def show_phase(what: str, spent: Spent) -> None:
    etcd = spent.etcd
    figures = (spent.seconds, etcd.cpu_s, etcd.resident / MB, etcd.database / MB, etcd.got / MB, etcd.sent / MB)
    cpu = (spent.simulated_s, spent.others_s)
    say(PHASE.row(what, *(f"{figure:,.1f}" for figure in (*figures, *cpu))))


def show_rate(rate: float, seconds: float, changes: Changes, taken: Taken, spent: Spent) -> None:
    told = [f"{spread.ms(share):,.0f}" for spread in (changes.told, changes.last) for share in (0.5, 0.99)]
    failed = changes.failed.total() + changes.unheard + taken.lost
    real = [f"{median(taken.ms):,.0f}", f"{max(taken.ms):,.0f}"] if taken.ms else ["-", "-"]
    all_changes = max(1, changes.done + changes.late)
    cores = [f"{used / spent.seconds:.2f}" for used in (spent.etcd.cpu_s, spent.simulated_s, spent.others_s)]
    each = 1e3 * spent.etcd.cpu_s / all_changes, spent.etcd.sent / 1e3 / all_changes
    figures = (f"{rate:,.0f}", f"{changes.done / seconds:,.0f}", failed, *told, *real, *cores)
    say(RATE.row(*figures, f"{each[0]:.1f}", f"{each[1]:.0f}"))


def check(swarms: Swarms) -> None:
    """What each host knows is right, soon. Raises AssertionError: it does not become so."""
    end = time.monotonic() + RIGHT_S
    while mistakes := swarms.mistakes():
        assert time.monotonic() < end, mistakes
        time.sleep(1)


def measure_start(stage: Stage, do: str, what: str) -> None:
    """How long until everybody has claimed what it has and knows everything."""
    say(PHASE.head)
    stage.begin()
    began = time.monotonic()
    stage.swarms.all(do)
    claimed = time.monotonic() - began
    ready = max(stage.swarms.converge(CONVERGE_S)) - began
    show_phase(what, stage.spent())
    check(stage.swarms)
    say(f"    the last host has claimed all after {claimed:,.1f} s; each knows what it should after {ready:,.1f} s")


def known(layout: Layout) -> float:
    """How many ports a host is told of, on average."""
    counts = {name: layout.count_in(name) for name in layout.members}
    return sum(counts[name] * len(hosts) for name, hosts in layout.members.items()) / layout.hosts


def measure_rates(stage: Stage, rates: Iterable[float], seconds: float) -> None:
    """Ports that come and go."""
    say()
    say(RATE.head)
    heard = real_s = 0.0
    saturated = False
    for rate in rates:
        if saturated and rate not in ALWAYS:
            continue
        stage.begin()
        with stage.beside.attaching() as taken:
            changes = stage.swarms.change(rate, seconds)
        spent = stage.spent()
        show_rate(rate, seconds, changes, taken, spent)
        heard += (changes.done + changes.late) * stage.swarms.layout.segments / len(stage.swarms.layout.members)
        real_s += spent.real_s / REAL
        saturated = saturated or changes.done < REACHED * rate * seconds
        if saturated and rate >= max(ALWAYS):
            break
    say(f"    a real agent heard of {heard:,.0f} changes and used {1e3 * real_s / heard:.1f} ms of CPU for each")
    check(stage.swarms)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How many hosts one etcd serves.")
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--ports", type=int, default=100, help="of each host")
    parser.add_argument("--segments", type=int, default=5, help="of each host")
    parser.add_argument("--share", type=int, default=50, help="hosts of each segment")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--at-once", type=int, default=40, help="hosts that start at the same time")
    parser.add_argument("--seconds", type=float, default=20, help="at each rate")
    parser.add_argument("--rates", type=float, nargs="*", default=RATES, help="changes a second")
    return parser.parse_args()


def main() -> int:
    asked = options()
    if os.geteuid() != 0:
        print("run it as root: `sudo make scale`", file=sys.stderr)
        return 1
    layout = Layout(hosts=asked.hosts, ports=asked.ports, segments=asked.segments, share=asked.share)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a connection for each host
    version = subprocess.run([binary(), "--version"], capture_output=True, text=True, check=True).stdout.split()[2]
    say(machine())
    say(
        f"etcd {version}, one member; {layout.hosts:,} simulated hosts × {layout.ports} ports in {asked.processes} "
        f"processes, each in {layout.segments} of {len(layout.members)} segments; {REAL} real agents; "
        f"{asked.at_once} hosts start at the same time"
    )
    try:
        with World() as world:
            fleet = Clustered(world, REAL)
            fleet.connected()
            start = fleet.underlay.namespace.start
            swarming = running_swarms(
                layout,
                [fleet.etcd.url],
                CLUSTER,
                processes=asked.processes,
                others=REAL,
                at_once=asked.at_once,
                start=start,
            )
            with swarming as swarms:
                stage = Stage(fleet, swarms, Beside(fleet, layout))
                measure_start(stage, "start", "all hosts start, nothing is known")
                joined = stage.beside.join()
                say(f"    real agents know all {known(layout):,.0f} ports of their segments after {joined:.1f} s")
                measure_rates(stage, asked.rates, asked.seconds)
                rss = [f"{resident(pid) / MB:.0f}" for pid in stage.beside.pids()]
                say(f"resident at most, MB: real agents {', '.join(rss)}; simulated {swarms.used()[1] / MB:,.0f}")
                stage.beside.leave()
                measure_start(stage, "restart", "all agents start anew")
                for what, times in swarms.said().most_common(SHOWN):
                    say(f"said by simulated hosts, {times} times: {what}")
    except Stopped as exc:
        return 128 + exc.number
    return 0


if __name__ == "__main__":
    sys.exit(main())
