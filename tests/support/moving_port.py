"""A port whose VM is to go from one host to another, and what may be asked of whom meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from support.clustered import Clustered, eventually, migrate
from support.fleet import Host
from vxagent.errors import VxagentError
from vxagent.lab.vm import VethVm
from vxagent.model.binding import Binding, Phase

STEPS = ("prepare", "switchover", "activate")

# Phase → of the owner, and of the next host. Nobody stays at `switched`: the next host holds by itself.
MODES: dict[Phase, tuple[str, str | None]] = {
    Phase.BOUND: ("up", None),
    Phase.PREPARED: ("up", "standby"),
    Phase.HELD: ("draining", "holding"),
}
LINGERS = {None, "draining"}


class Moving:
    """A VM that is to go from host 1 to host 2; its port has an address for each of its MACs.

    Attributes:
        port, segment, vm: of it.
    """

    def __init__(self, fleet: Clustered) -> None:
        self.fleet = fleet
        self.one, self.two, self.three = fleet.hosts
        self.segment = fleet.new_segment()
        self.vm: VethVm = self.one.veth(self.one.unique("v"), self.segment)
        self.port = self.vm.port
        self.one.client.change("PATCH", "v1", "ports", self.port, body={"mac": [self.vm.mac], "ip": [self.vm.address]})
        for host in (self.two, self.three):
            host.switch.ip(*f"link add {self.port} type veth peer name {self.port}p".split())
            for name in (self.port, f"{self.port}p"):
                host.switch.ip("link", "set", name, "up")
        fleet.known(self.segment, self.vm.mac, self.one)

    def go(self, *steps: str) -> None:
        """Take these steps, each on the host that takes it."""
        for step in steps:
            host = self.one if step == "switchover" else self.two
            migrate(host, step, self.port, **({"ifname": self.port} if step == "prepare" else {}))

    def at_once(self, *asked: tuple[Host, str]) -> list[str]:
        """Ask for all of these at the same time; return what each was refused with, or ""."""

        def ask(of: tuple[Host, str]) -> str:
            host, step = of
            try:
                migrate(host, step, self.port, **({"ifname": self.port} if step == "prepare" else {}))
            except VxagentError as error:
                return str(error)
            return ""

        with ThreadPoolExecutor(len(asked)) as pool:
            return list(pool.map(ask, asked))

    def rest(self) -> Binding:
        """Wait until each host has what it is to have; return the binding."""

        def is_so() -> bool:
            binding = self.history()[-1]
            if binding.phase not in MODES:
                return False
            owns, awaits = MODES[binding.phase]
            wanted: dict[str | None, set[str | None]] = {binding.owner: {owns}, binding.next: {awaits}}
            return all(self.state(host) in wanted.get(host.name, LINGERS) for host in self.fleet.hosts)

        eventually(is_so, f"all hosts have what they are to have of {self.port}")
        return self.history()[-1]

    def states(self) -> list[str | None]:
        """Of the port, on the first two hosts; None: a host does not have it."""
        return [self.state(host) for host in (self.one, self.two)]

    def state(self, host: Host) -> str | None:
        """Of the port on a host, likewise."""
        return next((row["state"] for row in host.client.get("v1", "ports") if row["id"] == self.port), None)

    def history(self) -> list[Binding]:
        """All that its binding has been."""
        return self.fleet.stored.history(self.port)

    def where(self) -> tuple[str, str | None, str, int]:
        """Owner, next host, phase and epoch."""
        binding = self.fleet.binding(self.port)
        assert binding is not None
        return binding["owner"], binding["next"], binding["phase"], binding["epoch"]


def hosts_but(hosts: Sequence[Host], name: str) -> list[Host]:
    """Those that are not called so."""
    return [host for host in hosts if host.name != name]
