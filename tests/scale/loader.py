"""What the loader costs on this machine, for docs/adr/0001-the-loader.md; as root:

    .venv/bin/python tests/scale/loader.py

Prints a table; it is no test, because a busy machine is not a broken one. Everything happens in a namespace of its own.
"""

from __future__ import annotations

import datetime
import os
import platform
import resource
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from vxagent.core.effects import Attach, PutRow
from vxagent.core.tables import Origin, SettingsRow, Table, fdb_key
from vxagent.datapath import abi, maps, source, toolchain
from vxagent.datapath.bpf_datapath import BpfDatapath
from vxagent.datapath.bpf_map import Map
from vxagent.datapath.programs import Generation
from vxagent.datapath.toolchain import SYSTEM_PYTHON
from vxagent.lab.world import World

ROUNDS = 5
PORTS = 50
ENTRIES = 100_000
AGEING_NS = 300 * 10**9

BCC_RSS = """
import os
def rss(): return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
bare = rss()
import bcc
print(bare, rss())
"""


def show(what: str, value: float, unit: str) -> None:
    """One line of the table."""
    print(f"{what:<62} {value:9.2f} {unit}")


def milliseconds(action: Callable[[], object]) -> float:
    """How long it takes."""
    begun = time.perf_counter()
    action()
    return (time.perf_counter() - begun) * 1e3


def median_ms(action: Callable[[], object], rounds: int = ROUNDS) -> float:
    """The median of some rounds."""
    return statistics.median(milliseconds(action) for _ in range(rounds))


def rss_mb() -> float:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def compiling() -> None:
    """The child, and what BCC would cost inside the agent."""
    switch = source.switch()
    built = toolchain.compile_programs(switch.main, switch.directory, switch.flags, switch.programs)
    print(f"BCC {built.bcc}, LLVM {built.llvm}")
    for name, code in built.programs.items():
        show(f"{name}: instructions", len(code) // 8, "")
    again = partial(toolchain.compile_programs, switch.main, switch.directory, switch.flags, switch.programs)
    show("compile in the child, warm", median_ms(again), "ms")
    show("the child's memory at most", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, "MB")
    said = subprocess.run([SYSTEM_PYTHON, "-I", "-c", BCC_RSS], check=True, capture_output=True).stdout.split()
    for what, value in zip(("bare", "with bcc imported"), said, strict=True):
        show(f"memory of {SYSTEM_PYTHON}, {what}", float(value), "MB")


def opening(root: Path, cache: Path) -> None:
    """The first start and the next ones."""
    code = source.load(cache, shipped=root)  # so the cache has it, whatever is shipped
    show("sources hashed, cached bytecode read", median_ms(lambda: source.load(cache, shipped=root)), "ms")
    shared = {name: Map.create(spec) for name, spec in maps.declare(maps.DEFAULT_SIZES).items()}
    show("all programs through the verifier", median_ms(lambda: Generation.load(code.programs, shared).close()), "ms")
    for opened in shared.values():
        opened.close()

    datapath = BpfDatapath(root, cache)
    show("open, nothing pinned yet", milliseconds(datapath.open), "ms")
    datapath.close()

    def again(*, replace: bool) -> None:
        datapath.open(replace=replace)
        datapath.close()

    show("open again, programs swapped", median_ms(partial(again, replace=True)), "ms")
    show("open again, programs left", median_ms(partial(again, replace=False)), "ms")
    datapath.destroy()


def attaching(root: Path, cache: Path, names: list[str]) -> None:
    """Links: made, swapped, taken off."""
    datapath = BpfDatapath(root, cache)
    datapath.open()
    indices = [(handle, socket.if_nametoindex(name), name) for handle, name in enumerate(names, 1)]
    effects = [Attach(handle=handle, ifindex=ifindex, ifname=name) for handle, ifindex, name in indices]
    times = [milliseconds(partial(datapath.attach, effect)) for effect in effects]
    show("attach a port (tcx link made and pinned), median", statistics.median(times), "ms")
    times = [milliseconds(partial(datapath.attach, effect)) for effect in effects]
    show("attach it again (link swapped), median", statistics.median(times), "ms")
    show(f"reload with {len(effects)} ports", median_ms(datapath.reload), "ms")
    show(f"destroy with {len(effects)} ports", milliseconds(datapath.destroy), "ms")


def tables(root: Path, cache: Path) -> None:
    """A full FDB."""
    datapath = BpfDatapath(root, cache)
    datapath.open()
    show("memory of this process, data path open", rss_mb(), "MB")
    datapath.put(PutRow(table=Table.SETTINGS, key=0, row=SettingsRow(ageing_ns=AGEING_NS)))
    fdb = Map.open(root / f"v{abi.LAYOUT}" / "fdb", maps.declare(maps.DEFAULT_SIZES)["fdb"])
    assert fdb is not None
    keys = struct.pack(f"={ENTRIES}Q", *(fdb_key(1, mac) for mac in range(ENTRIES)))
    value = abi.FDB_ENTRY.pack(port=1, segment=1, origin=Origin.LEARNED, seen_ns=time.monotonic_ns())
    fdb.update_batch(keys, value * ENTRIES)
    show(f"{ENTRIES} entries read in batches", median_ms(lambda: sum(batch.count for batch in fdb.batches())), "ms")
    show(f"{ENTRIES} entries listed", median_ms(lambda: sum(1 for _ in datapath.fdb())), "ms")
    show(f"{ENTRIES} entries aged, none old", median_ms(datapath.age), "ms")
    show("memory of this process afterwards", rss_mb(), "MB")
    fdb.close()
    datapath.destroy()


def main() -> int:
    """Print the table."""
    if os.geteuid() != 0:
        sys.exit("root is needed")
    print(
        f"{datetime.datetime.now():%Y-%m-%d}, kernel {platform.release()}, {os.cpu_count()} CPUs, medians of {ROUNDS}"
    )
    with World() as world:
        namespace, root, cache = world.namespace("loader"), world.directory() / "bpf", world.directory()
        names = [f"p{number}" for number in range(PORTS)]
        namespace.ip_batch(f"link add {name} type veth peer name {name}x" for name in names)
        world.cleanup.callback(BpfDatapath(root, cache).destroy)
        with namespace.entered():
            compiling()
            opening(root, cache)
            attaching(root, cache, names)
            tables(root, cache)
    return 0


if __name__ == "__main__":
    sys.exit(main())
