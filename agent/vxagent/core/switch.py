"""The switch's decisions: a draft takes commands and events, its plan says what is to be done.

Nothing here looks at a clock, a socket or the kernel. A draft works on a copy; a refusal leaves the switch as
it was, and so does a plan whose effects fail, because only `commit` makes the plan's state the switch's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from vxagent.core import affected
from vxagent.core.checks import check, check_device, check_mtu, check_unused, check_uplink, check_vtep
from vxagent.core.document import Change, Contents, Desired, changes_of
from vxagent.core.effects import Document
from vxagent.core.leases import is_same
from vxagent.core.numbers import vtep_owner
from vxagent.core.overlay import fitting_mtu
from vxagent.core.plan import Plan, make_plan
from vxagent.core.remote import Remote
from vxagent.core.saved import load_state
from vxagent.core.state import Owner, State
from vxagent.errors import Conflict, NotFound
from vxagent.model.device import Device
from vxagent.model.fdb import StaticEntry
from vxagent.model.ids import check_range
from vxagent.model.lease import Lease
from vxagent.model.port import Mode, Port, Uplink
from vxagent.model.segment import FITTING_MTU, Segment
from vxagent.model.vtep import Overlay, Vtep

AGEING_MAX_S = 1_000_000  # IEEE 802.1Q-2018, table 8-6


class Switch:
    """Holds the state of one switch.

    Args:
        documents: what the store holds.
        host: the host's name.

    Raises:
        StoreError: a document that this version did not write.
    """

    def __init__(self, documents: dict[tuple[str, str], Document], *, host: str = "") -> None:
        self.state = replace(load_state(documents), host=host)

    def draft(self) -> Draft:
        """Begin a change."""
        return Draft(self.state)

    def commit(self, plan: Plan) -> None:
        """The plan's effects are done: its state is the switch's."""
        self.state = plan.state


class Draft:
    """A change being made. Methods that refuse raise Invalid, NotFound, Conflict or Refused.

    Attributes:
        state: the state as it would be.
    """

    def __init__(self, base: State) -> None:
        self.base = base
        self.state = base.copy()
        self.touched: dict[Owner, None] = {}
        self.again: set[str] = set()
        self.make_missing = False
        self.letting_go = False

    # Segments

    def add_segment(self, segment: Segment) -> bool:
        """Add a segment; False when it was there, unchanged."""
        segment = self._fitting(segment)
        if not self._is_new("segment", segment.name, self.state.segments.get(segment.name), segment):
            return False
        self._put_segment(segment)
        self._check()
        return True

    def set_segment(self, name: str, **changes: Any) -> None:
        """Change fields of a segment."""
        self.state.handle_of_segment(name)
        self._put_segment(self._fitting(replace(self.state.segments[name], **changes)))
        self._check()

    def delete_segment(self, name: str) -> None:
        """Delete a segment that nobody uses."""
        self.state.handle_of_segment(name)
        check_unused(self.state, name)
        self._drop_segment(name)

    # Ports

    def attach_port(self, port: Port) -> bool:
        """Plug in a port, its device may come later; False when it was there, unchanged."""
        if not self._is_new("port", port.id, self.state.ports.get(port.id), port):
            return False
        self._put_port(port)
        self._check()
        return True

    def set_port(self, port_id: str, **changes: Any) -> None:
        """Change fields of a port; `segment` makes it an access port, `trunk` a trunk port."""
        self.state.handle_of_port(port_id)
        old = self.state.ports[port_id]
        if changes.get("segment") is not None and old.mode is Mode.TRUNK:
            changes = {"mode": Mode.ACCESS, "trunk": (), "native": None, **changes}
        elif changes.get("trunk") and old.mode is not Mode.TRUNK:
            if old.mode is Mode.INTERNAL:
                raise Conflict(f"port {port_id} is internal", "an internal port is in one segment")
            changes = {"mode": Mode.TRUNK, "segment": None, **changes}
        self._put_port(replace(old, **changes))
        self._check()

    def detach_port(self, port_id: str) -> None:
        """Unplug a port; static entries that point to it go with it."""
        self.state.handle_of_port(port_id)
        self._drop_port(port_id)

    # Uplinks

    def add_uplink(self, uplink: Uplink) -> bool:
        """Add an uplink; False when it was there, unchanged."""
        if not self._is_new("uplink", uplink.ifname, self.state.uplinks.get(uplink.ifname), uplink):
            return False
        self._put_uplink(uplink)
        self._check()
        return True

    def delete_uplink(self, ifname: str) -> None:
        """Remove an uplink; static entries that point to it go with it."""
        self.state.handle_of_uplink(ifname)
        self._drop_uplink(ifname)

    # VTEPs

    def add_vtep(self, vtep: Vtep) -> bool:
        """State the VTEP of another host; False when it was stated, unchanged."""
        if not self._is_new("vtep", vtep.address, self.state.vteps.get(vtep.address), vtep):
            return False
        self._put_vtep(vtep)
        self._check()
        return True

    def set_vtep(self, address: str, **changes: Any) -> None:
        """Change fields of a VTEP."""
        self._put_vtep(replace(self._vtep(address), **changes))
        self._check()

    def delete_vtep(self, address: str) -> None:
        """Forget a VTEP; static entries that name it go with it."""
        self._drop_vtep(self._vtep(address))

    def _vtep(self, address: str) -> Vtep:
        if address not in self.state.vteps:
            raise NotFound("vtep", address)
        return self.state.vteps[address]

    # FDB

    def add_fdb(self, entry: StaticEntry) -> bool:
        """Add a static entry; False when it was there, unchanged."""
        key = (entry.segment, entry.mac)
        if not self._is_new("fdb entry", entry.mac, self.state.fdb.get(key), entry):
            return False
        self._put_fdb(entry)
        self._check()
        return True

    def delete_fdb(self, segment: str, mac: str) -> None:
        """Remove a static entry."""
        if (segment, mac) not in self.state.fdb:
            raise NotFound("fdb entry", f"{mac} in segment {segment} that `fdb add` made")
        self._drop_fdb((segment, mac))

    # The whole

    def apply(self, contents: Contents, *, prune: bool = False) -> list[Change]:
        """Make the desired state that of a document, all or nothing; return what that changed.

        Args:
            contents: the document.
            prune: remove also what no `apply` made.
        """
        contents = replace(contents, segments=tuple(map(self._fitting, contents.segments)))
        changes = changes_of(self.state, contents, prune=prune)
        for change in reversed(changes):
            if change.old is not None and change.new is None:
                self._drop(change.old)
        for change in changes:
            if change.new is not None:
                self._put(change.new)
        for entry in contents.fdb:
            if (entry.segment, entry.mac) not in self.state.fdb:
                self._put(entry)  # it went with a port that is removed; the check below names that port
        for change in changes:
            if change.kind == "segment" and change.new is None:
                check_unused(self.state, change.name)
        self._check()
        return changes

    def set_ageing(self, seconds: int) -> None:
        """Set after how many seconds a learned entry counts as absent; 0: never."""
        self.state.ageing_s = check_range("ageing_s", seconds, 0, AGEING_MAX_S)
        self._touch("settings", "")

    def overlay_read(self, overlay: Overlay | None) -> None:
        """This is this host's part in the overlay now, whatever else is desired."""
        if overlay == self.state.overlay:
            return
        self._touch_all(affected.overlay(self.state))
        self.state.overlay = overlay
        self._touch_all(affected.overlay(self.state))

    def cluster_says(self, remote: Remote) -> None:
        """This is what the cluster says now."""
        old, self.state.remote = self.state.remote, remote
        if old is not remote:
            self._touch_all(affected.cluster(old, remote, self.state))

    # The machine

    def links_read(self, devices: Iterable[Device]) -> None:
        """All devices were read anew."""
        now = {device.ifname: device for device in devices}
        was, self.state.devices = self.state.devices, now
        changed = {name for name in was.keys() | now.keys() if was.get(name) != now.get(name)}
        self._touch_all(affected.devices(self.state, changed))

    def link_changed(self, ifindex: int, device: Device | None) -> None:
        """A device came or changed, or (None) the one with this ifindex went."""
        for old in [d for d in self.state.devices.values() if d.ifindex == ifindex]:
            if device is None or old.ifname != device.ifname:
                del self.state.devices[old.ifname]
                self._touch_all(affected.devices(self.state, {old.ifname}))
        if device is not None and self.state.devices.get(device.ifname) != device:
            self.state.devices[device.ifname] = device
            self._touch_all(affected.devices(self.state, {device.ifname}))

    def leases_seen(self, leases: Mapping[str, tuple[Lease, ...]]) -> None:
        """These are the leases now, by port id."""
        for port in self.state.ports.values():
            seen = leases.get(port.id, ()) if port.dhcp_snoop else ()
            if not is_same(self.state.leases.get(port.id, ()), seen):
                self._keep_leases(port.id, seen)

    def take_off(self) -> None:
        """Let go of every device; what is desired stays."""
        self.letting_go = True
        for name in (*self.state.ports, *self.state.between):
            self._touch("port", name)

    def plan(self) -> Plan:
        """What is to be done, and the state that follows."""
        return make_plan(
            self.base,
            self.state,
            self.touched,
            again=self.again,
            make_missing=self.make_missing,
            letting_go=self.letting_go,
        )

    # How objects get into and out of the state, unchecked

    def _put(self, new: Desired) -> None:
        match new:
            case Segment():
                self._put_segment(new)
            case Port():
                self._put_port(new)
            case Uplink():
                self._put_uplink(new)
            case Vtep():
                self._put_vtep(new)
            case StaticEntry():
                self._put_fdb(new)

    def _drop(self, old: Desired) -> None:
        match old:
            case Segment():
                self._drop_segment(old.name)
            case Port():
                self._drop_port(old.id)
            case Uplink():
                self._drop_uplink(old.ifname)
            case Vtep():
                self._drop_vtep(old)
            case StaticEntry():
                self._drop_fdb((old.segment, old.mac))

    def _fitting(self, segment: Segment) -> Segment:
        """The segment with an MTU, where it asks for none."""
        return replace(segment, mtu=fitting_mtu(self.state, segment)) if segment.mtu == FITTING_MTU else segment

    def _put_segment(self, segment: Segment) -> None:
        old = self.state.segments.get(segment.name)
        if old is None or (old.mtu, old.vni) != (segment.mtu, segment.vni):
            check_mtu(self.state, segment)
        self.state.segments[segment.name] = segment
        self.state.numbers.take("segment", segment.name)
        self._touch("segment", segment.name)
        was = (old.vlan, old.vni) if old is not None else (None, None)
        if was != (segment.vlan, segment.vni):
            self._touch_all(affected.between(self.state, {segment.vni, was[1]}))
        if old is not None and old.mtu != segment.mtu:
            self._touch_all(affected.members(self.state, segment.name))

    def _drop_segment(self, name: str) -> None:
        gone = self.state.segments.pop(name)
        self._touch_all(affected.between(self.state, {gone.vni}))
        self._touch("segment", name)

    def _put_port(self, port: Port) -> None:
        old = self.state.ports.get(port.id)
        if old is None:
            check_device(self.state, port)
            self.make_missing = True
        self.state.ports[port.id] = port
        self._touch("port", port.id)
        self._touch_all(affected.told(self.state, port.id))
        if old is not None and old.ifname != port.ifname:
            self._touch_all(affected.underlay(self.state, old.ifname))
        if not port.dhcp_snoop:
            self._keep_leases(port.id, ())

    def _drop_port(self, port_id: str) -> None:
        gone = self.state.ports.pop(port_id)
        self._touch("port", port_id)
        self._touch_all(affected.told(self.state, port_id))
        self._touch_all(affected.underlay(self.state, gone.ifname))  # which the port has kept from it
        self._keep_leases(port_id, ())
        self._drop_entries(lambda entry: entry.port == port_id)

    def _keep_leases(self, port_id: str, leases: tuple[Lease, ...]) -> None:
        if leases:
            self.state.leases[port_id] = leases
        elif self.state.leases.pop(port_id, None) is None:
            return
        self._touch("lease", port_id)

    def _put_uplink(self, uplink: Uplink) -> None:
        self._touch_all(affected.underlay(self.state, uplink.ifname))
        self.state.uplinks[uplink.ifname] = uplink
        check_uplink(self.state, uplink.ifname)
        self._touch("port", uplink.ifname)
        self._touch_all(affected.underlay(self.state, uplink.ifname))

    def _drop_uplink(self, ifname: str) -> None:
        self._touch_all(affected.underlay(self.state, ifname))
        del self.state.uplinks[ifname]
        self._touch("port", ifname)
        self._touch_all(affected.underlay(self.state, ifname))
        self._drop_entries(lambda entry: entry.port == ifname)

    def _put_vtep(self, vtep: Vtep) -> None:
        self.state.vteps[vtep.address] = vtep
        check_vtep(self.state, vtep.address)
        self._touch("port", vtep_owner(vtep.address))
        self._touch_all(affected.between(self.state))

    def _drop_vtep(self, vtep: Vtep) -> None:
        del self.state.vteps[vtep.address]
        self._touch("port", vtep_owner(vtep.address))
        self._touch_all(affected.between(self.state))
        self._drop_entries(lambda entry: entry.vtep == vtep.address)

    def _put_fdb(self, entry: StaticEntry) -> None:
        self.state.fdb[entry.segment, entry.mac] = entry
        self._touch("fdb", f"{entry.segment}/{entry.mac}")

    def _drop_fdb(self, key: tuple[str, str]) -> None:
        if self.state.fdb.pop(key, None) is not None:
            self._touch("fdb", "/".join(key))

    def _drop_entries(self, goes: Callable[[StaticEntry], bool]) -> None:
        for key in [k for k, entry in self.state.fdb.items() if goes(entry)]:
            self._drop_fdb(key)

    def _touch(self, kind: str, name: str) -> None:
        self.touched[kind, name] = None

    def _touch_all(self, owners: Iterable[Owner]) -> None:
        self.touched |= dict.fromkeys(owners)

    def _check(self) -> None:
        check(self.state, tuple(self.touched))

    @staticmethod
    def _is_new(kind: str, name: str, old: Desired | None, new: Desired) -> bool:
        """Whether it is to be added; what is there unchanged is not, what differs is refused."""
        if old is None:
            return True
        if old == replace(new, applied=old.applied):
            return False
        verb = "set" if kind in ("segment", "port", "vtep") else "del"
        raise Conflict(
            f"{kind} {name} is there already and differs", f"use `vxagent {kind.split(maxsplit=1)[0]} {verb}`"
        )
