"""Hosts with an overlay: real agents, each with a network namespace as its host, joined by an underlay.

      host 1              host 2              host 3           an outsider
 ┌──────────────┐    ┌──────────────┐    ┌──────────────┐    ┌──────────────┐
 │ vN  tN  probe│    │ vN  tN  probe│    │ vN  tN  probe│    │              │
 │ eth1    .1   │    │ eth1    .2   │    │ eth1    .3   │    │ eth0     .N  │
 └──┬───────────┘    └──┬───────────┘    └──┬───────────┘    └──┬───────────┘
 ┌──┴───────────────────┴───────────────────┴───────────────────┴──┐
 │  h1                  h2                  h3                  xN │   a plain Linux bridge
 └─────────────────────────────────────────────────────────────────┘

Host n has 192.0.2.n or 2001:db8:1::n. Each is told of the VTEPs of the others: there is no engine. `probe` is a VM in a
segment of its own that all hosts have: what it sends shows that what was sent before has arrived (`settle`).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from support.frames import ethernet
from support.hearing import Party, copies_of, finish_last_legs, frame, listening, place_of
from support.lan import Lan, clean_world, mac_of
from support.vxlan import VNI_FLAG, vxlan
from vxagent.lab.agent import Agent
from vxagent.lab.bridge import Bridge
from vxagent.lab.fabric import Fabric
from vxagent.lab.frames import BROADCAST, Frame
from vxagent.lab.namespaces import Namespace
from vxagent.lab.sniffer import Sniffer
from vxagent.lab.traffic import send_frames
from vxagent.lab.vm import NIC, VethVm
from vxagent.lab.world import World

UNDERLAY = "eth1"
PREFIX = {4: 24, 6: 64}
OVERHEAD = {4: 50, 6: 70}  # RFC 7348, section 5, and over IPv6
ROUTER = "02:00:00:00:fe:fe"  # by which packets come that somebody else sends
PROBE_VNI = 16_000_000
ROUNDS = 3  # of probes; more than a frame has hosts to pass

_vnis = itertools.count(5000)


class Wire:
    """A physical network: a plain bridge in a namespace of its own.

    Args:
        mtu: bytes of L3.
    """

    def __init__(self, world: World, name: str, *, mtu: int = 1500) -> None:
        self.namespace = world.namespace(name)
        self.mtu = mtu
        self._world = world
        self._bridge = Bridge(self.namespace)

    def connect(self, host: Namespace, ifname: str, port: str) -> None:
        """Give a host a NIC here; `port` is the other end, at the bridge."""
        link = f"link add {port} up mtu {self.mtu} type veth peer name {ifname} mtu {self.mtu} netns {host.name}"
        self.namespace.ip(*link.split())
        self._bridge.add(port)
        host.ip("link", "set", ifname, "up")
        host.wait_running(ifname)
        self.namespace.wait_running(port)

    def add(self, port: str) -> None:
        """Take a device that is here already, say a tap of QEMU's."""
        self.namespace.ip("link", "set", port, "mtu", str(self.mtu), "up")
        self._bridge.add(port)

    def trunk(self, port: str) -> Fabric:
        """Somebody who sends and takes tagged frames, with hosts in his VLANs."""
        fabric = self._world.fabric(self.namespace, port, mtu=self.mtu)
        self._bridge.add(port)
        self.namespace.wait_running(port)
        return fabric

    def outsider(self, port: str, *, mac: str) -> VethVm:
        """Somebody with a stack of his own."""
        one = self._world.veth_vm(self.namespace, port, mac=mac, mtu=self.mtu)
        self._bridge.add(port)
        self.namespace.wait_running(port)
        return one

    def sniff(self, port: str) -> Sniffer:
        """Listen to what the one behind `port` sends."""
        return Sniffer(self.namespace, port)


class Host(Lan):
    """One host; MACs, addresses and names are counted up for all of them.

    Attributes:
        number: from 1.
        vtep: its tunnel address.
        probe: a VM in the segment of that name.
    """

    number: int
    vtep: str
    probe: VethVm

    @property
    def name(self) -> str:
        """As its agent calls it."""
        return f"host{self.number}"

    def vteps(self) -> dict[str, dict[str, Any]]:
        """`vtep list --json`, by address."""
        return {row["address"]: row for row in self.client.get("v1", "vteps")}

    def packet(self, inside: bytes, sender: str, *, vni: int, flags: int = VNI_FLAG) -> bytes:
        """A frame in a packet for this host, as if from `sender`, for whoever sends it."""
        to, by = (bytes.fromhex(mac.replace(":", "")) for mac in (self.device(UNDERLAY)["address"], ROUTER))
        return ethernet(to, by, vxlan(inside, sender, self.vtep, vni=vni, flags=flags))


class Fleet:
    """Hosts that know each other.

    Attributes:
        world: where they are.
        underlay: what joins them.
        family: 4 or 6, of the tunnels.
        mtu: of a segment of theirs, in bytes of L3.
        hosts: host 1 first.
    """

    def __init__(self, world: World, count: int = 3, *, family: int = 4, mtu: int = 1500) -> None:
        self.world = world
        self.family = family
        self.mtu = mtu - OVERHEAD[family]
        self.underlay = Wire(world, "underlay", mtu=mtu)
        self.share_engine()
        self.hosts: list[Host] = []
        self._vnis: dict[int, set[int]] = {}
        self._sniffers: list[Sniffer] = []
        for number in range(1, count + 1):
            self.hosts.append(self.make_host(number, f"host{number}", self.config(number)))
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(lambda host: host.agent.up(), self.hosts))
        self.segment("probe", tenant="probe", vni=PROBE_VNI)
        for host in self.hosts:
            host.probe = host.veth(host.unique("p"), "probe")
            self._sniffers.append(world.cleanup.enter_context(Sniffer(host.probe.namespace, NIC)))

    def share_engine(self) -> None:
        """Have what the hosts need before they start."""

    def make_host(self, number: int, name: str, config: str) -> Host:
        """A host whose agent is not started, and of which the others are not told; `name` is its namespace's."""
        namespace = self.world.namespace(name, ipv6=True)
        self.underlay.connect(namespace, UNDERLAY, f"h{number}")
        vtep = self.address(number)
        nodad = ("nodad",) if self.family == 6 else ()
        namespace.ip("address", "add", f"{vtep}/{PREFIX[self.family]}", "dev", UNDERLAY, *nodad)
        agent = Agent(self.world.directory(), namespace, config=config)
        self.world.cleanup.callback(agent.end)
        host = Host(self.world, namespace, agent)
        host.number, host.vtep, host.mtu = number, vtep, self.mtu
        if self.hosts:
            host.count_with(self.hosts[0])
        return host

    def address(self, number: int) -> str:
        """A tunnel address; numbers beyond those of the hosts are free."""
        return f"192.0.2.{number}" if self.family == 4 else f"2001:db8:1::{number}"

    def config(self, number: int) -> str:
        """The vxagent.toml of a host."""
        return f'host = "host{number}"\n[overlay]\nvtep = "{self.address(number)}"\ndevice = "{UNDERLAY}"\n'

    def segment(self, name: str, *hosts: Host, tenant: str = "acme", vni: int | None = None, **options: Any) -> int:
        """A segment on these hosts (all unless any is named), which are told of each other; returns its VNI."""
        vni = next(_vnis) if vni is None else vni
        there = hosts or tuple(self.hosts)
        for host in there:
            self._vnis.setdefault(host.number, set()).add(vni)
        for host in self.hosts:
            self.tell(host)
        for host in there:
            host.segment(name, tenant=tenant, vni=vni, **options)
        return vni

    def new_segment(self, *hosts: Host, **options: Any) -> str:
        """The same, under a name of its own, which is returned."""
        name = self.hosts[0].unique("s")
        self.segment(name, *hosts, **options)
        return name

    def leave(self, host: Host, name: str, vni: int) -> None:
        """Take a segment, of which no port is left, off a host, and tell the others."""
        host.client.change("DELETE", "v1", "segments", name)
        self._vnis[host.number].remove(vni)
        for other in self.hosts:
            self.tell(other)

    def vnis(self, host: Host) -> list[int]:
        """What this host has of them."""
        return sorted(self._vnis[host.number])

    def tell(self, host: Host) -> None:
        """Tell a host which VNIs the others have."""
        known = host.vteps()
        for other in self.hosts:
            if other is host or other.number not in self._vnis:
                continue
            if other.vtep not in known:
                host.client.change("POST", "v1", "vteps", body={"address": other.vtep, "vnis": self.vnis(other)})
            elif known[other.vtep]["vnis"] != self.vnis(other):
                host.client.change("PATCH", "v1", "vteps", other.vtep, body={"vnis": self.vnis(other)})

    def outsider(self, number: int) -> VethVm:
        """Somebody on the underlay who is none of the hosts, with a tunnel address."""
        one = self.underlay.outsider(f"x{number}", mac=mac_of(0xF000 + number))
        one.address = self.address(number)
        if self.family == 6:
            one.namespace.sysctl(f"net/ipv6/conf/{NIC}/disable_ipv6", 0)
        nodad = ("nodad",) if self.family == 6 else ()
        one.namespace.ip("address", "add", f"{one.address}/{PREFIX[self.family]}", "dev", NIC, *nodad)
        return one

    def hear(self, sender: Party, sent: bytes, *ears: Party) -> list[list[Frame]]:
        """What of one frame, made by `frame`, arrives at each of the ears, which are anywhere.

        Who hears none is known without waiting for a time: what a CPU is given to do it does in turn, so what is sent
        later, over more hosts, arrives later.
        """
        origin, places = place_of(sender), [place_of(ear) for ear in ears]
        with listening(*places) as sniffers, one_cpu():
            send_frames(origin.namespace, origin.ifname, sent)
            self._flood_probes()
            finish_last_legs(places, sniffers)
            return [copies_of(sent, sniffer.frames()) for sniffer in sniffers]

    def who_hears(self, sender: Party, sent: bytes, *ears: Party) -> list[str]:
        """Ports of those of the ears at which one frame arrives, once for each copy."""
        arrived = self.hear(sender, sent, *ears)
        return [place_of(ear).port for ear, copies in zip(ears, arrived, strict=True) for _ in copies]

    def settle(self) -> None:
        """Have what was sent before by this CPU arrive."""
        with one_cpu():
            self._flood_probes()

    def _flood_probes(self) -> None:
        """Every host floods some frames to every other one."""
        for _ in range(ROUNDS):
            for number, host in enumerate(self.hosts):
                sent = frame(BROADCAST, host.probe.mac)
                send_frames(host.probe.namespace, NIC, sent)
                for other, sniffer in enumerate(self._sniffers):
                    if other != number:
                        sniffer.wait_for(lambda arrived, sent=sent: arrived.data == sent)  # type: ignore[misc]
        for sniffer in self._sniffers:
            sniffer.forget()


@contextmanager
def one_cpu() -> Iterator[None]:
    """Run on one CPU only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def running_fleet(count: int = 3, *, family: int = 4, mtu: int = 1500) -> Iterator[Fleet]:
    """A Fleet in a world of its own."""
    with clean_world() as world:
        yield Fleet(world, count, family=family, mtu=mtu)
