"""Hosts whose engine has three members, of which some may be gone.

host 1      host 2      host 3
  └───────────┴───────────┴──── etcd0 ◄─► etcd1 ◄─► etcd2, at 192.0.2.200 on the underlay
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from support.clustered import CLUSTER, ENGINE, Clustered
from support.etcd_nodes import Node, Nodes, etcd_nodes
from support.fleet import Host
from support.lan import clean_world
from support.stored import Stored

NOBODY = "02:00:00:00:fe:01"


class Quorum(Clustered):
    """Hosts that know each other by an engine with three members.

    Attributes:
        nodes: the members; call their methods inside `at_engine`.
        members, tls: how many there are, and whether they ask for certificates.
    """

    members = 3
    tls = False
    nodes: Nodes

    def share_engine(self) -> None:
        """They serve."""
        self.underlay.namespace.ip("address", "add", f"{ENGINE}/24", "dev", "br0")
        with self.at_engine():
            members = etcd_nodes(self.world.directory(), self.members, tls=self.tls, address=ENGINE)
            self.nodes = self.world.cleanup.enter_context(members)
        self.endpoints = list(self.nodes.endpoints)
        self.stored = Stored(self, CLUSTER)

    @contextmanager
    def at_engine(self) -> Iterator[None]:
        """Where the members are."""
        with self.underlay.namespace.entered():
            yield

    def ask(self, path: str, **question: Any) -> Any:
        """Of the first member that runs."""
        with self.at_engine():
            return self.nodes.ask(path, **question)

    def kill_majority(self) -> None:
        """All but one are gone: nothing can be written."""
        with self.at_engine():
            leader = self.nodes.leader()
        for node in (leader, next(node for node in self.nodes.members if node is not leader)):
            node.kill()

    def heal(self) -> None:
        """All members run and serve, and all hosts reach them."""
        with self.at_engine():
            self.nodes.heal()
        for host in self.hosts:
            self.reach(host)
        self.connected()

    def replace(self, node: Node) -> None:
        """A member dies, and comes back with a disk that is new."""
        node.kill()
        node.lose_data()
        with self.at_engine():
            self.nodes.replace(node)

    def cut_off(self, host: Host) -> None:
        """What a host sends to the engine goes nowhere, and it hears nothing of that."""
        host.switch.ip(*f"neighbour replace {ENGINE} lladdr {NOBODY} dev eth1 nud permanent".split())

    def reach(self, host: Host) -> None:
        """After `cut_off`."""
        host.switch.run("ip", *f"neighbour delete {ENGINE} dev eth1".split(), check=False)


@contextmanager
def running_quorum(count: int = 3) -> Iterator[Quorum]:
    """In a world of its own."""
    with clean_world() as world:
        yield Quorum(world, count)
