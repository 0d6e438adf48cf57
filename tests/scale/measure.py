"""How long things take and how much memory they need, on this machine: `make scale`.

Prints a table; it is no test, because a busy machine is not a broken one. Everything happens in a namespace of its own.
"""

from __future__ import annotations

import datetime
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import vxagent
from vxagent.lab.agent import VXAGENT, Agent
from vxagent.lab.frames import EXPERIMENTAL, ethernet
from vxagent.lab.namespaces import Namespace
from vxagent.lab.signals import Stopped
from vxagent.lab.traffic import send_frames
from vxagent.lab.waiting import wait_until
from vxagent.lab.world import World
from vxagent_cli.client import Client

PORTS = 1000
ENTRIES = 100_000
CALLS = 20
SINK = "p0"  # has a static MAC, to which all others send
SINK_MAC = "02:ff:00:00:00:00"
TREE = Path(vxagent.__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Number:
    """One line of the table: what was measured, what it should be at most, in which unit."""

    what: str
    value: float
    limit: float
    unit: str

    def __str__(self) -> str:
        good = "ok" if self.value <= self.limit else "MISSED"
        return f"{self.what:<52} {self.value:9.3f} {self.unit:<3} ≤ {self.limit:g} {self.unit:<3} {good}"


def seconds(action: Callable[[], object]) -> float:
    """How long it takes."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def show(number: Number) -> None:
    print(number, flush=True)


def machine() -> str:
    """CPU, how many, memory, kernel, date."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    today = datetime.datetime.now(tz=datetime.UTC).date()
    return f"{today}, Linux {platform.release()}, {os.cpu_count()} × {cpu}, {memory:.0f} GiB"


def tree_without_bytecode(directory: Path) -> Path:
    """A copy of this tree that has to compile at the first start."""
    for name in ("agent", "bpf", "cli"):
        shutil.copytree(TREE / name, directory / name, ignore=shutil.ignore_patterns("bytecode", "__pycache__"))
    return directory


def measure_start(world: World, switch: Namespace) -> None:
    """The first start on a host without bytecode, and one with it."""
    tree = tree_without_bytecode(world.directory())
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = f"{tree}/agent:{tree}/cli"
    try:
        directory = world.directory()
        cold = Agent(directory, switch)
        world.cleanup.callback(cold.end)
        show(Number(what="up --detach, compiling", value=seconds(cold.up), limit=2, unit="s"))
        cold.cli("down")
        show(Number(what="up --detach, bytecode cached", value=seconds(cold.up), limit=0.7, unit="s"))
        cold.cli("down")
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def plug(switch: Namespace, far: Namespace) -> None:
    """PORTS veths; the VMs' ends are all in one namespace."""
    switch.ip_batch(
        line
        for n in range(PORTS)
        for line in (f"link add p{n} type veth peer name v{n} netns {far.name}", f"link set p{n} up")
    )
    far.ip_batch(f"link set v{n} up" for n in range(PORTS))


def attach(client: Client, ifname: str) -> None:
    """One access port."""
    client.change("POST", "v1", "ports", body={"ifname": ifname, "segment": "blue"})


def measure_attach(agent: Agent) -> None:
    """Single attaches at the API."""
    client = Client(agent.run_dir)
    agent.cli("segment", "add", "blue", "--tenant", "acme")
    times = [seconds(partial(attach, client, f"p{n}")) for n in range(1, CALLS + 1)]
    show(Number(what=f"attach at the API, p50 of {CALLS}", value=1000 * statistics.median(times), limit=15, unit="ms"))
    for n in range(1, CALLS + 1):
        agent.cli("port", "detach", f"p{n}")
    agent.cli("segment", "del", "blue")


def measure_apply(agent: Agent, directory: Path) -> None:
    """PORTS ports at once, and once more."""
    document = directory / "ports.toml"
    tables = ['[[segment]]\nname = "blue"\ntenant = "acme"\n']
    tables += [f'[[port]]\nifname = "p{n}"\nsegment = "blue"\n' for n in range(PORTS)]
    tables += [f'[[fdb]]\nsegment = "blue"\nmac = "{SINK_MAC}"\nport = "{SINK}"\n']
    document.write_text("\n".join(tables))
    what = f"apply of {PORTS:,} veth ports"
    show(Number(what=what, value=seconds(lambda: agent.cli("apply", str(document))), limit=15, unit="s"))
    again = seconds(lambda: agent.cli("apply", str(document)))
    show(Number(what=f"{what}, unchanged", value=again, limit=0.5, unit="s"))


def learn(agent: Agent, far: Namespace) -> None:
    """Fill the FDB: every port but the sink sends from its share of the MACs."""
    share = -(-ENTRIES // (PORTS - 1))
    for n in range(1, PORTS):
        macs = (f"02:{n >> 8:02x}:{n & 255:02x}:00:00:{m:02x}" for m in range(share))
        send_frames(far, f"v{n}", *(ethernet(SINK_MAC, mac, EXPERIMENTAL, b"") for mac in macs))
    wait_until(lambda: agent.json("status")["fdb_entries"] >= ENTRIES, within=30, what=f"{ENTRIES} FDB entries")


def resident_mb(pid: int) -> float:
    """Memory of a process that is in RAM, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024 / 1e6


def measure_lists(agent: Agent) -> None:
    """Calls of the command line, with everything in place, and what the agent needs then."""
    command = [VXAGENT, "--run-dir", str(agent.run_dir)]

    def call(*words: str) -> Callable[[], object]:
        return lambda: subprocess.run([*command, *words], stdout=subprocess.DEVNULL, check=True)

    show(
        Number(
            what=f"fdb list --json, {ENTRIES:,} entries", value=seconds(call("fdb", "list", "-j")), limit=1.5, unit="s"
        )
    )
    times = [seconds(call("status")) for _ in range(CALLS)]
    show(
        Number(what=f"a CLI call (status), p50 of {CALLS}", value=1000 * statistics.median(times), limit=250, unit="ms")
    )
    what = f"agent, resident, {PORTS:,} ports and {ENTRIES:,} entries"
    show(Number(what=what, value=resident_mb(agent.pid), limit=60, unit="MB"))


def main() -> int:
    if os.geteuid() != 0:
        print("run it as root: `sudo make scale`", file=sys.stderr)
        return 1
    print(machine(), flush=True)
    try:
        with World() as world:
            measure_start(world, world.namespace("empty"))
            switch, far = world.namespace("switch"), world.namespace("far")
            directory = world.directory()
            agent = Agent(directory, switch)
            world.cleanup.callback(agent.end)
            plug(switch, far)
            agent.up()
            measure_attach(agent)
            measure_apply(agent, directory)
            learn(agent, far)
            measure_lists(agent)
    except Stopped as exc:
        return 128 + exc.number
    return 0


if __name__ == "__main__":
    sys.exit(main())
