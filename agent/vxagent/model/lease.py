"""An address that a DHCP server has given to a port's VM, as the agent keeps it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One address in one segment. expires: Unix time in seconds; None: for ever."""

    segment: str
    ip: str
    mac: str
    expires: int | None
