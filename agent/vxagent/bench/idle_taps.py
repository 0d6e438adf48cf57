"""The same on a person's own two taps, which nobody uses at the moment.

They are borrowed: opened, moved into the lab's namespace, joined by one contender at a time, and given back as they
were.
"""

from __future__ import annotations

import fcntl
import json
import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vxagent.bench.cases import CASES, Case, Route
from vxagent.bench.contenders import Contender
from vxagent.bench.figures import Roles
from vxagent.bench.lab import Entrants, Lab
from vxagent.bench.paths import RECEIVER, SENDER, Path, Station
from vxagent.errors import Refused
from vxagent.lab.agent import Agent
from vxagent.lab.bridge import Bridge
from vxagent.lab.namespaces import CommandFailed, Namespace, run
from vxagent.lab.tap import IFF_NO_PI, IFF_TAP, IFF_VNET_HDR, TUNSETOFFLOAD, attach_tap, open_tap
from vxagent.lab.world import World

SEGMENT = "bench"


def cases() -> tuple[Case, ...]:
    """Those that need two taps and nothing else."""
    return tuple(case for case in CASES if case.route is Route.TAPS and not case.locked and case.spread is None)


@dataclass(frozen=True, kw_only=True)
class IdleTap:
    """A tap as it was found.

    Attributes:
        ifname: its name.
        flags: IFF_… that whoever opens it has to repeat.
        arp: it does ARP.
    """

    ifname: str
    flags: int
    arp: bool

    @classmethod
    def find(cls, ifname: str) -> IdleTap:
        """Look at a device of this process's namespace.

        Raises:
            Refused: it is no tap, or not idle; says why and how to mend it.
        """
        shown = _shown(ifname)
        tap = shown.get("linkinfo", {})
        data = tap.get("info_data", {})
        if tap.get("info_kind") != "tun" or data.get("type") != "tap":
            raise Refused(f"{ifname} is no tap", "make one with `ip tuntap add mode tap`")
        if data.get("multi_queue"):
            raise Refused(f"{ifname} has several queues", "the bench takes taps with a single one")
        if "master" in shown:
            raise Refused(f"{ifname} is in {shown['master']}", f"take it out: ip link set {ifname} nomaster")
        if "xdp" in shown:
            raise Refused(f"{ifname} has an XDP program", f"take it off: ip link set {ifname} xdp off")
        if _addresses(ifname):
            raise Refused(f"{ifname} has addresses", f"remove them: ip address flush dev {ifname}")
        if "UP" in shown["flags"]:
            raise Refused(
                f"{ifname} is up: a switch may be using it", f"detach it, then set it down: ip link set {ifname} down"
            )
        flags = IFF_TAP | (0 if data.get("pi") else IFF_NO_PI) | (IFF_VNET_HDR if data.get("vnet_hdr") else 0)
        return cls(ifname=ifname, flags=flags, arp="NOARP" not in shown["flags"])

    @contextmanager
    def borrowed(self, into: Namespace) -> Iterator[int]:
        """A descriptor of it, while it is in that namespace.

        Raises:
            Refused: somebody has it open.
        """
        try:
            fd = open_tap(None, self.ifname)
        except OSError as exc:
            raise Refused(f"{self.ifname} cannot be opened: {exc.strerror}", "end what has it open") from exc
        with ExitStack() as back:
            back.callback(self._restore)
            back.callback(os.close, fd)
            here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
            back.callback(os.close, here)
            back.callback(self._return, into, here)
            run("ip", "link", "set", self.ifname, "netns", into.name)
            yield fd

    def _return(self, there: Namespace, here: int) -> None:
        """Move it back, if it was moved."""
        if self.ifname in there.devices():
            there.ip("link", "set", self.ifname, "down", "arp", "on" if self.arp else "off")
            there.ip("link", "set", self.ifname, "netns", f"/proc/{os.getpid()}/fd/{here}")

    def _restore(self) -> None:
        """What its last user said about headers and offloads holds until the next one comes."""
        fd = attach_tap(None, self.ifname, self.flags)
        fcntl.ioctl(fd, TUNSETOFFLOAD, 0)
        os.close(fd)


class Borrower(Contender):
    """Joins the borrowed taps for as long as it is measured. A port of nobody is always joined."""

    def __init__(self, lab: TapLab, name: str) -> None:
        super().__init__(lab.world, lab.builder, name)
        self.lab = lab
        self.ports = lab.ports

    @cached_property
    def switch(self) -> Namespace:
        return self.lab.switch

    def path(self, case: Case) -> Path:
        """The same for every case."""
        return self._path

    @cached_property
    def _path(self) -> Path:
        witness = f"w-{self.name.replace(' ', '-')}"[:15]
        counter = self.builder.witness({witness: self.switch})
        path = Path(
            name=self.name,
            switch=self.switch,
            sender=self.lab.sender,
            receiver=self.lab.receiver,
            ports=(*self.ports, witness),
            witness=counter,
        )
        self.prepare(witness)
        return path

    @abstractmethod
    def prepare(self, witness: str) -> None:
        """Have everything but the taps."""

    def join(self, path: Path, case: Case) -> None:
        """Nothing lasting."""

    def _up(self) -> None:
        self.switch.ip_batch(f"link set {port} up" for port in self.ports)
        for port in self.ports:
            self.switch.wait_running(port)


class BorrowingBridge(Borrower):
    """The Linux bridge."""

    def prepare(self, witness: str) -> None:
        self._bridge = Bridge(self.switch, f"br-{witness[2:]}"[:15])
        self._bridge.add(witness)

    @contextmanager
    def at_work(self, path: Path) -> Iterator[None]:
        try:
            for port in self.ports:
                self._bridge.add(port)
            self._up()
            yield
        finally:
            self.switch.ip_batch(f"link set {port} nomaster" for port in self.ports)


class BorrowingSwitch(Borrower):
    """The switch, with an agent of its own."""

    def prepare(self, witness: str) -> None:
        self._agent = Agent(self.world.directory(), self.switch)
        self.world.cleanup.callback(self._agent.end)
        self._agent.up()
        self._agent.cli("segment", "add", SEGMENT, "--tenant", SEGMENT)
        self._agent.cli("port", "attach", witness, "--segment", SEGMENT)

    @contextmanager
    def at_work(self, path: Path) -> Iterator[None]:
        try:
            for port in self.ports:
                self._agent.cli("port", "attach", port, "--segment", SEGMENT)
            self._up()
            yield
        finally:
            for port in self.ports:
                self._agent.cli("port", "detach", port, check=False)


class TapLab(Lab):
    """A lab around two borrowed taps.

    Args:
        taps: the sender's and the receiver's.

    Raises:
        Refused: somebody has one open.
    """

    def __init__(self, world: World, taps: Sequence[IdleTap]) -> None:
        super().__init__(world)
        self.switch = world.namespace("sw-taps")
        self.ports = tuple(tap.ifname for tap in taps)
        fds = [world.cleanup.enter_context(tap.borrowed(self.switch)) for tap in taps]
        self.sender, self.receiver = (
            self._station(end, fd, port) for end, fd, port in zip((SENDER, RECEIVER), fds, self.ports, strict=True)
        )
        roles = Roles(limit=None)
        contenders: Mapping[str, Contender] = {
            roles.base: BorrowingBridge(self, roles.base),
            roles.tested: BorrowingSwitch(self, roles.tested),
            roles.again: BorrowingBridge(self, roles.again),
        }
        self._entrants = Entrants(contenders=contenders, roles=roles)

    def entrants(self, case: Case) -> Entrants:
        return self._entrants

    def count(self, case: Case) -> int:
        return len(self._entrants.contenders)

    def _station(self, end: tuple[str, str], fd: int, port: str) -> Station:
        return self.builder.behind_tap(end, fd, self.switch, port)


def _shown(ifname: str) -> dict[str, Any]:
    try:
        (found,) = json.loads(run("ip", "-j", "-d", "link", "show", "dev", ifname).stdout)
    except (CommandFailed, ValueError) as exc:
        raise Refused(f"there is no device {ifname}", "see `ip link`") from exc
    return dict(found)


def _addresses(ifname: str) -> list[Any]:
    shown = json.loads(run("ip", "-j", "address", "show", "dev", ifname).stdout)
    return [address for one in shown for address in one.get("addr_info", [])]
