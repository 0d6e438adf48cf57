"""What an agent and its switch have at one moment, and how that differs from what they should have."""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from soak.lab import SoakLab
from support.kernel_objects import switch_objects
from vxagent.datapath.bpf_map import Map, MapType
from vxagent.lab.namespaces import DIRECTORY

RSS_GROWTH_KIB = 8 << 10  # more than the warm agent may take
DATABASE_GROWTH_KIB = 6 << 10  # SQLite's log keeps its size until it is written back: at 1,000 pages of 4 KiB
THREADS_MORE = 8  # pools start their threads one by one, as they are needed
STEADY_KIB = 2 << 10  # more than this an agent that lives on may not take from its first rounds to its last
STEADY_ROUNDS = 3  # first and last, of whose memory the medians are compared
RSS_LOOKS, RSS_PAUSE_S = 5, 0.1

_COUNTED_FROM_PINS = (MapType.HASH, MapType.PERCPU_HASH, MapType.LRU_HASH, MapType.LPM_TRIE)
_STATED = ("settings", "ports", "segments", "limits")  # arrays whose rows the agent alone writes and takes back


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A look at everything that could grow.

    Attributes:
        rss_kib: the agent's resident memory.
        threads: of the agent.
        database_kib: files of the state directory.
        exact: what → how many; it must be the same each time the switch is back where it began.
        entries: map → its entries, of arrays those that are not empty; the same.
        document: what `export` says.
    """

    rss_kib: int
    threads: int
    database_kib: int
    exact: dict[str, int]
    entries: dict[str, int] = field(default_factory=dict)
    document: str = ""

    @property
    def counted(self) -> dict[str, int]:
        """All that must be the same."""
        return self.exact | {f"entries of {name}": count for name, count in self.entries.items()}


def differences(sample: Sample, warm: Sample) -> list[str]:
    """What is not as it was when the agent was warm; empty if all is well. Pure."""
    now, then = sample.counted, warm.counted
    names = (name for name in {**then, **now} if now.get(name) != then.get(name))
    found = [f"{name}: {now.get(name, 0)}, not {then.get(name, 0)}" for name in names]
    if sample.document != warm.document:
        found.append("`export` is another document")
    bounds = (
        ("RSS in KiB", sample.rss_kib, warm.rss_kib, RSS_GROWTH_KIB),
        ("state directory in KiB", sample.database_kib, warm.database_kib, DATABASE_GROWTH_KIB),
        ("threads", sample.threads, warm.threads, THREADS_MORE),
    )
    found += [f"{what}: {is_now}, over {was} + {more}" for what, is_now, was, more in bounds if is_now > was + more]
    return found


def growth(samples: Sequence[Sample]) -> list[str]:
    """What has grown while one agent has lived on; empty if nothing has, or of fewer rounds than tell. Pure."""
    if len(samples) < 2 * STEADY_ROUNDS:
        return []
    rss = [sample.rss_kib for sample in samples]
    first, last = int(statistics.median(rss[:STEADY_ROUNDS])), int(statistics.median(rss[-STEADY_ROUNDS:]))
    if last <= first + STEADY_KIB:
        return []
    return [
        f"RSS in KiB has grown: {last} in the last rounds, over {first} + {STEADY_KIB} in those after the last restart"
    ]


def take(lab: SoakLab) -> Sample:
    """Look. The agent lives.

    Raises:
        OSError, CommandFailed: it does not.
    """
    pid, pins = lab.agent.pid, lab.agent.run_dir / "bpf"
    document = lab.agent.cli("export").stdout
    objects = switch_objects(pid, pins)
    exact = {
        "fds": len(os.listdir(f"/proc/{pid}/fd")),
        "programs": len(objects.programs),
        "maps": len(objects.maps),
        "links": len(objects.links),
        "pins": sum(path.is_file() for path in pins.rglob("*")),
        "devices": sum(len(json.loads(one.ip("-j", "link", "show"))) for one in (lab.switch, lab.far)),
        "namespaces": len(list(DIRECTORY.glob(f"{lab.world.name}-*"))),
        "files": sum(path.is_file() for path in (*lab.agent.run_dir.iterdir(), *lab.agent.state_dir.iterdir())),
        "rows": _rows(lab.agent.state_dir / "vxagent.db"),
        "children": len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()),
    }
    status = _status(pid)
    return Sample(
        rss_kib=_rss(pid),
        threads=status["Threads"],
        database_kib=sum(path.stat().st_size for path in lab.agent.state_dir.iterdir()) >> 10,
        exact=exact,
        entries=entries(pins),
        document=document,
    )


def entries(pins: Path) -> dict[str, int]:
    """Map → entries. Of what frames alone write into (counters, buckets, what flows are remembered) the rows have no
    number to keep: they are arrays, which neither grow nor shrink."""
    found: Counter[str] = Counter()
    for pin in (path for path in pins.glob("v*/*") if path.is_file()):
        with suppress(ValueError):  # a kind of map that the switch has none of
            opened = Map.open_as_it_is(pin, pin.name)
            if opened is None:
                continue
            with opened:
                if opened.spec.type in _COUNTED_FROM_PINS:
                    found[pin.name] += sum(batch.count for batch in opened.batches())
                elif pin.name in _STATED:
                    found[pin.name] += _not_empty(opened)
    return dict(found)


def _not_empty(opened: Map) -> int:
    empty = bytes(opened.stride)
    return sum(batch.value(at) != empty for batch in opened.batches() for at in range(batch.count))


def _rss(pid: int) -> int:
    """KiB, the median of several looks."""
    looks = []
    for _ in range(RSS_LOOKS):
        looks.append(_status(pid)["VmRSS"])
        time.sleep(RSS_PAUSE_S)
    return int(statistics.median(looks))


def _status(pid: int) -> dict[str, int]:
    lines = (line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: int(rest.split()[0]) for name, rest in lines if name in ("VmRSS", "Threads")}


def _rows(database: Path) -> int:
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as opened:
        return int(opened.execute("SELECT count(*) FROM document").fetchone()[0])
