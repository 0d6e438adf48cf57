"""Ports and uplinks: where frames enter and leave the switch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vxagent.errors import Invalid
from vxagent.model.ids import (
    VID_MAX,
    VID_MIN,
    check_ifname,
    check_ip,
    check_mac,
    check_name,
    check_range,
    check_unique,
)
from vxagent.model.rate import PACKETS_MAX, PACKETS_MIN, Rate

DEFAULT_MAX_MACS = 1024
DEFAULT_LEARN_RATE = 1000
MAX_MACS_MAX = 1 << 20


class Mode(StrEnum):
    """How a port's frames classify to segments."""

    ACCESS = "access"
    TRUNK = "trunk"
    INTERNAL = "internal"


class Hook(StrEnum):
    """Where a port's or uplink's program may run; `xdp` is for uplinks only."""

    AUTO = "auto"
    TC = "tc"
    XDP = "xdp"


class Enforce(StrEnum):
    """Whether what a port's guards and limits refuse is dropped, or only counted."""

    ON = "on"
    SHADOW = "shadow"


class PortState(StrEnum):
    """What `port list` shows. `pending`: the device is not there (yet)."""

    UP = "up"
    PENDING = "pending"
    DOWN = "down"
    STANDBY = "standby"
    HOLDING = "holding"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A port as it was asked for; its device may come later.

    Attributes:
        id: unique on a host; the device's name unless given.
        ifname: the device; for an internal port the one that the agent makes.
        mode: access, trunk or internal.
        segment: of an access or internal port.
        trunk: (segment, VID) pairs of a trunk port.
        native: the segment of a trunk port's untagged frames, or None.
        macs: source MACs that it may use; empty: any (it learns).
        ips: source addresses and prefixes that it lists.
        isolated: exchanges no frame with another isolated port.
        trusted: exempt from the DHCP-server and RA guards.
        hook: auto or tc.
        max_macs: learned at most.
        learn_rate: new and moved MACs that are learned in a second, or None; given as 0, it is None.
        rate_in: of all that it brings, or None.
        rate_out: of all that it gets, or None.
        storm_broadcast, storm_multicast, storm_unknown: frames a second that it brings to everybody, to groups
            and to unknown stations, or None.
        dhcp_snoop: it may use what it lists and what DHCP servers lease to it.
        enforce: of its guards (MACs, IPs, DHCP servers and RAs) and of the limits of what it brings.
        applied: made by `apply`.

    Raises:
        Invalid: a value that can never be right.
    """

    id: str
    ifname: str
    mode: Mode = Mode.ACCESS
    segment: str | None = None
    trunk: tuple[tuple[str, int], ...] = ()
    native: str | None = None
    macs: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()
    isolated: bool = False
    trusted: bool = False
    hook: Hook = Hook.AUTO
    max_macs: int = DEFAULT_MAX_MACS
    learn_rate: int | None = DEFAULT_LEARN_RATE
    rate_in: Rate | None = None
    rate_out: Rate | None = None
    storm_broadcast: int | None = None
    storm_multicast: int | None = None
    storm_unknown: int | None = None
    dhcp_snoop: bool = False
    enforce: Enforce = Enforce.ON
    applied: bool = False

    def __post_init__(self) -> None:
        check_name("port", self.id)
        check_ifname("device", self.ifname)
        if self.hook is Hook.XDP:
            raise Invalid("hook", "xdp", "a port takes auto or tc")
        check_range("max_macs", self.max_macs, 0, MAX_MACS_MAX)
        check_range("learn_rate", self.learn_rate or 0, 0, PACKETS_MAX)
        object.__setattr__(self, "learn_rate", self.learn_rate or None)
        for field in ("storm_broadcast", "storm_multicast", "storm_unknown"):
            if getattr(self, field) is not None:
                check_range(field, getattr(self, field), PACKETS_MIN, PACKETS_MAX)
        object.__setattr__(self, "macs", check_unique("mac", tuple(check_mac("mac", m) for m in self.macs)))
        object.__setattr__(self, "ips", check_unique("ip", tuple(check_ip("ip", a) for a in self.ips)))
        if self.mode is Mode.TRUNK:
            self._check_trunk()
        elif self.segment is None:
            raise Invalid("segment", None, f"{self.mode} port {self.id} needs one segment")
        elif self.native is not None:
            raise Invalid("native", self.native, "needs a trunk; a port is either trunk or in one segment")
        elif self.trunk:
            raise Invalid("trunk", self.id, "a port is either trunk or in one segment")

    def _check_trunk(self) -> None:
        if self.segment is not None:
            raise Invalid("segment", self.segment, "a trunk port names its segments in --trunk and --native")
        if not self.trunk:
            raise Invalid("trunk", None, f"trunk port {self.id} needs at least one SEGMENT:VID")
        for _, vid in self.trunk:
            check_range("trunk vid", vid, VID_MIN, VID_MAX)
        check_unique("trunk vid", tuple(str(vid) for _, vid in self.trunk))
        names = tuple(name for name, _ in self.trunk)
        check_unique("trunk segment", names)
        if self.native in names:
            raise Invalid("native", self.native, "is in the trunk's map already; a segment is tagged or native")

    @property
    def memberships(self) -> tuple[tuple[str, int], ...]:
        """(segment, VID) of every segment that it is in; VID 0 is untagged."""
        untagged = self.native if self.mode is Mode.TRUNK else self.segment
        return (*(() if untagged is None else ((untagged, 0),)), *self.trunk)


@dataclass(frozen=True, slots=True, kw_only=True)
class Uplink:
    """A NIC towards the physical network; it carries every segment that has a VLAN.

    Raises:
        Invalid: the device name can never be right.
    """

    ifname: str
    hook: Hook = Hook.AUTO
    applied: bool = False

    def __post_init__(self) -> None:
        check_ifname("device", self.ifname)
