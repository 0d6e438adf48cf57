"""Hosts with an overlay that share an engine, and so tell each other of their VTEPs, segments and ports.

host 1      host 2      host 3
  └───────────┴───────────┴──── etcd, at 192.0.2.200 on the underlay
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from support.fleet import Fleet, Host
from support.lan import clean_world
from support.stored import Stored
from vxagent.lab.etcd import Etcd
from vxagent.lab.waiting import wait_until

T = TypeVar("T")

CLUSTER = "lab"
ENGINE = "192.0.2.200"
SOON_S = 30.0  # for what hosts tell each other


class Clustered(Fleet):
    """Hosts that know each other by an engine.

    Attributes:
        etcd: it; endpoints: where it is.
        stored: what it holds.
    """

    def share_engine(self) -> None:
        """It serves."""
        self.underlay.namespace.ip("address", "add", f"{ENGINE}/24", "dev", "br0")
        self.etcd = Etcd(self.world.directory(), self.underlay.namespace, ENGINE)
        self.world.cleanup.callback(self.etcd.kill)
        self.etcd.start()
        self.endpoints = [self.etcd.url]
        self.stored = Stored(self.etcd, CLUSTER)

    def config(self, number: int, *, name: str = "", vtep: str = "", cluster: str = CLUSTER) -> str:
        """The vxagent.toml of a host, which may have another's name or VTEP."""
        whole = super().config(number)
        whole = whole.replace(f'"host{number}"', f'"{name or f"host{number}"}"')
        whole = whole.replace(f'"{self.address(number)}"', f'"{vtep or self.address(number)}"')
        return f'{whole}[cluster]\nname = "{cluster}"\nendpoints = {json.dumps(self.endpoints)}\n'

    def tell(self, host: Host) -> None:
        """The engine does; wait until it is there to do it."""
        eventually(partial(_is_connected, host), f"{host.name} is connected")

    def segment(self, name: str, *hosts: Host, tenant: str = "acme", vni: int | None = None, **options: Any) -> int:
        """A segment on these hosts, who know of each other when it returns."""
        vni = super().segment(name, *hosts, tenant=tenant, vni=vni, **options)
        there = hosts or tuple(self.hosts)
        for host in there:
            others = {other.vtep for other in there if other is not host}
            eventually(partial(_floods_to, host, name, others), f"{host.name} floods {name} to {others}")
        return vni

    def connected(self) -> None:
        """Wait until every agent has the engine."""
        for host in self.hosts:
            self.tell(host)

    def known(self, segment: str, mac: str, holder: Host, *hosts: Host) -> None:
        """Wait until these other hosts, or all, know that a MAC is on this one."""
        for host in hosts or self.hosts:
            if host is not holder:
                eventually(partial(_has, host, segment, mac, holder), f"{host.name} knows where {mac} is")

    def binding(self, port: str) -> dict[str, Any] | None:
        """Of a port, as the cluster lists it."""
        rows: list[dict[str, Any]] = self.hosts[0].client.get("v1", "bindings")
        return next((row for row in rows if row["port"] == port), None)


@contextmanager
def running_cluster(count: int = 3) -> Iterator[Clustered]:
    """A cluster in a world of its own."""
    with clean_world() as world:
        yield Clustered(world, count)


def cluster_of(host: Host) -> str:
    """What its agent says of the cluster."""
    return str(host.client.get("v1", "status")["cluster"])


def where(host: Host, segment: str, mac: str) -> str | None:
    """Behind which port, or which VTEP, a host has a MAC."""
    entry = host.entry(segment, mac)
    return None if entry is None else str(entry["port"] or entry["vtep"])


def migrate(host: Host, step: str, port: str, **body: Any) -> Any:
    """`migrate STEP PORT`."""
    return host.client.change("POST", "v1", "migrations", port, step, body=body or None)


def eventually(condition: Callable[[], T], what: str = "") -> T:
    """Wait for what takes hosts a moment to hear."""
    return wait_until(condition, within=SOON_S, what=what)


def _is_connected(host: Host) -> bool:
    return cluster_of(host) == "connected"


def _floods_to(host: Host, segment: str, vteps: set[str]) -> bool:
    return set(host.client.get("v1", "segments", segment)["vteps"]) == vteps


def _has(host: Host, segment: str, mac: str, holder: Host) -> bool:
    return where(host, segment, mac) == holder.vtep
