"""A switch with VMs that are plugged in as they are made."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vxagent.lab.agent import Agent
from vxagent.lab.fabric import Fabric
from vxagent.lab.namespaces import DIRECTORY, Namespace
from vxagent.lab.ping import ping
from vxagent.lab.traffic import bulk_tcp
from vxagent.lab.vm import NIC, Endpoint, TapVm, VethVm
from vxagent.lab.world import World
from vxagent_cli.client import Client

AMOUNT = 4 << 20  # bytes of TCP that show that a path carries bulk


class Lan:
    """One switch and what is plugged into it. MACs and addresses are counted up: 02:00:00:00:00:01 has 10.0.0.1.

    Attributes:
        world, switch, agent: as the fixtures of these names.
        client: asks the agent without the start of a process for each call.
        mtu: of VMs, in bytes of L3.
    """

    mtu = 1500

    def __init__(self, world: World, switch: Namespace, agent: Agent) -> None:
        self.world = world
        self.switch = switch
        self.agent = agent
        self.client = Client(agent.run_dir)
        self._numbers = itertools.count(1)
        self._names = itertools.count(1)

    def count_with(self, other: Lan) -> None:
        """Have no MAC, address or name that another switch of this world has given."""
        self._numbers, self._names = other._numbers, other._names

    def count(self) -> int:
        """The next VM's number, which is taken."""
        return next(self._numbers)

    def segment(self, name: str, *, tenant: str = "acme", **options: Any) -> None:
        """`segment add`; options as they are called in the API."""
        self.client.change("POST", "v1", "segments", body={"name": name, "tenant": tenant, **options})

    def attach(self, ifname: str, segment: str | None = None, **options: Any) -> None:
        """`port attach`, as an access port where a segment is given; options as they are called in the API."""
        where = {} if segment is None else {"segment": segment}
        self.client.change("POST", "v1", "ports", body={"ifname": ifname, **where, **options})

    def unique(self, prefix: str) -> str:
        """A name that nothing else in this world has."""
        return f"{prefix}{next(self._names)}"

    def new_segment(self, *, tenant: str = "acme", **options: Any) -> str:
        """A segment under a name of its own, which is returned."""
        name = self.unique("s")
        self.segment(name, tenant=tenant, **options)
        return name

    def veths(self, segment: str, count: int) -> list[VethVm]:
        """VMs on veths, plugged into access ports."""
        return [self.veth(self.unique("v"), segment) for _ in range(count)]

    def taps(self, segment: str, count: int) -> list[TapVm]:
        """VMs on taps, plugged into access ports."""
        return [self.tap(self.unique("t"), segment) for _ in range(count)]

    def veth(self, port: str, segment: str | None, *, mac: str = "", address: str = "", **options: Any) -> VethVm:
        """A VM on a veth, plugged into an access port unless `segment` is None; `options` are the port's."""
        number = self.count()
        vm = self.world.veth_vm(
            self.switch, port, mac=mac or mac_of(number), address=address or address_of(number), mtu=self.mtu
        )
        if segment is not None:
            self.attach(port, segment, **options)
        return vm

    def tap(
        self,
        port: str,
        segment: str | None,
        *,
        mac: str = "",
        address: str = "",
        offloads: bool = True,
        **options: Any,
    ) -> TapVm:
        """A VM on a tap, plugged into an access port unless `segment` is None; `options` are the port's."""
        number = self.count()
        vm = self.world.tap_vm(
            self.switch,
            port,
            mac=mac or mac_of(number),
            address=address or address_of(number),
            mtu=self.mtu,
            offloads=offloads,
        )
        if segment is not None:
            self.attach(port, segment, **options)
        return vm

    def uplink(self, ifname: str = "up0") -> Fabric:
        """A physical network, and the uplink to it."""
        fabric = self.world.fabric(self.switch, ifname)
        self.client.change("POST", "v1", "uplinks", body={"ifname": ifname})
        return fabric

    def host(self, fabric: Fabric, vid: int | None, *, mac: str = "", address: str = "") -> Endpoint:
        """A host in a VLAN of the physical network."""
        number = self.count()
        return fabric.host(vid, mac=mac or mac_of(number), address=address or address_of(number))

    def show(self, port: str) -> dict[str, Any]:
        """`port show --json`."""
        shown: dict[str, Any] = self.client.get("v1", "ports", port)
        return shown

    def state(self, port: str) -> str:
        """The state of a port."""
        return str(self.show(port)["state"])

    def drops(self, port: str) -> dict[str, int]:
        """Reason → packets of one port or uplink that were dropped."""
        found: Counter[str] = Counter()
        for row in self.client.get("v1", "drops", port=port):
            if not row["shadow"]:
                found[row["reason"]] += row["packets"]
        return dict(found)

    def received(self, port: str) -> int:
        """Frames that a port or uplink brought so far, each decided upon."""
        rows = [*self.client.get("v1", "ports"), *self.client.get("v1", "uplinks")]
        return sum(int(row["rx_packets"]) for row in rows if port in (row.get("id"), row["ifname"]))

    def device(self, ifname: str) -> dict[str, Any]:
        """A device in the switch's namespace, as `ip -json -details link show` knows it."""
        shown: list[dict[str, Any]] = json.loads(self.switch.ip("-json", "-details", "link", "show", "dev", ifname))
        return shown[0]

    def links(self) -> list[dict[str, Any]]:
        """All devices there, likewise."""
        shown: list[dict[str, Any]] = json.loads(self.switch.ip("-json", "-details", "link", "show"))
        return shown

    def statistics(self, ifname: str, namespace: Namespace | None = None) -> dict[str, int]:
        """Frames that a device has brought ("rx") and taken ("tx"), in the switch's namespace or another."""
        shown = json.loads((namespace or self.switch).ip("-json", "-statistics", "link", "show", "dev", ifname))
        return {way: int(shown[0]["stats64"][way]["packets"]) for way in ("rx", "tx")}

    def entry(self, segment: str, mac: str) -> dict[str, Any] | None:
        """The FDB entry of a MAC."""
        rows: list[dict[str, Any]] = self.client.get("v1", "fdb", segment=segment)
        return next((row for row in rows if row["mac"] == mac), None)


@contextmanager
def clean_world() -> Iterator[World]:
    """An empty world; nothing of it may be left afterwards."""
    with World() as world:
        yield world
    left = [path.name for path in DIRECTORY.glob(f"{world.name}-*")] if DIRECTORY.exists() else []
    left += [line for line in Path("/proc/mounts").read_text().splitlines() if world.name in line]
    assert not left


@contextmanager
def running_lan(config: str = "") -> Iterator[Lan]:
    """A Lan in a world of its own; `config` is the text of the agent's vxagent.toml."""
    with clean_world() as world:
        switch = world.namespace("switch", ipv6=True)
        agent = Agent(world.directory(), switch, config=config)
        world.cleanup.callback(agent.end)
        agent.up()
        yield Lan(world, switch, agent)


def mac_of(number: int) -> str:
    """The MAC of the nth VM or host of a Lan."""
    return f"02:00:00:00:{number >> 8:02x}:{number & 0xFF:02x}"


def address_of(number: int) -> str:
    """Its address; the 251st has the first one's."""
    return f"10.0.0.{(number - 1) % 250 + 1}"


def assert_connected(one: Endpoint, other: Endpoint) -> None:
    """Both ping the other and send it bulk TCP, all of which arrives. What the switch has just taken or set up again
    loses frames until the kernel has noticed the carrier."""
    for vm in (one, other):
        if isinstance(vm, VethVm):
            vm.namespace.wait_running(NIC)
            vm.switch.wait_running(vm.port)
    for source, target in ((one, other), (other, one)):
        assert ping(source.namespace, target.address).lost == []
        assert bulk_tcp(source.namespace, target.namespace, target.address, amount=AMOUNT).received == AMOUNT


def assert_apart(one: Endpoint, other: Endpoint) -> None:
    """Neither gets an answer from the other. That their stacks have asked in vain for the other's MAC is forgotten: for
    three seconds they would hold what comes next, and then give it up with what they were asked before."""
    for source, target in ((one, other), (other, one)):
        assert ping(source.namespace, target.address, count=2, patience=0.2).received == 0
        source.namespace.ip("neighbour", "flush", "nud", "incomplete", "nud", "failed")
