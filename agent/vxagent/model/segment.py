"""Segments: one L2 broadcast domain of one tenant."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vxagent.model.ids import (
    MTU_MAX,
    MTU_MIN,
    VID_MAX,
    VID_MIN,
    VNI_MAX,
    VNI_MIN,
    check_name,
    check_range,
)

DEFAULT_MTU = 1500  # bytes of L3
FITTING_MTU = -1
"""In what is asked for: as many bytes as there is room for between hosts. The switch says how many that are."""


class UnknownUnicast(StrEnum):
    """What becomes of a frame whose destination is not in the FDB (step 17)."""

    FLOOD = "flood"
    DROP = "drop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A segment as it was asked for.

    Attributes:
        name: unique on a host.
        tenant: who owns it; a tenant exists once named.
        vlan: its VID on every uplink, or None.
        vni: its VNI on the overlay, or None.
        mtu: bytes of L3 that its frames may have, or FITTING_MTU.
        unknown_unicast: flood or drop.
        multicast_snooping: multicast goes where IGMP and MLD say, instead of everywhere.
        applied: made by `apply`, so a later `apply` may remove it.

    Raises:
        Invalid: a value that can never be right.
    """

    name: str
    tenant: str
    vlan: int | None = None
    vni: int | None = None
    mtu: int = DEFAULT_MTU
    unknown_unicast: UnknownUnicast = UnknownUnicast.FLOOD
    multicast_snooping: bool = False
    applied: bool = False

    def __post_init__(self) -> None:
        check_name("segment", self.name)
        check_name("tenant", self.tenant)
        if self.vlan is not None:
            check_range("vlan", self.vlan, VID_MIN, VID_MAX)
        if self.vni is not None:
            check_range("vni", self.vni, VNI_MIN, VNI_MAX)
        if self.mtu != FITTING_MTU:
            check_range("mtu", self.mtu, MTU_MIN, MTU_MAX)
