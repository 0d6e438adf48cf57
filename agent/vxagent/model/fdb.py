"""Static FDB entries as they were asked for."""

from __future__ import annotations

from dataclasses import dataclass

from vxagent.errors import Invalid
from vxagent.model.ids import check_mac
from vxagent.model.vtep import check_vtep


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticEntry:
    """(segment, MAC) → port or VTEP.

    Attributes:
        port: a port id or an uplink's device, or None.
        vtep: the address of a VTEP, or None. Exactly one of the two is set.
        applied: made by `apply`.

    Raises:
        Invalid: a value that can never be right.
    """

    segment: str
    mac: str
    port: str | None = None
    vtep: str | None = None
    applied: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "mac", check_mac("mac", self.mac))
        if (self.port is None) == (self.vtep is None):
            raise Invalid("fdb", self.mac, "needs a port or a vtep")
        if self.vtep is not None:
            object.__setattr__(self, "vtep", check_vtep("vtep", self.vtep))
