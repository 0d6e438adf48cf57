"""Metrics of a host in a cluster; a host that is in none has none of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from vxagent.core.migration import migrating
from vxagent.runtime.families import gauge
from vxagent.runtime.loop import Agent
from vxagent.runtime.membership import Connection


class ClusterCollector(Collector):
    """What an agent knows of its cluster."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def describe(self) -> Iterable[Metric]:
        """Nothing yet: it may be in none."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """From one snapshot."""
        membership, migrations, state = self._agent.membership, self._agent.migrations, self._agent.switch.state
        if membership is None or migrations is None:
            return
        connected = membership.connection is Connection.CONNECTED
        silent = sum(peer.silent for peer in state.remote.peers.values())
        bindings = len(state.remote.ports)
        yield gauge("vxagent_cluster_connected", "1 where the engine answers.", (), [((), int(connected))])
        yield gauge(
            "vxagent_cluster_hosts_live", "Hosts that the engine takes for alive.", (), [((), len(membership.live))]
        )
        yield gauge("vxagent_cluster_hosts_silent", "Hosts that nothing is flooded to.", (), [((), silent)])
        yield gauge("vxagent_cluster_bindings", "Ports in the segments of this host.", (), [((), bindings)])
        yield gauge(
            "vxagent_migrations",
            "Ports of this host on their way.",
            (),
            [((), len(migrating(state.remote, state.host)))],
        )
        yield from migrations.figures.collect()
