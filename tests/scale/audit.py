"""What the drift audit costs with 1,000 ports, for docs/drift.md; as root:

    .venv/bin/python tests/scale/audit.py [ENTRIES]

Prints a table; it is no test, because a busy machine is not a broken one. Everything happens in namespaces of its own.
"""

from __future__ import annotations

import os
import statistics
import struct
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from vxagent.core.tables import Origin, Table, fdb_key
from vxagent.datapath import abi, maps
from vxagent.datapath.bpf_datapath import BpfDatapath
from vxagent.datapath.bpf_map import Map
from vxagent.datapath.pins import Pins
from vxagent.lab.agent import Agent
from vxagent.lab.namespaces import Namespace
from vxagent.lab.world import World

PORTS = 1000
ENTRIES = 100_000  # learned
ROUNDS = 10
SECONDS = 20.0


def plug(switch: Namespace) -> None:
    """PORTS taps, on which a program runs at both hooks."""
    switch.ip_batch(f"tuntap add dev p{n} mode tap" for n in range(PORTS))


def apply(agent: Agent, directory: Path) -> None:
    """A port on each, which lists a MAC and an IP."""
    document = directory / "ports.toml"
    tables = ['[[segment]]\nname = "blue"\ntenant = "acme"\n']
    tables += [
        f'[[port]]\nifname = "p{n}"\nsegment = "blue"\nmac = ["02:01:00:00:{n >> 8:02x}:{n & 255:02x}"]\n'
        f'ip = ["10.1.{n >> 8}.{n & 255}"]\n'
        for n in range(PORTS)
    ]
    document.write_text("\n".join(tables))
    agent.cli("apply", str(document))


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_of_agent(agent: Agent, audit_s: int) -> float:
    """CPU seconds a second, with so many seconds between two audits."""
    agent.config_file.write_text(f"audit_s = {audit_s}\n")
    agent.cli("reload")
    time.sleep(5.0)  # until the audit that it waits for, and what the reload brings about, are over
    before = cpu_s(agent.pid)
    time.sleep(SECONDS)
    return (cpu_s(agent.pid) - before) / SECONDS


def cpu_ms(action: Callable[[], object]) -> float:
    """CPU of this thread, median."""
    times = []
    for _ in range(ROUNDS):
        begun = time.thread_time()
        action()
        times.append(time.thread_time() - begun)
    return 1000 * statistics.median(times)


def learn(pins: Pins, entries: int) -> None:
    """What the data plane would have learned."""
    keys = b"".join(struct.pack("=Q", fdb_key(1, 0x020000000000 + n)) for n in range(entries))
    seen_ns = time.monotonic_ns()
    value = abi.FDB_ENTRY.pack(port=2, segment=1, origin=Origin.LEARNED, seen_ns=seen_ns)
    fdb = Map.open(pins.sets()[-1].map("fdb"), maps.declare(maps.DEFAULT_SIZES)["fdb"])
    assert fdb is not None
    with fdb:
        fdb.update_batch(keys, value * entries)


def digest(datapath: BpfDatapath, table: Table) -> bytes:
    """What an audit compares."""
    return datapath.contents(table).digest


def show_parts(agent: Agent) -> None:
    """Part by part, in this process, which takes over from the agent."""
    agent.kill()
    datapath = BpfDatapath(agent.run_dir / "bpf", agent.state_dir / "bytecode")
    datapath.open()
    with closing(datapath):
        wanted = datapath.attached()
        for table in Table:
            print(f"  bytes of {table:<12} {cpu_ms(partial(digest, datapath, table)):8.2f} ms")
        print(f"  all tables as values   {cpu_ms(datapath.rows):8.2f} ms")
        print(f"  programs               {cpu_ms(lambda: datapath.runs(wanted)):8.2f} ms")
        print(f"  XDP                    {cpu_ms(lambda: datapath.xdp_at(wanted)):8.2f} ms")
        print(f"  pins                   {cpu_ms(datapath.faults):8.2f} ms")


def main() -> int:
    entries = int(sys.argv[1]) if len(sys.argv) > 1 else ENTRIES
    with World() as world:
        switch = world.namespace("switch")
        directory = world.directory()
        agent = Agent(directory, switch)
        world.cleanup.callback(agent.end)
        plug(switch)
        agent.up()
        apply(agent, directory)
        learn(Pins(agent.run_dir / "bpf"), entries)
        often, never = cpu_of_agent(agent, 1), cpu_of_agent(agent, 3600)
        print(f"{PORTS:,} ports, {entries:,} learned entries: {1000 * (often - never):.1f} ms of CPU an audit")
        print(f"the agent otherwise: {1000 * never:.1f} ms a second")
        show_parts(agent)
    return 0


if __name__ == "__main__":
    sys.exit(main())
