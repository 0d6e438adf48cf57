"""What forwards between the devices of a path: the Linux bridge, the switch, others where they are installed, and bare
programs, which show what a switch at that hook could reach at most."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property

from vxagent.bench import programs
from vxagent.bench.cases import Bare, Case, Route
from vxagent.bench.ovs import OpenVSwitch
from vxagent.bench.paths import Builder, Path
from vxagent.bench.programs import Programs
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
            path = self.builder.build(route, self.switch, name, tagged=self.tagged)
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

    @abstractmethod
    def join(self, path: Path, case: Case) -> None:
        """Forward between the path's devices."""


class LinuxBridge(Contender):
    """The bridge as fast as it goes; one for each path."""

    options: tuple[str, ...] = ()

    def join(self, path: Path, case: Case) -> None:
        bridge = Bridge(self.switch, f"br-{path.name}")
        if self.options:
            self.switch.ip("link", "set", bridge.name, "type", "bridge", *self.options)
        for port in (path.uplink, *path.ports):
            if port:
                bridge.add(port)


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
    """A switch of its own, with an agent in the contender's namespace; a segment for each path."""

    tagged = True
    config = ""  # the agent's vxagent.toml

    def __init__(self, world: World, builder: Builder, name: str) -> None:
        super().__init__(world, builder, name)
        self._document: list[str] = []

    @cached_property
    def agent(self) -> Agent:
        """Started when it is first needed."""
        agent = Agent(self.world.directory(), self.switch, config=self.config)
        self.world.cleanup.callback(agent.end)
        agent.up()
        return agent

    def route(self, case: Case) -> tuple[Route, str]:
        route, name = super().route(case)
        return route, f"{name}l" if case.locked else name

    def join(self, path: Path, case: Case) -> None:
        self._document += list(_document(path, locked=case.locked))
        file = self.agent.state_dir.parent / "switch.toml"
        file.write_text("\n".join(self._document))
        self.agent.cli("apply", str(file))


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

    def join(self, path: Path, case: Case) -> None:
        if case.bare is Bare.NONE:
            return
        one, two = path.ends
        match case.bare:
            case Bare.XDP:
                self._programs.redirect_at_xdp(self.switch, one, two)
            case Bare.CLONE:
                self._programs.redirect(self.switch, one, path.ports[1:], programs.CLONE)
            case _:
                name = programs.REDIRECT_PEER if case.bare is Bare.PEER else programs.REDIRECT
                self._programs.redirect(self.switch, one, [two], name)
                self._programs.redirect(self.switch, two, [one], name)


def others(world: World, builder: Builder) -> Mapping[str, Contender]:
    """Further contenders, where this machine has them."""
    found: dict[str, Contender] = {}
    filtering = FilteringBridge(world, builder, "bridge-vlan")
    if filtering.works():
        found[filtering.name] = filtering
    if OpenVSwitch.version():
        found["ovs"] = Ovs(world, builder, "ovs")
    return found


def _document(path: Path, *, locked: bool) -> list[str]:
    """The path's part of the switch's document."""
    segment = f"s-{path.name}"
    vlan = f"vlan = {path.vid or VLAN + 1}" if path.uplink or locked else ""
    tables = [f'[[segment]]\nname = "{segment}"\ntenant = "bench"\n{vlan}\n']
    if path.uplink:
        tables.append(f'[[uplink]]\nifname = "{path.uplink}"\n')
    stations = dict(zip(path.ends, (path.sender, path.receiver), strict=True)) if locked else {}
    for port in path.ports:
        lock = ""
        if port in stations:
            lock = f'mac = ["{stations[port].mac}"]\nip = ["{stations[port].address}"]\n'
        tables.append(f'[[port]]\nifname = "{port}"\nsegment = "{segment}"\n{lock}')
    return tables
