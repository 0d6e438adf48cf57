"""What is desired, what is there, and the rows that follow from both."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

from vxagent.core.effects import Effect, Xdp
from vxagent.core.migration import HERE, Placement, placement
from vxagent.core.numbers import UNDERLAY, VTEP, Numbers, underlay_owner, vtep_owner
from vxagent.core.remote import NO_CLUSTER, Remote
from vxagent.core.tables import PortMode, Row, RowKey, Rows
from vxagent.errors import NotFound
from vxagent.model.device import Device
from vxagent.model.fdb import StaticEntry
from vxagent.model.ids import FDB_ENTRIES, VLAN_VNIS
from vxagent.model.lease import Lease
from vxagent.model.port import Mode, Port, PortState, Uplink
from vxagent.model.segment import Segment
from vxagent.model.vtep import Overlay, Vtep, number

DEFAULT_AGEING_S = 300  # IEEE 802.1D, 7.9.2

Owner = tuple[str, str]  # (kind, name): whose rows these are
Attachment = tuple[int, str]  # (ifindex, ifname)


def internal_peer(ifname: str) -> str:
    """The switch's side of the internal port `ifname`: a device name that fits IFNAMSIZ."""
    return f"vxi-{hashlib.sha256(ifname.encode()).hexdigest()[:10]}"


def internal_mac(host: str, port: Port) -> str:
    """The MAC of an internal port's device: the first that it lists, else one that stays the same for this
    host and port (locally administered, IEEE 802-2014, 8.2)."""
    if port.macs:
        return port.macs[0]
    raw = hashlib.sha256(f"{host}/{port.id}".encode()).digest()[:5].hex()
    return ":".join(("02", *(raw[i : i + 2] for i in range(0, 10, 2))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """How a device was set before the switch took it; it is put back when the switch lets go.

    rxvlan: it was on, and the switch turned it off.
    txqueuelen: it was so long, and the switch made it longer.
    """

    ifindex: int
    arp: bool
    ipv6: bool
    promisc: bool
    rxvlan: bool = False
    txqueuelen: int | None = None


@dataclass(slots=True, kw_only=True)
class State:
    """A snapshot of the switch. Not changed any more once it is the switch's own.

    Attributes:
        host: the host's name.
        ageing_s: learned FDB entries not seen for longer are absent; 0: never.
        fdb_entries: for which the FDB has room.
        overlay: this host's part in the overlay, or None; as the config says.
        segments, ports, uplinks, vteps: desired, by name, id, ifname and address.
        fdb: desired static entries, by (segment, MAC).
        remote: what the cluster says of other hosts and of bindings.
        leases: as last seen, by port id; of ports that are held to them.
        numbers: handles, slots, counters.
        before: by ifname.
        unfinished: what the agent before this one may not have done to the end.
        devices: by ifname, as netlink last showed them.
        rows: what the kernel's tables hold.
        owned: which rows belong to whom.
        shadowed: what the cluster says of rows that somebody here owns, and who would own them.
        attached: port handle → device that its program runs on.
        xdp: port handle → what XDP does there, where it does anything.
    """

    host: str = ""
    ageing_s: int = DEFAULT_AGEING_S
    fdb_entries: int = FDB_ENTRIES
    overlay: Overlay | None = None
    segments: dict[str, Segment] = field(default_factory=dict)
    ports: dict[str, Port] = field(default_factory=dict)
    uplinks: dict[str, Uplink] = field(default_factory=dict)
    vteps: dict[str, Vtep] = field(default_factory=dict)
    fdb: dict[tuple[str, str], StaticEntry] = field(default_factory=dict)
    remote: Remote = NO_CLUSTER
    leases: dict[str, tuple[Lease, ...]] = field(default_factory=dict)
    numbers: Numbers = field(default_factory=Numbers)
    before: dict[str, Before] = field(default_factory=dict)
    unfinished: tuple[Effect, ...] = ()
    devices: dict[str, Device] = field(default_factory=dict)
    rows: Rows = field(default_factory=dict)
    owned: dict[Owner, Rows] = field(default_factory=dict)
    shadowed: dict[RowKey, tuple[Owner, Row]] = field(default_factory=dict)
    attached: dict[int, Attachment] = field(default_factory=dict)
    xdp: dict[int, Xdp] = field(default_factory=dict)

    def copy(self) -> State:
        """A copy that can change on its own; the values in it are immutable and shared."""
        return replace(
            self,
            segments=dict(self.segments),
            ports=dict(self.ports),
            uplinks=dict(self.uplinks),
            vteps=dict(self.vteps),
            fdb=dict(self.fdb),
            leases=dict(self.leases),
            numbers=self.numbers.copy(),
            before=dict(self.before),
            devices=dict(self.devices),
            rows=dict(self.rows),
            owned=dict(self.owned),
            shadowed=dict(self.shadowed),
            attached=dict(self.attached),
            xdp=dict(self.xdp),
        )

    def handle_of_port(self, port_id: str) -> int:
        """The handle of a port. Raises NotFound."""
        if port_id not in self.ports:
            raise NotFound("port", port_id)
        return self.numbers.number("port", port_id)

    def handle_of_uplink(self, ifname: str) -> int:
        """The handle of an uplink. Raises NotFound."""
        if ifname not in self.uplinks:
            raise NotFound("uplink", ifname)
        return self.numbers.number("port", ifname)

    def handle_of_segment(self, name: str) -> int:
        """The handle of a segment. Raises NotFound."""
        if name not in self.segments:
            raise NotFound("segment", name)
        return self.numbers.number("segment", name)

    def names(self, space: str) -> dict[int, str]:
        """Number → owner for the space "port" or "segment"."""
        return {number: owner for (at, owner), number in self.numbers.given.items() if at == space}

    def counters_of(self, name: str) -> dict[str | None, int]:
        """Segment name (None: no segment) → index into traffic, for a port id or an uplink's device."""
        segments = [segment for segment, _ in self.memberships(name)]
        found: dict[str | None, int] = {None: self.numbers.number("counter", name)}
        for segment in segments:
            found[segment] = self.numbers.number("counter", f"{name}/{segment}")
        return found

    def memberships(self, name: str) -> tuple[tuple[str, int], ...]:
        """(segment, VID) of an owner in the space "port"; VID 0 is untagged.

        Between hosts a segment is on the VTEPs that have its VNI where this host has an overlay, else on all uplinks if
        it has a VLAN; on both where this host bridges the two.
        """
        if name in self.ports:
            return self.ports[name].memberships
        if name.startswith(UNDERLAY):
            return ()
        if name.startswith(VTEP):
            return self._segments_of(name.removeprefix(VTEP))
        lowest = self._lowest_vteps()
        return tuple(
            (s.name, s.vlan) for s in self.segments.values() if s.vlan is not None and self._on_vlan(s, lowest)
        )

    def _segments_of(self, address: str) -> tuple[tuple[str, int], ...]:
        """The memberships of a VTEP: by its VNIs as they were stated, or by what the cluster says."""
        vtep = self.all_vteps.get(address)
        if vtep is None or self.unreachable(vtep):
            return ()
        peer = self.remote.by_vtep.get(address)
        vnis, names = frozenset(vtep.vnis), peer.segments if peer is not None else frozenset()
        return tuple(
            (s.name, 0) for s in self.segments.values() if s.name in names or (s.vni is not None and s.vni in vnis)
        )

    def tunnel_vni(self, segment: Segment) -> int | None:
        """The VNI with which frames of the segment go through tunnels: its own, or one for those alone that follow a
        VM, where it is between hosts by its VLAN; None: none do."""
        if self.overlay is None:
            return None
        if segment.vni is None and segment.vlan is not None and self.remote.on:
            return VLAN_VNIS + segment.vlan
        return segment.vni

    def floods_to(self, name: str, segment: str) -> bool:
        """Whether an owner in the space "port" that is in a segment gets what is flooded there."""
        if not name.startswith(VTEP):
            return True
        peer = self.remote.by_vtep.get(name.removeprefix(VTEP))
        return self.segments[segment].vni is not None and not (peer is not None and peer.silent)

    @property
    def all_vteps(self) -> dict[str, Vtep]:
        """Those that were stated, and those of the cluster."""
        return {**self.remote.vteps, **self.vteps} if self.remote.peers else self.vteps

    def bridges(self, segment: str) -> bool:
        """This host is the one that takes frames of the segment from its VLAN to its VNI and back: as the cluster says
        or, without one, of all that have the VNI the one with the lowest address."""
        it = self.segments[segment]
        return None not in (it.vlan, it.vni, self.overlay) and self._on_vlan(it, self._lowest_vteps())

    def _on_vlan(self, segment: Segment, lowest: dict[int, int]) -> bool:
        if self.overlay is None or segment.vni is None:
            return True
        if self.remote.on:
            return self.remote.bridges.get(segment.name) == self.host
        own = number(self.overlay.vtep)
        return own < lowest.get(segment.vni, own + 1)

    def _lowest_vteps(self) -> dict[int, int]:
        """VNI → the lowest address, as a number, of those VTEPs of others that have it."""
        lowest: dict[int, int] = {}
        for vtep in self.tunnels:
            at = number(vtep.address)
            for vni in vtep.vnis:
                lowest[vni] = min(at, lowest.get(vni, at))
        return lowest

    def unreachable(self, vtep: Vtep) -> str:
        """Why this host has no tunnel to a VTEP, with what mends it; "" where it has."""
        if self.overlay is None:
            return "this host has no overlay; give it an [overlay] in vxagent.toml, then `vxagent reload`"
        if vtep.address == self.overlay.vtep:
            return f"{vtep.address} is this host's own VTEP; `vxagent vtep del {vtep.address}`"
        if vtep.family != self.overlay.family:
            own = f"IPv{self.overlay.family} with its own VTEP {self.overlay.vtep}"
            return f"{vtep.address} is IPv{vtep.family}, this host's overlay {own}; `vxagent vtep del {vtep.address}`"
        return ""

    @property
    def underlay(self) -> str:
        """The owner in the space "port" whose program sees what comes for our VTEP: an uplink that the underlay device
        is, or else the device alone; "" without an overlay."""
        if self.overlay is None:
            return ""
        device = self.overlay.device
        return device if device in self.uplinks else underlay_owner(device)

    def exists(self, name: str) -> bool:
        """Whether this owner in the space "port" is to have a handle."""
        if name.startswith(VTEP):
            vtep = self.all_vteps.get(name.removeprefix(VTEP))
            return vtep is not None and not self.unreachable(vtep)
        return name in self.ports or name in self.uplinks or (name.startswith(UNDERLAY) and name == self.underlay)

    @property
    def tunnels(self) -> list[Vtep]:
        """The VTEPs to which this host has tunnels."""
        return [vtep for vtep in self.all_vteps.values() if not self.unreachable(vtep)]

    @property
    def between(self) -> list[str]:
        """The owners in the space "port" by which frames come and go between hosts: uplinks, the underlay, VTEPs."""
        owners = [*self.uplinks, *(vtep_owner(vtep.address) for vtep in self.tunnels)]
        return [*owners, self.underlay] if self.underlay not in ("", *self.uplinks) else owners

    def device_of(self, name: str) -> str:
        """The device on which the program of this owner in the space "port" runs; "" of a VTEP, which has none."""
        if name in self.ports:
            return self.device_name(self.ports[name])
        return "" if name.startswith(VTEP) else name.removeprefix(UNDERLAY)

    def device_name(self, port: Port) -> str:
        """The device on which the switch's program runs for this port."""
        return internal_peer(port.ifname) if port.mode is Mode.INTERNAL else port.ifname

    def port_state(self, port_id: str) -> tuple[PortState, str]:
        """The port's state, and why where it is not up. Raises NotFound."""
        handle = self.handle_of_port(port_id)
        port = self.ports[port_id]
        name = self.device_name(port)
        if port.mode is Mode.INTERNAL and handle not in self.attached and name not in self.devices:
            return PortState.PENDING, f"device {port.ifname} was removed; `vxagent reload` makes it anew"
        state, why = self._attachment_state(handle, port_id)
        where = self.placement(port_id)
        if state is not PortState.UP or where.mode is PortMode.UP:
            return state, why
        return PortState(where.mode.name.lower()), "its VM migrates; see `vxagent migrate status`"

    def placement(self, port_id: str) -> Placement:
        """What a port is, as far as migrations go."""
        return placement(self.remote, self.host, port_id)

    def moves_in(self, segment: str) -> bool:
        """Whether frames for a port of this host in the segment are redirected to another host, or are going to be: a
        frame that has read the segment's row reads the entry's later."""
        return any(where.redirect or self._is_leaving(port.id) for port, where in self.migrating_in(segment))

    def migrating_in(self, segment: str) -> list[tuple[Port, Placement]]:
        """The ports of this host in the segment that are on their way, by id."""
        if not self.remote.on:
            return []
        places = ((port, self.placement(port.id)) for port in self.ports.values())
        found = ((port, where) for port, where in places if where is not HERE or self._is_leaving(port.id))
        inside = (at for at in found if any(name == segment for name, _ in at[0].memberships))
        return sorted(inside, key=lambda at: at[0].id)

    def _is_leaving(self, port: str) -> bool:
        told = self.remote.ports.get(port)
        return told is not None and told.owner == self.host and told.next is not None

    def owner_of_host(self, host: str | None) -> str:
        """The owner in the space "port" that the VTEP of another host is; "": it has none that is known."""
        vtep = self.remote.vtep_of(host)
        return vtep_owner(vtep) if vtep is not None else ""

    def uplink_state(self, ifname: str) -> tuple[PortState, str]:
        """The uplink's state, and why where it is not up. Raises NotFound."""
        return self._attachment_state(self.handle_of_uplink(ifname), ifname)

    def overlay_state(self) -> tuple[PortState, str]:
        """The state of the underlay device, and why where it is not up. Raises NotFound: there is no overlay."""
        if self.overlay is None:
            raise NotFound("overlay", "of this host")
        return self._attachment_state(self.numbers.number("port", self.underlay), self.underlay)

    def _attachment_state(self, handle: int, name: str) -> tuple[PortState, str]:
        ifname = self.device_of(name)
        device = self.devices.get(ifname)
        if handle not in self.attached:
            if device is None:
                return PortState.PENDING, f"device {ifname} is not there"
            return PortState.PENDING, self.obstacle(name, device) or f"device {ifname} could not be attached"
        if device is not None and not device.up:
            return PortState.DOWN, f"device {ifname} is down; `ip link set dev {ifname} up`"
        return PortState.UP, ""

    def obstacle(self, name: str, device: Device) -> str:
        """Why the device cannot be taken for this owner in the space "port", with the command that mends it; "" when it
        can."""
        if not name.startswith(UNDERLAY):
            return unusable(device, uplink=name in self.uplinks)
        for port in self.ports.values():
            if device.ifname in (port.ifname, self.device_name(port)):
                return f"device {device.ifname} is port {port.id}; `vxagent port detach {port.id}`"
        if device.master:
            return f"device {device.ifname} is enslaved to {device.master}; name {device.master} in [overlay]"
        return ""


def unusable(device: Device, *, uplink: bool = False) -> str:
    """Why the switch cannot take this device, with the command that mends it; "" when it can.

    An uplink is the host's own NIC too, so it may have addresses.
    """
    name = device.ifname
    if name == "lo":
        return f"lo is the host's own; {'name a NIC instead' if uplink else 'make a veth or tap for the VM'}"
    if device.kind == "bridge":
        return f"device {name} is a bridge; take {'the NIC' if uplink else 'the tap or veth'} that is enslaved to it"
    if device.master:
        return f"device {name} is enslaved to {device.master}; free it with `ip link set dev {name} nomaster`"
    if not uplink and device.addresses:
        return (
            f"device {name} has the host's address {device.addresses[0]}, which its VM would reach; "
            f"remove it with `ip address flush dev {name}` or use an internal port"
        )
    return ""
