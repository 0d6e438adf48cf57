"""`down` where no agent lives."""

from __future__ import annotations

import time

from vxagent.core.plan import Plan
from vxagent.core.reconcile import resume, seen_after
from vxagent.core.switch import Switch
from vxagent.datapath.base import Datapath
from vxagent.netlink.base import Links
from vxagent.runtime.executor import Executor
from vxagent.runtime.leases import by_port
from vxagent.store.base import Store


def take_off(store: Store, datapath: Datapath, links: Links | None) -> None:
    """Let go of every device, put it back as it was, and remove all that is in the kernel.

    Args:
        store: what is desired, which stays.
        datapath: not open.
        links: None when the devices are gone with their namespace.

    Raises:
        VxagentError: something could not be taken off.
    """
    if links is not None:
        datapath.open(replace=False)
        plan = _plan(Switch(store.load()), datapath, links)
        Executor(datapath, links, store).run(plan.effects)
    datapath.destroy()


def _plan(switch: Switch, datapath: Datapath, links: Links) -> Plan:
    draft = switch.draft()
    attached = datapath.attached()
    resumed = resume(draft.state.unfinished, datapath.rows(), attached)
    devices = seen_after(resumed, links.devices())
    names = {device.ifindex: device.ifname for device in devices}
    draft.links_read(devices)
    draft.state.attached = {handle: (ifindex, names.get(ifindex, "")) for handle, ifindex in attached.items()}
    draft.state.xdp = datapath.xdp()
    draft.leases_seen(by_port(draft.state, datapath.leases(), time.time()))
    draft.take_off()
    plan = draft.plan()
    return Plan(state=plan.state, effects=(*resumed, *plan.effects))
