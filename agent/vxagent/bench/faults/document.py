"""The JSON document and the lines of the table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vxagent.bench.document import Document, Machine
from vxagent.bench.faults.figures import Figures

COUNTS = ("sent", "lost", "duplicated", "reordered", "astray", "overflow")


def document(machine: Machine, rate: int, results: Iterable[Figures]) -> Document:
    """What `--json` writes. `rate` is how many frames a second were to be sent."""
    return {
        "machine": machine.machine,
        "kernel": machine.kernel,
        "versions": dict(machine.versions),
        "rate": rate,
        "results": [_result(one) for one in results],
    }


def _result(found: Figures) -> Document:
    streams = [
        {"stream": name, "sent": sent, "lost": lost, "duplicated": duplicated, "reordered": reordered}
        for name, (sent, lost, duplicated, reordered) in (found.streams or {}).items()
    ]
    return {
        "fault": found.fault,
        "times": found.times,
        **{name: getattr(found, name) for name in COUNTS},
        "rate": round(found.rate),
        "seconds": round(found.seconds, 1),
        "realtime": found.realtime,
        "slow": list(found.slow),
        "valid": found.valid,
        "good": found.good,
        "why": None if found.good else found.why,
        "not_here": found.not_here or None,
        "refusals": list(found.said),
        "streams": streams,
    }


def rows(results: Iterable[Figures]) -> list[dict[str, Any]]:
    """The table's rows: text and numbers for each column."""
    return [_row(one) for one in results]


def _row(found: Figures) -> dict[str, Any]:
    if found.not_here:
        return dict.fromkeys((*COUNTS, "times", "frames/s", "seconds")) | {"fault": f"{found.fault} (not here)"}
    return {
        "fault": f"{found.fault} (slow)" if found.slow else found.fault,
        "times": found.times,
        **{name: f"{getattr(found, name):,}" for name in COUNTS},
        "frames/s": f"{found.rate:,.0f}",
        "seconds": f"{found.seconds:.1f}",
    }
