"""Programs of others on the switch's devices: told once, counted, and left where they are.

To ask of a device costs some 0.2 ms, so a few are asked for at each look, the others at the next ones.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from itertools import islice

from vxagent.core.effects import Xdp
from vxagent.core.state import State
from vxagent.datapath.base import Datapath
from vxagent.netlink.base import Links

log = logging.getLogger(__name__)

LOOKS = 64  # devices at a time
HOOKS = ("xdp", "tcx", "clsact")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Stranger:
    """A program of somebody else. hook: of HOOKS; what: its number, or the kind and name of a filter."""

    ifname: str
    hook: str
    what: str


class Strangers:
    """Remembers which were there.

    Attributes:
        known: ifname → those that were there when it was looked at.
        left: handles of ports that a stranger kept without XDP, and whose devices had none at the last look.
    """

    def __init__(self, datapath: Datapath, links: Links) -> None:
        self.known: dict[str, frozenset[Stranger]] = {}
        self.left: frozenset[int] = frozenset()
        self._datapath = datapath
        self._links = links
        self._looked_at = 0  # the port handle

    def by_hook(self) -> dict[str, int]:
        """Hook → how many there are."""
        found = Counter(stranger.hook for there in self.known.copy().values() for stranger in there)
        return {hook: found[hook] for hook in HOOKS}

    def look(self, state: State) -> None:
        """Look at some devices, others each time. Blocks. Raises HostError."""
        further = sorted(state.attached, key=lambda handle: (handle <= self._looked_at, handle))
        handles = list(islice(further, LOOKS))
        self._looked_at = handles[-1] if handles else 0
        at = {state.attached[handle][0]: handle for handle in handles}
        refused, taken = self._datapath.xdp_refused(), self._datapath.xdp_taken()
        tcx = self._datapath.foreign(at)
        left: set[int] = set()
        for ifindex, handle in at.items():
            ifname = state.attached[handle][1]
            seen = self._links.inspect(ifindex)
            ours = Xdp.SENDS in state.xdp.get(handle, Xdp.NONE) and handle not in refused
            if handle in taken and not seen.xdp_program:
                left.add(handle)
            there = [("xdp", f"program {seen.xdp_program}")] if seen.xdp_program and not ours else []
            there += [("tcx", f"program {number}") for number in tcx.get(ifindex, [])]
            there += [("clsact", f"filter {found}") for found in dict.fromkeys(seen.filters)]
            self._note(ifname, frozenset(Stranger(ifname=ifname, hook=hook, what=what) for hook, what in there))
        self.left = frozenset(left)
        attached = {ifname for _, ifname in state.attached.values()}
        self.known = {ifname: there for ifname, there in self.known.items() if ifname in attached and there}

    def _note(self, ifname: str, there: frozenset[Stranger]) -> None:
        before = self.known.get(ifname, frozenset())
        for new in sorted(there - before):
            log.warning("somebody else's %s %s on device %s; it is left there", new.hook, new.what, ifname)
        for gone in sorted(before - there):
            log.info("somebody else's %s %s is off device %s", gone.hook, gone.what, ifname)
        self.known[ifname] = there
