"""What is desired, what is there, and the rows that follow from both."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

from vxagent.core.effects import Effect, Xdp
from vxagent.core.numbers import Numbers
from vxagent.core.tables import Rows
from vxagent.errors import NotFound
from vxagent.model.device import Device
from vxagent.model.fdb import StaticEntry
from vxagent.model.lease import Lease
from vxagent.model.port import Mode, Port, PortState, Uplink
from vxagent.model.segment import Segment

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
    """

    ifindex: int
    arp: bool
    ipv6: bool
    promisc: bool
    rxvlan: bool = False


@dataclass(slots=True, kw_only=True)
class State:
    """A snapshot of the switch. Not changed any more once it is the switch's own.

    Attributes:
        host: the host's name.
        ageing_s: learned FDB entries not seen for longer are absent; 0: never.
        segments, ports, uplinks: desired, by name, id and ifname.
        fdb: desired static entries, by (segment, MAC).
        leases: as last seen, by port id; of ports that are held to them.
        numbers: handles, slots, counters.
        before: by ifname.
        unfinished: what the agent before this one may not have done to the end.
        devices: by ifname, as netlink last showed them.
        rows: what the kernel's tables hold.
        owned: which rows belong to whom.
        attached: port handle → device that its program runs on.
        xdp: port handle → what XDP does there, where it does anything.
    """

    host: str = ""
    ageing_s: int = DEFAULT_AGEING_S
    segments: dict[str, Segment] = field(default_factory=dict)
    ports: dict[str, Port] = field(default_factory=dict)
    uplinks: dict[str, Uplink] = field(default_factory=dict)
    fdb: dict[tuple[str, str], StaticEntry] = field(default_factory=dict)
    leases: dict[str, tuple[Lease, ...]] = field(default_factory=dict)
    numbers: Numbers = field(default_factory=Numbers)
    before: dict[str, Before] = field(default_factory=dict)
    unfinished: tuple[Effect, ...] = ()
    devices: dict[str, Device] = field(default_factory=dict)
    rows: Rows = field(default_factory=dict)
    owned: dict[Owner, Rows] = field(default_factory=dict)
    attached: dict[int, Attachment] = field(default_factory=dict)
    xdp: dict[int, Xdp] = field(default_factory=dict)

    def copy(self) -> State:
        """A copy that can change on its own; the values in it are immutable and shared."""
        return replace(
            self,
            segments=dict(self.segments),
            ports=dict(self.ports),
            uplinks=dict(self.uplinks),
            fdb=dict(self.fdb),
            leases=dict(self.leases),
            numbers=self.numbers.copy(),
            before=dict(self.before),
            devices=dict(self.devices),
            rows=dict(self.rows),
            owned=dict(self.owned),
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
        """Number → owner for the space "port" (port ids and uplink device names) or "segment"."""
        return {number: owner for (at, owner), number in self.numbers.given.items() if at == space}

    def counters_of(self, name: str) -> dict[str | None, int]:
        """Segment name (None: no segment) → index into traffic, for a port id or an uplink's device."""
        segments = [segment for segment, _ in self.memberships(name)]
        found: dict[str | None, int] = {None: self.numbers.number("counter", name)}
        for segment in segments:
            found[segment] = self.numbers.number("counter", f"{name}/{segment}")
        return found

    def memberships(self, name: str) -> tuple[tuple[str, int], ...]:
        """(segment, VID) of a port or an uplink, VID 0 untagged. An uplink carries every segment with a VLAN."""
        port = self.ports.get(name)
        if port is not None:
            return port.memberships
        return tuple((s.name, s.vlan) for s in self.segments.values() if s.vlan is not None)

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
        return self._attachment_state(handle, name)

    def uplink_state(self, ifname: str) -> tuple[PortState, str]:
        """The uplink's state, and why where it is not up. Raises NotFound."""
        return self._attachment_state(self.handle_of_uplink(ifname), ifname, uplink=True)

    def _attachment_state(self, handle: int, ifname: str, *, uplink: bool = False) -> tuple[PortState, str]:
        device = self.devices.get(ifname)
        if handle not in self.attached:
            if device is None:
                return PortState.PENDING, f"device {ifname} is not there"
            return PortState.PENDING, unusable(device, uplink=uplink) or f"device {ifname} could not be attached"
        if device is not None and not device.up:
            return PortState.DOWN, f"device {ifname} is down; `ip link set dev {ifname} up`"
        return PortState.UP, ""


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
