"""One setting of the switch, as the model has it, for both sides: rows of tables and the reference's ports.

Places (ports, then uplinks, then VTEPs) are numbered from 1; the number is the handle and the counter's base, and of
ports and uplinks the tap. What goes to VTEPs and comes from them goes by one tap more, UNDERLAY.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import ip_network

from reference import fdb, tables
from reference.choices import TICKS_PER_NS
from reference.events import KINDS
from reference.rates import Bucket
from reference.switch import Switch
from vxagent.core.compile import NANOSECONDS, rows_of
from vxagent.core.neighbours import Neighbours, claims_of
from vxagent.core.numbers import slots_for, vtep_owner
from vxagent.core.state import State
from vxagent.core.tables import (
    FdbFlag,
    FdbRow,
    Origin,
    PortMode,
    PortRow,
    Rows,
    Table,
    fdb_key,
)
from vxagent.model.device import Device
from vxagent.model.ids import LEARN_RATE_UPLINK, mac_to_int
from vxagent.model.port import Enforce, Port, Uplink
from vxagent.model.segment import Segment, UnknownUnicast
from vxagent.model.vtep import Overlay, Vtep

FDB_ENTRIES = 48
GROUPS = 48
NEIGHBOURS = 70
NOWHERE = 0  # the place of a stated entry that is behind a VTEP of which nothing is known
UNDERLAY = 9
DEVICE = f"p{UNDERLAY}"  # of the underlay
OUTSIDE = 50  # bytes of a packet in front of its frame, RFC 7348 over IPv4


@dataclass(frozen=True, kw_only=True)
class Stated:
    """An FDB entry that somebody stated: of a segment's name and a place's number, or `NOWHERE`."""

    segment: str
    mac: str
    place: int
    cluster: bool = False


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is set.

    Attributes:
        states: number → state, of places that are not up.
        deviceless: numbers of places whose device is not there.
        missing_ms: (number, limit) → how long its bucket takes to be full when the frames begin.
        own_vtep: this host's; it bridges what has a VLAN and a VNI if none of the others' is lower.
        untold_ms: number → how long until it may tell as many events as ever, of each kind.
        ageing_s: as in the agent's settings.
    """

    segments: tuple[Segment, ...]
    ports: tuple[Port, ...]
    uplinks: tuple[Uplink, ...] = ()
    vteps: tuple[Vtep, ...] = ()
    own_vtep: str = "192.0.2.1"
    stated: tuple[Stated, ...] = ()
    states: dict[int, PortMode] = field(default_factory=dict)
    deviceless: frozenset[int] = frozenset()
    missing_ms: dict[tuple[int, str], int] = field(default_factory=dict)
    untold_ms: dict[int, int] = field(default_factory=dict)
    ageing_s: int = 300

    def names(self) -> tuple[str, ...]:
        """Of places, in the order of their numbers."""
        devices = (*(port.id for port in self.ports), *(uplink.ifname for uplink in self.uplinks))
        return (*devices, *(vtep_owner(vtep.address) for vtep in self.vteps))

    def vtep(self, number: int) -> Vtep | None:
        """Which VTEP a place is, if it is one."""
        at = number - len(self.ports) - len(self.uplinks) - 1
        return self.vteps[at] if 0 <= at < len(self.vteps) else None

    @property
    def underlay(self) -> int:
        """The handle of the underlay device."""
        return len(self.names()) + 1

    @property
    def vnis(self) -> dict[int, int]:
        """VNI → segment's handle."""
        return {segment.vni: at for at, segment in enumerate(self.segments, 1) if segment.vni}

    def in_tunnel(self, number: int, segment: int) -> bytes:
        """What tells the segment of a frame for a place: of a VTEP its VNI."""
        return (self.segments[segment - 1].vni or 0).to_bytes(3, "big") if self.vtep(number) else b""

    def between(self, number: int) -> tuple[tuple[str, int], ...]:
        """(segment, VID) of a place, 0 for untagged."""
        return self.state({}).memberships(self.names()[number - 1])

    def number_of(self, segment: str) -> int:
        """A segment's handle."""
        return 1 + [one.name for one in self.segments].index(segment)

    def state(self, ifindex: dict[int, int]) -> State:
        """The agent's view. ifindex: number → device, of a tap."""
        state = State(
            ageing_s=self.ageing_s,
            fdb_entries=FDB_ENTRIES,
            segments={segment.name: segment for segment in self.segments},
            ports={port.id: port for port in self.ports},
            uplinks={uplink.ifname: uplink for uplink in self.uplinks},
            vteps={vtep.address: vtep for vtep in self.vteps},
            overlay=Overlay(vtep=self.own_vtep, device=DEVICE) if self.vteps else None,
        )
        for segment in self.segments:
            state.numbers.take("segment", segment.name)
        for number, name in enumerate(self.names(), 1):
            assert state.numbers.take("port", name) == number
            state.numbers.take("counter", name)
            for at, _ in state.memberships(name):
                state.numbers.take(slots_for(name, at), name)
                state.numbers.take("counter", f"{name}/{at}")
            device = state.device_of(name)
            if device and number not in self.deviceless:
                state.devices[device] = Device(ifname=device, ifindex=ifindex.get(number, number))
        if state.overlay is not None:
            state.numbers.take("port", state.underlay)
            state.numbers.take("counter", state.underlay)
            state.devices[DEVICE] = Device(ifname=DEVICE, ifindex=ifindex.get(UNDERLAY, UNDERLAY))
        return state

    def rows(self, state: State) -> Rows:
        """What the agent writes into the tables, and what others would: states of a migration, cluster entries."""
        owners = [("settings", ""), *(("segment", s.name) for s in self.segments), *(("port", n) for n in self.names())]
        owners += [("overlay", ""), ("port", state.underlay)] if state.overlay is not None else []
        owners += [("neighbour", f"{at}/{address}") for port in self.ports for at, address in claims_of(port)]
        neighbours = Neighbours(self.ports)
        rows: Rows = {}
        for owner in owners:
            rows |= rows_of(state, neighbours, owner)
        for number, mode in self.states.items():
            port = rows[Table.PORTS, number]
            assert isinstance(port, PortRow)
            rows[Table.PORTS, number] = replace(port, state=mode)
        for entry in self.stated:
            segment = self.number_of(entry.segment)
            rows[Table.FDB, fdb_key(segment, mac_to_int(entry.mac))] = FdbRow(
                port=entry.place,
                segment=segment,
                origin=Origin.CLUSTER if entry.cluster else Origin.STATIC,
                flags=FdbFlag(0),
            )
        return rows

    def reference(self, now: int) -> Switch:
        """The reference switch in this setting."""
        places = [self._port(number, port) for number, port in enumerate(self.ports, 1)]
        places += [self._uplink(number) for number, _ in enumerate(self.uplinks, len(places) + 1)]
        places += [self._tunnel(number) for number, _ in enumerate(self.vteps, len(places) + 1)]
        segments = {
            number: tables.Segment(
                mtu=segment.mtu,
                drop_unknown=segment.unknown_unicast is UnknownUnicast.DROP,
                groups=segment.multicast_snooping,
            )
            for number, segment in enumerate(self.segments, 1)
        }
        switch = Switch(
            segments,
            places,
            ageing=self.ageing_s * NANOSECONDS,
            capacity=FDB_ENTRIES,
            groups=GROUPS,
            neighbours=NEIGHBOURS,
        )
        for entry in self.stated:
            switch.fdb[self.number_of(entry.segment), mac_to_int(entry.mac)] = fdb.Entry(
                port=entry.place, origin=fdb.CLUSTER if entry.cluster else fdb.STATIC
            )
        switch.rates |= {key: Bucket(full) for key, full in self.levels(now).items()}
        for number, full in self.telling(now).items():
            switch.events.buckets |= {(number, kind): Bucket(full) for kind in KINDS}
        return switch

    def telling(self, now: int) -> dict[int, int]:
        """Number → when its buckets of events are full, in ticks; now in nanoseconds."""
        return {number: (now + missing * 1_000_000) * TICKS_PER_NS for number, missing in self.untold_ms.items()}

    def levels(self, now: int) -> dict[tuple[int, str], int]:
        """(number, limit) → when its bucket is full, in ticks; now in nanoseconds."""
        return {key: (now + missing * 1_000_000) * TICKS_PER_NS for key, missing in self.missing_ms.items()}

    def _port(self, number: int, port: Port) -> tables.Port:
        rates = {"in": port.rate_in, "out": port.rate_out}
        limits = {
            f"{way}_{unit}": getattr(rate, unit) for way, rate in rates.items() if rate for unit in ("bits", "packets")
        }
        others = {
            "broadcast": port.storm_broadcast,
            "multicast": port.storm_multicast,
            "unknown": port.storm_unknown,
            "learn": port.learn_rate,
        }
        untagged = port.native if port.trunk else port.segment
        return tables.Port(
            number=number,
            device=number not in self.deviceless,
            state=self.states.get(number, PortMode.UP).name.lower(),
            untagged=None if untagged is None else self.number_of(untagged),
            tagged={vid: self.number_of(segment) for segment, vid in port.trunk},
            macs=frozenset(map(mac_to_int, port.macs)),
            ips=tuple(map(ip_network, port.ips)),
            isolated=port.isolated,
            trusted=port.trusted,
            max_macs=port.max_macs,
            limits={name: rate for name, rate in (limits | others).items() if rate},
            shadow=port.enforce is Enforce.SHADOW,
            snooped=port.dhcp_snoop,
        )

    def _uplink(self, number: int) -> tables.Port:
        return tables.Port(
            number=number,
            uplink=True,
            device=number not in self.deviceless,
            state=self.states.get(number, PortMode.UP).name.lower(),
            tagged={vid: self.number_of(segment) for segment, vid in self.between(number)},
            max_macs=FDB_ENTRIES * 3 // 4,
            limits={"learn": LEARN_RATE_UPLINK},
        )

    def _tunnel(self, number: int) -> tables.Port:
        return tables.Port(
            number=number,
            uplink=True,
            vtep=True,
            tunnels=frozenset(self.number_of(segment) for segment, _ in self.between(number)),
            max_macs=FDB_ENTRIES // 4,
            limits={"learn": LEARN_RATE_UPLINK},
        )
