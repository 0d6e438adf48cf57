"""What the hosts of a cluster tell each other besides bindings. Names are those of hosts, segments and ports."""

from __future__ import annotations

from dataclasses import dataclass, field

from vxagent.model.binding import Projection
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
from vxagent.model.vtep import check_vtep


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterHost:
    """A host that has been in the cluster, alive or not.

    Attributes:
        vtep: the address at which it ends tunnels, or None.
    """

    host: str
    vtep: str | None = None

    def __post_init__(self) -> None:
        check_name("host", self.host)
        if self.vtep is not None:
            object.__setattr__(self, "vtep", check_vtep("vtep", self.vtep))


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """A host that is alive, as far as the engine knows.

    Attributes:
        boot: which of its lives: another one after the machine was started anew.
        session: the revision in which this life began.
    """

    host: str
    vtep: str | None = None
    boot: str = ""
    session: int = 0

    def __post_init__(self) -> None:
        check_name("host", self.host)
        if self.vtep is not None:
            object.__setattr__(self, "vtep", check_vtep("vtep", self.vtep))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSegment:
    """What the hosts agree on about a segment. Names, VLANs and VNIs are unique in the cluster."""

    name: str
    tenant: str
    vlan: int | None = None
    vni: int | None = None
    mtu: int

    def __post_init__(self) -> None:
        check_name("segment", self.name)
        check_name("tenant", self.tenant)
        if self.vlan is not None:
            check_range("vlan", self.vlan, VID_MIN, VID_MAX)
        if self.vni is not None:
            check_range("vni", self.vni, VNI_MIN, VNI_MAX)
        check_range("mtu", self.mtu, MTU_MIN, MTU_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """A host has a segment: it wants what is flooded there."""

    segment: str
    host: str

    def __post_init__(self) -> None:
        check_name("segment", self.segment)
        check_name("host", self.host)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridge:
    """The one host that bridges a segment's VLAN and VNI."""

    segment: str
    host: str

    def __post_init__(self) -> None:
        check_name("segment", self.segment)
        check_name("host", self.host)


Record = ClusterHost | Live | ClusterSegment | Presence | Bridge | Projection


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A record came (`before` None), changed, or went (`now` None). Both are of one type and one key."""

    before: Record | None
    now: Record | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A key that this version cannot read; it is left alone, and counts as not being there."""

    key: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a host has to know of the cluster, at one revision.

    Attributes:
        identity: which store it is of; another one has begun anew.
        records: of all hosts, and of the segments that were asked for.
    """

    revision: int
    identity: str
    records: tuple[Record, ...]
    problems: tuple[Problem, ...] = field(default=(), compare=False)
