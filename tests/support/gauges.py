"""What processes use, and what etcd says of itself."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_METRICS = {
    "database": "etcd_mvcc_db_total_size_in_bytes",
    "got": "etcd_network_client_grpc_received_bytes_total",
    "sent": "etcd_network_client_grpc_sent_bytes_total",
    "synced": "etcd_disk_wal_fsync_duration_seconds_sum",
    "syncs": "etcd_disk_wal_fsync_duration_seconds_count",
    "watchers": "etcd_debugging_mvcc_watcher_total",
}


@dataclass(frozen=True, kw_only=True)
class Used:
    """What etcd has used since it started, or between two readings.

    Attributes:
        cpu_s: seconds of CPU.
        resident: bytes of memory, at most so far.
        database: bytes of its file.
        got, sent: bytes from and to clients.
        synced, syncs: seconds in which it waited for its disk, and how often.
        watchers: ranges that are watched.
        busy_s: seconds of CPU that everything on this machine took.
    """

    cpu_s: float
    resident: float
    database: float
    got: float
    sent: float
    synced: float
    syncs: float
    watchers: float
    busy_s: float

    def since(self, before: Used) -> Used:
        """What was used from then to now; of what is no sum, what it is now."""
        levels = {"resident", "database", "watchers"}
        names = [field.name for field in fields(self)]
        return Used(**{n: getattr(self, n) - (0 if n in levels else getattr(before, n)) for n in names})


def read_etcd(pid: int, metrics: str) -> Used:
    """What it has used so far.

    Args:
        metrics: its page of that name.
    """
    said = {}
    for line in metrics.splitlines():
        name, _, value = line.partition(" ")
        said[name] = value
    found = {ours: float(said.get(theirs, 0)) for ours, theirs in _METRICS.items()}
    return Used(cpu_s=cpu_s(pid), resident=resident(pid, "VmHWM"), busy_s=_busy_s(), **found)


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has had."""
    words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / _TICKS


def resident(pid: int, which: str = "VmRSS") -> int:
    """Bytes of its memory that are in RAM; VmHWM: that were at most."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split(f"{which}:")[1].split()[0]) * 1024


def _busy_s() -> float:
    user, nice, system, _idle, _wait, irq, softirq, *_ = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return sum(map(int, (user, nice, system, irq, softirq))) / _TICKS
