"""What the agent asks of the host's network devices; `links` does it by netlink, `fake` in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from vxagent.core.effects import MakeInternal, RemoveInternal, SetDevice, SetQueue
from vxagent.model.device import Device


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkChange:
    """A device came or changed (`device` set), or the one with `ifindex` went (`device` None)."""

    ifindex: int
    device: Device | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What `doctor` wants to know of one device.

    Attributes:
        lro: large receive offload is on.
        xdp_program: id of the XDP program on it, 0 for none.
        filters: kind and name of each tc filter at its clsact that is not ours.
    """

    lro: bool = False
    xdp_program: int = 0
    filters: tuple[str, ...] = ()


class Links(Protocol):
    """The devices of the switch's namespace. Methods may block; they are called off the event loop.

    Raises (all methods): HostError.
    """

    def devices(self) -> list[Device]:
        """Every device there is."""

    def set_device(self, effect: SetDevice) -> None:
        """Set flags; a device that is gone or renamed is no failure."""

    def set_queue(self, effect: SetQueue) -> None:
        """Have it keep so many frames; a device that is gone or renamed is no failure."""

    def make_internal(self, effect: MakeInternal) -> None:
        """Make the veth pair; one that is there gets its MAC and MTU."""

    def remove_internal(self, effect: RemoveInternal) -> None:
        """Remove it; absent is no failure."""

    def egress_drops(self, ifindex: int = 0) -> dict[int, int]:
        """ifindex → frames that the device took and lost (tx_dropped + tx_errors of rtnl_link_stats64), of one
        device or (0) of all; a device that is gone is left out."""

    def inspect(self, ifindex: int) -> Inspection:
        """What `doctor` wants to know of one device; nothing of one that is gone."""

    def attach_clsact(self, ifindex: int, program_fd: int, *, egress: bool = False) -> None:
        """Put the program at the device's clsact ingress (or egress), replacing ours if it is there (kernels before
        6.6)."""

    def detach_clsact(self, ifindex: int, *, egress: bool = False) -> None:
        """Take it off, and the qdisc with it if nobody else uses it."""

    def clsact_attached(self, ifindex: int, *, egress: bool = False) -> bool:
        """Our program is there."""

    def watch(self, notify: Callable[[LinkChange | None], None]) -> None:
        """Call `notify` from a thread of its own for every change; None: changes were lost, read `devices` anew."""

    def close(self) -> None:
        """End the thread and the sockets."""
