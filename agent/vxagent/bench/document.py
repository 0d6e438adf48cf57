"""The JSON document and the lines of the table."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vxagent.bench.cases import Unit
from vxagent.bench.figures import Figures, Ratio

Document = dict[str, Any]

_SCALES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where it was measured.

    Attributes:
        machine: CPUs and memory.
        kernel: its release.
        versions: program → version, of those that take part.
    """

    machine: str
    kernel: str
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def this(cls, **further: str) -> Machine:
        """The one that runs this; `further` versions beside those that are always there, "" of what is not."""
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
        ip = subprocess.run(["ip", "-V"], capture_output=True, text=True, check=False).stdout
        versions = {"vxagent": version("vxagent"), "python": platform.python_version()}
        if found := re.search(r"iproute2-([\w.]+)", ip):
            versions["iproute2"] = found.group(1)
        return cls(
            machine=f"{os.cpu_count()} × {cpu}, {memory:.0f} GiB",
            kernel=platform.release(),
            versions=versions | {name: one for name, one in further.items() if one},
        )


def document(machine: Machine, rounds: int, results: Iterable[Figures]) -> Document:
    """What `--json` writes. `rounds`: that count, of each case.

    A result has the key `others` where further contenders took part.
    """
    found = list(results)
    return {
        "machine": machine.machine,
        "kernel": machine.kernel,
        "versions": dict(machine.versions),
        "rounds": rounds,
        "aa": {one.case.name: _round(one.aa) for one in found},
        "results": [_result(one) for one in found],
    }


def _result(figures: Figures) -> Document:
    bridge, vxagent, limit = figures.base, figures.tested, figures.limit
    if figures.case.spread is not None:  # of vxagent alone: with many entries, and as if there were few
        bridge, vxagent, limit = None, figures.base, figures.tested
    result: Document = {
        "case": figures.case.name,
        "unit": str(figures.case.unit),
        "bridge": _round(bridge),
        "vxagent": _round(vxagent),
        "limit": _round(limit),
        "ratio": _round(figures.ratio.median) if figures.ratio else None,
        "ratio_min": _round(figures.ratio.least) if figures.ratio else None,
        "ratio_max": _round(figures.ratio.most) if figures.ratio else None,
        "valid": figures.valid,
    }
    if figures.others:
        result["others"] = {name: _round(one.median) for name, one in figures.others.items()}
    return result


def rows(results: Iterable[Figures]) -> list[dict[str, Any]]:
    """The table's rows: text for each column, and the ratios of `others`. An invalid case has no figures in it."""
    return [_row(one) for one in results]


def _row(figures: Figures) -> dict[str, Any]:
    result, unit = _result(figures), figures.case.unit
    if not figures.valid:
        empty: dict[str, Any] = dict.fromkeys(("bridge", "vxagent", "limit"))
        aa = None if figures.aa is None else f"{figures.aa:.2f}"
        return empty | {"case": figures.case.name, "vxagent ÷ bridge": "not valid", "A/A": aa, "others": {}}
    note = " smaller is better" if figures.case.smaller_is_better else ""
    note = " few ÷ many entries" if figures.case.spread is not None else note
    return {
        "case": figures.case.name,
        "vxagent ÷ bridge": spread(figures.ratio) + note,
        "bridge": human(result["bridge"], unit),
        "vxagent": human(result["vxagent"], unit),
        "limit": human(result["limit"], unit),
        "others": {name: spread(one) for name, one in figures.others.items()},
        "A/A": f"{figures.aa:.2f}",
    }


def human(value: float | None, unit: str) -> str:
    """A figure as people read it: `1.23 Mpackets/s`, `12.3 Gbit/s`, `8.1 µs`."""
    if value is None:
        return "-"
    if unit == Unit.MICROSECONDS:
        return f"{value:.1f} {unit}"
    for scale, letter in _SCALES:
        if value >= scale:
            return f"{value / scale:.2f} {letter}{unit}"
    return f"{value:.0f} {unit}"


def spread(ratio: Ratio | None) -> str:
    """`1.07 [1.02–1.11]`"""
    return "-" if ratio is None else f"{ratio.median:.2f} [{ratio.least:.2f}–{ratio.most:.2f}]"


def _round(value: float | None) -> float | None:
    """Four digits that count: the rest is noise."""
    return None if value is None else float(f"{value:.4g}")
