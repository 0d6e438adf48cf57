"""Hosts of one cluster: an agent and an underlay device each, and the engine that they share.

     hv1              hv2              hv3
┌───────────┐    ┌───────────┐    ┌───────────┐
│  vxagent  │    │  vxagent  │    │  vxagent  │
│    u0     │    │    u0     │    │    u0     │     192.0.2.1, .2, .3
└────┬──────┘    └────┬──────┘    └────┬──────┘
┌────┴────────────────┴────────────────┴──────┐
│  hv1              hv2              hv3      │     a bridge; etcd at 192.0.2.100
└─────────────────────────────────────────────┘
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vxagent.lab.agent import Agent
from vxagent.lab.bridge import Bridge
from vxagent.lab.etcd import Etcd
from vxagent.lab.namespaces import Namespace
from vxagent.lab.waiting import wait_until
from vxagent.lab.world import World

UNDERLAY = "u0"
MTU = 1600  # of the underlay: has room for frames of 1500 bytes of L3 in VXLAN
ENGINE = "192.0.2.100"
CONNECTED_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Host:
    """One hypervisor.

    Attributes:
        name: in the cluster, and of its device in the underlay.
        vtep: its address there.
    """

    name: str
    vtep: str
    namespace: Namespace
    agent: Agent

    def up(self) -> None:
        """Start its agent and wait until the engine has answered. Raises CommandFailed, TimeoutError."""
        self.agent.up()
        self.wait_for("connected")

    def wait_for(self, cluster: str) -> None:
        """Until its agent says this of the cluster. Raises TimeoutError."""
        wait_until(
            lambda: self.agent.json("status")["cluster"] == cluster,
            within=CONNECTED_S,
            what=f"{self.name} is {cluster}",
        )


class Hosts:
    """The hosts of a cluster; those of the beginning are hv1, hv2 … Their agents are not started yet.

    Args:
        world: where they live.
        count: of the beginning.

    Attributes:
        underlay: the namespace of the bridge between them.
        etcd: the engine, serving.
        all: the hosts.
    """

    def __init__(self, world: World, count: int = 3) -> None:
        self.underlay = world.namespace("underlay")
        self._world = world
        self._bridge = Bridge(self.underlay, "sw0")
        self.underlay.ip("address", "add", f"{ENGINE}/24", "dev", self._bridge.name)
        self.etcd = Etcd(world.directory(), self.underlay, ENGINE)
        world.cleanup.callback(self.etcd.kill)
        self.etcd.start()
        self.all: list[Host] = []
        for number in range(1, count + 1):
            self.add(f"hv{number}")

    def add(
        self, name: str, *, known_as: str = "", vtep: str = "", cluster: str = "lab", config: Sequence[str] = ()
    ) -> Host:
        """One more.

        Args:
            name: of its namespace and device, which nobody else has.
            known_as: its name in the cluster, if that is another one.
            vtep: by default the next free address, which its device has in any case.
            cluster: the name of its cluster.
            config: lines that its vxagent.toml begins with.
        """
        namespace = self._world.namespace(name)
        address = f"192.0.2.{len(self.all) + 1}"
        namespace.ip(*f"link add {UNDERLAY} mtu {MTU} type veth peer name {name} netns {self.underlay.name}".split())
        self.underlay.ip("link", "set", name, "mtu", str(MTU), "up")
        self._bridge.add(name)
        namespace.ip_batch([f"link set {UNDERLAY} up", f"address add {address}/24 dev {UNDERLAY}"])
        namespace.wait_running(UNDERLAY)
        lines = [
            *(f'host = "{known_as or name}"', *config),
            *("[overlay]", f'vtep = "{vtep or address}"', f'device = "{UNDERLAY}"'),
            *("[cluster]", f'name = "{cluster}"', f'endpoints = ["{self.etcd.url}"]'),
        ]
        agent = Agent(self._world.directory(), namespace, config="\n".join(lines))
        self._world.cleanup.callback(agent.end)
        host = Host(name=known_as or name, vtep=vtep or address, namespace=namespace, agent=agent)
        self.all.append(host)
        return host
