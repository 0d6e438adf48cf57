"""Which devices the switch's tc program runs on, by port handle.

On tcx a link for each port is pinned as <links>/<handle> and outlives the agent. Kernels before 6.6 have
clsact, which keeps a program without any pin; there the devices map says which port a device belongs to.

At the egress of the underlay device a second program runs (vx_out), likewise: its link is <out>/<handle>. It goes
before the other, by which the next agent knows that there is something to be taken off, if this one dies in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Protocol

from vxagent.core.effects import Attach, Detach
from vxagent.datapath.abi import DEVICE
from vxagent.datapath.bpf_link import tcx_programs
from vxagent.datapath.bpf_map import Map
from vxagent.datapath.bpf_prog import AttachType, Program
from vxagent.datapath.ledger import Ledger
from vxagent.datapath.pinned_links import PinnedLinks
from vxagent.datapath.pins import Pins
from vxagent.errors import HostError

_LOOKS = 64  # devices whose filters are asked for at a time


class Clsact(Protocol):
    """What is needed of netlink where there is no tcx; `netlink.links` has it."""

    def attach_clsact(self, ifindex: int, program_fd: int, *, egress: bool = False) -> None:
        """Put the program at the device's clsact ingress (or egress), replacing ours if it is there."""

    def detach_clsact(self, ifindex: int, *, egress: bool = False) -> None:
        """Take it off."""

    def clsact_attached(self, ifindex: int, *, egress: bool = False) -> bool:
        """Our program is there."""


class Attachments(Protocol):
    """Either way of running a program on devices."""

    def attach(self, effect: Attach, program: Program, out: Program | None) -> None:
        """Run it, and the other at the device's egress (None: nothing); where the port runs one already, swap it."""

    def detach(self, effect: Detach) -> None:
        """Take it off; a device that is gone is no failure."""

    def swap(self, program: Program, out: Program | None = None) -> None:
        """Run this program wherever one runs, without losing a frame; likewise the one for egress, if there is one."""

    def program_ids(self) -> set[int]:
        """The kernel's numbers of the programs that run, as far as it tells."""

    def attached(self) -> dict[int, int]:
        """Port handle → ifindex, 0 where the device is gone."""

    def runs(self, wanted: Mapping[int, int], program: Program) -> dict[int, bool]:
        """Port handle → whether this program runs on that device (`wanted`: handle → ifindex). What is costly to look
        at is left out, in turn."""

    def runs_out(self, handle: int, ifindex: int, out: Program) -> bool:
        """Whether this program runs at the egress of the port's device."""

    def close(self) -> None:
        """Let go of descriptors."""

    def foreign(self, ifindexes: Iterable[int]) -> dict[int, list[int]]:
        """Ifindex → numbers of the tcx programs there that are not ours, of those devices that have any."""

    def remove(self) -> None:
        """Take all off."""


class TcxAttachments:
    """Pinned tcx links."""

    def __init__(self, links: Path, out: Path, ledger: Ledger | None = None) -> None:
        self._links = PinnedLinks(links, AttachType.TCX_INGRESS, ledger)
        self._out = PinnedLinks(out, AttachType.TCX_EGRESS, ledger)
        if ledger is not None:
            self._links.hold()
            self._out.hold()

    def attach(self, effect: Attach, program: Program, out: Program | None) -> None:
        if out is not None:
            self._out.run(effect.handle, effect.ifindex, effect.ifname, out)
        else:
            self._out.take_off(effect.handle)
        self._links.run(effect.handle, effect.ifindex, effect.ifname, program)

    def detach(self, effect: Detach) -> None:
        self._out.take_off(effect.handle)
        self._links.take_off(effect.handle)

    def swap(self, program: Program, out: Program | None = None) -> None:
        if out is not None:
            self._out.swap(out)
        self._links.swap(program)

    def program_ids(self) -> set[int]:
        return self._links.program_ids()

    def attached(self) -> dict[int, int]:
        return self._links.ifindexes()

    def runs(self, wanted: Mapping[int, int], program: Program) -> dict[int, bool]:
        return self._links.runs(wanted, program.id)

    def runs_out(self, handle: int, ifindex: int, out: Program) -> bool:
        return self._out.runs({handle: ifindex}, out.id)[handle]

    def close(self) -> None:
        self._links.close()
        self._out.close()

    def foreign(self, ifindexes: Iterable[int]) -> dict[int, list[int]]:
        ours = self._links.program_ids()
        there = {ifindex: tcx_programs(ifindex) for ifindex in ifindexes}
        return {at: others for at, ids in there.items() if (others := [n for n in ids if n not in ours])}

    def remove(self) -> None:
        self._out.remove()
        self._links.remove()


class ClsactAttachments:
    """Filters at clsact ingress, told apart by the devices map."""

    def __init__(self, clsact: Clsact, devices: Map) -> None:
        self._clsact = clsact
        self._devices = devices
        self._looked_at = 0  # the port handle

    def attach(self, effect: Attach, program: Program, out: Program | None) -> None:
        if out is not None:
            self._clsact.attach_clsact(effect.ifindex, out.fd, egress=True)
        else:
            self._clsact.detach_clsact(effect.ifindex, egress=True)
        self._clsact.attach_clsact(effect.ifindex, program.fd)

    def detach(self, effect: Detach) -> None:
        self._clsact.detach_clsact(effect.ifindex, egress=True)
        self._clsact.detach_clsact(effect.ifindex)

    def swap(self, program: Program, out: Program | None = None) -> None:
        for ifindex in self.attached().values():
            if out is not None and self._clsact.clsact_attached(ifindex, egress=True):
                self._clsact.attach_clsact(ifindex, out.fd, egress=True)
            self._clsact.attach_clsact(ifindex, program.fd)

    def program_ids(self) -> set[int]:
        return set()  # netlink tells of a filter's program, which replacing it has set

    def attached(self) -> dict[int, int]:
        found = {}
        for batch in self._devices.batches():
            for at in range(0, len(batch.values), DEVICE.size):
                device = DEVICE.unpack(batch.values[at : at + DEVICE.size])
                if self._clsact.clsact_attached(device["ifindex"]):
                    found[device["port"]] = device["ifindex"]
        return found

    def runs(self, wanted: Mapping[int, int], program: Program) -> dict[int, bool]:
        """To ask for the filters of a device takes much longer than to look at a link."""
        further = sorted(wanted, key=lambda handle: (handle <= self._looked_at, handle))
        found = {handle: self._clsact.clsact_attached(wanted[handle]) for handle in islice(further, _LOOKS)}
        self._looked_at = next(reversed(found), 0)
        return found

    def runs_out(self, handle: int, ifindex: int, out: Program) -> bool:
        return self._clsact.clsact_attached(ifindex, egress=True)

    def close(self) -> None:
        pass

    def foreign(self, ifindexes: Iterable[int]) -> dict[int, list[int]]:
        return {}  # filters at clsact are told of by netlink

    def remove(self) -> None:
        for ifindex in self.attached().values():
            self._clsact.detach_clsact(ifindex, egress=True)
            self._clsact.detach_clsact(ifindex)


def attachments_of(pins: Pins, clsact: Clsact | None, devices: Map, ledger: Ledger, *, tcx: bool) -> Attachments:
    """Those of a switch, held open: by tcx or, without it, at clsact.

    Raises:
        HostError: there is neither.
    """
    if tcx:
        return TcxAttachments(pins.links, pins.out, ledger)
    if clsact is None:
        raise HostError("this kernel has no tcx", "use kernel 6.6 or newer")
    return ClsactAttachments(clsact, devices)
