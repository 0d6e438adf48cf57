"""VMs that a script plays: taps whose frames go to and come from the numbered streams of `vxagent bench --faults`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from support.clustered import Clustered
from support.fleet import Host
from support.lan import address_of, mac_of
from vxagent.bench.faults.figures import Figures, judge
from vxagent.bench.faults.lab import QUEUE
from vxagent.bench.faults.stream import End, Run, Stream, Streams
from vxagent.lab.tap import open_tap
from vxagent.lab.world import World


@dataclass(frozen=True, kw_only=True)
class ScriptedVm:
    """One, whose port lists its MAC and its address.

    Attributes:
        host: where it is plugged in.
        port: and its device's name.
        tap: a descriptor of it.
    """

    host: Host
    port: str
    mac: str
    address: str
    tap: int

    @property
    def end(self) -> tuple[str, str]:
        """As streams have it."""
        return self.mac, self.address

    def to(self, other: ScriptedVm, name: str = "") -> Stream:
        """Frames for another one."""
        name = name or f"{self.port} → {other.port}"
        return Stream(name=name, sender=self.end, receiver=other.end, source=f"tap:{self.tap}")

    def dropped(self) -> int:
        """Frames for which its device had no room, ever."""
        (shown,) = json.loads(self.host.switch.ip("-j", "-s", "link", "show", "dev", self.port))
        return int(shown["stats64"]["tx"]["dropped"])


def plug_in(host: Host, segment: str, **options: object) -> ScriptedVm:
    """A new one."""
    number = host.count()
    mac, address = mac_of(number), address_of(number)
    vm = ScriptedVm(host=host, port=f"t{number}", mac=mac, address=address, tap=device(host, f"t{number}"))
    host.attach(vm.port, segment, mac=[mac], ip=[address], **options)
    return vm


def plug_in_all(fleet: Clustered, *hosts: Host) -> tuple[str, list[ScriptedVm]]:
    """A new segment with a new one on each of these hosts, and all hosts know where they are."""
    segment = fleet.new_segment()
    vms = [plug_in(host, segment) for host in hosts]
    for vm in vms:
        fleet.known(segment, vm.mac, vm.host)
    return segment, vms


def device(host: Host, ifname: str) -> int:
    """A tap with room for many frames; gone with the world."""
    tap = open_tap(host.switch, ifname)
    host.world.cleanup.callback(os.close, tap)
    host.switch.ip("link", "set", ifname, "txqueuelen", str(QUEUE), "up")
    return tap


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Streams that are ready to be sent.

    Attributes:
        receivers: each of them gets the streams that name it.
    """

    streams: Streams
    receivers: Sequence[ScriptedVm]

    def figures(self, what: str, run: Run, before: int) -> Figures:
        """End a run; `before` is what `dropped` was when it began."""
        sent, taken = run.end()
        overflow = taken.overflow + self.dropped() - before
        return judge(what, 1, self.streams.names, sent, replace(taken, overflow=overflow))

    def dropped(self) -> int:
        """Frames for which a receiver's device had no room, ever."""
        return sum(vm.dropped() for vm in self.receivers)


def traffic(world: World, flows: Iterable[tuple[ScriptedVm, ScriptedVm]], rate: int) -> Traffic:
    """Each flow from one VM to another, `rate` frames a second all together."""
    pairs = list(flows)
    receivers = list({vm.port: vm for _, vm in pairs}.values())
    ends = [End(where=f"tap:{vm.tap}", streams=[n for n, (_, to) in enumerate(pairs) if to is vm]) for vm in receivers]
    namespace = world.namespace("streams")
    streams = Streams(world.directory(), namespace, [one.to(other) for one, other in pairs], ends, rate)
    return Traffic(streams=streams, receivers=receivers)
