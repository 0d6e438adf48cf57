"""From a draft to effects: the difference between the rows that are and those that should be.

The order keeps the promises: what is saved comes first, so that a crash after it is completed at the next
start; a device is made quiet before anything is sent to it; tables are filled before a program runs, and the
program goes before they are emptied; what waits for nobody (flushing, counters) comes last.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from vxagent.core import queues
from vxagent.core.compile import device_of, rows_of
from vxagent.core.effects import (
    Attach,
    Detach,
    Document,
    Effect,
    Finish,
    InternalPair,
    MakeInternal,
    RemoveInternal,
    Save,
    SetDevice,
    SetQueue,
    SetXdp,
    Xdp,
)
from vxagent.core.hooks import choose
from vxagent.core.neighbours import Neighbours, claims_of
from vxagent.core.numbers import UNDERLAY, owner_of, slots_for
from vxagent.core.ownership import take
from vxagent.core.row_changes import consequences, row_changes
from vxagent.core.saved import documents_of
from vxagent.core.state import Attachment, Before, Owner, State, internal_mac, internal_peer
from vxagent.core.tables import OverlayRow, Table
from vxagent.core.unfinished import UNFINISHED
from vxagent.core.unfinished import to_document as unfinished_document
from vxagent.model.device import Device
from vxagent.model.port import Mode, Port


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done, in order, and the state of the switch once it is."""

    state: State
    effects: tuple[Effect, ...]


def make_plan(
    base: State,
    state: State,
    touched: dict[Owner, None],
    *,
    again: Collection[str] = (),
    make_missing: bool = False,
    letting_go: bool = False,
) -> Plan:
    """The plan that leads from one state to another.

    Args:
        base: what is.
        state: what is desired; its numbers, rows and attachments are brought up to it here.
        touched: the objects that may differ, as (kind, name); of kind "port" are all owners in that space.
        again: owners in the space "port" at whose devices not all runs that should.
        make_missing: make the devices of internal ports that are not there, and mend those that are not as they should
            be.
        letting_go: take the programs off all touched ports and leave the tables alone: they go as a whole.

    Raises:
        Refused: numbers run out.
    """
    return _Planner(base, state, touched, again, make_missing, letting_go).plan()


class _Planner:
    """Gathers the parts of one plan; each method fills its own."""

    def __init__(
        self,
        base: State,
        state: State,
        touched: dict[Owner, None],
        again: Collection[str],
        make_missing: bool,
        letting_go: bool,
    ) -> None:
        self.base = base
        self.state = state
        self.touched = dict(touched)
        self.lacking = again
        self.make_missing = make_missing
        self.letting_go = letting_go
        self.made: list[Effect] = []
        self.quiet: list[Effect] = []
        self.detached: list[Effect] = []
        self.attached: list[Effect] = []
        self.attached_again: list[Effect] = []
        self.attached_xdp: list[Effect] = []
        self.detached_xdp: list[Effect] = []
        self.restored: list[Effect] = []
        self.removed: list[Effect] = []
        self.left: dict[int, tuple[Before, bool]] = {}  # ifindex → how the device was set before; it was an uplink's

    def plan(self) -> Plan:
        self._hand_over()
        for kind, name in list(self.touched):
            if kind == "port":
                self._number_port(name)
                self._touch_claims(name)
        ports = [name for kind, name in self.touched if kind == "port"]
        for name in ports:
            self._leave(name)
        for name in ports:
            self._place(name)
        self._restore()
        rows, consequences = ([], []) if self.letting_go else self._rows()
        self._release_numbers()
        kept = self._unfinished(consequences)
        effects = (
            *self._save(kept),
            *self.made,
            *self.quiet,
            *self.detached_xdp,
            *self.detached,
            *rows,
            *self.attached,
            *self.attached_xdp,
            *self.restored,
            *self.removed,
            *self.attached_again,
            *consequences,
            *([Finish()] if kept else []),
        )
        return Plan(state=self.state, effects=effects)

    def _unfinished(self, consequences: list[Effect]) -> Document | None:
        """What a start has to know of this plan if the agent dies in it, beside what it sees."""
        taken = [effect for effect in (*self.attached, *self.attached_xdp) if isinstance(effect, SetDevice)]
        lengthened = [effect for effect in self.quiet if isinstance(effect, SetQueue)]
        here = (*lengthened, *self.detached, *self.restored, *self.removed, *consequences, *taken)
        self.state.unfinished = ()
        return unfinished_document((*self.base.unfinished, *here))

    def _hand_over(self) -> None:
        """The underlay device becomes an uplink, or is one no longer: its handle stays, so that the program does, and
        tunnels lose no frame."""
        old, new = self.base.underlay, self.state.underlay
        at = self.state.attached.get(self.state.numbers.number("port", old))
        device = device_of(self.state, new)
        if old == new or device is None or at != (device.ifindex, device.ifname) or self.letting_go:
            return
        for space in ("port", "counter"):
            self.state.numbers.rename(space, old, new)
        if new in self.state.uplinks:
            before = Before(ifindex=device.ifindex, arp=device.arp, ipv6=device.ipv6, promisc=device.promisc)
            self.state.before[device.ifname] = before
            self.attached.append(self._set(device, up=True, promisc=True))
        elif device.ifname in self.state.before:
            self.left[device.ifindex] = (self.state.before.pop(device.ifname), True)

    # Numbers

    def _number_port(self, name: str) -> None:
        """Give an owner in the space "port" its handle, slots and counters, and take back those of segments that it
        left. Static entries that name it count where it is a member."""
        numbers = self.state.numbers
        now = {segment for segment, _ in self.state.memberships(name)} if self.state.exists(name) else set()
        was = {segment for segment, _ in self.base.memberships(name)} if self.base.exists(name) else set()
        for segment in was - now:
            numbers.release(slots_for(name, segment), name)
            numbers.release("counter", f"{name}/{segment}")
            self.touched["segment", segment] = None
        if was != now:
            entries = (entry for entry in self.state.fdb.values() if owner_of(entry) == name)
            self.touched |= {("fdb", f"{entry.segment}/{entry.mac}"): None for entry in entries}
        if not self.state.exists(name):
            return
        numbers.take("port", name)
        numbers.take("counter", name)
        for segment in sorted(now):
            numbers.take(slots_for(name, segment), name)
            numbers.take("counter", f"{name}/{segment}")
            if segment not in was:
                self.touched["segment", segment] = None

    def _touch_claims(self, name: str) -> None:
        """Of a port that changes, look anew at the addresses that it lists, or has listed, and where."""
        old, new = self.base.ports.get(name), self.state.ports.get(name)
        if old == new:
            return
        for port in (old, new):
            for segment, address in claims_of(port) if port is not None else ():
                self.touched["neighbour", f"{segment}/{address}"] = None
                self.touched["segment", segment] = None
        if old is not None and new is not None and old.dhcp_snoop != new.dhcp_snoop:
            for segment, _ in new.memberships:
                self.touched["segment", segment] = None

    def _release_numbers(self) -> None:
        """Take back the handles of what is gone; its rows, which needed them, are planned by now."""
        for kind, name in self.touched:
            if kind == "port" and not self.state.exists(name):
                self.state.numbers.release("port", name)
                self.state.numbers.release("counter", name)
            elif kind == "segment" and name not in self.state.segments:
                self.state.numbers.release("segment", name)

    # Devices

    def _target(self, name: str) -> Device | None:
        """The device on which a port's program should run."""
        stays = self.state.exists(name) and not self.letting_go
        return device_of(self.state, name) if stays else None

    def _leave(self, name: str) -> None:
        """Let go of a device on which a port's program should not run."""
        handle = self.state.numbers.number("port", name)
        device = self._target(name)
        at = self.state.attached.get(handle)
        if at is not None and (device is None or at != (device.ifindex, device.ifname)):
            self._set_xdp(self.detached_xdp, handle, at, Xdp.NONE)
            self._let_go(name, handle, at)
        elif at is None and self.letting_go:
            self._put_back(name)

    def _place(self, name: str) -> None:
        """Bring a port's program to where it should run. All that had to leave a device have done so."""
        handle = self.state.numbers.number("port", name)
        device = self._target(name)
        target = (device.ifindex, device.ifname) if device is not None else None
        if device is not None and self.state.attached.get(handle) != target:
            self._take(name, handle, device)
        elif device is not None and self._is_underlay_anew(name):
            self.attached_again.append(Attach(handle=handle, ifindex=device.ifindex, ifname=device.ifname, again=True))
        if target is not None:
            self.quiet += queues.lengthen(self.state, name, self.state.devices[target[1]])
            self._bring_tags(name, self.state.devices[target[1]])
            choice = choose(self.state, name, self.state.devices[target[1]])
            self._set_xdp(self.attached_xdp, handle, target, choice.xdp)
        if name in self.state.ports or name in self.base.ports:
            self._internal(name, device)

    def _is_underlay_anew(self, name: str) -> bool:
        """A device on which the program goes on running has become the underlay, or is it no longer."""
        there = self.state.rows.get((Table.OVERLAY, 0))
        was = isinstance(there, OverlayRow) and there.port == self.state.numbers.number("port", name)
        return name in self.lacking or was != (name == self.state.underlay)

    def _take(self, name: str, handle: int, device: Device) -> None:
        attach = Attach(handle=handle, ifindex=device.ifindex, ifname=device.ifname)
        self.state.attached[handle] = (device.ifindex, device.ifname)
        if name == self.state.underlay and name not in self.state.uplinks:  # the host's own, which stays as it is
            self.attached.append(attach)
            return
        known, as_uplink = self.left.get(device.ifindex, (self.state.before.get(device.ifname), False))
        if as_uplink == (name in self.state.uplinks):  # else what the other kind sets is put back all the same
            self.left.pop(device.ifindex, None)
        if known is None or known.ifindex != device.ifindex:
            known = Before(ifindex=device.ifindex, arp=device.arp, ipv6=device.ipv6, promisc=device.promisc)
        self.state.before[device.ifname] = known
        if name in self.state.uplinks:
            self.attached += [attach, self._set(device, up=True, promisc=True)]
        else:
            self.quiet.append(self._set(device, arp=False, ipv6=False))
            self.attached += [attach, self._set(device, up=True)]

    def _bring_tags(self, name: str, device: Device) -> None:
        """Have an uplink's NIC leave VLAN tags in frames, where XDP could run if it did: there it sees nothing else.
        Once: who turns it on again wants it so."""
        known = self.state.before.get(device.ifname)
        if name not in self.state.uplinks or not device.rxvlan or device.rxvlan_fixed or known is None or known.rxvlan:
            return
        if Xdp.SENDS in choose(self.state, name, replace(device, rxvlan=False)).xdp:
            self.attached_xdp.append(self._set(device, rxvlan=False))
            self.state.before[device.ifname] = replace(known, rxvlan=True)

    def _set_xdp(self, effects: list[Effect], handle: int, at: Attachment, xdp: Xdp) -> None:
        """Have XDP do this at a device."""
        old = self.state.xdp.pop(handle, Xdp.NONE)
        if xdp:
            self.state.xdp[handle] = xdp
        if xdp != old:
            ifindex, ifname = at
            effects.append(SetXdp(handle=handle, ifindex=ifindex, ifname=ifname, xdp=xdp, old=old))

    def _let_go(self, name: str, handle: int, at: tuple[int, str]) -> None:
        ifindex, ifname = at
        device = next((d for d in self.state.devices.values() if d.ifindex == ifindex), None)
        before = self.state.before.pop(ifname, None)
        uplink = name in self.base.uplinks
        if device is not None and not uplink and not name.startswith(UNDERLAY):
            self.detached.append(self._set(device, up=False))
        self.detached.append(Detach(handle=handle, ifindex=ifindex, ifname=ifname))
        if before is not None:
            self.left[ifindex] = (before, uplink)
        del self.state.attached[handle]

    def _restore(self) -> None:
        """Put back what was set on devices that no other port has taken meanwhile, under another name perhaps."""
        by_index = {device.ifindex: device for device in self.state.devices.values()}
        for ifindex, (before, uplink) in self.left.items():
            device = by_index.get(ifindex)
            if device is None:
                continue
            back = {"promisc": before.promisc} if uplink else {"arp": before.arp, "ipv6": before.ipv6}
            if uplink and before.rxvlan and not device.rxvlan:
                back["rxvlan"] = True
            self.restored.append(self._set(device, **back))
            if not uplink:
                self.restored += queues.put_back(self.state, before, device)

    def _put_back(self, name: str) -> None:
        """An agent died before the program ran on the device that it had begun to take."""
        if name.startswith(UNDERLAY):
            return
        ifname = self.state.device_of(name)
        device, before = self.state.devices.get(ifname), self.state.before.get(ifname)
        if before is not None and device is not None and device.ifindex == before.ifindex:
            self.left[device.ifindex] = (self.state.before.pop(ifname), name in self.base.uplinks)

    def _set(self, device: Device, **wanted: Any) -> SetDevice:
        """Set these flags; the undo is how netlink showed them. Netlink will show what is set here: it is known now."""
        names = ("up", "arp", "ipv6", "promisc", "rxvlan")
        undo = tuple(getattr(device, name) if name in wanted else None for name in names)
        self.state.devices[device.ifname] = replace(self.state.devices[device.ifname], **wanted)
        return SetDevice(ifindex=device.ifindex, ifname=device.ifname, undo=undo, **wanted)

    def _internal(self, name: str, device: Device | None) -> None:
        """Make, change or remove the veth pair of an internal port."""
        port, old = self.state.ports.get(name), self.base.ports.get(name)
        if port is not None and port.mode is Mode.INTERNAL and not self.letting_go:
            pair = _pair(self.state, port)
            was = self._pair_there(port, device) if device is not None else None
            if was != pair and (was is not None or self.make_missing):
                self.made.append(MakeInternal(pair=pair, old=was))
        elif old is not None and old.mode is Mode.INTERNAL:
            self.removed.append(RemoveInternal(pair=_pair(self.base, old)))

    def _pair_there(self, port: Port, device: Device) -> InternalPair:
        """The pair of which `device` is the switch's side, as it was planned or, to mend it, as its devices show it."""
        old, pair = self.base.ports.get(port.id), _pair(self.state, port)
        if old is not None and old.mode is Mode.INTERNAL and old.ifname == port.ifname:
            pair = _pair(self.base, old)
        if self.make_missing:
            pair = replace(pair, mtu=device.mtu)
            host = self.state.devices.get(port.ifname)
            if host is not None and not device.peer_elsewhere and port.macs and host.mac not in port.macs:
                pair = replace(pair, mac=host.mac)
        return pair

    # Rows

    def _rows(self) -> tuple[list[Effect], list[Effect]]:
        """Row effects, deletions first, and what follows from them."""
        neighbours = Neighbours(self.state.ports.values())
        was, now = take(self.state, {owner: rows_of(self.state, neighbours, owner) for owner in self.touched})
        changes = row_changes(self.state.rows, was, now)
        for rowkey in was.keys() - now.keys():
            self.state.rows.pop(rowkey, None)
        self.state.rows.update(now)
        return changes, consequences(was, now)

    # The store

    def _save(self, kept: Document | None) -> list[Effect]:
        """What is desired from now on, and, as `kept`, what that makes necessary."""
        new, old = documents_of(self.state, self.touched), documents_of(self.base, self.touched)
        put = {key: document for key, document in new.items() if old.get(key) != document}
        delete = tuple(key for key in old if key not in new)
        was = unfinished_document(self.base.unfinished)
        if was is not None:
            old[UNFINISHED] = was
        if kept is not None and kept != was:
            put[UNFINISHED] = kept
        elif kept is None and (put or delete):  # it is there if the last change could not remove it
            delete = (*delete, UNFINISHED)
        if not put and not delete:
            return []
        return [Save(put=put, delete=delete, old={key: old.get(key) for key in (*put, *delete)})]


def _pair(state: State, port: Port) -> InternalPair:
    return InternalPair(
        ifname=port.ifname,
        peer=internal_peer(port.ifname),
        mac=internal_mac(state.host, port),
        mtu=state.segments[port.segment or ""].mtu,
    )
