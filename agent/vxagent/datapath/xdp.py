"""What XDP does at the switch's devices: links pinned as <xdp>/<handle>, and the map of devices that frames go to.

Both outlive the agent. tc decides wherever XDP does nothing, so a device that does not take the program is no failure.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from vxagent.core.effects import SetXdp, Xdp
from vxagent.datapath import bpf
from vxagent.datapath.bpf import BpfError
from vxagent.datapath.bpf_link import Link
from vxagent.datapath.bpf_map import Map
from vxagent.datapath.bpf_prog import AttachType, Program
from vxagent.datapath.codec import U32

log = logging.getLogger(__name__)

_FOREIGN = "somebody else's XDP program runs there; take it off, then `vxagent reload`"
_REFUSALS = {
    errno.EBUSY: _FOREIGN,
    errno.EEXIST: _FOREIGN,  # a generic one
    errno.EOPNOTSUPP: "its driver has no native XDP",
    errno.EINVAL: "its driver takes no XDP program as it is set: MTU, queues or offloads",
    errno.ERANGE: "its MTU is too large for native XDP",
}


class XdpDevices:
    """Links and map of one switch.

    Args:
        directory: of the pins.
        devices: the map `xdp_devices`, by port handle.

    Attributes:
        refused: port handle → why its device did not take the program.
    """

    def __init__(self, directory: Path, devices: Map) -> None:
        self._directory = directory
        self._devices = devices
        self.refused: dict[int, str] = {}

    def set(self, effect: SetXdp, program: Program) -> None:
        """Do there what the effect says, and nothing else."""
        self.refused.pop(effect.handle, None)
        if Xdp.SENDS in effect.xdp:
            self._run(effect, program)
        else:
            _take_off(self._pin(effect.handle))
        key = U32.pack(effect.handle)
        if Xdp.RECEIVES in effect.xdp:
            self._devices.update(key, U32.pack(effect.ifindex))
        else:
            self._devices.delete(key)

    def roles(self, handles: Iterable[int]) -> dict[int, Xdp]:
        """Port handle → what XDP does there, of these ports and all where its program runs; a link whose device is gone
        counts, for somebody has to take it away."""
        found = dict.fromkeys(self._handles(), Xdp.SENDS)
        for handle in {*handles, *found}:
            if self._devices.lookup(U32.pack(handle)) is not None:
                found[handle] = found.get(handle, Xdp.NONE) | Xdp.RECEIVES
        return found

    def swap(self, program: Program) -> None:
        """Run this program wherever one runs, without losing a frame."""
        for handle in self._handles():
            pin = self._pin(handle)
            link = Link.open(pin)
            if link is None:
                continue
            with link:
                if not link.update(program):
                    link.detach()
                    pin.unlink(missing_ok=True)

    def _run(self, effect: SetXdp, program: Program) -> None:
        pin = self._pin(effect.handle)
        link = Link.open(pin)
        if link is not None:
            with link:
                if link.ifindex == effect.ifindex and link.update(program):
                    return
            _take_off(pin)
        try:
            with Link.create(program, AttachType.XDP, effect.ifindex, effect.ifname) as created:
                bpf.pin(created.fd, pin)
        except BpfError as error:
            if error.errno not in _REFUSALS:
                raise
            self.refused[effect.handle] = _REFUSALS[error.errno]
            log.warning("no XDP on %s: %s", effect.ifname, self.refused[effect.handle])

    def _handles(self) -> list[int]:
        return handles_below(self._directory)

    def _pin(self, handle: int) -> Path:
        return self._directory / str(handle)


def handles_below(directory: Path) -> list[int]:
    """The ports that have a link pinned there."""
    with suppress(FileNotFoundError):
        return sorted(map(int, os.listdir(directory)))
    return []


def take_off_all(directory: Path) -> None:
    """Take the program off every device."""
    for handle in handles_below(directory):
        _take_off(directory / str(handle))


def _take_off(pin: Path) -> None:
    """Detach now: the kernel lets go of an unpinned link only some time later."""
    link = Link.open(pin)
    if link is not None:
        with link:
            link.detach()
            pin.unlink(missing_ok=True)
