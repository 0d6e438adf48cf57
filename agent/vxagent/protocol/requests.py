"""What people ask for: bodies of the API, and the tables of a desired-state file.

A body and a table of the file are one struct, so an option of the command line has one name (`_` for `-`)
wherever it is written. Structs check shapes only; whether a value can be right is the model's business, which
`model()` and `changes()` hand it to.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from vxagent.errors import Invalid
from vxagent.model.fdb import StaticEntry
from vxagent.model.ids import MTU_MAX, MTU_MIN, VID_MAX, VID_MIN, VNI_MAX, VNI_MIN, check_ifname, check_range
from vxagent.model.port import DEFAULT_LEARN_RATE, DEFAULT_MAX_MACS, MAX_MACS_MAX, Enforce, Hook, Mode, Port, Uplink
from vxagent.model.rate import PACKETS_MAX, PACKETS_MIN, Rate
from vxagent.model.segment import DEFAULT_MTU, FITTING_MTU, Segment, UnknownUnicast
from vxagent.model.vtep import Vtep

# Limits and patterns are documentation in the schema: the model enforces them, with a better sentence. What they rule
# out is refused.
Vid = Annotated[int, Meta(extra_json_schema={"minimum": VID_MIN, "maximum": VID_MAX})]
Vni = Annotated[int, Meta(extra_json_schema={"minimum": VNI_MIN, "maximum": VNI_MAX})]
Mtu = Annotated[int, Meta(extra_json_schema={"minimum": MTU_MIN, "maximum": MTU_MAX})]
MaxMacs = Annotated[int, Meta(extra_json_schema={"minimum": 0, "maximum": MAX_MACS_MAX})]
LearnRate = Annotated[int, Meta(extra_json_schema={"minimum": 0, "maximum": PACKETS_MAX})]
Name = Annotated[str, Meta(extra_json_schema={"pattern": "^[A-Za-z0-9][A-Za-z0-9._:@-]{0,62}$"})]
Ifname = Annotated[str, Meta(extra_json_schema={"pattern": r"^[^\x00-\x20\x7f/:]{1,15}$"})]
Mac = Annotated[
    str, Meta(extra_json_schema={"pattern": "^[0-9A-Fa-f][02468ACEace]((:[0-9A-Fa-f]{2}){5}|(-[0-9A-Fa-f]{2}){5})$"})
]
Address = Annotated[str, Meta(examples=["192.0.2.12", "2001:db8::c"])]
RateText = Annotated[str, Meta(examples=["100Mbit", "20kpps", "1Gbit,100kpps"])]
Storm = Annotated[int, Meta(extra_json_schema={"minimum": PACKETS_MIN, "maximum": PACKETS_MAX})]
TrunkItem = Annotated[str, Meta(extra_json_schema={"pattern": "^[A-Za-z0-9][A-Za-z0-9._:@-]{0,62}:[0-9]{1,9}$"})]

_TRUNK_ITEM = re.compile(r"(?P<segment>.+):(?P<vid>[0-9]{1,9})", re.DOTALL)


class Request(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What somebody asks for. Unknown keys are refused, and what is as by default is not written."""

    def __post_init__(self) -> None:
        """msgspec leaves a default out only where the value is that very object, not one that equals it."""
        defaults = self.__struct_defaults__
        for name, default in zip(self.__struct_fields__[-len(defaults) :], defaults, strict=False):
            if getattr(self, name) == default:
                setattr(self, name, default)


class SegmentAdd(Request):
    """A segment; `[[segment]]`."""

    name: Name
    tenant: Name
    vlan: Vid | None = None
    vni: Vni | None = None
    mtu: Mtu | None = None
    unknown_unicast: UnknownUnicast = UnknownUnicast.FLOOD
    multicast_snooping: bool = False

    def model(self) -> Segment:
        """The segment. Raises Invalid."""
        by_default = DEFAULT_MTU if self.vni is None else FITTING_MTU
        return Segment(
            name=self.name,
            tenant=self.tenant,
            vlan=self.vlan,
            vni=self.vni,
            mtu=by_default if self.mtu is None else _mtu(self.mtu),
            unknown_unicast=self.unknown_unicast,
            multicast_snooping=self.multicast_snooping,
        )

    @classmethod
    def of(cls, segment: Segment) -> SegmentAdd:
        """The request that makes this segment."""
        return cls(
            name=segment.name,
            tenant=segment.tenant,
            vlan=segment.vlan,
            vni=segment.vni,
            mtu=None if segment.vni is None and segment.mtu == DEFAULT_MTU else segment.mtu,
            unknown_unicast=segment.unknown_unicast,
            multicast_snooping=segment.multicast_snooping,
        )


class SegmentSet(Request):
    """What changes of a segment; null clears."""

    tenant: Name | UnsetType = UNSET
    vlan: Vid | UnsetType | None = UNSET
    vni: Vni | UnsetType | None = UNSET
    mtu: Mtu | UnsetType | None = UNSET
    unknown_unicast: UnknownUnicast | UnsetType = UNSET
    multicast_snooping: bool | UnsetType = UNSET

    def changes(self) -> dict[str, object]:
        """Fields of Segment → new value. Raises Invalid."""
        changes = _given(self)
        if self.mtu is not UNSET:
            changes["mtu"] = FITTING_MTU if self.mtu is None else _mtu(self.mtu)
        return changes


class PortAttach(Request):
    """A port: access (`segment`), trunk (`trunk`, `native`) or the host itself (`internal`); `[[port]]`."""

    ifname: Ifname | None = None
    internal: Ifname | None = None
    id: Name | None = None
    segment: Name | None = None
    trunk: list[TrunkItem] = []
    native: Name | None = None
    mac: list[Mac] = []
    ip: list[str] = []
    isolated: bool = False
    trusted: bool = False
    hook: Hook = Hook.AUTO
    max_macs: MaxMacs = DEFAULT_MAX_MACS
    learn_rate: LearnRate | None = DEFAULT_LEARN_RATE
    rate_in: RateText | None = None
    rate_out: RateText | None = None
    storm_broadcast: Storm | None = None
    storm_multicast: Storm | None = None
    storm_unknown: Storm | None = None
    dhcp_snoop: bool = False
    enforce: Enforce = Enforce.ON

    def model(self) -> Port:
        """The port. Raises Invalid."""
        ifname = self.ifname if self.internal is None else self.internal
        if ifname is None:
            raise Invalid("ifname", None, "a port needs a device, or internal")
        if self.ifname is not None and self.internal is not None:
            raise Invalid("internal", self.internal, "a port either has a device or is internal")
        check_ifname("device", ifname)  # before its id, which is the same unless given
        mode = Mode.TRUNK if self.trunk else Mode.ACCESS
        return Port(
            id=ifname if self.id is None else self.id,
            ifname=ifname,
            mode=mode if self.internal is None else Mode.INTERNAL,
            segment=self.segment,
            trunk=_trunk(self.trunk),
            native=self.native,
            macs=tuple(self.mac),
            ips=tuple(self.ip),
            isolated=self.isolated,
            trusted=self.trusted,
            hook=self.hook,
            max_macs=self.max_macs,
            learn_rate=self.learn_rate,
            rate_in=None if self.rate_in is None else Rate.parse("rate_in", self.rate_in),
            rate_out=None if self.rate_out is None else Rate.parse("rate_out", self.rate_out),
            storm_broadcast=self.storm_broadcast,
            storm_multicast=self.storm_multicast,
            storm_unknown=self.storm_unknown,
            dhcp_snoop=self.dhcp_snoop,
            enforce=self.enforce,
        )

    @classmethod
    def of(cls, port: Port) -> PortAttach:
        """The request that makes this port."""
        internal = port.mode is Mode.INTERNAL
        return cls(
            ifname=None if internal else port.ifname,
            internal=port.ifname if internal else None,
            id=None if port.id == port.ifname else port.id,
            segment=port.segment,
            trunk=[f"{segment}:{vid}" for segment, vid in port.trunk],
            native=port.native,
            mac=list(port.macs),
            ip=list(port.ips),
            isolated=port.isolated,
            trusted=port.trusted,
            hook=port.hook,
            max_macs=port.max_macs,
            learn_rate=port.learn_rate or 0,  # TOML has no null
            rate_in=None if port.rate_in is None else str(port.rate_in),
            rate_out=None if port.rate_out is None else str(port.rate_out),
            storm_broadcast=port.storm_broadcast,
            storm_multicast=port.storm_multicast,
            storm_unknown=port.storm_unknown,
            dhcp_snoop=port.dhcp_snoop,
            enforce=port.enforce,
        )


class PortSet(Request):
    """What changes of a port. A list replaces the one there was; null and [] clear.

    `segment` makes a trunk port an access port, `trunk` the other way round.
    """

    segment: Name | UnsetType = UNSET
    trunk: list[TrunkItem] | UnsetType = UNSET
    native: Name | UnsetType | None = UNSET
    mac: list[Mac] | UnsetType = UNSET
    ip: list[str] | UnsetType = UNSET
    isolated: bool | UnsetType = UNSET
    trusted: bool | UnsetType = UNSET
    hook: Hook | UnsetType = UNSET
    max_macs: MaxMacs | UnsetType = UNSET
    learn_rate: LearnRate | UnsetType | None = UNSET
    rate_in: RateText | UnsetType | None = UNSET
    rate_out: RateText | UnsetType | None = UNSET
    storm_broadcast: Storm | UnsetType | None = UNSET
    storm_multicast: Storm | UnsetType | None = UNSET
    storm_unknown: Storm | UnsetType | None = UNSET
    dhcp_snoop: bool | UnsetType = UNSET
    enforce: Enforce | UnsetType = UNSET

    def changes(self) -> dict[str, object]:
        """Fields of Port → new value. Raises Invalid."""
        if self.segment is not UNSET and self.trunk is not UNSET:
            raise Invalid("trunk", None, "a port is either trunk or in one segment")
        changes = _given(self)
        if self.trunk is not UNSET:
            changes["trunk"] = _trunk(self.trunk)
        if self.mac is not UNSET:
            changes["macs"] = tuple(self.mac)
        if self.ip is not UNSET:
            changes["ips"] = tuple(self.ip)
        for field in ("rate_in", "rate_out"):
            text = getattr(self, field)
            if isinstance(text, str):
                changes[field] = Rate.parse(field, text)
        return {field: value for field, value in changes.items() if field not in ("mac", "ip")}


class UplinkAdd(Request):
    """An uplink; `[[uplink]]`."""

    ifname: Ifname
    hook: Hook = Hook.AUTO

    def model(self) -> Uplink:
        """The uplink. Raises Invalid."""
        return Uplink(ifname=self.ifname, hook=self.hook)

    @classmethod
    def of(cls, uplink: Uplink) -> UplinkAdd:
        """The request that makes this uplink."""
        return cls(ifname=uplink.ifname, hook=uplink.hook)


class FdbAdd(Request):
    """A static FDB entry; `[[fdb]]`."""

    segment: Name
    mac: Mac
    port: Name | None = None
    vtep: Address | None = None

    def model(self) -> StaticEntry:
        """The entry. Raises Invalid."""
        return StaticEntry(segment=self.segment, mac=self.mac, port=self.port, vtep=self.vtep)

    @classmethod
    def of(cls, entry: StaticEntry) -> FdbAdd:
        """The request that makes this entry."""
        return cls(segment=entry.segment, mac=entry.mac, port=entry.port, vtep=entry.vtep)


class VtepAdd(Request):
    """The VTEP of another host, in an overlay without an engine; `[[vtep]]`."""

    address: Address
    vnis: list[Vni] = []

    def model(self) -> Vtep:
        """The VTEP. Raises Invalid."""
        return Vtep(address=self.address, vnis=tuple(self.vnis))

    @classmethod
    def of(cls, vtep: Vtep) -> VtepAdd:
        """The request that states this VTEP."""
        return cls(address=vtep.address, vnis=list(vtep.vnis))


class VtepSet(Request):
    """What changes of a VTEP. A list replaces the one there was; [] clears."""

    vnis: list[Vni] | UnsetType = UNSET

    def changes(self) -> dict[str, object]:
        """Fields of Vtep → new value."""
        return {name: tuple(vnis) for name, vnis in _given(self).items() if isinstance(vnis, list)}


class Desired(Request):
    """A desired-state file."""

    segment: list[SegmentAdd] = []
    uplink: list[UplinkAdd] = []
    port: list[PortAttach] = []
    fdb: list[FdbAdd] = []
    vtep: list[VtepAdd] = []


class FdbFlush(Request):
    """Which learned entries go: of one segment, one port, both (and) or, with neither, all."""

    segment: Name | None = None
    port: Name | None = None


class DesiredText(Request):
    """A desired state as TOML text, to be compared or made so.

    Attributes:
        text: the TOML.
        file: what messages call it.
        prune: what stands nowhere in it goes, whoever made it.
    """

    text: str
    file: str = "desired state"
    prune: bool = False


def _given(request: Request) -> dict[str, object]:
    """The fields that were given."""
    values = {name: getattr(request, name) for name in request.__struct_fields__}
    return {name: value for name, value in values.items() if value is not UNSET}


def _mtu(given: int) -> int:
    """An MTU that somebody wrote. Raises Invalid."""
    return check_range("mtu", given, MTU_MIN, MTU_MAX)


def _trunk(items: list[str]) -> tuple[tuple[str, int], ...]:
    found = []
    for item in items:
        match = _TRUNK_ITEM.fullmatch(item)
        if match is None:
            raise Invalid("trunk", item, "must be SEGMENT:VID such as blue:10")
        found.append((match["segment"], int(match["vid"])))
    return tuple(found)


class HostEvacuate(Request):
    """Take the ports of a dead host; ifnames: port → its VM's device here, by default as it was called there."""

    ifnames: dict[Name, Ifname] = {}


class MigratePrepare(Request):
    """Have a port's VM come here; ifname: its device, by default as it is called where it runs."""

    ifname: str | None = None
