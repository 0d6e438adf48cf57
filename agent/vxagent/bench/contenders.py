"""What forwards between the devices of a path: the Linux bridge, the switch, others where they are installed, and bare
programs, which show what a switch at that hook could reach at most."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property

from vxagent.bench import programs, tunnels
from vxagent.bench.cases import Bare, Case, Route
from vxagent.bench.ovs import OpenVSwitch
from vxagent.bench.paths import Builder, Path
from vxagent.bench.programs import Programs
from vxagent.bench.tunnels import Host
from vxagent.errors import HostError
from vxagent.lab.agent import Agent
from vxagent.lab.bridge import Bridge
from vxagent.lab.namespaces import CommandFailed, Namespace
from vxagent.lab.world import World

VLAN = programs.VID
FDB_ENTRIES = 131_072  # room for them that the agent has by default
_PREFIXES = {
    Route.TAPS: "t",
    Route.VETHS: "v",
    Route.UPLINK: "u",
    Route.NIC: "n",
    Route.FLOOD_8: "f8-",
    Route.FLOOD_64: "f64-",
    Route.WIRE: "w",
    Route.TUNNEL_TAPS: "xt",
    Route.TUNNEL_VETHS: "xv",
}


class Contender(ABC):
    """Has a namespace of its own, and builds each path when it is first asked for."""

    tagged = False  # its uplinks carry the segment as a VLAN

    def __init__(self, world: World, builder: Builder, name: str) -> None:
        self.world = world
        self.builder = builder
        self.name = name
        self._paths: dict[str, Path] = {}

    @cached_property
    def switch(self) -> Namespace:
        """Where its ports are."""
        return self.world.namespace(f"sw-{self.name.replace(' ', '-')}")

    def path(self, case: Case) -> Path:
        """The path for a case, joined.

        Raises:
            HostError, CommandFailed, OSError: it cannot be built here.
        """
        route, name = self.route(case)
        if name not in self._paths:
            path = self.builder.build(route, self.host(case), name, tagged=self.tagged)
            self.join(path, case)
            self._paths[name] = path
        return self._paths[name]

    @contextmanager
    def at_work(self, path: Path) -> Iterator[None]:
        """While it is measured. Whoever shares devices with others has them only then."""
        yield

    def route(self, case: Case) -> tuple[Route, str]:
        """Which route a case takes here, and the name of its path."""
        return case.route, _PREFIXES[case.route]

    def host(self, case: Case) -> Namespace:
        """Where the sender's port is."""
        return self.switch

    @abstractmethod
    def join(self, path: Path, case: Case) -> None:
        """Forward between the path's devices."""


class LinuxBridge(Contender):
    """The bridge as fast as it goes; one for each path and host, with the kernel's VXLAN between two hosts."""

    options: tuple[str, ...] = ()

    def join(self, path: Path, case: Case) -> None:
        for host in path.hosts:
            bridge = Bridge(host.switch, f"br-{path.name}")
            if self.options:
                host.switch.ip("link", "set", bridge.name, "type", "bridge", *self.options)
            for port in host.ports:
                bridge.add(port)
            if path.vni is not None:
                bridge.add(_kernels_vxlan(host, f"vx-{path.name}", path.vni))


class FilteringBridge(LinuxBridge):
    """With VLAN filtering, every port untagged in VLAN 1: closer to what a switch for tenants has to do."""

    options = ("vlan_filtering", "1")

    def works(self) -> bool:
        """The kernel has it."""
        try:
            self.switch.ip(*["link", "add", "probe", "type", "bridge", "vlan_filtering", "1"])
            shown = self.switch.ip("-d", "link", "show", "probe")
            self.switch.ip("link", "delete", "probe")
        except CommandFailed:
            return False
        return "vlan_filtering 1" in shown


class Vxagent(Contender):
    """A switch of its own, with an agent in the contender's namespace, and one on a second host where a path leads over
    two; a segment for each path."""

    tagged = True
    config = ""  # the agent's vxagent.toml, beside its overlay

    def __init__(self, world: World, builder: Builder, name: str) -> None:
        super().__init__(world, builder, name)
        self._agents: dict[str, Agent] = {}
        self._joined: list[tuple[Path, bool]] = []  # with locks or not

    @property
    def agent(self) -> Agent:
        """The one in the contender's namespace."""
        return self.agent_on(Host(switch=self.switch, ports=()))

    def agent_on(self, host: Host) -> Agent:
        """A host's agent, started when it is first needed. The underlay device of its overlay may come later."""
        if host.switch.name not in self._agents:
            overlay = f'[overlay]\nvtep = "{host.address}"\ndevice = "{tunnels.UNDERLAY}"\n'
            agent = Agent(self.world.directory(), host.switch, config=self.config + overlay)
            self.world.cleanup.callback(agent.end)
            agent.up()
            self._agents[host.switch.name] = agent
        return self._agents[host.switch.name]

    def route(self, case: Case) -> tuple[Route, str]:
        route, name = super().route(case)
        return route, f"{name}l" if case.locked else name

    def join(self, path: Path, case: Case) -> None:
        self._joined.append((path, case.locked))
        for host in path.hosts:
            agent = self.agent_on(host)
            file = agent.state_dir.parent / "switch.toml"
            file.write_text("\n".join(self._document(host.switch)))
            agent.cli("apply", str(file))

    def _document(self, switch: Namespace) -> Iterator[str]:
        """All paths' parts of a host's document."""
        vnis: dict[str, list[int]] = {}
        for path, locked in self._joined:
            for host in path.hosts:
                if host.switch is switch:
                    yield from _tables(path, host, locked=locked)
                    if path.vni is not None:
                        vnis.setdefault(host.remote, []).append(path.vni)
        for address, theirs in vnis.items():
            yield f'[[vtep]]\naddress = "{address}"\nvnis = {theirs}\n'


class LargeFdb(Vxagent):
    """A switch that knows many stations behind the receiver.

    Args:
        entries: how many.
        announce: writes one frame from each of that many sources to a tap.
    """

    def __init__(
        self, world: World, builder: Builder, name: str, entries: int, announce: Callable[[Path, int], None]
    ) -> None:
        super().__init__(world, builder, name)
        self.entries = entries
        self.config = f"fdb_entries = {max(2 * entries, FDB_ENTRIES)}\n"
        self._announce = announce

    def path(self, case: Case) -> Path:
        return replace(super().path(case), stations=self.entries)

    def join(self, path: Path, case: Case) -> None:
        super().join(path, case)
        receiver = path.ports[1]
        self.agent.cli("port", "set", receiver, "--max-macs", str(1 << 20), "--learn-rate", "0")
        self._announce(path, self.entries)
        known = self.agent.json("status")["fdb_entries"]
        if known < self.entries:
            raise HostError(f"the switch has learned {known:,} of {self.entries:,} MACs")


class Ovs(Contender):
    """Open vSwitch, where it is installed: a database and a daemon of its own."""

    @cached_property
    def daemon(self) -> OpenVSwitch:
        """Started when it is first needed."""
        return OpenVSwitch(self.world.directory(), self.switch)

    def join(self, path: Path, case: Case) -> None:
        if path.vni is not None:
            raise HostError("it is not measured over VXLAN")
        self.daemon.add_bridge(f"br-{path.name}", [port for port in (path.uplink, *path.ports) if port])


class Limit(Contender):
    """A bare program between the two ends, or none."""

    def __init__(self, world: World, builder: Builder, name: str, loaded: Programs) -> None:
        super().__init__(world, builder, name)
        self._programs = loaded

    def route(self, case: Case) -> tuple[Route, str]:
        assert case.bare is not None
        route = Route.WIRE if case.bare is Bare.NONE else case.route
        return route, f"{_PREFIXES[route]}{list(Bare).index(case.bare)}-"

    def host(self, case: Case) -> Namespace:
        """One for each path with a tunnel: all that comes by its underlay goes to one port."""
        return self.world.namespace(f"sw-{self.name}-{case.name}") if case.bare is Bare.ENCAP else self.switch

    def join(self, path: Path, case: Case) -> None:
        if case.bare is Bare.NONE:
            return
        one, two = path.ends
        match case.bare:
            case Bare.XDP:
                self._programs.redirect_at_xdp(self.switch, one, two)
            case Bare.CLONE:
                self._programs.redirect(self.switch, one, path.ports[1:], programs.CLONE)
            case Bare.ENCAP:
                self._join_by_tunnel(path)
            case _:
                name = programs.REDIRECT_PEER if case.bare is Bare.PEER else programs.REDIRECT
                self._programs.redirect(self.switch, one, [two], name)
                self._programs.redirect(self.switch, two, [one], name)

    def _join_by_tunnel(self, path: Path) -> None:
        """Both ways; ARP is no part of it."""
        back = programs.UNWRAP if path.sender.tap is not None else programs.UNWRAP_PEER
        assert path.vni is not None
        for host, port in zip(path.hosts, path.ends, strict=True):
            self._programs.wrap(host.switch, port, tunnels.UNDERLAY, host.outside(path.vni))
            self._programs.redirect(host.switch, tunnels.UNDERLAY, [port], back)
        path.sender.set_neighbour(path.receiver.address, path.receiver.mac)
        path.receiver.set_neighbour(path.sender.address, path.sender.mac)


def others(world: World, builder: Builder) -> Mapping[str, Contender]:
    """Further contenders, where this machine has them."""
    found: dict[str, Contender] = {}
    filtering = FilteringBridge(world, builder, "bridge-vlan")
    if filtering.works():
        found[filtering.name] = filtering
    if OpenVSwitch.version():
        found["ovs"] = Ovs(world, builder, "ovs")
    return found


def _tables(path: Path, host: Host, *, locked: bool) -> Iterator[str]:
    """The path's part of a host's document."""
    segment = f"s-{path.name}"
    vlan = f"vlan = {path.vid or VLAN + 1}\n" if path.uplink or locked else ""
    vni = "" if path.vni is None else f"vni = {path.vni}\n"
    yield f'[[segment]]\nname = "{segment}"\ntenant = "bench"\n{vlan}{vni}'
    if path.uplink:
        yield f'[[uplink]]\nifname = "{path.uplink}"\n'
    stations = dict(zip(path.ends, (path.sender, path.receiver), strict=True)) if locked else {}
    for port in host.ports:
        if port == path.uplink:
            continue
        lock = ""
        if port in stations:
            lock = f'mac = ["{stations[port].mac}"]\nip = ["{stations[port].address}"]\n'
        yield f'[[port]]\nifname = "{port}"\nsegment = "{segment}"\n{lock}'


def _kernels_vxlan(host: Host, name: str, vni: int) -> str:
    """A vxlan device of the kernel's on the underlay, which floods to the other host and learns from it."""
    ends = f"local {host.address} remote {host.remote} dstport {tunnels.PORT} dev {tunnels.UNDERLAY}"
    host.switch.ip(*f"link add {name} up type vxlan id {vni} {ends}".split())
    return name
