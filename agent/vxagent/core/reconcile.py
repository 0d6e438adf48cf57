"""Make the kernel what the state says, by difference, never by flush.

At start the kernel may hold everything (the agent was restarted), nothing (the machine was) or half of it (the
agent was killed in the middle of a change). All three are one case: take what the kernel holds as what is, and
plan from there.
"""

from __future__ import annotations

from collections.abc import Iterable

from vxagent.core.effects import Detach, Effect, SetXdp, Xdp
from vxagent.core.leases import restored
from vxagent.core.neighbours import claims_of
from vxagent.core.plan import Plan
from vxagent.core.state import State
from vxagent.core.switch import Switch
from vxagent.core.tables import Rows, Table
from vxagent.model.device import Device

_ORPHANS = ("orphans", "")


def reconcile(
    switch: Switch,
    devices: Iterable[Device],
    rows: Rows,
    attached: dict[int, int],
    xdp: dict[int, Xdp],
    *,
    ageing_s: int,
    now: float,
) -> Plan:
    """The plan that makes the kernel's tables and links those of the switch's desired state.

    Args:
        switch: as loaded from the store, or running.
        devices: all devices, as netlink shows them now.
        rows: what the kernel's tables hold.
        attached: port handle → ifindex of each program that runs; 0: its device is gone.
        xdp: port handle → what XDP does there.
        ageing_s: the setting.
        now: Unix time. Where the tables are empty, kept leases that have not run out by now are put back.
    """
    draft = switch.draft()
    state = draft.state
    devices = list(devices)
    names = {device.ifindex: device.ifname for device in devices}
    state.rows = dict(rows)
    state.owned = {_ORPHANS: dict(rows)}
    state.attached = {handle: (ifindex, names.get(ifindex, "")) for handle, ifindex in attached.items()}
    state.xdp = dict(xdp)
    draft.touched[_ORPHANS] = None
    for name in state.segments:
        draft.touched["segment", name] = None
    for name in (*state.ports, *state.uplinks):
        draft.touched["port", name] = None
    for port in state.ports.values():
        for segment, address in claims_of(port):
            draft.touched["neighbour", f"{segment}/{address}"] = None
    for segment, mac in state.fdb:
        draft.touched["fdb", f"{segment}/{mac}"] = None
    draft.make_missing = True
    draft.links_read(devices)
    draft.set_ageing(ageing_s)
    strays = _strays(state)
    for stray in strays:
        state.attached.pop(stray.handle, None)
        state.xdp.pop(stray.handle, None)
    plan = draft.plan()
    leases = () if any(table is Table.PORTS for table, _ in rows) else restored(plan.state, now)
    effects: tuple[Effect, ...] = (*strays, *leases, *plan.effects)
    return Plan(state=plan.state, effects=effects)


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
