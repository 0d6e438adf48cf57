"""What XDP does at the switch's devices: links pinned as <xdp>/<handle>, and the map of devices that frames go to.

Both outlive the agent. tc decides wherever XDP does nothing, so a device that does not take the program is no failure.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable, Mapping, Set
from pathlib import Path

from vxagent.core.audit import XdpAt
from vxagent.core.effects import SetXdp, Xdp
from vxagent.datapath.bpf import BpfError
from vxagent.datapath.bpf_map import Map
from vxagent.datapath.bpf_prog import AttachType, Program
from vxagent.datapath.codec import U32
from vxagent.datapath.ledger import Ledger
from vxagent.datapath.pinned_links import PinnedLinks

log = logging.getLogger(__name__)

_FOREIGN = "somebody else's XDP program runs there; take it off, and the switch's comes back by itself"
_REFUSALS = {
    errno.EBUSY: _FOREIGN,
    errno.EEXIST: _FOREIGN,  # a generic one
    errno.EOPNOTSUPP: "its driver has no native XDP, or not with the offloads that it has on",  # virtio_net: GRO_HW
    errno.EINVAL: "its driver takes no XDP program as it is set: MTU, queues or offloads",
    errno.ERANGE: "its MTU is too large for native XDP",
}


def links_below(directory: Path, ledger: Ledger | None = None) -> PinnedLinks:
    """The XDP links of a switch, by the directory of their pins; with a ledger, held open."""
    links = PinnedLinks(directory, AttachType.XDP, ledger)
    if ledger is not None:
        links.hold()
    return links


class XdpDevices:
    """Links and map of one switch.

    Args:
        directory: of the pins.
        devices: the map `xdp_devices`, by port handle.
        ledger: of the pins.

    Attributes:
        refused: port handle → why its device did not take the program.
    """

    def __init__(self, directory: Path, devices: Map, ledger: Ledger) -> None:
        self._links = links_below(directory, ledger)
        self._devices = devices
        self.refused: dict[int, str] = {}

    def set(self, effect: SetXdp, program: Program) -> None:
        """Do there what the effect says, and nothing else."""
        self.refused.pop(effect.handle, None)
        if Xdp.SENDS in effect.xdp:
            self._run(effect, program)
        else:
            self._links.take_off(effect.handle)
        key = U32.pack(effect.handle)
        if Xdp.RECEIVES in effect.xdp:
            self._devices.update(key, U32.pack(effect.ifindex))
        else:
            self._devices.delete(key)

    def taken(self) -> Set[int]:
        """Handles of the ports whose devices have somebody else's program instead, or had when they were asked."""
        return {handle for handle, why in self.refused.items() if why == _FOREIGN}

    def roles(self, handles: Iterable[int]) -> dict[int, Xdp]:
        """Port handle → what XDP does there, of these ports and all where its program runs; a link whose device is gone
        counts, for somebody has to take it away."""
        found = dict.fromkeys(self._links.ifindexes(), Xdp.SENDS)
        for handle in {*handles, *found}:
            if self._devices.lookup(U32.pack(handle)) is not None:
                found[handle] = found.get(handle, Xdp.NONE) | Xdp.RECEIVES
        return found

    def at(self, wanted: Mapping[int, int], program: Program) -> dict[int, XdpAt]:
        """Port handle → what XDP does at that device now (`wanted`: handle → ifindex)."""
        sends = self._links.runs(wanted, program.id)
        found = {}
        for handle in wanted:
            to = self._devices.lookup(U32.pack(handle))
            found[handle] = XdpAt(sends=sends[handle], receives=U32.unpack(to)[0] if to is not None else 0)
        return found

    def close(self) -> None:
        """Let go of descriptors."""
        self._links.close()

    def swap(self, program: Program) -> None:
        """Run this program wherever one runs, without losing a frame."""
        self._links.swap(program)

    def program_ids(self) -> Set[int]:
        """The kernel's numbers of the programs that run."""
        return self._links.program_ids()

    def _run(self, effect: SetXdp, program: Program) -> None:
        try:
            self._links.run(effect.handle, effect.ifindex, effect.ifname, program)
        except BpfError as error:
            if error.errno not in _REFUSALS:
                raise
            self.refused[effect.handle] = _REFUSALS[error.errno]
            log.warning("no XDP on %s: %s", effect.ifname, self.refused[effect.handle])
