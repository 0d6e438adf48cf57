"""Make the kernel what the state says, by difference, never by flush.

At start the kernel may hold everything (the agent was restarted), nothing (the machine was) or half of it (the
agent was killed in the middle of a change). All three are one case: take what the kernel holds as what is, and
plan from there. What the kernel does not show of a change that was cut in two is done first (`core.unfinished`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from vxagent.core import affected
from vxagent.core.effects import Detach, Effect, Finish, RemoveInternal, SetDevice, SetQueue, SetXdp, Xdp
from vxagent.core.leases import restored
from vxagent.core.neighbours import claims_of
from vxagent.core.numbers import vtep_owner
from vxagent.core.plan import Plan
from vxagent.core.queues import WAITING_FRAMES
from vxagent.core.state import State
from vxagent.core.switch import Switch
from vxagent.core.tables import PortMode, PortRow, Rows, Table
from vxagent.model.device import Device
from vxagent.model.vtep import Overlay

_ORPHANS = ("orphans", "")


def reconcile(
    switch: Switch,
    devices: Iterable[Device],
    rows: Rows,
    attached: dict[int, int],
    xdp: dict[int, Xdp],
    *,
    ageing_s: int,
    fdb_entries: int,
    now: float,
    overlay: Overlay | None = None,
    lacking: Collection[int] = (),
) -> Plan:
    """The plan that makes the kernel's tables and links those of the switch's desired state.

    Args:
        switch: as loaded from the store, or running.
        devices: all devices, as netlink shows them now.
        rows: what the kernel's tables hold.
        attached: port handle → ifindex of each program that runs; 0: its device is gone.
        xdp: port handle → what XDP does there.
        ageing_s, fdb_entries: the settings.
        now: Unix time. Where the tables are empty, kept leases that have not run out by now are put back.
        overlay: the setting.
        lacking: port handles that are attached, but not all runs there that should.
    """
    draft = switch.draft()
    state = draft.state
    resumed = resume(state.unfinished, rows, attached)
    devices = seen_after(resumed, devices)
    detached = {effect.handle for effect in resumed if isinstance(effect, Detach)}
    attached = {handle: ifindex for handle, ifindex in attached.items() if handle not in detached}
    names = {device.ifindex: device.ifname for device in devices}
    state.rows = dict(rows)
    state.owned, state.shadowed = {_ORPHANS: dict(rows)}, {}
    state.attached = {handle: (ifindex, names.get(ifindex, "")) for handle, ifindex in attached.items()}
    state.xdp = dict(xdp)
    for name in state.ports:
        row = rows.get((Table.PORTS, state.handle_of_port(name)))
        if state.placement(name).mode is PortMode.HOLDING and isinstance(row, PortRow) and row.state is PortMode.UP:
            draft.cluster_says(state.remote.receiving(name, here=True))  # its VM has said so while nobody was there
    draft.touched[_ORPHANS] = None
    for name in state.segments:
        draft.touched["segment", name] = None
    for name in (*state.ports, *state.uplinks, *map(vtep_owner, state.all_vteps)):
        draft.touched["port", name] = None
    draft.touched |= dict.fromkeys(affected.underlay(state))
    for port in state.ports.values():
        for segment, address in claims_of(port):
            draft.touched["neighbour", f"{segment}/{address}"] = None
    for segment, of in state.remote.told:
        draft.touched["told", f"{segment}/{of}"] = None
    for segment, mac in state.fdb:
        draft.touched["fdb", f"{segment}/{mac}"] = None
    if not _were_there(rows):
        _forget_settings(state, devices)
    draft.make_missing = True
    draft.links_read(devices)
    draft.set_ageing(ageing_s)
    state.fdb_entries = fdb_entries
    draft.overlay_read(overlay)
    draft.again = {name for handle, name in state.names("port").items() if handle in lacking}
    strays = _strays(state)
    for stray in strays:
        state.attached.pop(stray.handle, None)
        state.xdp.pop(stray.handle, None)
    plan = draft.plan()
    leases = () if _were_there(rows) else restored(plan.state, now)
    finish = tuple(effect for effect in plan.effects if isinstance(effect, Finish))
    planned = plan.effects[: len(plan.effects) - len(finish)]
    effects: tuple[Effect, ...] = (*resumed, *strays, *leases, *planned, *_raised(draft.base, plan.state), *finish)
    return Plan(state=plan.state, effects=effects)


def resume(unfinished: Iterable[Effect], rows: Rows, attached: dict[int, int]) -> list[Effect]:
    """Of what the last agent may not have done to the end, what comes before anything else.

    Args:
        unfinished: as saved.
        rows, attached: what is there. Where no switch is, the machine was started anew: nothing is left to be undone.
    """
    if not _were_there(rows):
        return []
    due = [effect for effect in unfinished if not _raises(effect)]
    return [e for e in due if not isinstance(e, Detach) or attached.get(e.handle) == e.ifindex]


def _were_there(rows: Rows) -> bool:
    """The switch was there before this start."""
    return any(table is Table.PORTS for table, _ in rows)


def _forget_settings(state: State, devices: Iterable[Device]) -> None:
    """The machine was started anew: that an uplink takes tags out of frames, or that a tap keeps few, is nobody's wish
    yet."""
    for device in devices:
        before = state.before.get(device.ifname)
        if device.rxvlan and before is not None and before.rxvlan:
            state.before[device.ifname] = replace(before, rxvlan=False)
        elif before is not None and before.txqueuelen is not None and device.txqueuelen != WAITING_FRAMES:
            state.before[device.ifname] = replace(before, txqueuelen=None)


def _raises(effect: Effect) -> bool:
    return isinstance(effect, SetDevice) and bool(effect.up)


def _raised(base: State, state: State) -> list[Effect]:
    """The devices that were still to be set up; only with a program on them."""
    running = set(state.attached.values())
    return [e for e in base.unfinished if isinstance(e, SetDevice) and e.up and (e.ifindex, e.ifname) in running]


def seen_after(effects: Iterable[Effect], devices: Iterable[Device]) -> list[Device]:
    """The devices as netlink will show them."""
    there = {(device.ifindex, device.ifname): device for device in devices}
    for effect in effects:
        if isinstance(effect, SetDevice) and (at := (effect.ifindex, effect.ifname)) in there:
            wanted = {name: getattr(effect, name) for name in ("up", "arp", "ipv6", "promisc", "rxvlan")}
            there[at] = replace(there[at], **{name: value for name, value in wanted.items() if value is not None})
        elif isinstance(effect, SetQueue) and (at := (effect.ifindex, effect.ifname)) in there:
            there[at] = replace(there[at], txqueuelen=effect.frames)
        elif isinstance(effect, RemoveInternal):
            gone = (effect.pair.ifname, effect.pair.peer)
            there = {at: device for at, device in there.items() if device.ifname not in gone}
    return list(there.values())


def _strays(state: State) -> list[Detach | SetXdp]:
    """Programs that run for no port, or whose device is gone; at XDP also where tc has none."""
    handles = state.names("port")
    gone = {h: at for h, at in state.attached.items() if h not in handles or not at[1]}
    alone = {handle: (0, "") for handle in state.xdp if handle not in state.attached}
    off = [
        SetXdp(handle=handle, ifindex=ifindex, ifname=ifname, xdp=Xdp.NONE, old=state.xdp[handle])
        for handle, (ifindex, ifname) in (gone | alone).items()
        if handle in state.xdp
    ]
    return [*off, *(Detach(handle=handle, ifindex=ifindex, ifname=name) for handle, (ifindex, name) in gone.items())]
