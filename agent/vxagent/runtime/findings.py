"""What `vxagent doctor` says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad a finding is. `warn`: it works, but not as somebody may think; `bad`: frames are lost or leak."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of `vxagent doctor`; `mend` is what to do, "" where nothing is."""

    level: Level
    what: str
    mend: str = ""
