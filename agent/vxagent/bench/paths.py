"""Two VMs, and the devices in the switch's namespace that a contender has to join.

    VM 1   VM 2   nobody                 VM 1        VM 2   nobody             VM 1    VM 2 … VM n
     tap    tap    veth                   veth        tap    veth              veth    veth   veth
    ┌─┴──────┴──────┴─┐               ┌────┴────┐   ┌──┴──────┴─┐            ┌──┴───────┴──────┴──┐
    │ taps, veths     │               │ fabric  ├───┤ uplink    │            │ flood-8, flood-64  │
    └─────────────────┘               └─────────┘   └───────────┘            └────────────────────┘

A program at the port of nobody counts unicast frames: what arrives there was flooded. The fabric is a pair of programs
that put a VLAN tag on and take it off, or only pass on. Where the uplink has to be a NIC whose driver can do XDP, a tap
stands in for it, and a process for the fabric. Where a tunnel is between the VMs there are two hosts: tunnels.py.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vxagent.bench import programs, tunnels
from vxagent.bench.cases import Route
from vxagent.bench.programs import Counter, Programs
from vxagent.bench.tunnels import Host
from vxagent.lab.namespaces import Namespace
from vxagent.lab.tap import Pump, open_tap
from vxagent.lab.vm import NIC, Endpoint
from vxagent.lab.world import World

SENDER = ("02:00:00:00:00:01", "10.0.0.1")
RECEIVER = ("02:00:00:00:00:02", "10.0.0.2")
FLOOD_PORTS = {Route.FLOOD_8: 8, Route.FLOOD_64: 64}
MTU = 1500
LIVE_QUEUE = 8192  # frames; one system call makes 4,096
NIC_VID = programs.VID + 2  # a VLAN on an uplink of its own is a segment of its own


@dataclass(kw_only=True)
class Station(Endpoint):
    """A VM: a namespace with `eth0`.

    Attributes:
        nic: its device.
        tap: the descriptor of the tap in the switch's namespace that belongs to it; None behind a veth.
        inner: of its `eth0`, where that is a tap.
    """

    nic: str = NIC
    tap: int | None = None
    inner: int | None = None


@dataclass(frozen=True, kw_only=True)
class Path:
    """One way from a sender to a receiver.

    Attributes:
        name: short, and unique among the paths of one switch.
        switch: the namespace of `ports` and `uplink`.
        sender, receiver: the VMs.
        ports: the devices to be joined: the sender's first, then the receiver's. Without the uplink.
        far: the receiver's host, where it is another one; its ports are not among `ports`.
        vni: of the tunnel between the two.
        uplink: the sender's device, where it is not a port.
        vid: of the tag that frames have on the uplink.
        counter: frames that count, at the receiver's veth.
        others: the same at the other members of a flood, together.
        witness: unicast frames at the port of nobody.
        stations: so many MACs are behind the receiver's port, to which frames go at random; 0: to the receiver's.
    """

    name: str
    switch: Namespace
    sender: Station
    receiver: Station
    ports: tuple[str, ...] = ()
    far: Host | None = None
    vni: int | None = None
    uplink: str | None = None
    vid: int | None = None
    counter: Counter | None = None
    others: Counter | None = None
    witness: Counter | None = None
    stations: int = 0

    @property
    def ends(self) -> tuple[str, str]:
        """The sender's and the receiver's device."""
        if self.far:
            return self.ports[0], self.far.ports[0]
        return (self.uplink, self.ports[0]) if self.uplink else (self.ports[0], self.ports[1])

    @property
    def hosts(self) -> tuple[Host, ...]:
        """All hosts that it leads over, with what has to be joined there, the uplink as well."""
        uplink = (self.uplink,) if self.uplink else ()
        here = Host(switch=self.switch, ports=(*uplink, *self.ports))
        return (here, self.far) if self.far else (here,)


class Builder:
    """Builds paths in a world."""

    def __init__(self, world: World, loaded: Programs) -> None:
        self._world = world
        self._programs = loaded
        self._numbers = itertools.count()
        self._vnis = itertools.count(tunnels.FIRST_VNI)
        self._far: dict[str, Namespace] = {}
        self._hosts: dict[str, Namespace] = {}

    def build(self, route: Route, switch: Namespace, name: str, *, tagged: bool = False) -> Path:
        """The VMs and the devices of a route; nothing forwards between them yet.

        Args:
            switch: where the ports go.
            name: of the path; begins the names of its devices.
            tagged: frames have a tag on the uplink.
        """
        if route in FLOOD_PORTS:
            return self._flood(switch, name, FLOOD_PORTS[route])
        builders: dict[Route, Callable[[], Path]] = {
            Route.TAPS: lambda: self._taps(switch, name),
            Route.VETHS: lambda: self._veths(switch, name),
            Route.NIC: lambda: self._nic(switch, name, tagged=tagged),
            Route.UPLINK: lambda: self._uplink(switch, name, tagged=tagged),
            Route.WIRE: lambda: self._wire(switch, name),
            Route.TUNNEL_TAPS: lambda: self._tunnel(switch, name, self.tap_station),
            Route.TUNNEL_VETHS: lambda: self._tunnel(switch, name, self._veth_station),
        }
        return builders[route]()

    def tap_station(self, end: tuple[str, str], switch: Namespace, port: str) -> Station:
        """A VM behind the new tap `port`. Nothing carries frames between the two taps until somebody does."""
        tap = open_tap(switch, port)
        self._world.cleanup.callback(os.close, tap)
        return self.behind_tap(end, tap, switch, port)

    def behind_tap(self, end: tuple[str, str], tap: int, switch: Namespace, port: str) -> Station:
        """A VM behind a tap that is open."""
        station = self._station(end)
        station.tap, station.inner = tap, open_tap(station.namespace, NIC)
        self._world.cleanup.callback(os.close, station.inner)
        station.configure(mtu=MTU)
        switch.ip("link", "set", port, "up")
        return station

    def _station(self, end: tuple[str, str]) -> Station:
        return Station(namespace=self._namespace("vm"), mac=end[0], address=end[1])

    def _namespace(self, kind: str) -> Namespace:
        return self._world.namespace(f"{kind}{next(self._numbers)}")

    def _nobodys(self, switch: Namespace) -> Namespace:
        """Where the other ends of one switch's ports are that need no stack of their own."""
        if switch.name not in self._far:
            self._far[switch.name] = self._namespace("far")
        return self._far[switch.name]

    def _veth_station(self, end: tuple[str, str], switch: Namespace, port: str) -> Station:
        station = self._station(end)
        switch.ip(*f"link add {port} type veth peer name {NIC} netns {station.namespace.name}".split())
        station.configure(mtu=MTU)
        switch.ip("link", "set", port, "up")
        station.namespace.wait_running(NIC)
        return station

    def witness(self, ports: Mapping[str, Namespace]) -> Counter:
        """New ports of nobody in these switches, and what counts there, at all together."""
        far = self._ends(ports)
        return self._programs.count(far, ports, programs.WITNESS)

    def _ends(self, ports: Mapping[str, Namespace]) -> Namespace:
        """Ports whose other ends have their names too, and a namespace in common, which is returned."""
        switches = {switch.name: switch for switch in ports.values()}
        far = self._nobodys(next(iter(switches.values())))
        for switch in switches.values():
            mine = [port for port, where in ports.items() if where is switch]
            switch.ip_batch(f"link add {port} up type veth peer name {port} netns {far.name}" for port in mine)
        far.ip_batch(f"link set {port} up" for port in ports)
        for port in ports:
            far.wait_running(port)
        return far

    def _taps(self, switch: Namespace, name: str) -> Path:
        ports = (f"{name}1", f"{name}2", f"{name}w")
        return Path(
            name=name,
            switch=switch,
            sender=self.tap_station(SENDER, switch, ports[0]),
            receiver=self.tap_station(RECEIVER, switch, ports[1]),
            ports=ports,
            witness=self.witness({ports[2]: switch}),
        )

    def _veths(self, switch: Namespace, name: str) -> Path:
        ports = (f"{name}1", f"{name}2", f"{name}w")
        sender, receiver = (
            self._veth_station(end, switch, port) for end, port in zip((SENDER, RECEIVER), ports, strict=False)
        )
        return Path(
            name=name,
            switch=switch,
            sender=sender,
            receiver=receiver,
            ports=ports,
            counter=self._programs.count(receiver.namespace, [NIC]),
            witness=self.witness({ports[2]: switch}),
        )

    def _uplink(self, switch: Namespace, name: str, *, tagged: bool) -> Path:
        uplink, ports = f"{name}0", (f"{name}1", f"{name}w")
        fabric = self._namespace("fabric")
        sender = self._veth_station(SENDER, fabric, "inside")
        fabric.ip(*f"link add outside type veth peer name {uplink} netns {switch.name}".split())
        fabric.ip("link", "set", "outside", "up")
        switch.ip("link", "set", uplink, "up")
        switch.wait_running(uplink)
        out, back = (programs.TAG, programs.UNTAG) if tagged else (programs.REDIRECT, programs.REDIRECT)
        self._programs.redirect(fabric, "inside", ["outside"], out)
        self._programs.redirect(fabric, "outside", ["inside"], back)
        return Path(
            name=name,
            switch=switch,
            sender=sender,
            receiver=self.tap_station(RECEIVER, switch, ports[0]),
            ports=ports,
            uplink=uplink,
            vid=programs.VID if tagged else None,
            witness=self.witness({ports[1]: switch}),
        )

    def _nic(self, switch: Namespace, name: str, *, tagged: bool) -> Path:
        uplink, ports = f"{name}0", (f"{name}1", f"{name}w")
        sender = self._station(SENDER)
        outer, inner = open_tap(switch, uplink), open_tap(sender.namespace, NIC)
        try:
            fabric = Pump(("tap", outer), {str(NIC_VID) if tagged else "all": inner})
        finally:
            os.close(outer)
            os.close(inner)
        self._world.cleanup.callback(fabric.stop)
        sender.configure(mtu=MTU)
        switch.ip("link", "set", uplink, "up")
        receiver = self.tap_station(RECEIVER, switch, ports[0])
        switch.ip("link", "set", ports[0], "txqueuelen", str(LIVE_QUEUE))
        return Path(
            name=name,
            switch=switch,
            sender=sender,
            receiver=receiver,
            ports=ports,
            uplink=uplink,
            vid=NIC_VID if tagged else None,
            witness=self.witness({ports[1]: switch}),
        )

    def _flood(self, switch: Namespace, name: str, count: int) -> Path:
        ports = tuple(f"{name}{n}" for n in range(count))
        far = self._ends(dict.fromkeys(ports, switch))
        sender, receiver = (
            Station(namespace=far, mac=mac, address=address, nic=port)
            for (mac, address), port in zip((SENDER, RECEIVER), ports, strict=False)
        )
        return Path(
            name=name,
            switch=switch,
            sender=sender,
            receiver=receiver,
            ports=ports,
            counter=self._programs.count(far, ports[1:2]),
            others=self._programs.count(far, ports[2:]),
        )

    def _wire(self, switch: Namespace, name: str) -> Path:
        sender, receiver = self._station(SENDER), self._station(RECEIVER)
        there = f"peer name {NIC} netns {receiver.namespace.name}"
        sender.namespace.ip(*f"link add {NIC} type veth {there}".split())
        for station in (sender, receiver):
            station.configure(mtu=MTU)
        receiver.namespace.wait_running(NIC)
        return Path(name=name, switch=switch, sender=sender, receiver=receiver)

    def _tunnel(
        self, switch: Namespace, name: str, station: Callable[[tuple[str, str], Namespace, str], Station]
    ) -> Path:
        if switch.name not in self._hosts:
            self._hosts[switch.name] = self._namespace("host")
            tunnels.lay((switch, self._hosts[switch.name]), MTU)
        other = self._hosts[switch.name]
        here, there = (f"{name}1", f"{name}w"), (f"{name}2", f"{name}x")
        sender, receiver = station(SENDER, switch, here[0]), station(RECEIVER, other, there[0])
        return Path(
            name=name,
            switch=switch,
            sender=sender,
            receiver=receiver,
            ports=here,
            far=Host(switch=other, ports=there, number=1),
            vni=next(self._vnis),
            witness=self.witness({here[1]: switch, there[1]: other}),
        )
