"""What must hold between objects. Each check looks at the state as it would be and refuses by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from vxagent.core.overlay import room_for
from vxagent.core.state import Owner, State, unusable
from vxagent.errors import Conflict, NotFound, Refused
from vxagent.model.binding import Projection
from vxagent.model.fdb import StaticEntry
from vxagent.model.ids import VLAN_VNIS
from vxagent.model.port import Mode, Port
from vxagent.model.segment import Segment
from vxagent.model.vtep import Vtep

T = TypeVar("T")

Changed = frozenset[Owner]


def check(state: State, touched: Iterable[Owner]) -> None:
    """Check the objects that were touched against all others.

    Raises:
        NotFound: one names an object that is not there.
        Conflict: two want the same.
    """
    changed = frozenset(touched)
    seen = {kind for kind, _ in changed}
    if "segment" in seen:
        _check_vlans_unique(state, changed)
        _check_vnis(state)
    if seen & {"port", "segment"}:
        _check_devices_unique(state, changed)
        _check_vlan_devices(state)
    for kind, name in touched:
        if kind == "port" and name in state.ports:
            _check_port(state, state.ports[name])
        elif kind == "segment" and name in state.segments:
            _check_trunks_through(state, name)
    if seen & {"port", "fdb", "segment"}:
        _check_macs_unique(state, changed)
        for entry in state.fdb.values():
            _check_entry(state, entry, new=("fdb", f"{entry.segment}/{entry.mac}") in changed)


def check_device(state: State, port: Port) -> None:
    """Refuse to attach a port to the underlay, or to a device that is there and that the switch cannot take.

    Raises:
        Refused: with what mends it.
    """
    _check_not_underlay(state, port)
    device = state.devices.get(port.ifname)
    if port.mode is Mode.INTERNAL:
        if device is not None and device.kind != "veth":
            raise Conflict(f"a device {port.ifname} is there already", "choose another name for the internal port")
        return
    why = unusable(device) if device is not None else ""
    if why:
        what, _, mend = why.partition("; ")
        raise Refused(what, mend)


def check_uplink(state: State, ifname: str) -> None:
    """Refuse an uplink whose device is there and cannot be taken.

    Raises:
        Refused: with the command that mends it.
    """
    device = state.devices.get(ifname)
    why = unusable(device, uplink=True) if device is not None else ""
    if why:
        what, _, mend = why.partition("; ")
        raise Refused(what, mend)


def check_vtep(state: State, address: str) -> None:
    """Refuse a VTEP that cannot be another host's, as this host's overlay is.

    Raises:
        Conflict: it is our own, or of another family.
    """
    if state.overlay is not None:
        _refuse(state.unreachable(state.vteps[address]))


def check_can_follow(state: State, told: Projection) -> None:
    """Refuse to have a VM come here which the frames for it could not follow: they do through a tunnel, whatever the
    segment is between hosts.

    Raises:
        Conflict: there is none from its host.
    """
    if told.owner == state.host:
        return
    mend = "give it an [overlay] in vxagent.toml"
    if state.overlay is None:
        raise Conflict(f"this host has no VTEP: what comes for the VM of port {told.port} could not follow it", mend)
    vtep = state.remote.vtep_of(told.owner)
    if vtep is None:
        what = f"host {told.owner} has no VTEP: what comes for the VM of port {told.port} could not follow it"
        raise Conflict(what, mend)
    _refuse(state.unreachable(Vtep(address=vtep)))


def check_overlay(state: State) -> None:
    """Refuse an overlay that does not go with what is desired.

    Raises:
        Conflict: a port has the device, a VTEP that was stated is our own or of another family.
    """
    if state.overlay is None:
        return
    for port in state.ports.values():
        if _is_underlay(state, port):
            raise Conflict(
                f"[overlay] names device {state.overlay.device}, which is port {port.id}",
                f"name another one, or `vxagent port detach {port.id}`",
            )
    for address in state.vteps:
        check_vtep(state, address)


def check_mtu(state: State, segment: Segment) -> None:
    """Refuse an MTU that is larger than what a tunnel takes.

    Raises:
        Refused: says how much it takes.
    """
    room = room_for(state, segment)
    if room is not None and segment.mtu > room:
        device = state.overlay.device if state.overlay is not None else ""
        raise Refused(
            f"MTU {segment.mtu} of segment {segment.name} is more than the {room} that a tunnel on {device} takes",
            f"use --mtu {room}, or give device {device} a larger one",
        )


def _is_underlay(state: State, port: Port) -> bool:
    return state.overlay is not None and state.overlay.device in (port.ifname, state.device_name(port))


def _check_not_underlay(state: State, port: Port) -> None:
    if _is_underlay(state, port):
        raise Conflict(
            f"device {port.ifname} is the underlay of the overlay, port {port.id} cannot have it",
            "name another device here, or in [overlay] of vxagent.toml",
        )


def _refuse(why: str) -> None:
    """Refuse for a reason with what mends it; "": do not."""
    if why:
        what, _, mend = why.partition("; ")
        raise Conflict(what, mend)


def check_unused(state: State, segment: str) -> None:
    """Refuse to delete a segment that ports or static entries are in.

    Raises:
        Conflict: it is in use.
    """
    ports = [p.id for p in state.ports.values() if any(name == segment for name, _ in p.memberships)]
    if ports:
        more = f" and {len(ports) - 3} more" if len(ports) > 3 else ""
        raise Conflict(
            f"segment {segment} is in use by port {', '.join(ports[:3])}{more}", "detach or move its ports first"
        )
    macs = [mac for name, mac in state.fdb if name == segment]
    if macs:
        raise Conflict(
            f"segment {segment} has the static entry {macs[0]}",
            f"remove it with `vxagent fdb del {macs[0]} --segment {segment}`",
        )


def _changed_last(objects: Iterable[T], is_changed: Callable[[T], bool]) -> list[T]:
    """Of two that want the same, the one that was there first has it, and the other is told so."""
    return sorted(objects, key=is_changed)


def _check_vlans_unique(state: State, changed: Changed) -> None:
    for field in ("vlan", "vni"):
        holders: dict[int, str] = {}
        for segment in _changed_last(state.segments.values(), lambda segment: ("segment", segment.name) in changed):
            number = getattr(segment, field)
            if number is None:
                continue
            if number in holders:
                raise Conflict(
                    f"{field} {number} is given to segment {holders[number]} already",
                    f"choose another {field} for {segment.name}",
                )
            holders[number] = segment.name


def _check_vnis(state: State) -> None:
    for segment in state.segments.values() if state.remote.on else ():
        if segment.vni is not None and segment.vni >= VLAN_VNIS:
            raise Conflict(
                f"VNI {segment.vni} of segment {segment.name} is the cluster's own",
                f"choose one below {VLAN_VNIS}; those from there on are for VMs that migrate in a VLAN",
            )


def _check_devices_unique(state: State, changed: Changed) -> None:
    holders: dict[str, str] = {}
    for port in _changed_last(state.ports.values(), lambda port: ("port", port.id) in changed):
        if port.ifname in state.uplinks:
            raise Conflict(
                f"device {port.ifname} would be port {port.id} and an uplink", "each needs a device of its own"
            )
        if ("port", port.id) in changed:
            _check_not_underlay(state, port)
        if port.id in state.uplinks:
            raise Conflict(f"{port.id} is the name of an uplink", "give the port another --id")
        if port.ifname in holders:
            raise Conflict(
                f"device {port.ifname} is port {holders[port.ifname]} already",
                f"port {port.id} needs a device of its own",
            )
        holders[port.ifname] = port.id


def _check_vlan_devices(state: State) -> None:
    vids = {s.vlan: s.name for s in state.segments.values() if s.vlan is not None}
    for ifname in state.uplinks:
        uplink = state.devices.get(ifname)
        for device in state.devices.values() if uplink is not None else ():
            if uplink is not None and device.vid in vids and device.lower == uplink.ifindex:
                raise Conflict(
                    f"VLAN {device.vid} of uplink {ifname} belongs to the host's device {device.ifname}, "
                    f"so segment {vids[device.vid]} cannot have it",
                    f"choose another VLAN or remove {device.ifname}",
                )


def _check_port(state: State, port: Port) -> None:
    tenants: dict[str, str] = {}
    for name, _ in port.memberships:
        if name not in state.segments:
            raise NotFound("segment", name, wanted_by=f"port {port.id}")
        tenants.setdefault(state.segments[name].tenant, name)
    if len(tenants) > 1:
        (one, first), (two, second) = list(tenants.items())[:2]
        raise Conflict(
            f"port {port.id} would join tenants {one} (segment {first}) and {two} (segment {second})",
            "a trunk carries the segments of one tenant only",
        )


def _check_trunks_through(state: State, segment: str) -> None:
    for port in state.ports.values():
        if port.mode is Mode.TRUNK and any(name == segment for name, _ in port.memberships):
            _check_port(state, port)


def _claims(state: State, changed: Changed) -> Iterator[tuple[tuple[str, str], str, bool]]:
    """((segment, MAC), who, changed) of every static MAC."""
    for port in state.ports.values():
        is_changed = ("port", port.id) in changed
        for mac in port.macs:
            for segment, _ in port.memberships:
                yield (segment, mac), port.id, is_changed
    for entry in state.fdb.values():
        is_changed = ("fdb", f"{entry.segment}/{entry.mac}") in changed
        place = entry.port if entry.vtep is None else f"VTEP {entry.vtep}"
        yield (entry.segment, entry.mac), f"{place} by `fdb add`", is_changed


def _check_macs_unique(state: State, changed: Changed) -> None:
    holders: dict[tuple[str, str], str] = {}
    for (segment, mac), who, _ in _changed_last(_claims(state, changed), lambda claim: claim[2]):
        if (segment, mac) in holders:
            raise Conflict(
                f"MAC {mac} is static in segment {segment} already, on port {holders[segment, mac]}",
                f"it cannot be on port {who} too",
            )
        holders[segment, mac] = who


def _check_entry(state: State, entry: StaticEntry, *, new: bool) -> None:
    """Where a segment is between hosts may change with the config: an entry that was there may name an uplink that has
    the segment no more, but no new one."""
    if entry.segment not in state.segments:
        raise NotFound("segment", entry.segment, wanted_by=f"entry {entry.mac}")
    if entry.vtep is not None:
        _check_vtep_of(state, entry, entry.vtep)
        return
    port = entry.port or ""
    if port not in state.ports and port not in state.uplinks:
        raise NotFound("port", port, wanted_by=f"entry {entry.mac}")
    if (new or port in state.ports) and all(name != entry.segment for name, _ in state.memberships(port)):
        raise Conflict(f"port {port} is not in segment {entry.segment}", f"entry {entry.mac} needs a port that is")


def _check_vtep_of(state: State, entry: StaticEntry, address: str) -> None:
    vtep, vni = state.vteps.get(address), state.segments[entry.segment].vni
    if vtep is None:
        raise NotFound("vtep", address, wanted_by=f"entry {entry.mac}")
    if vni is None:
        raise Conflict(
            f"segment {entry.segment} has no VNI, so entry {entry.mac} cannot be at VTEP {address}",
            f"give it one: `vxagent segment set {entry.segment} --vni VNI`",
        )
    if vni not in vtep.vnis:
        raise Conflict(
            f"VTEP {address} does not have VNI {vni} of segment {entry.segment}, which entry {entry.mac} asks for",
            f"give it this one too: `vxagent vtep set {address} --vni …`",
        )
