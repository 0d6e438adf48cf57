"""Devices in memory: what `netlink.links` does to the kernel, done to a dict."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from vxagent.core.effects import Effect, MakeInternal, RemoveInternal, SetDevice, SetQueue
from vxagent.errors import HostError
from vxagent.model.device import Device
from vxagent.netlink.base import Inspection, LinkChange


class FakeLinks:
    """`netlink.base.Links` without a kernel. Changes are told to the watcher as the kernel would.

    Attributes:
        by_name: the devices.
        done: every effect that was applied.
        fail_at: raise HostError at the n-th effect from now (0: never).
        broken: what `devices` raises, until it is None again.
        clsact: ifindex → fd of the program there.
        clsact_out: likewise, at the egress.
        drops, inspections: what `egress_drops` and `inspect` answer.
        closed: `close` was called.
    """

    def __init__(self, devices: Iterable[Device] = ()) -> None:
        self.by_name: dict[str, Device] = {device.ifname: device for device in devices}
        self.done: list[Effect] = []
        self.broken: HostError | None = None
        self.fail_at = 0
        self.clsact: dict[int, int] = {}
        self.clsact_out: dict[int, int] = {}
        self.drops: dict[int, int] = {}
        self.inspections: dict[int, Inspection] = {}
        self.closed = False
        self._notify: Callable[[LinkChange | None], None] | None = None

    # What happens to the host

    def put(self, device: Device) -> None:
        """A device appears or changes."""
        if self.by_name.get(device.ifname) != device:
            self.by_name[device.ifname] = device
            self.notify(LinkChange(ifindex=device.ifindex, device=device))

    def remove(self, ifname: str) -> Device:
        """A device goes; return it."""
        device = self.by_name.pop(ifname)
        self.clsact.pop(device.ifindex, None)
        self.clsact_out.pop(device.ifindex, None)
        self.notify(LinkChange(ifindex=device.ifindex, device=None))
        return device

    def rename(self, ifname: str, new: str) -> None:
        """A device gets another name."""
        device = self.by_name.pop(ifname)
        self.put(replace(device, ifname=new))

    def notify(self, change: LinkChange | None) -> None:
        """An event arrives; None: events were lost."""
        if self._notify is not None:
            self._notify(change)

    # Links

    def devices(self) -> list[Device]:
        """Every device there is."""
        if self.broken is not None:
            raise self.broken
        return list(self.by_name.values())

    def set_device(self, effect: SetDevice) -> None:
        """Set flags."""
        self._begin(effect)
        device = self._named(effect)
        if device is None:
            return
        self.put(
            replace(
                device,
                up=_chosen(effect.up, device.up),
                arp=_chosen(effect.arp, device.arp),
                ipv6=_chosen(effect.ipv6, device.ipv6),
                promisc=_chosen(effect.promisc, device.promisc),
                rxvlan=_chosen(effect.rxvlan, device.rxvlan),
            )
        )

    def set_queue(self, effect: SetQueue) -> None:
        """Have it keep so many frames."""
        self._begin(effect)
        device = self._named(effect)
        if device is not None:
            self.put(replace(device, txqueuelen=effect.frames))

    def make_internal(self, effect: MakeInternal) -> None:
        """Make the pair, or give it its MAC and MTU."""
        self._begin(effect)
        pair = effect.pair
        if pair.peer in self.by_name:
            self.put(replace(self.by_name[pair.peer], mtu=pair.mtu))
            if pair.ifname in self.by_name:
                self.put(replace(self.by_name[pair.ifname], mtu=pair.mtu, mac=pair.mac))
            return
        if pair.ifname in self.by_name:
            raise HostError(f"a device {pair.ifname} is there already", "choose another name for the internal port")
        free = max((device.ifindex for device in self.by_name.values()), default=0) + 1
        self.put(Device(ifname=pair.peer, ifindex=free, kind="veth", mtu=pair.mtu, arp=False, ipv6=False))
        self.put(Device(ifname=pair.ifname, ifindex=free + 1, kind="veth", mtu=pair.mtu, mac=pair.mac))

    def remove_internal(self, effect: RemoveInternal) -> None:
        """Remove it."""
        self._begin(effect)
        for ifname in (effect.pair.ifname, effect.pair.peer):
            if ifname in self.by_name:
                self.remove(ifname)

    def egress_drops(self, ifindex: int = 0) -> dict[int, int]:
        """ifindex → frames lost."""
        there = [device.ifindex for device in self.by_name.values() if ifindex in (0, device.ifindex)]
        return {index: self.drops.get(index, 0) for index in there}

    def inspect(self, ifindex: int) -> Inspection:
        """What was put into `inspections`."""
        return self.inspections.get(ifindex, Inspection())

    def attach_clsact(self, ifindex: int, program_fd: int, *, egress: bool = False) -> None:
        """Put the program there."""
        if all(device.ifindex != ifindex for device in self.by_name.values()):
            raise HostError(f"cannot attach at clsact of device {ifindex}: No such device")
        (self.clsact_out if egress else self.clsact)[ifindex] = program_fd

    def detach_clsact(self, ifindex: int, *, egress: bool = False) -> None:
        """Take it off."""
        (self.clsact_out if egress else self.clsact).pop(ifindex, None)

    def clsact_attached(self, ifindex: int, *, egress: bool = False) -> bool:
        """It is there."""
        return ifindex in (self.clsact_out if egress else self.clsact)

    def watch(self, notify: Callable[[LinkChange | None], None]) -> None:
        """Tell of changes from now on (from the thread that makes them)."""
        self._notify = notify

    def close(self) -> None:
        """End."""
        self._notify = None
        self.closed = True

    def _named(self, effect: SetDevice | SetQueue) -> Device | None:
        """The device, unless it is gone or renamed."""
        device = self.by_name.get(effect.ifname)
        return device if device is not None and device.ifindex == effect.ifindex else None

    def _begin(self, effect: Effect) -> None:
        if self.fail_at:
            self.fail_at -= 1
            if not self.fail_at:
                raise HostError("the fake was told to fail here")
        self.done.append(effect)


def _chosen(wanted: bool | None, now: bool) -> bool:
    return now if wanted is None else wanted
